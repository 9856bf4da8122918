//! How far the sinks have come, as plain, serialisable rows.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::ReadError;
use crate::model::TimeNs;
use crate::runtime::{Context, Sink};
use crate::store::{Follower, Refused};

/// One sink.
#[derive(Debug, Clone, Serialize)]
pub struct SinkRow {
    /// The stage's name.
    pub sink: String,
    /// `up`, `connecting`, or `down:` and why.
    pub link: String,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Records handed over whose end is not known.
    pub in_flight: u64,
    /// By spec, how far it has come.
    pub specs: Vec<FollowerRow>,
    /// How long bars took from step to step.
    pub latencies: BTreeMap<&'static str, LatencyRow>,
}

/// How far a sink has come with the bars of one spec, in bars since it began. All that were stored for it are
/// `delivered + quarantined + skipped + dropped + outstanding`.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct FollowerRow {
    /// The spec.
    pub spec: String,
    /// In the topic.
    pub delivered: u64,
    /// Never to be taken, and put aside.
    pub quarantined: u64,
    /// Amendments that are not sent.
    pub skipped: u64,
    /// Given up, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Stored and not settled yet.
    pub outstanding: u64,
    /// The bytes of the outbox that are kept for them.
    pub spooled_bytes: u64,
    /// At most how old the oldest of them is, in nanoseconds; 0 where there is none.
    pub oldest_ns: TimeNs,
    /// The positions that are not settled; the last range has no end.
    pub cursor: Vec<(u64, u64)>,
}

/// How long something took, in milliseconds.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)]
pub struct LatencyRow {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Bars that no broker will take, and how the sinks stand.
#[derive(Debug, Clone, Serialize)]
pub struct Sinks {
    /// In the topology's order.
    pub sinks: Vec<SinkRow>,
    /// The last bars that were refused for good.
    pub refused: Vec<RefusedRow>,
}

/// A bar that was refused for good.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedRow {
    /// The sink and the spec, as `sink/spec`.
    pub by: String,
    /// Which, and why.
    #[serde(flatten)]
    pub refused: Refused,
}

/// How the sinks stand.
///
/// # Errors
/// The store fails.
pub fn sinks(context: &Context) -> Result<Sinks, ReadError> {
    let refused = context.store.refused()?;
    let refused = refused.into_iter().map(|(by, refused)| RefusedRow { by, refused }).collect();
    Ok(Sinks { sinks: context.sinks.all().iter().map(|sink| row(context, sink)).collect(), refused })
}

fn row(context: &Context, sink: &Sink) -> SinkRow {
    let seen = sink.seen().clone();
    SinkRow {
        sink: sink.name.clone(),
        link: seen.link.to_string(),
        last_error: seen.last_error,
        in_flight: seen.in_flight as u64,
        specs: sink.followers.iter().map(|(spec, follower)| follower_row(context, spec, follower)).collect(),
        latencies: seen.latencies.all().map(|(name, histogram)| (name, latency(histogram))).into(),
    }
}

fn follower_row(context: &Context, spec: &str, follower: &Follower) -> FollowerRow {
    let counts = follower.counts();
    let (spooled_bytes, since) = context.store.held_by(follower);
    FollowerRow {
        spec: spec.to_owned(),
        delivered: counts.delivered,
        quarantined: counts.quarantined,
        skipped: counts.skipped,
        dropped: counts.dropped_by_reason().into_iter().filter(|(_, bars)| *bars > 0).collect(),
        outstanding: counts.outstanding,
        spooled_bytes,
        oldest_ns: since.map_or(0, |since| (context.clock.now() - since).max(0)),
        cursor: follower.cursor().ranges().to_vec(),
    }
}

fn latency(histogram: &Histogram<u64>) -> LatencyRow {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    LatencyRow { count: histogram.len(), p50_ms: at(0.5), p99_ms: at(0.99), max_ms: histogram.max() as f64 / 1e3 }
}
