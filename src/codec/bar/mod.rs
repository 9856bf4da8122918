//! Bars as records for consumers elsewhere: one file per encoding.
//!
//! An amended bar goes out whole, or as an increment: then its sums and counts say only what the late ticks added, so
//! that a consumer who adds them up stays right, while everything else says what now holds.

mod json;
mod otlp;
mod tikr;

use std::fmt::Display;
use std::io::Write as _;

use serde::Deserialize;

use crate::model::{BarHead, Headers, SeriesKey, Value};
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
    let mut out = Vec::with_capacity(key.as_bytes().len() + 8);
    key.write_text(&mut out);
    out
}

/// What a record's headers say of its bar, all of it as text. The bar's id is the same in every revision:
/// `<spec>/<granularity>/<window start>/<record key>`.
pub fn headers(bar: &Outgoing<'_>, record_key: &[u8]) -> Headers {
    let (spec, granularity) = (bar.spec.name.as_bytes(), bar.granularity().as_bytes());
    let mut headers = Headers::with_capacity(6, 96 + 2 * spec.len() + record_key.len());
    headers.add("barline.series", |out| out.extend_from_slice(spec));
    headers.add("barline.granularity", |out| out.extend_from_slice(granularity));
    headers.add("barline.window_start_ns", |out| put_number(out, bar.head.start));
    headers.add("barline.revision", |out| put_number(out, bar.head.revision));
    headers.add("barline.bar_id", |out| put_id(out, bar, record_key));
    if bar.flags().next().is_some() {
        let flags = bar.flags().collect::<Vec<_>>().join(",");
        headers.add("barline.flags", |out| out.extend_from_slice(flags.as_bytes()));
    }
    headers
}

/// The bar's id as text.
fn bar_id(bar: &Outgoing<'_>) -> String {
    let mut out = Vec::new();
    put_id(&mut out, bar, &record_key(bar.key));
    String::from_utf8_lossy(&out).into_owned()
}

fn put_id(out: &mut Vec<u8>, bar: &Outgoing<'_>, record_key: &[u8]) {
    for part in [&bar.spec.name, bar.granularity()] {
        out.extend_from_slice(part.as_bytes());
        out.push(b'/');
    }
    put_number(out, bar.head.start);
    out.push(b'/');
    out.extend_from_slice(record_key);
}

fn put_number(out: &mut Vec<u8>, number: impl Display) {
    // Writing into memory does not fail.
    let _ = write!(out, "{number}");
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
        self.head.flags.names()
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
