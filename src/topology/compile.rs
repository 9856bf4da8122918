//! From a written topology to a plan: every stage with its kind and config, then the graph's checks, then the order.

use std::sync::Arc;

use crate::spec::Problem;
use crate::spec::decode::decode;
use crate::spec::problem;
use crate::spec::yaml::{Parsed, Sources};

use super::check;
use super::draft::{self, Draft};
use super::kind::{Kind, Parse};
use super::overrides::Override;
use super::plan::{Budget, Plan, StagePlan};
use super::settings::Settings;
use super::telemetry::TelemetryPlan;
use super::written::WrittenTopology;

/// What the machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// Compiles the topology `text` of the file `file_name`, with `overrides` made in this order (a later one wins);
/// `exporter` reads `telemetry.kafka`.
///
/// # Errors
/// Every problem of the file, its overrides and its graph.
pub fn compile(
    file_name: &str,
    text: &str,
    kinds: impl IntoIterator<Item = &'static Kind>,
    exporter: Parse,
    overrides: &[Override],
    machine: Machine,
) -> Result<Plan, Vec<Problem>> {
    let mut sources = Sources::default();
    let source = sources.add(file_name, text);
    let Parsed { mut root, duplicates: mut problems } = sources.parse(source).map_err(|problem| vec![problem])?;
    for change in overrides {
        change.apply(&mut root, &mut sources, &mut problems);
    }
    let kinds: Vec<&'static Kind> = kinds.into_iter().collect();
    let written: Option<WrittenTopology> = decode(&root, &sources, &mut problems);
    let plan = written.and_then(|written| {
        let sources = Arc::new(sources);
        let telemetry = TelemetryPlan::of(&root, written.telemetry.as_ref(), exporter, &sources, &mut problems);
        let settings = Settings::of(file_name, &root, &written, telemetry, machine, &sources, &mut problems);
        let drafts = draft::stages(&root, written, &kinds, &sources, &mut problems);
        let order = check::graph(&drafts, &settings, &root, &sources, &mut problems);
        let complete = drafts.iter().all(|draft| draft.kind.is_some() && draft.config.is_some());
        let plan = order.filter(|_| complete).map(|order| assemble(&settings, &drafts, &order))?;
        check::budgets(&plan, &settings, &sources, &mut problems);
        Some(plan)
    });
    problem::sort(&mut problems);
    plan.filter(|_| problems.is_empty()).ok_or(problems)
}

/// Puts drafts that have a kind and a config into `order`.
fn assemble(settings: &Settings, drafts: &[Draft], order: &[usize]) -> Plan {
    let place_of = |draft: usize| order.iter().position(|index| *index == draft).unwrap_or_default();
    let mut stages: Vec<StagePlan> = Vec::with_capacity(drafts.len());
    for index in order {
        let draft = &drafts[*index];
        let (Some(kind), Some(config)) = (&draft.kind, draft.config.clone()) else { continue };
        let takers = (0..drafts.len()).filter(|taker| drafts[*taker].from.iter().any(|from| from.value == *index));
        let mut to: Vec<usize> = takers.map(place_of).collect();
        to.sort_unstable();
        let from: Vec<usize> = draft.from.iter().map(|from| place_of(from.value)).collect();
        let received = from.iter().filter_map(|from| stages.get(*from)).map(|stage| stage.batch_bytes).max();
        let batch_bytes = Some(config.facts.batch_bytes).filter(|bytes| *bytes > 0).or(received).unwrap_or(0);
        stages.push(StagePlan {
            name: draft.name.value.clone(),
            kind: kind.value,
            from,
            to,
            instances: draft.instances.value,
            scale: draft.scale.as_ref().map(|scale| scale.value),
            mailbox: draft.mailbox.value,
            config: config.value,
            facts: config.facts,
            batch_bytes,
        });
    }
    let mut plan = Plan {
        name: settings.name.clone(),
        data_dir: settings.data_dir.clone(),
        specs_dir: settings.specs_dir.clone(),
        http: settings.http.map(|(address, _)| address),
        metrics: settings.metrics.map(|(address, _)| address),
        telemetry: settings.telemetry.clone(),
        drain: settings.drain,
        budget: Budget { memory: settings.memory.0, disk: 0 },
        cache_bytes: settings.cache_bytes,
        security: settings.security.clone(),
        stages,
    };
    plan.budget.disk = settings.disk_budget(plan.disk_bound());
    plan
}

#[cfg(test)]
mod tests {
    use super::super::fake::{KINDS, MACHINE, compile_text, exporter};
    use super::super::plan::{MailboxPlan, WhenFull};
    use super::*;

    /// Every block that the stages need, upside down.
    const REVERSED: &str = "
stages:
  reap: {kind: reaper, from: write}
  write: {kind: storage_writer, from: aggregate}
  aggregate: {kind: aggregator, from: route, instances: 2, mailbox: {capacity: 8}}
  route: {kind: shard_router, from: [ingest, host]}
  ingest: {kind: grpc_ingest, instances: 3}
  host: {kind: host_metrics}
";

    #[test]
    fn stages_come_upstream_first_and_otherwise_as_written() {
        let plan = compile_text(REVERSED).unwrap();
        let names: Vec<_> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["ingest", "host", "route", "aggregate", "write", "reap"]);
        let joins: Vec<_> = plan.stages.iter().map(|stage| (stage.from.clone(), stage.to.clone())).collect();
        assert_eq!(joins[2], (vec![0, 1], vec![3]));
        assert_eq!(joins[5], (vec![4], vec![]));
    }

    #[test]
    fn what_is_not_written_has_its_default() {
        let plan = compile_text(REVERSED).unwrap();
        assert_eq!((plan.name.as_str(), plan.data_dir.as_deref()), ("test", Some(std::path::Path::new("./data"))));
        assert_eq!(plan.http.map(|http| http.to_string()).as_deref(), Some("127.0.0.1:9877"));
        assert_eq!(plan.metrics.map(|metrics| metrics.to_string()).as_deref(), Some("127.0.0.1:9878"));
        assert_eq!((plan.drain, plan.cache_bytes), (30_000_000_000, 64 << 20));
        assert_eq!(plan.stages[2].mailbox, MailboxPlan { capacity: 64, when_full: WhenFull::Block });
    }

    #[test]
    fn a_lane_joins_every_two_instances_and_memory_counts_each_of_them_full() {
        let plan = compile_text(REVERSED).unwrap();
        let lanes: Vec<u64> = plan.stages.iter().map(|stage| plan.lanes(stage)).collect();
        assert_eq!(lanes, [0, 0, 4, 2, 2, 1]);
        // Three ingest instances send at most 512 KiB each, host_metrics 4 KiB; the router passes on the largest.
        assert_eq!(plan.stage_memory(&plan.stages[2]), 64 * (3 * (512 << 10) + (4 << 10)));
        assert_eq!(plan.stage_memory(&plan.stages[3]), 2 * 8 * (512 << 10));
        let stages: u64 = plan.stages.iter().map(|stage| plan.stage_memory(stage)).sum();
        let shared = plan.cache_bytes + plan.buffer_bytes() + plan.reading_bytes();
        assert_eq!(plan.memory_bound(), shared + stages);
    }

    #[test]
    fn a_wide_graph_of_diamonds_is_planned_in_a_moment() {
        let mut text = String::from("stages:\n  s0: {kind: host_metrics}\n  a0: {kind: shard_router, from: s0}\n");
        for layer in 1..80 {
            let from = format!("[a{0}, b{0}]", layer - 1).replace(", b0", "");
            text += &format!("  a{layer}: {{kind: shard_router, from: {from}, mailbox: {{capacity: 1}}}}\n");
            text += &format!("  b{layer}: {{kind: shard_router, from: {from}, mailbox: {{capacity: 1}}}}\n");
        }
        text += "  leaf: {kind: aggregator, from: [a79, b79]}\n";
        assert_eq!(compile_text(&text).unwrap().stages.len(), 161);
    }

    #[test]
    fn the_shipped_topologies_compile() {
        let kinds = || KINDS.iter();
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
        for (name, stages) in [("quickstart", 7), ("edge", 6), ("memory", 5), ("scaled", 6), ("autoscale", 6)] {
            let text = std::fs::read_to_string(directory.join(format!("{name}.yaml"))).unwrap();
            let plan = compile(&format!("{name}.yaml"), &text, kinds(), exporter, &[], MACHINE);
            let plan = plan.unwrap_or_else(|problems| panic!("{}", problem::render(&problems)));
            assert_eq!((plan.name.as_str(), plan.stages.len()), (name, stages));
        }
    }

    #[test]
    fn the_examples_of_the_reference_compile() {
        let reference = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/topology.md");
        let reference = std::fs::read_to_string(reference).unwrap();
        let blocks: Vec<&str> = reference.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next()).collect();
        for block in &blocks {
            let plan = compile_text(block);
            plan.unwrap_or_else(|problems| panic!("{}", problem::render(&problems)));
        }
        assert_eq!(blocks.len(), 3);
    }
}
