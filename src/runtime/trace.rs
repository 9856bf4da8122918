//! Traces: one of many batches is followed from its source through every instance that handles it, a span each.
//!
//! A trace travels beside its envelope in the lane. What a stage gives away next carries it on, so that a stage that holds
//! its input back (a commit, a window) passes it on when something comes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;
use tracing::span::EnteredSpan;

use super::clock::Clock;
use super::meter::Counter;
use crate::model::TimeNs;

/// The most finished spans that wait for an exporter; further ones are dropped and counted.
const SPANS: usize = 4096;

/// What an envelope carries of the trace it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// The trace's number.
    pub id: u128,
    /// The span of whoever sent the envelope.
    pub parent: u64,
}

/// What one instance did with a traced envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: u128,
    /// Its number.
    pub id: u64,
    /// The span before it; 0 for the source's.
    pub parent: u64,
    /// The stage.
    pub stage: Arc<str>,
    /// The instance.
    pub instance: u16,
    /// When the envelope was put into the mailbox.
    pub start: TimeNs,
    /// When the instance was done with it.
    pub end: TimeNs,
    /// How long it waited in the mailbox.
    pub queued: Duration,
    /// How long the stage worked on it.
    pub worked: Duration,
    /// Its rows.
    pub rows: u64,
}

/// Decides which batches are traced and gathers their spans.
#[derive(Debug)]
pub struct Tracer {
    /// Every how many batches of the sources one is traced; 0 for none.
    every: u64,
    batches: AtomicU64,
    spans: (flume::Sender<Span>, flume::Receiver<Span>),
    /// Spans nobody fetched in time.
    pub dropped: Counter,
}

impl Tracer {
    /// Traces this share of the batches, 0 to 1.
    pub fn new(share: f64) -> Self {
        let every = if share > 0.0 { (1.0 / share.min(1.0)).round() as u64 } else { 0 };
        Self { every, batches: AtomicU64::new(0), spans: flume::bounded(SPANS), dropped: Counter::default() }
    }

    /// A new trace, if the next batch of a source is to have one; the first batch has.
    pub fn sample(&self) -> Option<Trace> {
        let due = self.every > 0 && self.batches.fetch_add(1, Relaxed).is_multiple_of(self.every);
        due.then(|| Trace { id: fastrand::u128(1..), parent: 0 })
    }

    /// Keeps a finished span until it is taken.
    pub fn finish(&self, span: Span) {
        if self.spans.0.try_send(span).is_err() {
            self.dropped.add(1);
        }
    }

    /// Takes the finished spans.
    pub fn take(&self) -> Vec<Span> {
        self.spans.1.try_iter().collect()
    }
}

/// The tracing of one instance.
#[derive(Clone)]
pub struct Tracing {
    /// Gathers the spans.
    pub tracer: Arc<Tracer>,
    /// Tells when they were.
    pub clock: Arc<dyn Clock>,
    /// The stage.
    pub stage: Arc<str>,
    /// The instance.
    pub instance: u16,
}

impl std::fmt::Debug for Tracing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tracing({} {})", self.stage, self.instance)
    }
}

/// A span that has not ended.
#[derive(Debug)]
pub struct Started {
    trace: Trace,
    id: u64,
    /// When the envelope was put in.
    at: Instant,
    /// How long it waited in the mailbox.
    queued: Duration,
    /// How long the stage has worked on it.
    pub worked: Duration,
}

impl Started {
    /// What is sent with whatever comes of it.
    pub fn trace(&self) -> Trace {
        Trace { id: self.trace.id, parent: self.id }
    }
}

impl Started {
    /// Lets what is logged on this thread belong to the span until it is left.
    pub fn enter(&self) -> EnteredSpan {
        let Trace { id, parent } = self.trace();
        let [trace_id, span_id] = [format!("{id:032x}"), format!("{parent:016x}")];
        // At the level of the worst that may be logged in it, so that a filter which lets that through lets the span through.
        tracing::error_span!("batch", trace_id, span_id).entered()
    }
}

impl Tracing {
    /// A source's span, if its next batch is to be traced.
    pub fn begin(&self) -> Option<Started> {
        self.tracer.sample().map(|trace| self.follow(trace, Instant::now()))
    }

    /// The span of an instance that takes an envelope put in `at`.
    pub fn follow(&self, trace: Trace, at: Instant) -> Started {
        Started { trace, id: fastrand::u64(1..), at, queued: at.elapsed(), worked: Duration::ZERO }
    }

    /// Ends a span over `rows` rows.
    pub fn end(&self, started: Started, rows: u64) {
        let Started { trace, id, at, queued, worked } = started;
        let end = self.clock.now();
        let start = end.saturating_sub(at.elapsed().as_nanos() as TimeNs);
        let (stage, instance) = (self.stage.clone(), self.instance);
        self.tracer.finish(Span {
            trace: trace.id,
            id,
            parent: trace.parent,
            stage,
            instance,
            start,
            end,
            queued,
            worked,
            rows,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_so_many_batches_is_traced_and_none_where_the_share_is_zero() {
        let traced = |share: f64| {
            let tracer = Tracer::new(share);
            (0..1000).filter(|_| tracer.sample().is_some()).count()
        };
        assert_eq!([1.0, 0.1, 0.001, 0.0].map(traced), [1000, 100, 1, 0]);
    }
}
