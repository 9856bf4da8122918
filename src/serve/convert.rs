//! Rows as messages of `barline.v1` and `tikr.v1`.

use std::collections::{BTreeMap, HashMap};

use barline_proto::barline::value::Kind;
use barline_proto::barline::{Bar, FollowerStatus, Offender, SinkStatus, SpecLedger, Tick, Value as WireValue};
use barline_proto::tikr::{BarData, SeriesInfo, TickData};

use super::read::sinks::{FollowerRow, SinkRow};
use super::read::state::{LedgerRow, OffenderRow};
use super::read::{BarRow, TickRow};
use crate::model::{BarFlags, SeriesKey, TimeNs, Value};
use crate::spec::Spec;

/// A bar in `barline.v1`.
pub fn bar(row: &BarRow<'_>) -> Bar {
    let (head, granularity) = (row.head, row.granularity());
    Bar {
        spec: row.spec.name.clone(),
        dimensions: dimensions(row.key),
        granularity: granularity.map(|g| g.name.clone()).unwrap_or_default(),
        start_ns: head.start,
        end_ns: head.start.saturating_add(granularity.map_or(0, |g| g.length)),
        metrics: row.present().map(|(name, v)| (name.to_owned(), value(v))).collect(),
        first_ns: head.first,
        last_ns: head.last,
        tick_count: head.ticks,
        late_count: head.late,
        revision: head.revision,
        partial: head.flags.contains(BarFlags::PARTIAL),
        overflow: head.flags.contains(BarFlags::OVERFLOW),
        redefined: head.flags.contains(BarFlags::REDEFINED),
    }
}

/// A tick in `barline.v1`.
pub fn tick(row: &TickRow<'_>) -> Tick {
    Tick {
        dimensions: dimensions(row.key),
        timestamp_ns: row.timestamp,
        sequence: row.sequence,
        fields: row.fields().map(|(name, v)| (name.to_owned(), value(v))).collect(),
    }
}

/// A bar in `tikr.v1`, which carries integers only.
pub fn tikr_bar(row: &BarRow<'_>) -> BarData {
    BarData {
        series: row.spec.name.clone(),
        bucket_ts: unsigned(row.head.start),
        dimensions: dimensions(row.key),
        metrics: row.present().map(|(name, value)| (name.to_owned(), value.to_int())).collect(),
        first_timestamp: unsigned(row.head.first),
        last_timestamp: unsigned(row.head.last),
        tick_count: row.head.ticks,
    }
}

/// A tick in `tikr.v1`, which carries integers only.
pub fn tikr_tick(row: &TickRow<'_>) -> TickData {
    TickData {
        timestamp_ns: unsigned(row.timestamp),
        dimensions: dimensions(row.key),
        fields: row.fields().map(|(name, value)| (name.to_owned(), value.to_int())).collect(),
        sequence: row.sequence,
    }
}

/// A spec in `tikr.v1`.
pub fn tikr_series(spec: &Spec) -> SeriesInfo {
    SeriesInfo {
        name: spec.name.clone(),
        dimensions: spec.dimensions.clone(),
        metrics: spec.metrics.iter().map(|metric| metric.name.clone()).collect(),
        rollup: spec.granularities.first().map(|finest| finest.name.clone()).unwrap_or_default(),
    }
}

/// The dimensions of a series.
pub fn dimensions(key: &SeriesKey) -> HashMap<String, String> {
    key.dimensions().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Roughly the bytes of a message with this series and so many values.
pub fn weight(key: &SeriesKey, values: usize) -> usize {
    128 + key.as_bytes().len() + values * 32
}

/// A value in `barline.v1`.
pub fn value(value: Value) -> WireValue {
    let kind = match value {
        Value::Int(v) => Kind::Int(v),
        Value::Uint(v) => Kind::Uint(v),
        Value::Float(v) => Kind::Float(v),
    };
    WireValue { kind: Some(kind) }
}

/// Times before 1970, which this protocol cannot tell, are 0.
fn unsigned(time: TimeNs) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

/// Counts by reason.
fn named(counts: BTreeMap<&'static str, u64>) -> HashMap<String, u64> {
    counts.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect()
}

impl From<SinkRow> for SinkStatus {
    fn from(row: SinkRow) -> Self {
        Self {
            sink: row.sink,
            link: row.link,
            last_error: row.last_error.unwrap_or_default(),
            in_flight: row.in_flight,
            specs: row.specs.into_iter().map(FollowerStatus::from).collect(),
        }
    }
}

impl From<FollowerRow> for FollowerStatus {
    fn from(row: FollowerRow) -> Self {
        Self {
            spec: row.spec,
            delivered: row.delivered,
            quarantined: row.quarantined,
            skipped: row.skipped,
            dropped: named(row.dropped),
            outstanding: row.outstanding,
            spooled_bytes: row.spooled_bytes,
            oldest_ns: row.oldest_ns,
        }
    }
}

impl From<LedgerRow> for SpecLedger {
    fn from(row: LedgerRow) -> Self {
        Self {
            spec: row.spec,
            received: row.received,
            accepted: row.accepted,
            rejected: named(row.rejected),
            duplicate: row.duplicate,
            in_bars: row.in_bars,
            open: row.open,
            in_flight: row.in_flight,
            dropped: named(row.dropped),
            refused_series: row.refused_series,
            offenders: row.offenders.into_iter().map(Offender::from).collect(),
        }
    }
}

impl From<OffenderRow> for Offender {
    fn from(row: OffenderRow) -> Self {
        Self { dimension: row.dimension, distinct: row.distinct, values: row.values }
    }
}
