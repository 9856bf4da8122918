//! What a replay found.

use serde::{Deserialize, Serialize};

use crate::model::TimeNs;

/// What a replay found and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayReport {
    /// The spec whose bars were derived.
    pub spec: String,
    /// The spec whose ticks they were derived from.
    pub ticks_of: String,
    /// Whether there are stored bars to compare with: the spec is configured.
    pub configured: bool,
    /// Whether bars were to be installed.
    pub install: bool,
    /// Ticks read.
    pub ticks: u64,
    /// Per granularity, the finest first.
    pub granularities: Vec<Counts>,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Bars of series the spec does not take: beyond its cardinality limit, or with dimensions it refuses.
    pub refused: u64,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

/// Bars of one granularity. `derived = same + changed + new + richer + in_flight + incomplete`, but for bars in flight
/// or incomplete that were found only in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The window length, as written in the spec.
    pub granularity: String,
    /// Derived from the journal.
    pub derived: u64,
    /// Stored just so.
    pub same: u64,
    /// Stored with other contents.
    pub changed: u64,
    /// Not stored.
    pub new: u64,
    /// Stored, and no tick of theirs is in the journal.
    pub missing: u64,
    /// Stored with other contents and more ticks than the journal has: left as they are.
    pub richer: u64,
    /// With ticks that may not be in stored bars yet: left as they are.
    pub in_flight: u64,
    /// With ticks the journal no longer has: left as they are.
    pub incomplete: u64,
    /// Written.
    pub installed: u64,
}

/// One difference between a stored and a derived bar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The window length, as written in the spec.
    pub granularity: String,
    /// The series' dimensions.
    pub series: String,
    /// The window's start.
    pub start_ns: TimeNs,
    /// The metric, or `bar` where a whole bar is on one side only.
    pub what: String,
    /// What is stored.
    pub stored: Option<String>,
    /// What was derived.
    pub derived: Option<String>,
}

impl ReplayReport {
    /// Whether every stored bar that could be judged is as the journal has it, and none is lacking.
    pub fn is_equal(&self) -> bool {
        self.granularities.iter().all(|counts| counts.changed + counts.new + counts.missing + counts.richer == 0)
    }

    /// Bars written.
    pub fn installed(&self) -> u64 {
        self.granularities.iter().map(|counts| counts.installed).sum()
    }
}
