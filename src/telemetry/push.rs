//! Pushes metrics now and then, and spans and lines of the log as they come. Each signal has a task and a collector of its
//! own, so that none waits for another; whoever is down costs a counted drop.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::collect::Observed;
use super::collector::{Collector, Export};
use super::{kafka, logs, otlp};
use crate::broker::Brokers;
use crate::model::DurationNs;
use crate::topology::{Signal, TelemetryPlan};

/// How often finished spans and lines of the log are pushed, if there are any.
const SOON: Duration = Duration::from_secs(1);
/// How long a process that has come to its end goes on for the last figures and lines.
pub const FAREWELL: Duration = Duration::from_secs(1);

/// Everything that pushes.
pub struct Exporters {
    /// In the order of [`Signal::ALL`].
    collectors: [Option<Collector>; 3],
    kafka: Option<kafka::Exporter>,
    /// What is logged from now on waits to be pushed.
    _lines: Option<logs::Listener>,
}

impl Exporters {
    /// The exporters of `plan`.
    ///
    /// # Errors
    /// A collector or a cluster cannot be spoken to as it is written, and why.
    pub fn open(plan: &TelemetryPlan, brokers: &dyn Brokers) -> Result<Self, String> {
        let (collectors, kafka) = (collectors(plan)?, kafka::Exporter::open(plan, brokers)?);
        Ok(Self { collectors, kafka, _lines: logs::listen_for(plan) })
    }

    /// Pushes until `stop` is cancelled, and a last time then.
    pub async fn run(self, observed: Observed, stop: CancellationToken) {
        let plan = &observed.plan.telemetry;
        let [metrics, traces, logs] = self.collectors;
        let figures = || Some(otlp::metrics(&observed.snapshot(), plan));
        let spans = || {
            let spans = observed.context.tracer.as_ref().map_or_else(Vec::new, |tracer| tracer.take());
            (!spans.is_empty()).then(|| otlp::traces(&spans, plan, &observed.plan.name))
        };
        let lines = || {
            let lines = logs::take();
            (!lines.is_empty()).then(|| otlp::logs(lines, plan, &observed.plan.name))
        };
        tokio::join!(
            push(metrics, whole(plan.every), &observed, &stop, figures),
            push(traces, SOON, &observed, &stop, spans),
            push(logs, SOON, &observed, &stop, lines),
            async {
                if let Some(exporter) = self.kafka {
                    exporter.run(&observed, &stop).await;
                }
            },
        );
    }
}

/// Whether everything can be pushed as `plan` says; needs no network.
///
/// # Errors
/// As [`Exporters::open`], of collectors.
pub fn check(plan: &TelemetryPlan) -> Result<(), String> {
    collectors(plan).map(drop)
}

fn collectors(plan: &TelemetryPlan) -> Result<[Option<Collector>; 3], String> {
    let [metrics, traces, logs] = Signal::ALL.map(|signal| Collector::open(plan, signal));
    Ok([metrics?, traces?, logs?])
}

/// Pushes what `next` gives, `every` so often and at the end.
async fn push<M: Export>(
    collector: Option<Collector>,
    every: Duration,
    observed: &Observed,
    stop: &CancellationToken,
    mut next: impl FnMut() -> Option<M>,
) {
    let Some(mut collector) = collector else { return };
    let mut due = interval(every);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = false;
    while !stopped {
        tokio::select! {
            biased;
            () = stop.cancelled() => stopped = true,
            _ = due.tick() => {}
        }
        if let Some(message) = next() {
            observed.exports.otlp(M::SIGNAL).note(collector.push(message).await);
        }
    }
}

fn whole(nanoseconds: DurationNs) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0)).max(Duration::from_millis(1))
}
