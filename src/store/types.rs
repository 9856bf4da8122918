//! What the store is asked and what it answers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Kind, KvError};
use crate::model::time::SECOND;
use crate::model::{DurationNs, SeriesId, SpecId, TickBatch, TimeNs};
use crate::spec::units::{format_bytes, format_duration};

/// Which bars to visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BarScan {
    /// The spec.
    pub spec: SpecId,
    /// Index into the spec's granularities.
    pub granularity: u8,
    /// One series, or all.
    pub series: Option<SeriesId>,
    /// The lowest window start.
    pub from: TimeNs,
    /// Above the highest window start; `i64::MAX` leaves it open.
    pub to: TimeNs,
}

/// Which journal blocks to visit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TickScan {
    /// The spec.
    pub spec: SpecId,
    /// Only blocks with ticks of one of these series, ascending; or all.
    pub series: Option<Arc<[SeriesId]>>,
    /// The lowest event time.
    pub from: TimeNs,
    /// Above the highest event time; `i64::MAX` leaves it open.
    pub to: TimeNs,
    /// The late ticks kept aside instead of the journal.
    pub side: bool,
}

/// What the store keeps about a block besides its bytes, so that it need not be read to be passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockFacts {
    /// The arrival number of its first tick, unique over all specs of a journal.
    pub offset: u64,
    /// Ticks in it.
    pub rows: u32,
    /// Its lowest event time.
    pub min_time: TimeNs,
    /// Its highest event time.
    pub max_time: TimeNs,
    /// When it arrived; the journal is cut into partitions by it.
    pub received_at: TimeNs,
}

impl BlockFacts {
    /// The facts of `batch`, whose first tick has the arrival number `offset`.
    pub fn of(batch: &TickBatch, offset: u64, received_at: TimeNs) -> Self {
        let times = || batch.timestamps.iter().copied();
        Self {
            offset,
            rows: batch.len() as u32,
            min_time: times().min().unwrap_or(received_at),
            max_time: times().max().unwrap_or(received_at),
            received_at,
        }
    }

    /// The first arrival number after its last tick.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.rows)
    }
}

/// The most bytes that may be kept, over all specs; the oldest partitions are dropped first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Journal and late side output.
    pub ticks: u64,
    /// Bars of all granularities.
    pub bars: u64,
    /// What happens when they are spent on data that has not expired.
    pub on_full: OnFull,
}

/// What happens when a budget is spent on data that has not expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFull {
    /// Nothing more is stored until some has expired: whoever writes waits.
    Block,
    /// The oldest partitions are dropped before their time.
    Expire,
}

/// Older than these is hidden from every scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// The lowest event time of a visible tick.
    pub ticks: TimeNs,
    /// The lowest window start of a visible bar.
    pub bars: TimeNs,
}

/// What kind of ageing data a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// The journal, in order of arrival.
    Ticks,
    /// The journal, clustered by series.
    Sorted,
    /// Late ticks kept aside.
    Side,
    /// Bars.
    Bars,
}

impl Family {
    /// Whether it holds bars rather than ticks.
    pub fn is_bars(self) -> bool {
        self == Self::Bars
    }
}

/// Why a partition was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// All in it is older than the spec keeps it.
    Expired,
    /// The budget was exceeded and nothing older was left.
    OverBudget,
}

/// One partition that was dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// The spec's name.
    pub spec: String,
    /// What it held.
    pub family: Family,
    /// Why it went.
    pub reason: DropReason,
    /// Where its time range began: arrival time for ticks, window start for bars.
    pub start: TimeNs,
    /// The bytes it occupied.
    pub bytes: u64,
    /// Its blocks; 0 for bars.
    pub blocks: u64,
    /// Its ticks; 0 for bars.
    pub ticks: u64,
    /// Its bars; 0 for ticks.
    pub bars: u64,
    /// How many of its ticks may be in no stored bar yet.
    pub pending: u64,
}

/// What was dropped of one spec since its data began: expired, but never silently lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Expired {
    /// Older than the spec keeps it.
    pub by_age: ExpiredCounts,
    /// Dropped before its time, because the budget was spent.
    pub by_budget: ExpiredCounts,
}

/// What was dropped, by what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExpiredCounts {
    /// Ticks of the journal.
    pub ticks: u64,
    /// Late ticks kept aside.
    pub side: u64,
    /// Bars of all granularities.
    pub bars: u64,
}

/// What one run of the reaper did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reaped {
    /// The partitions dropped, in that order.
    pub dropped: Vec<Dropped>,
    /// Bytes of ticks and of bars that are left over budget, because only partitions being written remain.
    pub over_budget: u64,
}

/// What is kept, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Per spec, in order of their numbers.
    pub specs: Vec<SpecUsage>,
    /// Ageing data of specs that are no longer configured.
    pub orphans: u64,
    /// Series, checkpoints and what is put aside.
    pub fixed: u64,
    /// How many values were found corrupt and put aside, by kind; kinds that never occurred are left out.
    pub quarantined: Vec<(Kind, u64)>,
}

/// What is kept of one spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpecUsage {
    /// Bytes of journal.
    pub ticks: u64,
    /// Bytes of late ticks kept aside.
    pub side: u64,
    /// Bytes of bars.
    pub bars: u64,
    /// Partitions of all three.
    pub partitions: usize,
}

/// Why the store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The port failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// Written by an earlier version, before the first release.
    #[error("the data is of format {found}, this version reads {supported} only; start with an empty data directory")]
    Older {
        /// The format found.
        found: u32,
        /// The format known here.
        supported: u32,
    },
    /// Written by a later version.
    #[error("the data is of format {found}, this version reads up to {supported}; use a newer barline")]
    Newer {
        /// The format found.
        found: u32,
        /// The newest format known here.
        supported: u32,
    },
    /// What the store remembers about itself cannot be read.
    #[error("the store's record {record:?} is damaged; `barline store verify --repair` derives it anew")]
    Damaged {
        /// Its key in `meta`.
        record: String,
    },
    /// The budget is spent on data that has not expired, and the policy is to wait.
    #[error(
        "the {what} kept take {} of their budget of {} and none of them has expired; raise the reaper's budget.{what}, \
         lower the specs' retention, or set the reaper's budget.on_full to expire",
        format_bytes(*used), format_bytes(*budget)
    )]
    OverBudget {
        /// `ticks` or `bars`.
        what: &'static str,
        /// Bytes kept.
        used: u64,
        /// The budget.
        budget: u64,
    },
    /// A sink's spool is spent, and its policy is to let those who write wait.
    #[error(
        "the bars that sink {sink:?} has not delivered take {} of its spool of {} and go back {} of at most {}; see to \
         the broker, raise the sink's spool.bytes or spool.age, or set its on_failure to spool, which drops the oldest",
        format_bytes(*used), format_bytes(*budget), format_duration(*age / SECOND * SECOND), format_duration(*most)
    )]
    SpoolSpent {
        /// The stage's name.
        sink: String,
        /// Bytes held for it.
        used: u64,
        /// The most that may be.
        budget: u64,
        /// How old the oldest of them may be, at most.
        age: DurationNs,
        /// How old it may become.
        most: DurationNs,
    },
    /// A granularity the spec does not have.
    #[error("spec {spec:?} has no granularity number {granularity}")]
    NoGranularity {
        /// The spec's name.
        spec: String,
        /// What was asked for.
        granularity: u8,
    },
}

impl StoreError {
    /// Whether trying again later can help: the device or the budget is full now, file descriptors have run out, or the
    /// database is opened anew.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::OverBudget { .. }
                | Self::SpoolSpent { .. }
                | Self::Kv(KvError::Full { .. } | KvError::Busy { .. } | KvError::Interrupted { .. })
        )
    }

    /// Whether trying again cannot help: the data or the device is damaged.
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Kv(KvError::Unreadable { .. } | KvError::Failed { .. }))
    }
}
