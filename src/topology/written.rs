//! A topology exactly as the YAML has it: every key there is, nothing checked yet.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::telemetry::WrittenTelemetry;
use crate::spec::decode::{At, Ordered};
use crate::spec::units::{Address, ByteSize, DurationText};

/// The top-level keys that are no block of stages.
pub const SETTINGS: [&str; 11] =
    ["topology", "data_dir", "store", "specs", "http", "metrics", "telemetry", "drain", "budget", "cache", "security"];

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTopology {
    /// Its name.
    pub topology: Option<At<String>>,
    /// Where data is kept.
    pub data_dir: Option<String>,
    /// `disk` or `memory`.
    pub store: Option<At<String>>,
    /// The directory of series specs.
    pub specs: Option<String>,
    /// `off` or a mapping, which is read as [`WrittenListener`] by itself.
    pub http: Option<IgnoredAny>,
    /// As `http`, for Prometheus.
    pub metrics: Option<IgnoredAny>,
    /// What is pushed where.
    pub telemetry: Option<WrittenTelemetry>,
    /// How long a shutdown may take.
    pub drain: Option<At<DurationText>>,
    /// What the whole process may take.
    pub budget: Option<WrittenBudget>,
    /// The store's cache.
    pub cache: Option<ByteSize>,
    /// Read as [`Security`](super::security::Security) by itself.
    pub security: Option<IgnoredAny>,
    /// The stages by name.
    pub stages: Option<Ordered<At<WrittenStage>>>,
}

/// The `http` and the `metrics` block.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenListener {
    /// Where it listens.
    pub listen: Option<At<Address>>,
}

/// The `budget` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenBudget {
    /// Memory.
    pub memory: Option<At<ByteSize>>,
    /// Disk.
    pub disk: Option<At<ByteSize>>,
}

/// One stage.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenStage {
    /// Its kind.
    pub kind: Option<At<String>>,
    /// The stages it takes its input from: one name or a list.
    pub from: Option<At<Vec<At<String>>>>,
    /// Its mailbox.
    pub mailbox: Option<At<WrittenMailbox>>,
    /// How many there are: a number, or a mapping, which is read as [`WrittenScale`] by itself.
    pub instances: Option<IgnoredAny>,
    /// Read by its kind.
    pub config: Option<IgnoredAny>,
}

/// The `instances` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenScale {
    /// The fewest that are active.
    pub min: Option<At<i64>>,
    /// The most.
    pub max: Option<At<i64>>,
    /// The lag above which there should be more.
    pub target_lag: Option<At<DurationText>>,
}

/// The `mailbox` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenMailbox {
    /// How many envelopes each lane holds.
    pub capacity: Option<At<i64>>,
    /// `block` or `drop_newest`.
    pub when_full: Option<At<String>>,
}
