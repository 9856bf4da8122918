//! One stage at a time: its kind, its config, its mailbox, whom it takes from.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::spec::Problem;
use crate::spec::decode::{At, decode};
use crate::spec::yaml::{Node, Place, Sources, Yaml};

use super::kind::{ConfigNode, Kind, ParsedConfig, Role};
use super::plan::{MailboxPlan, ScalePlan, WhenFull};
use super::written::{SETTINGS, WrittenMailbox, WrittenScale, WrittenStage, WrittenTopology};

/// The most stages of a topology.
pub(super) const MAX_STAGES: usize = 256;
/// A mailbox's capacity unless said otherwise, in envelopes per lane.
const CAPACITY: usize = 64;
const MAX_CAPACITY: usize = 65_536;

/// A stage whose words are understood, before the graph is looked at.
pub(super) struct Draft {
    /// Its name.
    pub name: At<String>,
    /// Its kind, where that is known.
    pub kind: Option<At<&'static Kind>>,
    /// The stages it takes from, by index, where they exist.
    pub from: Vec<At<usize>>,
    /// Where its `from` is written, if it is.
    pub from_at: Option<Place>,
    /// Whether `from` names a stage that does not exist.
    pub dangling: bool,
    /// How many there are, or the most.
    pub instances: At<u16>,
    /// Between which bounds the number of active ones changes, if it does.
    pub scale: Option<At<ScalePlan>>,
    /// Its mailbox.
    pub mailbox: At<MailboxPlan>,
    /// Whether a mailbox is written.
    pub has_mailbox: bool,
    /// Its config, where that has no problem.
    pub config: Option<ParsedConfig>,
    /// Where it listens, and where that is written.
    pub listens: Vec<At<SocketAddr>>,
}

/// Reads every stage of `root`, decoded as `written`.
pub(super) fn stages(
    root: &Node,
    written: WrittenTopology,
    kinds: &[&'static Kind],
    sources: &Arc<Sources>,
    problems: &mut Vec<Problem>,
) -> Vec<Draft> {
    let stages = written.stages.map_or_else(Vec::new, |stages| stages.0);
    let names: Vec<String> = stages.iter().map(|(name, _)| name.value.clone()).collect();
    let blocks = root.get("stages");
    let written = blocks.map_or(&[][..], Node::entries).iter().filter_map(|stage| stage.key.text()).collect();
    let mut drafting = Drafting { kinds, sources, problems, names: &names, written };
    let draft = |(name, At { value, .. }): (At<String>, At<WrittenStage>)| drafting.stage(name, value, blocks);
    // One too many is kept, so that the check can tell.
    stages.into_iter().take(MAX_STAGES + 1).map(draft).collect()
}

struct Drafting<'a> {
    kinds: &'a [&'static Kind],
    sources: &'a Arc<Sources>,
    problems: &'a mut Vec<Problem>,
    /// The names of the stages, by index.
    names: &'a [String],
    /// The names of all stages, also of those whose block is no stage and has been reported.
    written: Vec<&'a str>,
}

impl Drafting<'_> {
    fn report(&mut self, place: Place, problem: Problem) {
        self.problems.push(self.sources.at(place, problem));
    }

    fn stage(&mut self, name: At<String>, written: WrittenStage, blocks: Option<&Node>) -> Draft {
        let block = blocks.and_then(|blocks| blocks.get(&name.value));
        self.name(&name);
        let kind = self.kind(&name, written.kind);
        let max_instances = kind.as_ref().map_or(u16::MAX, |kind| kind.value.max_instances);
        let (from, from_at) = written.from.map_or((Vec::new(), None), |from| (from.value, Some(from.place)));
        let is_source = kind.as_ref().is_some_and(|kind| kind.value.role == Role::Source);
        // What a source takes from is one problem, whatever it names.
        let mut from = if is_source { Vec::new() } else { from };
        // A longer list names some stage twice or one that does not exist, and so does its beginning.
        from.truncate(MAX_STAGES + 1);
        let upstream: Vec<At<usize>> = from.iter().filter_map(|from| self.upstream(from)).collect();
        let (config, listens) = self.config(&name, kind.as_ref(), block.and_then(|block| block.get("config")));
        let (instances, scale) = self.instances(&name, block.and_then(|block| block.get("instances")), max_instances);
        let mailbox_at = written.mailbox.as_ref().map(|mailbox| mailbox.place);
        Draft {
            kind,
            dangling: upstream.len() < from.len(),
            from: upstream,
            from_at,
            instances,
            scale,
            mailbox: At {
                value: self.mailbox(written.mailbox.map(|mailbox| mailbox.value).unwrap_or_default()),
                place: mailbox_at.unwrap_or(name.place),
            },
            has_mailbox: mailbox_at.is_some(),
            config,
            listens,
            name,
        }
    }

    fn name(&mut self, name: &At<String>) {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if name.value.is_empty() || name.value.len() > 40 || !name.value.chars().all(legal) {
            self.report(
                name.place,
                Problem::new(format!("stage name {:?}", name.value)).allowed("1 to 40 of a-z 0-9 _ -"),
            );
        } else if SETTINGS.contains(&name.value.as_str()) {
            let problem = Problem::new(format!("stage name `{}` is a setting's name", name.value));
            self.report(name.place, problem.remedy("rename the stage, so that overrides can tell the two apart"));
        }
    }

    fn kind(&mut self, name: &At<String>, written: Option<At<String>>) -> Option<At<&'static Kind>> {
        let known = self.kinds.iter().map(|kind| kind.name);
        let Some(At { value, place }) = written else {
            let problem = Problem::new(format!("stage `{}` has no `kind`", name.value));
            let problem = problem.allowed(known.collect::<Vec<_>>().join(", "));
            self.report(name.place, problem.remedy("add `kind: …`"));
            return None;
        };
        let kind = self.kinds.iter().find(|kind| kind.name == value);
        if kind.is_none() {
            let problem = Problem::new(format!("unknown stage kind `{value}`")).choices(&value, known);
            self.report(place, problem);
        }
        kind.map(|kind| At { value: *kind, place })
    }

    fn upstream(&mut self, from: &At<String>) -> Option<At<usize>> {
        let index = self.names.iter().position(|name| *name == from.value);
        if !self.written.contains(&from.value.as_str()) {
            let problem = Problem::new(format!("no stage `{}` to take from", from.value));
            self.report(from.place, problem.choices(&from.value, self.written.iter().copied()));
        }
        index.map(|value| At { value, place: from.place })
    }

    /// The number of instances, or the most and the bounds between which it changes.
    fn instances(&mut self, name: &At<String>, written: Option<&Node>, most: u16) -> (At<u16>, Option<At<ScalePlan>>) {
        let Some(node) = written.filter(|node| node.value != Yaml::Null) else {
            return (At { value: 1, place: name.place }, None);
        };
        let of = format!("instances of stage `{}`", name.value);
        let place = node.place;
        if !matches!(node.value, Yaml::Map(_)) {
            let number =
                decode(node, self.sources, self.problems).and_then(|number| self.count(number, &of, (1, most)));
            return (At { value: number.unwrap_or(1), place }, None);
        }
        let WrittenScale { min, max, target_lag } = decode(node, self.sources, self.problems).unwrap_or_default();
        if max.is_none() {
            let problem = Problem::new(format!("the {of} have no `max`"));
            self.report(place, problem.allowed(format!("1 to {most}")).remedy("add `max: …`"));
        }
        let max = max.and_then(|max| self.count(max, &of, (1, most)));
        let min = min.and_then(|min| self.count(min, &of, (1, max.unwrap_or(most)))).unwrap_or(1);
        if let Some(lag) = target_lag.as_ref().filter(|lag| lag.value.0 == 0) {
            let problem = Problem::new("a target_lag of 0s, which no lag is below").allowed("longer than 0s");
            self.report(lag.place, problem);
        }
        let max = max.unwrap_or(min);
        let scale = ScalePlan { min, max, target_lag: target_lag.map(|lag| lag.value.0) };
        (At { value: max, place }, Some(At { value: scale, place }))
    }

    fn count(&mut self, written: At<i64>, of: &str, (min, max): (u16, u16)) -> Option<u16> {
        let At { value, place } = written;
        let legal = u16::try_from(value).ok().filter(|value| (min..=max).contains(value));
        if legal.is_none() {
            let allowed = if min == max { min.to_string() } else { format!("{min} to {max}") };
            self.report(place, Problem::new(format!("{value} {of}")).allowed(allowed));
        }
        legal
    }

    fn mailbox(&mut self, written: WrittenMailbox) -> MailboxPlan {
        let mut capacity = CAPACITY;
        if let Some(At { value, place }) = written.capacity {
            match usize::try_from(value) {
                Ok(legal @ 1..=MAX_CAPACITY) => capacity = legal,
                _ => {
                    let problem = Problem::new(format!("a mailbox of capacity {value}"));
                    self.report(place, problem.allowed(format!("1 to {MAX_CAPACITY} envelopes per lane")));
                }
            }
        }
        let when_full = match written.when_full.as_ref().map_or("block", |when_full| when_full.value.as_str()) {
            "block" => WhenFull::Block,
            "drop_newest" => WhenFull::DropNewest,
            other => {
                let place = written.when_full.as_ref().map_or(Place::default(), |when_full| when_full.place);
                self.report(place, Problem::unknown_value("when_full", other, ["block", "drop_newest"]));
                WhenFull::Block
            }
        };
        MailboxPlan { capacity, when_full }
    }

    fn config(
        &mut self,
        name: &At<String>,
        kind: Option<&At<&'static Kind>>,
        written: Option<&Node>,
    ) -> (Option<ParsedConfig>, Vec<At<SocketAddr>>) {
        let Some(kind) = kind else { return (None, Vec::new()) };
        let node = written.cloned().unwrap_or_else(|| Node::empty_map(name.place));
        let config = ConfigNode::new(node, self.sources.clone());
        match (kind.value.parse)(&config) {
            Ok(parsed) => {
                let place = |address: &SocketAddr| At { value: *address, place: config.place_of_address(*address) };
                let listens = parsed.facts.listens.iter().map(place).collect();
                (Some(parsed), listens)
            }
            Err(problems) => {
                self.problems.extend(problems);
                (None, Vec::new())
            }
        }
    }
}
