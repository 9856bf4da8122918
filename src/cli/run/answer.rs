//! What is told of a reload.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::runtime::InstanceState;
use crate::serve::Served;
use crate::serve::admin::{ReloadReport, Wish};
use crate::topology::Role;

/// How long a reload waits for its generation to be at work before it says that it is not.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Tells who wanted a reload when its generation is at work, or that it is not.
pub(super) async fn answer(served: Arc<Served>, wish: Wish, report: ReloadReport, since: Instant) {
    let is_source = |stage: &str| served.plan.stage(stage).is_some_and(|stage| stage.kind.role == Role::Source);
    let takes_ticks = || {
        let mut sources = served.meters().iter().filter(|meter| is_source(&meter.stage));
        sources.all(|meter| meter.state() == InstanceState::Running)
    };
    let (mut paused, mut unready) = (None, served.unready());
    while !unready.is_empty() && since.elapsed() < READY_WITHIN && !served.stopping().is_cancelled() {
        paused = paused.or_else(|| takes_ticks().then(|| since.elapsed()));
        tokio::time::sleep(LOOK_EVERY).await;
        unready = served.unready();
    }
    let paused = paused.unwrap_or_else(|| since.elapsed());
    let paused_ms = u64::try_from(paused.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(generation = report.generation, paused_ms, "reloaded: {}", summary(&report));
    wish.answer(Ok(ReloadReport { paused_ms, unready, ..report }));
}

/// What a reload changes, in one line.
pub(in crate::cli) fn summary(report: &ReloadReport) -> String {
    let all = [
        ("specs added", &report.specs_added),
        ("specs changed", &report.specs_changed),
        ("specs removed", &report.specs_removed),
        ("stages added", &report.stages_added),
        ("stages changed", &report.stages_changed),
        ("stages removed", &report.stages_removed),
    ];
    let told = all.into_iter().filter(|(_, names)| !names.is_empty());
    let mut told: Vec<_> = told.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
    if report.topology_changed {
        told.push("topology file changed".to_owned());
    }
    if told.is_empty() { "nothing has changed".to_owned() } else { told.join(" · ") }
}
