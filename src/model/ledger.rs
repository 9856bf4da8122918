//! The ledger: ticks received counted against ticks found in bars, per spec.
//!
//! `received = accepted + rejected + duplicate`, and `accepted = in bars + open + in flight + dropped`.
//! Counters are atomics added to once per batch, read from outside at any time. `open` is measured by the
//! aggregators, not derived, so at rest (nothing in flight) the second line is a real check.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Why a tick was rejected at the door, or dropped after it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The tick names a spec this server does not have.
    UnknownSeries,
    /// Older than the spec keeps its ticks.
    Expired,
    /// Further in the future than `max_ahead`.
    Ahead,
    /// A timestamp outside 1677–2262, or one its precision cannot carry there.
    BadTimestamp,
    /// Too many dimensions, one too long, or one the spec does not declare and refuses.
    BadDimensions,
    /// A value that does not fit its field's type, or too many undeclared fields.
    BadField,
    /// A new series beyond the spec's cardinality limit.
    Cardinality,
    /// Late under `late: drop`.
    Late,
    /// Late under `late: side_output`: kept as raw ticks, in no bar.
    SideOutput,
    /// The lane out of the source was full under `when_full: drop_newest`.
    MailboxFull,
    /// In a batch that made a stage fail.
    Poison,
    /// In windows that were open when a stage restarted with no journal to replay.
    Restart,
    /// In a part of the journal that was damaged, or dropped over budget, before a restart could replay it.
    JournalGap,
    /// A message of a topic that cannot be read, counted as one tick.
    Malformed,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::UnknownSeries,
        Self::Expired,
        Self::Ahead,
        Self::BadTimestamp,
        Self::BadDimensions,
        Self::BadField,
        Self::Cardinality,
        Self::Late,
        Self::SideOutput,
        Self::MailboxFull,
        Self::Poison,
        Self::Restart,
        Self::JournalGap,
        Self::Malformed,
    ];

    /// The reason's name in metrics, replies and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::UnknownSeries => "unknown_series",
            Self::Expired => "expired",
            Self::Ahead => "ahead",
            Self::BadTimestamp => "bad_timestamp",
            Self::BadDimensions => "bad_dimensions",
            Self::BadField => "bad_field",
            Self::Cardinality => "cardinality",
            Self::Late => "late",
            Self::SideOutput => "side_output",
            Self::MailboxFull => "mailbox_full",
            Self::Poison => "poison",
            Self::Restart => "restart",
            Self::JournalGap => "journal_gap",
            Self::Malformed => "malformed",
        }
    }
}

const REASONS: usize = Reason::ALL.len();

/// Counters of one spec.
#[derive(Debug, Default)]
pub struct SpecLedger {
    accepted: AtomicU64,
    duplicate: AtomicU64,
    rejected: [AtomicU64; REASONS],
    dropped: [AtomicU64; REASONS],
    in_bars: AtomicU64,
    open: AtomicI64,
    journaled: AtomicU64,
}

/// Counters of one spec at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerSnapshot {
    /// Ticks taken.
    pub accepted: u64,
    /// Ticks of batches already taken before.
    pub duplicate: u64,
    /// Ticks refused, by reason; reasons that never occurred are left out.
    pub rejected: Vec<(Reason, u64)>,
    /// Ticks taken and then given up, by reason; reasons that never occurred are left out.
    pub dropped: Vec<(Reason, u64)>,
    /// Ticks in stored bars of the finest granularity.
    pub in_bars: u64,
    /// Ticks in open windows.
    pub open: i64,
}

impl SpecLedger {
    /// Counts ticks taken.
    pub fn accept(&self, ticks: u64) {
        self.accepted.fetch_add(ticks, Relaxed);
    }

    /// Counts ticks of a batch already taken before.
    pub fn duplicate(&self, ticks: u64) {
        self.duplicate.fetch_add(ticks, Relaxed);
    }

    /// Counts ticks refused.
    pub fn reject(&self, reason: Reason, ticks: u64) {
        self.rejected[reason as usize].fetch_add(ticks, Relaxed);
    }

    /// Counts ticks given up after they were taken.
    pub fn drop(&self, reason: Reason, ticks: u64) {
        self.dropped[reason as usize].fetch_add(ticks, Relaxed);
    }

    /// Takes ticks counted as dropped back: they are about to be judged again.
    pub fn undrop(&self, reason: Reason, ticks: u64) {
        self.dropped[reason as usize].fetch_sub(ticks, Relaxed);
    }

    /// Counts ticks the journal has made durable.
    pub fn journal(&self, ticks: u64) {
        self.journaled.fetch_add(ticks, Relaxed);
    }

    /// Ticks in the journal, ever.
    pub fn journaled(&self) -> u64 {
        self.journaled.load(Relaxed)
    }

    /// Goes on from the counts an earlier process left; `journaled` of its ticks went into the journal.
    pub fn restore(&self, counts: &LedgerSnapshot, journaled: u64) {
        let of = |reasons: &[(Reason, u64)], counters: &[AtomicU64; REASONS]| {
            reasons.iter().for_each(|(reason, ticks)| counters[*reason as usize].store(*ticks, Relaxed));
        };
        of(&counts.rejected, &self.rejected);
        of(&counts.dropped, &self.dropped);
        self.accepted.store(counts.accepted, Relaxed);
        self.duplicate.store(counts.duplicate, Relaxed);
        self.in_bars.store(counts.in_bars, Relaxed);
        self.journaled.store(journaled, Relaxed);
    }

    /// Counts ticks that entered (positive) or left (negative) open windows.
    pub fn open(&self, ticks: i64) {
        self.open.fetch_add(ticks, Relaxed);
    }

    /// Counts ticks of bars just stored.
    pub fn store(&self, ticks: u64) {
        self.in_bars.fetch_add(ticks, Relaxed);
    }

    /// Takes ticks back whose bars turned out to be damaged.
    pub fn unstore(&self, ticks: u64) {
        self.in_bars.fetch_sub(ticks, Relaxed);
    }

    /// Ticks in stored bars of the finest granularity.
    pub fn in_bars(&self) -> u64 {
        self.in_bars.load(Relaxed)
    }

    /// Reads the counters.
    pub fn snapshot(&self) -> LedgerSnapshot {
        let by_reason = |counters: &[AtomicU64; REASONS]| {
            let counts = Reason::ALL.iter().zip(counters).map(|(r, c)| (*r, c.load(Relaxed)));
            counts.filter(|(_, count)| *count > 0).collect()
        };
        LedgerSnapshot {
            in_bars: self.in_bars.load(Relaxed),
            open: self.open.load(Relaxed),
            dropped: by_reason(&self.dropped),
            accepted: self.accepted.load(Relaxed),
            duplicate: self.duplicate.load(Relaxed),
            rejected: by_reason(&self.rejected),
        }
    }
}

impl LedgerSnapshot {
    /// All ticks that came in.
    pub fn received(&self) -> u64 {
        self.accepted + self.duplicate + self.rejected_ticks()
    }

    /// Ticks accepted that are neither in bars, nor in open windows, nor dropped: on their way. 0 at rest.
    pub fn in_flight(&self) -> i64 {
        self.accepted as i64 - self.in_bars as i64 - self.open - self.dropped_ticks() as i64
    }

    /// All ticks refused.
    pub fn rejected_ticks(&self) -> u64 {
        self.rejected.iter().map(|(_, ticks)| ticks).sum()
    }

    /// All ticks taken and then given up.
    pub fn dropped_ticks(&self) -> u64 {
        self.dropped.iter().map(|(_, ticks)| ticks).sum()
    }

    /// Ticks taken and then given up for this reason.
    pub fn dropped_for(&self, reason: Reason) -> u64 {
        self.dropped.iter().find(|(found, _)| *found == reason).map_or(0, |(_, ticks)| *ticks)
    }

    /// What is wrong with the counts if nothing is on its way; `None` where they balance.
    pub fn imbalance(&self) -> Option<String> {
        match self.in_flight() {
            0 => None,
            ticks @ 1.. => {
                Some(format!("{ticks} accepted ticks are in no bar, in no open window and not counted as dropped"))
            }
            ticks => {
                Some(format!("{} more ticks are in bars, open or dropped than were accepted", ticks.unsigned_abs()))
            }
        }
    }
}

/// The counters of every spec, by spec number; and of ticks that named no spec.
#[derive(Debug, Default)]
pub struct Ledger {
    specs: Vec<SpecLedger>,
    unknown: SpecLedger,
}

impl Ledger {
    /// A ledger for spec numbers below `specs`.
    pub fn new(specs: usize) -> Self {
        Self { specs: (0..specs).map(|_| SpecLedger::default()).collect(), unknown: SpecLedger::default() }
    }

    /// The counters of `spec`.
    pub fn spec(&self, spec: super::SpecId) -> &SpecLedger {
        self.specs.get(spec.0 as usize).unwrap_or(&self.unknown)
    }

    /// Counters of ticks that named a spec this server does not have.
    pub fn unknown(&self) -> &SpecLedger {
        &self.unknown
    }
}
