//! Ageing: what is past its time is hidden at once and dropped by partition; budgets drop the oldest first.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::budget::size;
use super::open::{SpecStore, cutoff_record, lock};
use super::partition::{Partition, Partitions, State};
use super::sorted::SortedKey;
use super::ticks::journal_end_of;
use super::types::Family;
use super::{
    Budget, Cutoff, DropReason, Dropped, Durability, OnFull, Reaped, SpecUsage, Store, StoreError, Usage, doom,
    expired, keys, meta,
};
use crate::model::{DurationNs, SpecId, TimeNs};

/// One partition and how its age is judged.
struct Candidate<'a> {
    parts: &'a Mutex<Partitions>,
    part: Partition,
    /// The newest time in it is below this.
    newest: TimeNs,
    /// It has expired when that is not above this.
    cutoff: TimeNs,
    bytes: u64,
    /// Some of its ticks may be in no stored bar yet.
    is_pending: bool,
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

    /// Drops what has expired at `now`, then, where the policy says so, the oldest of what exceeds the budget, but never
    /// a partition that is being written, and one with ticks that are not in bars yet only if nothing else is left.
    ///
    /// # Errors
    /// The port fails; what was dropped before stays dropped.
    pub fn reap(&self, now: TimeNs, budget: &Budget) -> Result<Reaped, StoreError> {
        self.set_now(now);
        self.note_budget(budget);
        self.remember()?;
        self.sweep()?;
        let (mut reaped, spending) = (Reaped::default(), &self.inner.spending);
        for (is_bars, most, account) in [(false, budget.ticks, &spending.ticks), (true, budget.bars, &spending.bars)] {
            let (expired, mut kept): (Vec<_>, Vec<_>) =
                self.candidates(is_bars, now)?.into_iter().partition(|candidate| candidate.newest <= candidate.cutoff);
            for candidate in expired {
                reaped.dropped.push(self.drop_partition(&candidate, DropReason::Expired)?);
            }
            let mut total: u64 = kept.iter().map(|candidate| candidate.bytes).sum();
            kept.sort_by_key(|candidate| (candidate.is_pending, candidate.newest));
            kept.retain(|candidate| !candidate.part.is_last || candidate.part.end <= now);
            for candidate in kept.iter().filter(|_| budget.on_full == OnFull::Expire) {
                if total <= account.usable() {
                    break;
                }
                total -= candidate.bytes;
                reaped.dropped.push(self.drop_partition(candidate, DropReason::OverBudget)?);
            }
            reaped.over_budget += total.saturating_sub(most);
        }
        self.measure();
        Ok(reaped)
    }

    /// What is kept, in bytes.
    pub fn usage(&self) -> Usage {
        let kv = &self.inner.kv;
        let sum = |parts: &Mutex<Partitions>, partitions: &mut usize| {
            let all = lock(parts).all();
            *partitions += all.len();
            all.iter().map(|part| size(&**kv, part)).sum::<u64>()
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

    /// Every partition of ticks or of bars, those of specs no longer configured among them.
    fn candidates(&self, is_bars: bool, now: TimeNs) -> Result<Vec<Candidate<'_>>, StoreError> {
        let mut found = Vec::new();
        let floor = self.replay_floor();
        let mut add = |parts, ahead: DurationNs, cutoff: TimeNs, is_journal: bool| {
            for part in lock(parts).all() {
                let (newest, bytes) = (part.end.saturating_add(ahead), size(&*self.inner.kv, &part));
                let may_be_pending = is_journal && part.state != State::Sorted;
                let is_pending = may_be_pending && journal_end_of(&*self.inner.kv, &part.space)? > floor;
                found.push(Candidate { parts, part, newest, cutoff, bytes, is_pending });
            }
            Ok::<_, StoreError>(())
        };
        for store in &self.inner.specs {
            let (ahead, ticks) = (store.spec.window.max_ahead, store.cutoff_ticks.load(Relaxed));
            if is_bars {
                store.bars.iter().try_for_each(|bars| add(&bars.parts, 0, store.cutoff_bars.load(Relaxed), false))?;
            } else {
                add(&store.ticks, ahead, ticks, true)?;
                add(&store.side, ahead, ticks, false)?;
            }
        }
        for orphan in self.inner.orphans.iter().filter(|orphan| lock(&orphan.parts).family.is_bars() == is_bars) {
            let record = &orphan.record;
            let (ahead, keep) = if is_bars { (0, record.keep_bars) } else { (record.max_ahead, record.keep_ticks) };
            add(&orphan.parts, ahead, now.saturating_sub(keep), false)?;
        }
        Ok(found)
    }

    /// Counts and drops a partition. The count is stored with the doom, so that each partition is counted once.
    fn drop_partition(&self, candidate: &Candidate<'_>, reason: DropReason) -> Result<Dropped, StoreError> {
        let Candidate { parts, part, bytes, is_pending, .. } = candidate;
        let kv = &self.inner.kv;
        let (family, spec) = {
            let parts = lock(parts);
            (parts.family, parts.spec.clone())
        };
        let family = if part.state == State::Sorted { Family::Sorted } else { family };
        let (start, bytes, floor) = (part.start, *bytes, if *is_pending { self.replay_floor() } else { u64::MAX });
        let mut dropped = Dropped { spec, family, reason, start, bytes, blocks: 0, ticks: 0, bars: 0, pending: 0 };
        if family.is_bars() {
            self.count(&mut dropped, &part.space, floor)?;
        }
        // While no commit is under way, so that none is put into it unseen. Bars are too many to count meanwhile.
        let _alone = self.inner.gate.write().unwrap_or_else(PoisonError::into_inner);
        if !family.is_bars() {
            self.count(&mut dropped, &part.space, floor)?;
        }
        self.sweep_behind(&part.space)?;
        if !doom::is(&**kv, &part.space)? {
            let counted = expired::add(&**kv, &dropped)?;
            kv.commit(vec![doom::put(&part.space), counted], Durability::Synced)?;
        }
        kv.drop_space(&part.space)?;
        lock(parts).remove(part.start);
        kv.commit(vec![doom::lift(&part.space)], Durability::Synced)?;
        Ok(dropped)
    }

    /// Counts what is in a space; ticks from `floor` on are pending.
    fn count(&self, dropped: &mut Dropped, space: &str, floor: u64) -> Result<(), StoreError> {
        self.inner.kv.scan_keys(space, &[], None, &mut |key| {
            match dropped.family {
                Family::Bars => dropped.bars += 1,
                Family::Sorted => {
                    dropped.blocks += 1;
                    dropped.ticks += SortedKey::parse(key).map_or(0, |key| u64::from(key.rows));
                }
                Family::Ticks | Family::Side => {
                    dropped.blocks += 1;
                    let Some(facts) = keys::parse_block(key) else { return ControlFlow::Continue(()) };
                    let rows = u64::from(facts.rows);
                    dropped.ticks += rows;
                    dropped.pending += facts.end().saturating_sub(floor).min(rows);
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(())
    }
}
