//! What the graph must keep to. Every check looks at all stages, so all problems come at once; a stage whose kind
//! is unknown is left out of the checks that need it.

use std::net::SocketAddr;

use crate::spec::Problem;
use crate::spec::decode::At;
use crate::spec::units::format_bytes;
use crate::spec::yaml::{Node, Place, Sources, Yaml};

use super::draft::{Draft, MAX_STAGES};
use super::kind::{Flow, JOURNAL, Kind, Role};
use super::order::order;
use super::plan::{Plan, WhenFull};
use super::settings::Settings;

/// Checks the graph of `drafts`. Gives their order, upstream first and otherwise as written, if there is one.
pub(super) fn graph(
    drafts: &[Draft],
    settings: &Settings,
    root: &Node,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Option<Vec<usize>> {
    let mut check = Check { drafts, sources, problems };
    let stages_at = root.entry("stages").map_or(root.place, |entry| entry.key.place);
    if drafts.len() > MAX_STAGES {
        let problem = Problem::new("too many stages").allowed(format!("at most {MAX_STAGES}"));
        check.report(stages_at, problem);
        return None;
    }
    let all_read = root.get("stages").is_none_or(|stages| match &stages.value {
        Yaml::Null => true,
        Yaml::Map(written) => written.len() == drafts.len(),
        _ => false,
    });
    if all_read {
        check.sources_exist(stages_at);
    }
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(kind) = &draft.kind {
            check.ends(index, draft, kind.value);
            check.inputs(draft, kind.value);
            check.scale(draft, kind.value);
            check.uniqueness(index, draft, kind.value);
        }
    }
    check.ports(settings);
    check.strangers(settings);
    check.order()
}

/// Checks what the plan may take against its budgets.
pub(super) fn budgets(plan: &Plan, settings: &Settings, sources: &Sources, problems: &mut Vec<Problem>) {
    let (memory, place) = settings.memory;
    if plan.memory_bound() > memory {
        let largest = plan.stages.iter().max_by_key(|stage| plan.stage_memory(stage));
        let (name, bytes) = largest.map_or(("", 0), |stage| (&stage.name, plan.stage_memory(stage)));
        let [bound, budget, bytes] = [plan.memory_bound(), memory, bytes].map(format_bytes);
        let problem = Problem::new(format!("the stages may take {bound} of memory, the budget is {budget}"));
        let remedy = format!("raise budget.memory, or lower the mailbox capacity or the sizes of `{name}` ({bytes})");
        problems.push(sources.at(place, problem.remedy(remedy)));
    }
    if let Some((disk, place)) = settings.disk.filter(|(disk, _)| plan.disk_bound() > *disk) {
        let [bound, budget] = [plan.disk_bound(), disk].map(format_bytes);
        let problem = Problem::new(format!("the stages may keep {bound} on disk, the budget is {budget}"));
        problems.push(sources.at(place, problem.remedy("raise budget.disk, or lower what the stages keep")));
    }
}

struct Check<'a> {
    drafts: &'a [Draft],
    sources: &'a Sources,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn report(&mut self, place: Place, problem: Problem) {
        self.problems.push(self.sources.at(place, problem));
    }

    fn sources_exist(&mut self, stages_at: Place) {
        let may_be_source = |draft: &Draft| draft.kind.as_ref().is_none_or(|kind| kind.value.role == Role::Source);
        if !self.drafts.iter().any(may_be_source) {
            let problem = Problem::new("no source: nothing brings data in");
            self.report(stages_at, problem.remedy("add a stage such as `ingest: {kind: grpc_ingest}`"));
        }
    }

    /// A source begins, everything else has an input, and a source or router without a taker does nothing.
    fn ends(&mut self, index: usize, draft: &Draft, kind: &Kind) {
        let name = &draft.name.value;
        let source = kind.role == Role::Source;
        if let (true, Some(place)) = (source, draft.from_at) {
            let problem = Problem::new(format!("`{name}` is a source ({}) and takes from nobody", kind.name));
            self.report(place, problem.remedy("remove `from`"));
        }
        if source && draft.has_mailbox {
            let problem = Problem::new(format!("`{name}` is a source ({}) and has no mailbox", kind.name));
            self.report(draft.mailbox.place, problem.remedy("set the mailbox of the stage that takes from it"));
        }
        if !source && draft.from.is_empty() && !draft.dangling {
            let takes = kind.takes.map_or("input", Flow::name);
            let problem = Problem::new(format!("`{name}` ({}) takes from no stage", kind.name));
            self.report(draft.name.place, problem.remedy(format!("add `from:` and a stage that gives {takes}")));
        }
        let taken = self.drafts.iter().any(|taker| taker.dangling || taker.from.iter().any(|f| f.value == index));
        if kind.role != Role::Worker && !taken {
            let problem = Problem::new(format!("nobody takes from `{name}` ({})", kind.name));
            self.report(draft.name.place, problem.remedy(format!("add `from: {name}` to a stage, or remove `{name}`")));
        }
    }

    /// What comes in fits: the flow, the addressing of instances, the mailbox.
    fn inputs(&mut self, draft: &Draft, kind: &Kind) {
        let name = &draft.name.value;
        let drafts = self.drafts;
        for (position, from) in draft.from.iter().enumerate() {
            let upstream = &drafts[from.value];
            let Some(upstream_kind) = upstream.kind.as_ref().map(|kind| kind.value) else { continue };
            let upstream_name = &upstream.name.value;
            if draft.from[..position].iter().any(|earlier| earlier.value == from.value) {
                let problem = Problem::new(format!("`{name}` takes from `{upstream_name}` twice"));
                self.report(from.place, problem.remedy("remove one of them"));
            }
            if kind.role != Role::Source && upstream_kind.gives != kind.takes {
                let takes = kind.takes.map_or("nothing", Flow::name);
                let gives = upstream_kind.gives.map_or("nothing", Flow::name);
                let problem = Problem::new(format!("`{name}` takes {takes}, `{upstream_name}` gives {gives}"));
                let givers =
                    drafts.iter().filter(|giver| giver.kind.as_ref().is_some_and(|k| k.value.gives == kind.takes));
                let givers: Vec<&str> = givers.map(|giver| giver.name.value.as_str()).filter(|g| g != name).collect();
                let problem = if givers.is_empty() { problem } else { problem.allowed(givers.join(", ")) };
                self.report(from.place, problem.remedy(format!("take from a stage that gives {takes}")));
            }
            if draft.instances.value > 1 && upstream_kind.role != Role::Router {
                let count = draft.instances.value;
                let problem =
                    Problem::new(format!("`{upstream_name}` cannot address the {count} instances of `{name}`"));
                let remedy = format!("put a shard_router between them, or set one instance of `{name}`");
                self.report(draft.instances.place, problem.remedy(remedy));
            }
            if draft.mailbox.value.when_full == WhenFull::DropNewest && upstream_kind.role != Role::Source {
                let problem = Problem::new(format!("`{name}` would drop what `{upstream_name}` has accepted"));
                let problem = problem.allowed("drop_newest only behind a source");
                self.report(draft.mailbox.place, problem.remedy("use `when_full: block`"));
            }
        }
    }

    /// Where the number of instances changes, what they hold can be moved: it follows from the journal, and one router
    /// says who has what.
    fn scale(&mut self, draft: &Draft, kind: &Kind) {
        let (Some(scale), false) = (&draft.scale, draft.dangling) else { return };
        let (name, place) = (&draft.name.value, scale.place);
        let remedy = "or write a number of instances";
        if (kind.takes, kind.gives) != (Some(Flow::Ticks), Some(Flow::Bars)) {
            let problem =
                Problem::new(format!("the instances of `{name}` ({}) cannot change while it runs", kind.name));
            return self
                .report(place, problem.allowed("bounds for an aggregator").remedy("write a number of instances"));
        }
        let kind_of = |draft: &Draft| draft.kind.as_ref().map(|kind| kind.value);
        let router = match &draft.from[..] {
            [router] if kind_of(&self.drafts[router.value]).is_none_or(|kind| kind.role == Role::Router) => {
                &self.drafts[router.value]
            }
            // That one of them cannot address instances is told where it is wrong.
            [] | [_] => return,
            _ => {
                let problem = Problem::new(format!("the instances of `{name}` change behind more than one stage"));
                let remedy = format!("let one shard_router be all it takes from, {remedy}");
                return self.report(place, problem.remedy(remedy));
            }
        };
        let behind_journal =
            |from: &At<usize>| kind_of(&self.drafts[from.value]).is_none_or(|kind| kind.name == JOURNAL);
        if !router.from.iter().all(behind_journal) {
            let router = &router.name.value;
            let problem =
                Problem::new(format!("the instances of `{name}` change, and no journal keeps what they hold"));
            self.report(place, problem.remedy(format!("put a journal before `{router}`, {remedy}")));
        }
    }

    fn uniqueness(&mut self, index: usize, draft: &Draft, kind: &Kind) {
        let same = |other: &&Draft| other.kind.as_ref().is_some_and(|other| other.value.name == kind.name);
        if let (true, Some(first)) = (kind.unique, self.drafts[..index].iter().find(same)) {
            let first = &first.name.value;
            let place = draft.kind.as_ref().map_or(draft.name.place, |kind| kind.place);
            let problem = Problem::new(format!("a second {} beside `{first}`", kind.name));
            self.report(place, problem.allowed("one per topology").remedy(format!("remove `{}`", draft.name.value)));
        }
    }

    fn ports(&mut self, settings: &Settings) {
        let mut taken: Vec<(SocketAddr, String)> =
            settings.http.map(|(http, _)| (http, "http".into())).into_iter().collect();
        if let Some((metrics, place)) = settings.metrics {
            if taken.iter().any(|(http, _)| collide(*http, metrics)) {
                let problem = Problem::new(format!("metrics listens at {metrics} like http"));
                self.report(place, problem.remedy("give one of them another port"));
            }
            taken.push((metrics, "metrics".into()));
        }
        for draft in self.drafts {
            for listen in &draft.listens {
                if let Some((_, other)) = taken.iter().find(|(other, _)| collide(*other, listen.value)) {
                    let problem =
                        Problem::new(format!("`{}` listens at {} like {other}", draft.name.value, listen.value));
                    self.report(listen.place, problem.remedy("give one of them another port"));
                }
            }
            taken.extend(draft.listens.iter().map(|listen| (listen.value, format!("`{}`", draft.name.value))));
        }
    }

    /// A listener beyond this machine has TLS or tokens, or it is said that it need not.
    fn strangers(&mut self, settings: &Settings) {
        if settings.security.guarded() {
            return;
        }
        let ports = [("http", settings.http), ("metrics", settings.metrics)];
        let http = ports.into_iter().filter_map(|(name, port)| port.map(|(address, place)| (address, place, name)));
        let stages = self.drafts.iter().flat_map(|draft| {
            draft.listens.iter().map(|listen| (listen.value, listen.place, draft.name.value.as_str()))
        });
        let open: Vec<_> = http.chain(stages).filter(|(address, ..)| !address.ip().is_loopback()).collect();
        for (address, place, name) in open {
            let problem = Problem::new(format!("`{name}` listens at {address} for everybody on the network"));
            let remedy = "add security.tls or security.tokens, or let it stand open with security: {insecure: true}";
            self.report(place, problem.allowed("a loopback address, or TLS or tokens").remedy(remedy));
        }
    }

    /// The order of the stages; every circle is a problem.
    fn order(&mut self) -> Option<Vec<usize>> {
        let upstream: Vec<Vec<usize>> =
            self.drafts.iter().map(|draft| draft.from.iter().map(|from| from.value).collect()).collect();
        let circles = match order(&upstream) {
            Ok(order) => return Some(order),
            Err(circles) => circles,
        };
        circles.iter().for_each(|circle| self.report_circle(circle));
        None
    }

    fn report_circle(&mut self, circle: &[usize]) {
        let names: Vec<&str> =
            circle.iter().chain(circle.first()).map(|i| self.drafts[*i].name.value.as_str()).collect();
        let Some(place) = circle.first().and_then(|first| self.drafts[*first].from_at) else { return };
        let problem = Problem::new(format!("the stages feed each other in a circle: {}", names.join(" → ")));
        self.report(place, problem.remedy("take one of these `from` away"));
    }
}

/// Whether two sockets cannot both be bound; port 0 is any free port.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && overlap
}

#[cfg(test)]
mod tests {
    use super::super::fake::compile_text;

    fn messages(text: &str) -> Vec<String> {
        compile_text(text).unwrap_err().into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn every_circle_is_named_once_and_hides_nothing_else() {
        let text = "
stages:
  in: {kind: host_metrics}
  a: {kind: journal, from: [in, c]}
  b: {kind: shard_router, from: a}
  c: {kind: shard_router, from: b}
  d: {kind: shard_router, from: d}
  e: {kind: aggregator, from: [d, nope]}
";
        assert_eq!(
            messages(text),
            [
                "the stages feed each other in a circle: a → b → c → a",
                "the stages feed each other in a circle: d → d",
                "no stage `nope` to take from",
            ]
        );
    }

    #[test]
    fn a_wildcard_address_takes_the_port_from_every_other_and_port_0_from_nobody() {
        let with = |address: &str, http: &str| {
            format!(
                "{{security: {{insecure: true}}, http: {{listen: '{http}'}}, stages: {{in: {{kind: grpc_ingest, config: {{listen: '{address}'}}}}, agg: {{kind: aggregator, from: in}}}}}}"
            )
        };
        assert_eq!(messages(&with("0.0.0.0:80", "127.0.0.1:80")), ["`in` listens at 0.0.0.0:80 like http"]);
        assert_eq!(messages(&with("[::]:80", "[::1]:80")).len(), 1);
        for (a, b) in [("127.0.0.1:80", "127.0.0.2:80"), ("0.0.0.0:0", "0.0.0.0:0"), ("0.0.0.0:80", "0.0.0.0:81")] {
            assert!(compile_text(&with(a, b)).is_ok(), "{a} {b}");
        }
    }

    #[test]
    fn without_a_disk_what_is_kept_counts_as_memory() {
        let text = "{store: memory, budget: {memory: 1GiB}, stages: {in: {kind: host_metrics}, agg: {kind: aggregator, from: in}, reap: {kind: reaper, from: agg, config: {budget: {ticks: 2GiB}}}}}";
        assert_eq!(messages(text), ["the stages may take 2.3 GiB of memory, the budget is 1 GiB"]);
        assert!(compile_text(&text.replace("memory, budget", "disk, budget")).is_ok());
    }
}
