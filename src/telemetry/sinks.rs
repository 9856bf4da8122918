//! The figures of the sinks: what waits in the outbox, what became of the rest, and how long it took.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::distribution::Distribution;
use super::snapshot::Snapshot;
use super::table;
use crate::model::TimeNs;
use crate::runtime::Context;
use crate::runtime::measures::span;
use crate::runtime::sinks::{Link, Sink};
use crate::store::{Follower, Spool};
use crate::times::Recording;

/// Adds what is known of every sink.
pub fn read(into: &mut Snapshot, context: &Context, now: TimeNs) {
    for sink in context.sinks.all() {
        backlog(into, context, &sink, now);
        let seen = sink.seen().clone();
        into.number(&table::LINK, &[&sink.name], f64::from(u8::from(seen.link == Link::Up)));
        into.number(&table::SENT_UNACKED, &[&sink.name], seen.in_flight as f64);
        for (step, latency) in seen.latencies.all() {
            into.histogram(&table::DELIVERY, &[&sink.name, step], Distribution::of(&recording(latency)));
        }
    }
}

/// What waits for a sink, and what became of what does not.
fn backlog(into: &mut Snapshot, context: &Context, sink: &Sink, now: TimeNs) {
    for (spec, follower) in &sink.followers {
        let counts = follower.counts();
        let held = Held::by(follower, context, now);
        let about = [sink.name.as_str(), spec.as_str()];
        into.number(&table::OUTBOX_DEPTH, &about, counts.outstanding as f64);
        into.number(&table::OUTBOX_AGE, &about, held.age.as_secs_f64());
        into.number(&table::OUTBOX_BYTES, &about, held.bytes as f64);
        into.number(&table::SPOOL, &about, held.share(&follower.following.spool));
        let fates = [("delivered", counts.delivered), ("quarantined", counts.quarantined), ("skipped", counts.skipped)];
        for (fate, bars) in fates.into_iter().chain(counts.dropped_by_reason()) {
            into.number(&table::OUTBOX_BARS, &[about[0], about[1], fate], bars as f64);
        }
    }
}

/// The age of the oldest bar that waits for the sink of this name.
pub fn lag(context: &Context, sink: &str, now: TimeNs) -> Duration {
    let named = context.sinks.all().into_iter().filter(|found| found.name == sink);
    let followers = named.flat_map(|sink| sink.followers.clone());
    followers.map(|(_, follower)| Held::by(&follower, context, now).age).max().unwrap_or_default()
}

/// What the outbox keeps for a follower.
struct Held {
    bytes: u64,
    age: Duration,
}

impl Held {
    fn by(follower: &Follower, context: &Context, now: TimeNs) -> Self {
        let (bytes, since) = context.store.held_by(follower);
        Self { bytes, age: since.map_or(Duration::ZERO, |since| span(since, now)) }
    }

    /// The share of a spool that it takes.
    fn share(&self, spool: &Spool) -> f64 {
        let bytes = self.bytes as f64 / spool.bytes.max(1) as f64;
        bytes.max(self.age.as_nanos() as f64 / spool.age.max(1) as f64)
    }
}

/// A histogram of microseconds as one of nanoseconds; its sum is as exact as its buckets.
fn recording(histogram: &Histogram<u64>) -> Recording {
    let span = |at: hdrhistogram::iterators::IterationValue<u64>| (at.value_iterated_to(), at.count_at_value());
    let spans = histogram.iter_recorded().map(span).map(|(micros, count)| (micros.saturating_mul(1000), count));
    Recording {
        count: histogram.len(),
        seconds: histogram.mean() * histogram.len() as f64 / 1e6,
        spans: spans.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_become_nanoseconds() {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 2).unwrap();
        for micros in [1_000, 1_000, 4_000] {
            histogram.record(micros).unwrap();
        }
        let found = recording(&histogram);
        assert_eq!((found.count, found.spans.iter().map(|(_, count)| count).sum::<u64>()), (3, 3));
        assert!((found.seconds - 0.006).abs() < 0.0001 && found.spans[0].0.abs_diff(1_000_000) < 20_000, "{found:?}");
    }
}
