//! Rebuilding an aggregator instance: coarser windows from stored finer bars, the finest from the journal.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use super::Aggregator;
use crate::model::{BarBatch, BarFlags, BarHead, Envelope, Rows, SeriesId, SpecId, TickSlice, TimeNs};
use crate::routing::{self, ReplayBounds};
use crate::runtime::{Found, StageError, Start};
use crate::spec::Spec;
use crate::store::{BarScan, Poisoned, StoreError};
use crate::window::{bounds, state};

/// A bar: head and accumulator states.
type Bar = (BarHead, Vec<u64>);

/// Coarser bars of one spec that are stored anew: granularity, series and start.
type Mended = HashSet<(u8, SeriesId, TimeNs)>;

impl Aggregator {
    /// Rebuilds the open windows from the checkpoints, to where the failed instance was or the journal ended when the
    /// process started.
    pub(super) fn restore(&mut self, start: &Start) -> Result<(), StageError> {
        let checkpoints = self.context.store.checkpoints();
        let cascade_from = checkpoints.iter().map(|checkpoint| checkpoint.cascade_from).min().unwrap_or(TimeNs::MIN);
        let mended = self.restore_coarser(cascade_from).map_err(crate::stages::try_later)?;
        self.replay(start, &ReplayBounds::of(&checkpoints), mended).map_err(crate::stages::try_later)
    }

    fn replay(&mut self, start: &Start, bounds: &ReplayBounds, mended: Vec<Mended>) -> Result<(), StoreError> {
        let to = start.handled.max(self.context.recovered_to);
        let failed = Arc::new(OnceLock::new());
        for ((windows, spec), mended) in self.windows.iter_mut().zip(self.context.specs.iter()).zip(mended) {
            windows.set_covered(self.context.covered(spec.id, mended, &failed), to);
        }
        self.replayed_from = bounds.lowest_of(self.instance, self.instances).min(to);
        let mut missing = to - self.replayed_from;
        let mut replayed = vec![0; self.windows.len()];
        let mut carry = std::mem::take(&mut self.carry);
        let (store, poisoned) = (self.context.store.clone(), self.context.store.poisoned());
        store.journal_from(self.replayed_from, &mut |offset, spec, block| {
            if offset >= to {
                return;
            }
            let batch = Arc::new(block.into_batch(self.context.specs.get(spec)));
            let slice = TickSlice::whole(batch, offset);
            missing = missing.saturating_sub(slice.end_offset().min(to) - offset.max(self.replayed_from));
            let slice = self.to_replay(slice, bounds, &poisoned);
            if slice.is_empty() {
                return;
            }
            if let Err(error) = self.meet(&slice) {
                // The first one is enough.
                let _ = failed.set(error);
                return;
            }
            let skipped = self.apply(&slice, start.now, &mut |envelope| carry.push(envelope));
            replayed[spec.0 as usize] += slice.len() as u64 - skipped;
        })?;
        if let Some(error) = failed.get() {
            return Err(error.clone());
        }
        self.windows.iter_mut().for_each(|windows| windows.end_replay(to));
        self.position = self.position.max(to);
        self.carry = carry;
        let found = Found { replayed, gap: missing > 0 };
        self.context.recovery.report(self.instance, self.instances, found, &self.context);
        Ok(())
    }

    /// Of a batch of the journal, the rows of this instance that are not accounted for yet.
    fn to_replay(&self, mut slice: TickSlice, bounds: &ReplayBounds, poisoned: &[(SpecId, Poisoned)]) -> TickSlice {
        slice.rows = routing::split(&slice.batch, self.instances).swap_remove(self.instance as usize);
        let (spec, end) = (slice.batch.spec, slice.end_offset());
        let given_up = |of: &&(SpecId, Poisoned)| of.0 == spec && of.1.offset < end && slice.offset < of.1.end();
        let poisoned: Vec<_> = poisoned.iter().filter(given_up).map(|(_, poisoned)| *poisoned).collect();
        if poisoned.is_empty() && slice.offset >= bounds.highest() {
            return slice;
        }
        let wanted = |row: &usize| {
            let (number, shard) = (slice.offset + *row as u64, routing::shard_of(slice.batch.series_at(*row)));
            number >= bounds.of_shard(shard) && !poisoned.iter().any(|poisoned| poisoned.includes(number, shard))
        };
        let rows = Rows::Picked(slice.rows().filter(wanted).map(|row| row as u32).collect());
        TickSlice { rows, ..slice }
    }

    /// Adds stored finer bars up to the coarser windows from `from` on that are open. A coarser bar that is stored but
    /// lacks some of them was stored before its window ended, and the process died before the rest was: it is stored
    /// anew, whole. One that lacks nothing is left as it is, though its finer bars may be fewer: they were lost to damage.
    /// Gives those stored anew, by spec.
    fn restore_coarser(&mut self, from: TimeNs) -> Result<Vec<Mended>, StoreError> {
        let mut all_mended = Vec::new();
        for spec in self.context.specs.clone().iter() {
            let mut whole = BarBatch::new(spec.id);
            let mut mended: BTreeMap<(SeriesId, TimeNs), Bar> = BTreeMap::new();
            let mut names = Mended::new();
            for granularity in 1..spec.granularities.len() as u8 {
                let sums = self.finer_sums(spec, granularity, from, &mended)?;
                mended.clear();
                for ((series, start), sum) in sums {
                    match self.context.store.bar(spec.id, granularity, series, start)? {
                        None => {
                            let windows = &mut self.windows[spec.id.0 as usize];
                            self.clocks.meet(windows, (spec.id, series), &self.context)?;
                            windows.adopt(&sum.0, &sum.1);
                        }
                        Some((stored, _)) if stored.ticks != sum.0.ticks && stored.covers < sum.0.covers => {
                            let mut head = BarHead { granularity, start, ..sum.0 };
                            head.flags.set(BarFlags::WHOLE, true);
                            head.flags.set(BarFlags::OPEN_ENDED, stored.flags.contains(BarFlags::OPEN_ENDED));
                            whole.push(head, &sum.1);
                            names.insert((granularity, series, start));
                            mended.insert((series, start), (head, sum.1));
                        }
                        Some(_) => {}
                    }
                }
            }
            if !whole.is_empty() {
                self.carry.push(Envelope::Bars(Arc::new(whole)));
            }
            all_mended.push(names);
        }
        Ok(all_mended)
    }

    /// Of this instance's series, the sums of the bars just finer than `granularity`, by the coarser window they lie in.
    /// Bars in `mended` stand for the stored ones.
    fn finer_sums(
        &self,
        spec: &Spec,
        granularity: u8,
        from: TimeNs,
        mended: &BTreeMap<(SeriesId, TimeNs), Bar>,
    ) -> Result<BTreeMap<(SeriesId, TimeNs), Bar>, StoreError> {
        let length = spec.granularities[granularity as usize].length;
        let mut sums: BTreeMap<(SeriesId, TimeNs), Bar> = BTreeMap::new();
        let from = bounds::start_of(from, length);
        let scan = BarScan { spec: spec.id, granularity: granularity - 1, series: None, from, to: TimeNs::MAX };
        self.context.store.scan_bars(&scan, &mut |head, state| {
            if routing::instance_of(routing::shard_of(head.series), self.instances) == self.instance {
                let mended = mended.get(&(head.series, head.start));
                let (head, state) = mended.map_or((head, state), |(head, state)| (head, state));
                match sums.get_mut(&(head.series, bounds::start_of(head.start, length))) {
                    Some(sum) => state::merge(spec, sum, head, state),
                    None => {
                        sums.insert((head.series, bounds::start_of(head.start, length)), (*head, state.to_vec()));
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        Ok(sums)
    }
}
