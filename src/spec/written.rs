//! A series spec exactly as the YAML has it: every key there is, nothing checked yet.

use serde::Deserialize;

use super::decode::At;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenSpec {
    /// The spec's name.
    pub series: Option<At<String>>,
    /// How producers write time.
    pub timestamp: Option<WrittenTimestamp>,
    /// Declared dimensions.
    #[serde(default)]
    pub dimensions: Vec<At<WrittenDimension>>,
    /// `accept` or `reject`.
    pub unknown_dimensions: Option<At<String>>,
    /// The numbers of a bar.
    pub metrics: Option<At<Vec<At<WrittenMetric>>>>,
    /// Window lengths.
    pub granularity: Option<At<WrittenGranularity>>,
    /// When windows close.
    pub window: Option<WrittenWindow>,
    /// How long things are kept.
    pub retention: Option<WrittenRetention>,
    /// How many series there may be.
    pub cardinality: Option<WrittenCardinality>,
    /// Where the bars go.
    pub output: Option<WrittenOutput>,
}

/// The `timestamp` block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTimestamp {
    /// What producers call it: for people only, the protocols have a field of their own.
    pub field: Option<At<String>>,
    /// `nanosecond`, `microsecond`, `millisecond` or `second`.
    pub precision: Option<At<String>>,
}

/// One entry of `dimensions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenDimension {
    /// Its name.
    pub name: At<String>,
    /// `string`.
    #[serde(rename = "type")]
    pub ty: Option<At<String>>,
}

/// One entry of `metrics`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenMetric {
    /// The name bars carry.
    pub name: At<String>,
    /// The tick field it is computed from.
    pub field: Option<At<String>>,
    /// The field's type.
    #[serde(rename = "type")]
    pub ty: Option<At<String>>,
    /// How it is computed.
    pub aggregation: At<String>,
    /// UCUM unit.
    pub unit: Option<String>,
    /// One line for people.
    pub description: Option<String>,
}

/// The `granularity` block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenGranularity {
    /// The finest window length.
    pub rollup: At<String>,
    /// Coarser ones, ascending.
    #[serde(default)]
    pub cascade: Vec<At<String>>,
}

/// The `window` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenWindow {
    /// How far the watermark stays behind the highest event time.
    pub wait: Option<At<String>>,
    /// After how much silence a window closes.
    pub idle: Option<At<String>>,
    /// How far in the future a tick may be.
    pub max_ahead: Option<At<String>>,
    /// `amend`, `drop` or `side_output`.
    pub late: Option<At<String>>,
}

/// The `retention` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenRetention {
    /// How long raw ticks are kept.
    pub ticks: Option<At<String>>,
    /// How long bars are kept.
    pub bars: Option<At<String>>,
}

/// The `cardinality` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenCardinality {
    /// The most series.
    pub limit: Option<At<u32>>,
    /// `reject` or `fold`.
    pub overflow: Option<At<String>>,
}

/// The `output` block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenOutput {
    /// Kafka, if bars go there.
    pub kafka: Option<WrittenKafka>,
}

/// The `output.kafka` block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenKafka {
    /// The topic; empty for none.
    pub topic: Option<At<String>>,
    /// `otlp`, `tikr` or `json`.
    pub encoding: Option<At<String>>,
    /// `drop`, `spool` or `block`.
    pub on_failure: Option<At<String>>,
}
