//! Pushes metrics now and then, and spans as they come, to a collector. One that is down costs a counted drop, and a
//! line in the log when it begins and when it is over.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::collect::Observed;
use super::collector::Collector;
use super::exports::Outcomes;
use super::otlp;

/// How often finished spans are pushed, if there are any.
const SPANS_EVERY: Duration = Duration::from_secs(1);

/// Pushes until `stop` is cancelled, and a last time then; returns at once where the topology names no collector.
pub async fn run(observed: Observed, stop: CancellationToken) {
    let plan = &observed.plan.telemetry;
    let Some(collector) = Collector::of(plan) else { return };
    let every = Duration::from_nanos(u64::try_from(plan.every).unwrap_or(0)).max(Duration::from_millis(1));
    let mut pushing = Pushing { observed: observed.clone(), collector, fails: false };
    let (mut metrics, mut spans) = (interval(every), interval(SPANS_EVERY));
    metrics.set_missed_tick_behavior(MissedTickBehavior::Delay);
    spans.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = metrics.tick() => pushing.metrics().await,
            _ = spans.tick() => pushing.spans().await,
        }
    }
    pushing.spans().await;
    pushing.metrics().await;
}

struct Pushing {
    observed: Observed,
    collector: Collector,
    /// Whether the last push failed.
    fails: bool,
}

impl Pushing {
    async fn metrics(&mut self) {
        let message = otlp::metrics(&self.observed.snapshot(), &self.observed.plan.telemetry);
        let pushed = self.collector.metrics(message).await;
        self.note(|observed| &observed.exports.metrics, pushed);
    }

    async fn spans(&mut self) {
        let spans = self.observed.context.tracer.as_ref().map_or_else(Vec::new, |tracer| tracer.take());
        if spans.is_empty() {
            return;
        }
        let message = otlp::traces(&spans, &self.observed.plan.telemetry, &self.observed.plan.name);
        let pushed = self.collector.traces(message).await;
        self.note(|observed| &observed.exports.traces, pushed);
    }

    fn note<E: std::fmt::Display>(&mut self, outcomes: fn(&Observed) -> &Outcomes, pushed: Result<(), E>) {
        let (outcomes, failed) = (outcomes(&self.observed), pushed.is_err());
        if failed { &outcomes.dropped } else { &outcomes.sent }.add(1);
        match pushed {
            Err(error) if !self.fails => {
                tracing::warn!("telemetry is dropped, the collector does not take it: {error}")
            }
            Ok(()) if self.fails => tracing::info!("the collector takes telemetry again"),
            _ => {}
        }
        self.fails = failed;
    }
}
