//! What is kept, in bytes.

use serde::{Deserialize, Serialize};

use super::replay::Grounds;
use crate::store::Kind;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatReport {
    /// By spec.
    pub specs: Vec<SpecStat>,
    /// Bytes of ageing data whose spec is no longer configured.
    pub orphans: u64,
    /// Bytes of series, records and what is put aside.
    pub fixed: u64,
    /// The next arrival number.
    pub journal_end: u64,
    /// Values put aside because they were corrupt, by kind.
    pub quarantined: Vec<(String, u64)>,
}

/// What is kept of one spec, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecStat {
    /// Its name.
    pub spec: String,
    /// How many series it has.
    pub series: u64,
    /// The journal.
    pub ticks: u64,
    /// Late ticks kept aside.
    pub side: u64,
    /// Bars.
    pub bars: u64,
    /// Partitions of all of these.
    pub partitions: u64,
}

/// Adds up what is kept.
pub fn stat(grounds: Grounds<'_>) -> StatReport {
    let usage = grounds.store.usage();
    let of = |(spec, usage): (&std::sync::Arc<crate::spec::Spec>, &crate::store::SpecUsage)| SpecStat {
        spec: spec.name.clone(),
        series: grounds.catalog.len(spec.id) as u64,
        ticks: usage.ticks,
        side: usage.side,
        bars: usage.bars,
        partitions: usage.partitions as u64,
    };
    StatReport {
        specs: grounds.specs.iter().zip(&usage.specs).map(of).collect(),
        orphans: usage.orphans,
        fixed: usage.fixed,
        journal_end: grounds.store.journal_end(),
        quarantined: usage.quarantined.iter().map(|(kind, count)| (Kind::name(*kind).to_owned(), *count)).collect(),
    }
}
