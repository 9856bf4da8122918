//! What the operators' tools need to know and to hold: raw access, which ticks are lacking, and the lock on bars.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::Bytes;

use super::keys::{self, PartitionName};
use super::meta;
use super::open::{lock, newest_record};
use super::partition::State;
use super::sorted::SortedKey;
use super::types::Family;
use super::{Cutoff, Durability, Kind, Kv, Store, StoreError, TickScan};
use crate::model::{SpecId, TimeNs};

/// Where ticks of a spec are lacking that were in the journal once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holes {
    /// Below this event time some may be.
    pub below: TimeNs,
    /// The event times, from lowest to highest, of blocks that were damaged.
    pub damaged: Vec<(TimeNs, TimeNs)>,
}

impl Holes {
    /// Whether ticks of the window `[start, end)` may be lacking.
    pub fn touch(&self, start: TimeNs, end: TimeNs) -> bool {
        start < self.below || self.damaged.iter().any(|(lowest, highest)| start <= *highest && *lowest < end)
    }
}

impl Store {
    /// A number that this store alone has; chosen at `now` where it has none yet.
    ///
    /// # Errors
    /// The port fails.
    pub fn identity(&self, now: TimeNs) -> Result<u64, StoreError> {
        if let Some(identity) = meta::get_u64(&*self.inner.kv, "identity")? {
            return Ok(identity);
        }
        let seed = [now.to_be_bytes(), fastrand::u64(..).to_be_bytes()].concat();
        let identity = xxhash_rust::xxh3::xxh3_64(&seed);
        self.inner.kv.commit(vec![meta::put("identity", &identity.to_be_bytes())], Durability::Process)?;
        Ok(identity)
    }

    /// The port itself.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.inner.kv
    }

    /// Held by whoever reads stored bars, changes them and writes them back.
    pub fn bars_lock(&self) -> MutexGuard<'_, ()> {
        self.inner.bars_alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that bars are written by somebody else than the pipeline's writer, which must no longer conclude from
    /// what it wrote itself that a bar cannot be stored yet.
    pub fn note_backfill(&self) {
        self.inner.backfilled.store(true, Relaxed);
    }

    /// Whether [`Store::note_backfill`] was called. To be asked under [`Store::bars_lock`].
    pub fn is_backfilled(&self) -> bool {
        self.inner.backfilled.load(Relaxed)
    }

    /// Moves a corrupt value aside and leaves `instead` in its place, or nothing.
    pub fn put_aside(&self, kind: Kind, space: &str, key: &[u8], bytes: &[u8], instead: Option<Bytes>) {
        self.inner.quarantine.take(kind, space, key, bytes, instead);
    }

    /// Writes the store's records about itself again, as this process knows them.
    ///
    /// # Errors
    /// The port fails.
    pub fn rewrite_records(&self) -> Result<(), StoreError> {
        self.remember()?;
        let mut ops = vec![meta::put("format", &meta::FORMAT.to_be_bytes())];
        for store in &self.inner.specs {
            for (bars, granularity) in store.bars.iter().zip(&store.spec.granularities) {
                let newest = bars.newest.load(Relaxed);
                if newest > TimeNs::MIN {
                    let record = newest_record(&store.spec.name, granularity.length);
                    ops.push(meta::put(&record, &newest.to_be_bytes()));
                }
            }
            ops.push(meta::put_spec_record(&store.spec.name, &store.record));
        }
        Ok(self.inner.kv.commit(ops, Durability::Synced)?)
    }

    /// What is hidden at the moment.
    pub fn cutoffs(&self, spec: SpecId) -> Cutoff {
        let store = self.spec(spec);
        Cutoff { ticks: store.cutoff_ticks.load(Relaxed), bars: store.cutoff_bars.load(Relaxed) }
    }

    /// How many ticks the blocks a scan would visit hold, roughly those it asks for.
    ///
    /// # Errors
    /// The port fails.
    pub fn count_ticks(&self, scan: &TickScan) -> Result<u64, StoreError> {
        let store = self.spec(scan.spec);
        let from = scan.from.max(store.cutoff_ticks.load(Relaxed));
        let mut ticks = 0;
        for part in lock(if scan.side { &store.side } else { &store.ticks }).all() {
            self.inner.kv.scan_keys(&part.space, &[], None, &mut |key| {
                let (rows, lowest, highest) = told_by(key, part.state == State::Sorted).unwrap_or((0, 0, 0));
                if highest >= from && lowest < scan.to {
                    ticks += u64::from(rows);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(ticks)
    }

    /// Where ticks of `spec` are lacking. Once a partition was dropped because of its size, every window that it may
    /// have held ticks of is suspect.
    ///
    /// # Errors
    /// The port fails.
    pub fn holes(&self, spec: SpecId) -> Result<Holes, StoreError> {
        let store = self.spec(spec);
        let mut below = store.cutoff_ticks.load(Relaxed);
        // Where nobody can tell any more whether something was dropped, it may have been.
        if self.expired_totals(spec).map_or(true, |totals| totals.by_budget.ticks > 0) {
            let first = lock(&store.ticks).all().first().map(|part| part.start);
            below = below.max(first.map_or(TimeNs::MIN, |first| first.saturating_add(store.spec.window.max_ahead)));
        }
        let mut damaged = Vec::new();
        self.inner.kv.scan_keys(keys::QUARANTINE, &[], None, &mut |key| {
            damaged.extend(lost_block(key, &store.spec.name));
            ControlFlow::Continue(())
        })?;
        Ok(Holes { below, damaged })
    }
}

/// What the key of a block says: rows, lowest and highest event time.
fn told_by(key: &[u8], is_sorted: bool) -> Option<(u32, TimeNs, TimeNs)> {
    if is_sorted {
        return SortedKey::parse(key).map(|told| (told.rows, told.min_time, told.max_time));
    }
    keys::parse_block(key).map(|told| (told.rows, told.min_time, told.max_time))
}

/// The event times of a block of `spec` that was put aside, from the key it lies there under.
fn lost_block(aside: &[u8], spec: &str) -> Option<(TimeNs, TimeNs)> {
    let (kind, rest) = aside.split_first()?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let name = PartitionName::parse(std::str::from_utf8(&rest[..end]).ok()?)?;
    let is_journal = matches!(name.family, Family::Ticks | Family::Sorted);
    let is_lost = *kind == Kind::Block as u8 && is_journal && name.spec == spec;
    let told = told_by(&rest[end + 1..], name.family == Family::Sorted).filter(|_| is_lost)?;
    Some((told.1, told.2))
}
