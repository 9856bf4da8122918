//! Ageing: what is past its time is hidden at once and dropped by partition; budgets drop the oldest first.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::open::{SpecStore, cutoff_record, lock};
use super::partition::{Partition, Partitions};
use super::types::Family;
use super::{Budget, Cutoff, DropReason, Dropped, Durability, Reaped, SpecUsage, Store, StoreError, Usage, keys, meta};
use crate::model::{DurationNs, SpecId, TimeNs};

/// The least and the most a partition grows to before it is cut short.
const LIMITS: (u64, u64) = (256 << 10, 1 << 30);

/// One partition and how its age is judged.
struct Candidate<'a> {
    parts: &'a Mutex<Partitions>,
    part: Partition,
    /// The newest time in it is below this.
    newest: TimeNs,
    /// It has expired when that is not above this.
    cutoff: TimeNs,
    bytes: u64,
}

impl Store {
    /// What a spec keeps at `now`. It never goes back, whatever the clock does; scans obey it from here on.
    pub fn cutoff(&self, spec: SpecId, now: TimeNs) -> Cutoff {
        let store = self.spec(spec);
        let raise = |cutoff: &AtomicI64, keep: DurationNs| {
            let at = now.saturating_sub(keep);
            cutoff.fetch_max(at, Relaxed).max(at)
        };
        let keep = store.spec.retention;
        Cutoff { ticks: raise(&store.cutoff_ticks, keep.ticks), bars: raise(&store.cutoff_bars, keep.bars) }
    }

    /// Tells the time: expired data is hidden from here on.
    pub fn set_now(&self, now: TimeNs) {
        for store in &self.inner.specs {
            self.cutoff(store.spec.id, now);
        }
    }

    /// Drops what has expired at `now`, then the oldest of what exceeds the budget, but never a partition that is
    /// being written.
    ///
    /// # Errors
    /// The port fails; what was dropped before stays dropped.
    pub fn reap(&self, now: TimeNs, budget: &Budget) -> Result<Reaped, StoreError> {
        self.set_now(now);
        self.set_limits(budget);
        self.remember()?;
        let mut reaped = Reaped::default();
        for (families, most) in [(&[Family::Ticks, Family::Side][..], budget.ticks), (&[Family::Bars], budget.bars)] {
            let (expired, mut kept): (Vec<_>, Vec<_>) =
                self.candidates(families, now).into_iter().partition(|candidate| candidate.newest <= candidate.cutoff);
            for candidate in expired {
                reaped.dropped.push(self.drop_partition(&candidate, DropReason::Expired)?);
            }
            let mut total: u64 = kept.iter().map(|candidate| candidate.bytes).sum();
            kept.sort_by_key(|candidate| candidate.newest);
            for candidate in kept.iter().filter(|candidate| !candidate.part.is_last || candidate.part.end <= now) {
                if total <= most {
                    break;
                }
                total -= candidate.bytes;
                reaped.dropped.push(self.drop_partition(candidate, DropReason::OverBudget)?);
            }
            reaped.over_budget += total.saturating_sub(most);
        }
        Ok(reaped)
    }

    /// What is kept, in bytes.
    pub fn usage(&self) -> Usage {
        let kv = &self.inner.kv;
        let sum = |parts: &Mutex<Partitions>, partitions: &mut usize| {
            let all = lock(parts).all();
            *partitions += all.len();
            all.iter().map(|part| kv.size(&part.space)).sum::<u64>()
        };
        let of_spec = |store: &SpecStore| {
            let mut partitions = 0;
            SpecUsage {
                ticks: sum(&store.ticks, &mut partitions),
                side: sum(&store.side, &mut partitions),
                bars: store.bars.iter().map(|bars| sum(&bars.parts, &mut partitions)).sum(),
                partitions,
            }
        };
        let fixed = [keys::META, keys::QUARANTINE].map(String::from).into_iter().chain(kv.spaces("series/"));
        Usage {
            specs: self.inner.specs.iter().map(of_spec).collect(),
            orphans: self.inner.orphans.iter().map(|orphan| sum(&orphan.parts, &mut 0)).sum(),
            fixed: fixed.map(|space| kv.size(&space)).sum(),
            quarantined: self.inner.quarantine.counts(),
        }
    }

    /// Sizes partitions so that those being written, which are never dropped, take an eighth of the budget.
    fn set_limits(&self, budget: &Budget) {
        let specs = &self.inner.specs;
        let bars: usize = specs.iter().map(|spec| spec.bars.len()).sum();
        let limit = |budget: u64, written: usize| (budget / 8 / written.max(1) as u64).clamp(LIMITS.0, LIMITS.1);
        self.inner.limit_ticks.store(limit(budget.ticks, specs.len() * 2), Relaxed);
        self.inner.limit_bars.store(limit(budget.bars, bars), Relaxed);
    }

    /// Stores what must outlive the partitions about to go: cutoffs and the end of the journal.
    pub(super) fn remember(&self) -> Result<(), StoreError> {
        let mut ops = vec![meta::put("journal_end", &self.journal_end().to_be_bytes())];
        for store in &self.inner.specs {
            for (what, cutoff) in [("ticks", &store.cutoff_ticks), ("bars", &store.cutoff_bars)] {
                ops.push(meta::put(&cutoff_record(&store.spec.name, what), &cutoff.load(Relaxed).to_be_bytes()));
            }
        }
        Ok(self.inner.kv.commit(ops, Durability::Synced)?)
    }

    /// Every partition of these families, those of specs no longer configured among them.
    fn candidates(&self, families: &[Family], now: TimeNs) -> Vec<Candidate<'_>> {
        let mut found = Vec::new();
        let mut add = |parts, ahead: DurationNs, cutoff: TimeNs| {
            for part in lock(parts).all() {
                let (newest, bytes) = (part.end.saturating_add(ahead), self.inner.kv.size(&part.space));
                found.push(Candidate { parts, part, newest, cutoff, bytes });
            }
        };
        for store in &self.inner.specs {
            let (ahead, ticks) = (store.spec.window.max_ahead, store.cutoff_ticks.load(Relaxed));
            for (family, parts) in [(Family::Ticks, &store.ticks), (Family::Side, &store.side)] {
                if families.contains(&family) {
                    add(parts, ahead, ticks);
                }
            }
            for bars in store.bars.iter().filter(|_| families.contains(&Family::Bars)) {
                add(&bars.parts, 0, store.cutoff_bars.load(Relaxed));
            }
        }
        for orphan in &self.inner.orphans {
            let record = &orphan.record;
            let family = lock(&orphan.parts).family;
            let is_bars = family == Family::Bars;
            let (ahead, keep) = if is_bars { (0, record.keep_bars) } else { (record.max_ahead, record.keep_ticks) };
            if families.contains(&family) {
                add(&orphan.parts, ahead, now.saturating_sub(keep));
            }
        }
        found
    }

    /// Drops a partition while no commit is under way, so that none is put into it unseen.
    fn drop_partition(&self, candidate: &Candidate<'_>, reason: DropReason) -> Result<Dropped, StoreError> {
        let Candidate { parts, part, bytes, .. } = candidate;
        let (family, spec) = {
            let parts = lock(parts);
            (parts.family, parts.spec.clone())
        };
        let (blocks, ticks) = if family == Family::Bars { (0, 0) } else { self.count_blocks(&part.space)? };
        let _alone = self.inner.gate.write().unwrap_or_else(PoisonError::into_inner);
        self.inner.kv.drop_space(&part.space)?;
        lock(parts).remove(part.start);
        Ok(Dropped { spec, family, reason, start: part.start, bytes: *bytes, blocks, ticks })
    }

    /// Blocks and ticks of a space of blocks.
    fn count_blocks(&self, space: &str) -> Result<(u64, u64), StoreError> {
        let (mut blocks, mut ticks) = (0, 0);
        self.inner.kv.scan_keys(space, &[], None, &mut |key| {
            blocks += 1;
            ticks += keys::parse_block(key).map_or(0, |facts| u64::from(facts.rows));
            ControlFlow::Continue(())
        })?;
        Ok((blocks, ticks))
    }
}
