//! What may be kept, and what is, closely enough to be asked before every commit.
//!
//! Sizes are measured when the reaper looks; in between, what is committed is added. Of each budget the room of one
//! partition stays free: a partition is rewritten there before its former self goes, and what is written until the
//! reaper comes needs it, too.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::open::lock;
use super::partition::{Partition, Partitions};
use super::{Budget, Kv, OnFull, Store, StoreError};

/// The least and the most a partition grows to before it is cut short.
const LIMITS: (u64, u64) = (256 << 10, 1 << 30);
/// How large a partition grows before the budget is known.
const FIRST_LIMIT: u64 = 64 << 20;

/// The accounts of one store.
pub(super) struct Spending {
    pub ticks: Account,
    pub bars: Account,
    /// Over budget nothing is committed.
    blocks: AtomicBool,
}

/// One budget and what is spent of it.
pub(super) struct Account {
    name: &'static str,
    budget: AtomicU64,
    /// What may be kept at rest: the budget less the room of one partition.
    usable: AtomicU64,
    used: AtomicU64,
    /// Bytes at which a partition is cut short.
    pub limit: AtomicU64,
}

impl Account {
    fn new(name: &'static str) -> Self {
        let [budget, usable] = [u64::MAX; 2].map(AtomicU64::new);
        Self { name, budget, usable, used: AtomicU64::new(0), limit: AtomicU64::new(FIRST_LIMIT) }
    }

    /// Sizes partitions so that those being written, `written` at once, which are never dropped, take an eighth of it.
    fn set(&self, budget: u64, written: usize) {
        let limit = (budget / 8 / written.max(1) as u64).clamp(LIMITS.0, LIMITS.1);
        self.limit.store(limit, Relaxed);
        self.budget.store(budget, Relaxed);
        self.usable.store(budget - limit.min(budget / 8), Relaxed);
    }

    /// What may be kept at rest.
    pub fn usable(&self) -> u64 {
        self.usable.load(Relaxed)
    }

    /// Whether `bytes` more fit into the whole budget.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used.load(Relaxed).saturating_add(bytes) <= self.budget.load(Relaxed)
    }

    fn is_spent(&self) -> bool {
        self.used.load(Relaxed) > self.usable()
    }

    /// Replaces what was thought to be used by what `measure` finds; what is committed meanwhile is kept.
    pub fn measure(&self, measure: impl FnOnce() -> u64) -> u64 {
        let before = self.used.load(Relaxed);
        let found = measure();
        self.used.fetch_add(found.wrapping_sub(before), Relaxed);
        found
    }

    fn admit(&self, bytes: u64) -> Result<(), StoreError> {
        if bytes == 0 || !self.is_spent() {
            return Ok(());
        }
        let (used, budget) = (self.used.load(Relaxed), self.budget.load(Relaxed));
        Err(StoreError::OverBudget { what: self.name, used, budget })
    }
}

impl Spending {
    pub fn new() -> Self {
        Self { ticks: Account::new("ticks"), bars: Account::new("bars"), blocks: AtomicBool::new(false) }
    }

    /// Whether so many bytes of ticks and bars may be committed.
    pub fn admit(&self, ticks: u64, bars: u64) -> Result<(), StoreError> {
        if self.blocks.load(Relaxed) { self.ticks.admit(ticks).and_then(|()| self.bars.admit(bars)) } else { Ok(()) }
    }

    /// Notes what was committed.
    pub fn note(&self, ticks: u64, bars: u64) {
        self.ticks.used.fetch_add(ticks, Relaxed);
        self.bars.used.fetch_add(bars, Relaxed);
    }
}

impl Store {
    /// Sets the budget, and measures what is kept.
    pub fn set_budget(&self, budget: &Budget) {
        self.note_budget(budget);
        self.measure();
    }

    /// Sets the budget.
    pub(super) fn note_budget(&self, budget: &Budget) {
        let (spending, specs) = (&self.inner.spending, &self.inner.specs);
        // Of every spec a partition of the journal and one of late ticks is written, and one per granularity.
        spending.ticks.set(budget.ticks, specs.len() * 2);
        spending.bars.set(budget.bars, specs.iter().map(|spec| spec.bars.len()).sum());
        spending.blocks.store(budget.on_full == OnFull::Block, Relaxed);
    }

    /// Whether the reaper is due, because a budget may be spent.
    pub fn is_over_budget(&self) -> bool {
        self.inner.spending.ticks.is_spent() || self.inner.spending.bars.is_spent()
    }

    /// Measures what is kept.
    pub(super) fn measure(&self) {
        let Self { inner } = self;
        let sum = |parts: &std::sync::Mutex<Partitions>| {
            lock(parts).all().iter().map(|part| size(&*inner.kv, part)).sum::<u64>()
        };
        let of_orphans = |bars: bool| {
            let orphans = inner.orphans.iter().filter(move |orphan| lock(&orphan.parts).family.is_bars() == bars);
            orphans.map(|orphan| sum(&orphan.parts)).sum::<u64>()
        };
        let specs = inner.specs.iter();
        inner
            .spending
            .ticks
            .measure(|| specs.clone().map(|spec| sum(&spec.ticks) + sum(&spec.side)).sum::<u64>() + of_orphans(false));
        let bars = specs.flat_map(|spec| &spec.bars);
        inner.spending.bars.measure(|| bars.map(|bars| sum(&bars.parts)).sum::<u64>() + of_orphans(true));
    }
}

/// The bytes of a partition. Neither measure is exact: the store counts write buffers in full, what was written counts
/// overwritten bars several times.
pub(super) fn size(kv: &dyn Kv, part: &Partition) -> u64 {
    kv.size(&part.space).min(part.bytes)
}
