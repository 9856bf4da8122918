//! Bars as records for consumers elsewhere: one file per encoding.
//!
//! An amended bar goes out whole, or as an increment: then its sums and counts say only what the late ticks added, so
//! that a consumer who adds them up stays right, while everything else says what now holds.

mod json;
mod otlp;
mod tikr;

use serde::Deserialize;

use crate::model::{BarFlags, BarHead, SeriesKey, Value};
use crate::spec::{Aggregation, Metric, Spec};

/// A bar about to be written.
pub struct Outgoing<'a> {
    /// Its spec.
    pub spec: &'a Spec,
    /// Its series.
    pub key: &'a SeriesKey,
    /// Its window and counts.
    pub head: &'a BarHead,
    /// In order of the spec's metrics; `None` where no tick of the window carried the field.
    pub metrics: Vec<Option<Value>>,
    /// Where only what was added is to be told: the revision before.
    pub previous: Option<Previous>,
}

/// The revision of a bar that an amendment replaces.
pub struct Previous {
    /// Its ticks.
    pub ticks: u64,
    /// As [`Outgoing::metrics`].
    pub metrics: Vec<Option<Value>>,
}

/// How a bar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// An OTLP `ExportMetricsServiceRequest`.
    Otlp,
    /// tikr's bare `ResourceMetrics`, byte for byte.
    Tikr,
    /// A JSON object: `docs/bar.schema.json`.
    Json,
}

impl Encoding {
    /// Every encoding.
    pub const ALL: [Self; 3] = [Self::Otlp, Self::Tikr, Self::Json];

    /// The encoding's name in specs and topologies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Tikr => "tikr",
            Self::Json => "json",
        }
    }

    /// The encoding of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.name() == name)
    }

    /// Appends `bar` to `out`; `service` is the name of the service it comes from.
    pub fn write(self, service: &str, bar: &Outgoing<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Otlp => otlp::write(service, bar, out),
            Self::Tikr => tikr::write(service, bar, out),
            Self::Json => json::write(bar, out),
        }
    }
}

/// The key of a series' records, `k=v` joined by `|`: no two series share one.
pub fn record_key(key: &SeriesKey) -> Vec<u8> {
    key.to_string().into_bytes()
}

/// The identity of a bar, the same in every revision: `<spec>/<granularity>/<window start>/<record key>`.
pub fn bar_id(bar: &Outgoing<'_>) -> String {
    format!("{}/{}/{}/{}", bar.spec.name, bar.granularity(), bar.head.start, bar.key)
}

/// What a record's headers say of its bar, all of it as text.
pub fn headers(bar: &Outgoing<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let mut headers = vec![
        ("barline.series", bar.spec.name.clone().into_bytes()),
        ("barline.granularity", bar.granularity().as_bytes().to_vec()),
        ("barline.window_start_ns", bar.head.start.to_string().into_bytes()),
        ("barline.revision", bar.head.revision.to_string().into_bytes()),
        ("barline.bar_id", bar_id(bar).into_bytes()),
    ];
    let flags = bar.flags().collect::<Vec<_>>().join(",");
    headers.extend(Some(("barline.flags", flags.into_bytes())).filter(|(_, flags)| !flags.is_empty()));
    headers
}

impl<'a> Outgoing<'a> {
    /// The window length's name.
    pub fn granularity(&self) -> &'a str {
        self.spec.granularities.get(usize::from(self.head.granularity)).map_or("", |granularity| &granularity.name)
    }

    /// Where the window ends.
    fn end(&self) -> i64 {
        let granularity = self.spec.granularities.get(usize::from(self.head.granularity));
        self.head.start.saturating_add(granularity.map_or(0, |granularity| granularity.length))
    }

    /// The names of the bar's flags.
    fn flags(&self) -> impl Iterator<Item = &'static str> {
        let flags = self.head.flags;
        let named = [(BarFlags::PARTIAL, "partial"), (BarFlags::OVERFLOW, "overflow")];
        named.into_iter().filter(move |(flag, _)| flags.contains(*flag)).map(|(_, name)| name)
    }

    /// The bar's ticks, or those added.
    fn ticks(&self) -> u64 {
        self.head.ticks.saturating_sub(self.previous.as_ref().map_or(0, |previous| previous.ticks))
    }

    /// The metrics that are there, in the spec's order, as they are to be told.
    fn present(&self) -> impl Iterator<Item = (&'a Metric, Value)> + '_ {
        let told = |(at, value): (usize, &Option<Value>)| {
            let metric = self.spec.metrics.get(at)?;
            let before = self.previous.as_ref().filter(|_| adds_up(metric.aggregation));
            let before = before.and_then(|previous| previous.metrics.get(at).copied().flatten());
            Some((metric, added((*value)?, before)))
        };
        self.metrics.iter().enumerate().filter_map(told)
    }
}

/// Whether the metric's values of several windows, or of several parts of one, may be added up.
fn adds_up(aggregation: Aggregation) -> bool {
    matches!(aggregation, Aggregation::Sum | Aggregation::Count)
}

/// `value` less what was told `before`; the difference of two unsigned values that shrank, which only a clamped sum does,
/// is 0.
fn added(value: Value, before: Option<Value>) -> Value {
    match (value, before) {
        (value, None) => value,
        (Value::Int(now), Some(before)) => Value::Int(now.saturating_sub(before.to_int())),
        (Value::Uint(now), Some(Value::Uint(before))) => Value::Uint(now.saturating_sub(before)),
        (Value::Uint(now), Some(before)) => Value::Uint(now.saturating_sub(before.to_int().unsigned_abs())),
        (Value::Float(now), Some(before)) => Value::Float(now - before.to_float()),
    }
}

/// Times before 1970, which OTLP cannot tell, are 0.
fn unsigned(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0)
}

#[cfg(test)]
mod testing;
