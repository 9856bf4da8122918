//! A load profile: what is sent, how fast, and in what disorder, as written in YAML.
//!
//! Strict: an unknown key, an impossible number or two series with the same dimensions is an error before
//! anything is sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    units::{Count, Rate, SECOND, Span},
    values::Maker,
};

/// The most fields a tick may have: one bit each in a tick's `present` mask.
pub const MAX_FIELDS: usize = 16;

/// One load profile.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// One line for `loadgen profiles`.
    #[serde(default)]
    pub about: String,
    /// The series spec's name on the server.
    pub spec: String,
    /// The spec's finest window, for `--verify`.
    #[serde(default = "one_second")]
    pub window: Span,
    /// The dimensions of a series.
    pub dimensions: Vec<DimensionRule>,
    /// The fields of a tick.
    pub fields: Vec<Field>,
    /// What the spec computes, for `--verify`.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// How many series there are, over all connections.
    pub series: Count,
    /// Zipf exponent of the series' popularity; 0 sends to them in turn.
    #[serde(default)]
    pub skew: f64,
    /// Whether every connection sends to every series, instead of each to its own.
    #[serde(default)]
    pub shared_series: bool,
    /// How fast, over all connections.
    pub rate: Rate,
    /// Ticks per second of *event* time where the rate is `max`.
    #[serde(default = "one_million")]
    pub event_rate: Count,
    /// Regular bursts above `rate`.
    pub burst: Option<Burst>,
    /// Ticks a little older than the ones before them.
    pub disorder: Option<Disorder>,
    /// Ticks so old that their window has been closed.
    pub late: Option<Late>,
    /// Ticks sent twice.
    pub duplicates: Option<Share>,
    /// Ticks that must be rejected: in turn of an unknown series, far in the future, expired.
    pub bad: Option<Share>,
    /// How many connections, each with a thread of its own.
    #[serde(default = "one")]
    pub connections: Count,
    /// The wire.
    #[serde(default)]
    pub protocol: Protocol,
    /// The most ticks in a message.
    #[serde(default = "five_thousand")]
    pub batch: Count,
    /// The longest time a message gathers ticks at a given rate.
    #[serde(default = "twenty_ms")]
    pub linger: Span,
    /// The most unacknowledged batches of a connection, on `barline.v1`.
    #[serde(default = "sixty_four")]
    pub in_flight: Count,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
}

/// How one dimension of a series gets its value. Exactly one of `value` and `values` is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DimensionRule {
    /// The dimension's name.
    pub name: String,
    /// A template with `{run}` and `{series}`, `{series/N}`, `{series%M}` or `{series/N%M}`.
    pub value: Option<String>,
    /// Values taken in turn, series by series.
    pub values: Option<Vec<String>>,
}

/// One field of a tick.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Its type in the spec.
    #[serde(rename = "type")]
    pub ty: FieldType,
    /// How its values are made.
    pub values: Maker,
    /// Only series whose dimensions have one of these values carry the field.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
    /// The share of ticks that lack the field all the same.
    #[serde(default)]
    pub absent: f64,
    /// Values of a float64 field are divided by this on `barline.v1`; `tikr.v1` carries integers only.
    #[serde(default = "unit")]
    pub divisor: f64,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Signed 64-bit integer.
    Int64,
    /// Unsigned 64-bit integer.
    Uint64,
    /// IEEE 754 double.
    Float64,
}

/// One metric of the spec.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The metric's name.
    pub name: String,
    /// The field it reads; none for the count of all ticks.
    pub field: Option<String>,
    /// `first`, `last`, `min`, `max`, `sum`, `count`, `avg`, `stddev` or `pN`.
    pub aggregation: String,
}

/// Bursts: for the first tenth of every period the rate is `factor` times as high.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// The period.
    pub every: Span,
    /// The factor, at least 1.
    pub factor: f64,
}

/// A share of ticks is up to `up_to` older than its place in the stream.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disorder {
    /// The share, 0 to 1.
    pub fraction: f64,
    /// The most, evenly distributed.
    pub up_to: Span,
}

/// A share of ticks is `by` older than its place in the stream.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// The share, 0 to 1.
    pub fraction: f64,
    /// How much.
    pub by: Span,
}

/// A share of ticks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The share, 0 to 1.
    pub fraction: f64,
}

/// The wire ticks are sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
pub enum Protocol {
    /// tikr's wire: one message per tick, one reply per stream.
    #[default]
    #[serde(rename = "tikr.v1")]
    #[value(name = "tikr.v1")]
    Tikr,
    /// barline's columnar wire: one acknowledgement per batch.
    #[serde(rename = "barline.v1")]
    #[value(name = "barline.v1")]
    Barline,
}

fn one() -> Count {
    Count(1)
}

fn sixty_four() -> Count {
    Count(64)
}

fn five_thousand() -> Count {
    Count(5_000)
}

fn one_million() -> Count {
    Count(1_000_000)
}

fn one_second() -> Span {
    Span(SECOND)
}

fn twenty_ms() -> Span {
    Span(20_000_000)
}

fn unit() -> f64 {
    1.0
}

impl Protocol {
    /// The name of its gRPC package.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tikr => "tikr.v1",
            Self::Barline => "barline.v1",
        }
    }
}

impl Profile {
    /// The divisor of field `field` on the profile's wire.
    pub fn divisor(&self, field: usize) -> f64 {
        let field = &self.fields[field];
        let whole = self.protocol == Protocol::Tikr || field.ty != FieldType::Float64;
        if whole { 1.0 } else { field.divisor }
    }
}
