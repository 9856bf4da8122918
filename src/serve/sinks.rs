//! How far every sink is, as JSON: the sink's side of the ledger.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::runtime::{Context, Sink};
use crate::store::Follower;

/// All sinks, in the topology's order.
pub fn all(context: &Context) -> Value {
    let sinks = context.sinks.all();
    json!({ "sinks": sinks.iter().map(|sink| one(context, sink)).collect::<Vec<_>>() })
}

fn one(context: &Context, sink: &Sink) -> Value {
    let seen = sink.seen().clone();
    let specs = sink.followers.iter().map(|(spec, follower)| of_spec(context, spec, follower));
    let latencies = seen.latencies.all().map(|(name, histogram)| (name.to_owned(), latency(histogram)));
    json!({
        "sink": sink.name,
        "link": seen.link.to_string(),
        "last_error": seen.last_error,
        "in_flight": seen.in_flight,
        "specs": specs.collect::<Vec<_>>(),
        "latencies_us": Map::from_iter(latencies),
    })
}

fn of_spec(context: &Context, spec: &str, follower: &Follower) -> Value {
    let counts = follower.counts();
    let (bytes, since) = context.store.held_by(follower);
    let dropped = counts.dropped_by_reason().into_iter().filter(|(_, bars)| *bars > 0);
    json!({
        "spec": spec,
        "named": counts.named(),
        "delivered": counts.delivered,
        "quarantined": counts.quarantined,
        "skipped": counts.skipped,
        "dropped": Map::from_iter(dropped.map(|(reason, bars)| (reason.to_owned(), bars.into()))),
        "outstanding": counts.outstanding,
        "held_bytes": bytes,
        "oldest_age_ns": since.map(|since| context.clock.now() - since),
        "cursor": follower.cursor().ranges(),
    })
}

fn latency(histogram: &Histogram<u64>) -> Value {
    let at = |rank| histogram.value_at_quantile(rank);
    json!({ "count": histogram.len(), "p50": at(0.5), "p99": at(0.99), "max": histogram.max() })
}
