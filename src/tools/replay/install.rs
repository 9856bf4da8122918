//! Derived bars become stored ones, in small batches between which the pipeline goes on.

use super::derive::Derived;
use super::flight::Flight;
use super::names::Names;
use super::report::ReplayReport;
use super::{BarId, Grounds};
use crate::codec::Interner;
use crate::model::{BarBatch, BarFlags, BarHead, DurationNs, SeriesId, SeriesKey, SpecId};
use crate::spec::{Spec, UnknownDimensions};
use crate::store::{Durability, Keep, StoreBatch};
use crate::tools::watch::{ToolError, Watch, tell};

/// Bars written at once: what the writer may have to wait for.
const BATCH: usize = 512;
/// Only the writer knows how much of the outbox is kept, and trims it.
const ALL: Keep = Keep { time: DurationNs::MAX, bytes: u64::MAX };

/// Writes bars.
pub(super) struct Installer<'a> {
    grounds: Grounds<'a>,
    source: SpecId,
    written: bool,
}

impl<'a> Installer<'a> {
    pub fn new(grounds: Grounds<'a>, source: SpecId) -> Self {
        Self { grounds, source, written: false }
    }

    /// Writes the bars `wanted` of those `derived`, but for those that ticks have been added to meanwhile.
    #[allow(clippy::too_many_arguments)]
    pub fn install(
        &mut self,
        target: SpecId,
        wanted: &[BarId],
        derived: &Derived,
        flight: &mut Flight,
        mut names: Option<&mut Names>,
        report: &mut ReplayReport,
        watch: &mut Watch<'_>,
    ) -> Result<(), ToolError> {
        let store = self.grounds.store;
        for (number, ids) in wanted.chunks(BATCH).enumerate() {
            tell(watch, "installing", (number * BATCH) as u64, wanted.len() as u64)?;
            // Most of what arrived is looked at before anybody has to wait.
            flight.catch_up(store)?;
            let _alone = store.bars_lock();
            flight.catch_up(store)?;
            let mut batch = store.batch();
            let mut installed = Vec::with_capacity(ids.len());
            let (mut bars, mut replaced) = (BarBatch::new(target), Vec::new());
            for id in ids {
                let counts = &mut report.granularities[usize::from(id.0)];
                let bar = &derived[id];
                if flight.has(*id) {
                    counts.in_flight += 1;
                    continue;
                }
                let Some(series) = self.series_of(id.1, target, names.as_deref_mut()) else {
                    report.refused += 1;
                    continue;
                };
                let stored = store.bar(target, id.0, series, id.2)?;
                if stored.as_ref().is_some_and(|(stored, _)| stored.ticks > bar.0.ticks) {
                    counts.richer += 1;
                    continue;
                }
                let before = stored.as_ref().map(|stored| stored.0);
                let head = BarHead { granularity: id.0, ..whole(&bar.0, series, before, flight.settled(id.1)) };
                batch.put_bar(target, &head, &bar.1);
                bars.push(head, &bar.1);
                replaced.extend(stored);
                installed.push(id.0);
            }
            if !bars.is_empty() {
                batch.put_outbox(&bars, &replaced, self.grounds.now, ALL);
            }
            self.write(target, batch)?;
            installed.into_iter().for_each(|granularity| report.granularities[usize::from(granularity)].installed += 1);
        }
        Ok(())
    }

    /// Makes everything written durable.
    pub fn finish(&self) -> Result<(), ToolError> {
        if self.written {
            self.grounds.store.batch().commit(Durability::Synced)?;
        }
        Ok(())
    }

    /// Commits a batch, with the names of its series that are not durable yet.
    fn write(&mut self, target: SpecId, mut batch: StoreBatch) -> Result<(), ToolError> {
        if batch.is_empty() {
            return Ok(());
        }
        let catalog = self.grounds.catalog;
        let new = catalog.unpersisted(target);
        for id in new.clone().map(SeriesId) {
            batch.put_series(target, id, &catalog.key(target, id));
        }
        self.grounds.store.note_backfill();
        batch.commit(Durability::Process)?;
        catalog.mark_persisted(target, new.end);
        self.written = true;
        Ok(())
    }

    /// The number in the target of a series of the source, a new one where the spec takes it.
    fn series_of(&self, series: SeriesId, target: SpecId, names: Option<&mut Names>) -> Option<SeriesId> {
        let Some(names) = names else { return Some(series) };
        if let Some(known) = names.to_target.get(&series) {
            return Some(*known);
        }
        let key = self.grounds.catalog.key(self.source, series);
        let spec = self.grounds.specs.get(target);
        let number = takes(spec, &key).then(|| self.grounds.catalog.intern(target, &key).ok()).flatten()?;
        names.note(series, number);
        Some(number)
    }
}

/// The head of a bar that takes the place of `stored`. It holds every settled tick of its window, and none arrived since.
fn whole(derived: &BarHead, series: SeriesId, stored: Option<BarHead>, settled: u64) -> BarHead {
    let mut head = BarHead { series, late: 0, covers: settled, revision: 0, ..*derived };
    head.flags.set(BarFlags::PARTIAL, false);
    // Of a window that was never closed nothing tells how far its series' clock has come.
    let open_ended = stored.is_none_or(|stored| stored.flags.contains(BarFlags::OPEN_ENDED));
    head.flags.set(BarFlags::OPEN_ENDED, open_ended);
    if let Some(stored) = stored {
        head.late = stored.late;
        head.covers = stored.covers.max(settled);
        head.revision = stored.revision + 1;
    }
    head
}

/// Whether a spec takes ticks of this series.
fn takes(spec: &Spec, key: &SeriesKey) -> bool {
    spec.unknown_dimensions == UnknownDimensions::Accept
        || key.dimensions().all(|(name, _)| spec.dimensions.iter().any(|known| known == name))
}
