//! Opening the store: what is there is found, checked and counted; then it is one handle for all.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::budget::Spending;
use super::commits::Commits;
use super::doom;
use super::heal::heal;
use super::keys::{self, PartitionName};
use super::mend::mend;
use super::meta::{self, SpecRecord};
use super::outbox::Outbox;
use super::partition::{Partition, Partitions, period_of};
use super::quarantine::{Kind, Quarantine};
use super::ticks::journal_end_of_all;
use super::types::Family;
use super::{Durability, Kv, Poisoned, StoreBatch, StoreError, value};
use crate::model::{Checkpoint, SeriesId, SeriesKey, SpecId, TimeNs};
use crate::spec::{Accumulator, Spec, Specs};

/// Turns the state of a bar written in layout `from` into one of layout `to`: accumulators both have are kept,
/// others are empty.
pub type Convert = fn(from: &[Accumulator], to: &[Accumulator], state: &[u64]) -> Vec<u64>;

/// Everything that is kept. Cheap to clone; every clone is the same store.
#[derive(Clone)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub kv: Arc<dyn Kv>,
    pub convert: Convert,
    pub specs: Vec<SpecStore>,
    pub orphans: Vec<Orphan>,
    pub quarantine: Quarantine,
    pub outbox: Outbox,
    pub journal_end: AtomicU64,
    /// By the number of instances and the instance.
    pub checkpoints: Mutex<BTreeMap<(u16, u16), Checkpoint>>,
    pub poisoned: Mutex<Vec<(SpecId, Poisoned)>>,
    /// Held from reading stored bars to writing them back.
    pub bars_alone: Mutex<()>,
    /// Whether bars were written by somebody else than the pipeline's writer.
    pub backfilled: AtomicBool,
    pub spending: Spending,
    pub commits: Commits,
    /// Partitions that others have taken the place of, as long as somebody may read them.
    pub replaced: Mutex<Vec<Partition>>,
    /// Commits hold it shared from placing to writing, the reaper alone while it drops.
    pub gate: RwLock<()>,
}

/// What belongs to one configured spec.
pub(super) struct SpecStore {
    pub spec: Arc<Spec>,
    pub record: SpecRecord,
    pub layouts: Vec<Vec<Accumulator>>,
    pub layout: usize,
    /// By layout: whether bars in it lack a part of the present one.
    pub lacking: Vec<bool>,
    pub ticks: Mutex<Partitions>,
    pub side: Mutex<Partitions>,
    pub bars: Vec<BarStore>,
    pub cutoff_ticks: AtomicI64,
    pub cutoff_bars: AtomicI64,
}

/// What belongs to one granularity of a spec.
pub(super) struct BarStore {
    pub parts: Mutex<Partitions>,
    pub newest: AtomicI64,
}

/// Ageing data of a spec, or a granularity, that is no longer configured: it only ages.
pub(super) struct Orphan {
    pub parts: Mutex<Partitions>,
    pub record: SpecRecord,
}

impl Store {
    /// Opens what `kv` holds, for `specs`; bars of older layouts go through `convert` when they are read.
    ///
    /// # Errors
    /// The port fails, the data is of a newer format, or a record of the store about itself is damaged.
    pub fn open(kv: Arc<dyn Kv>, specs: &Specs, convert: Convert) -> Result<Self, StoreError> {
        heal(&kv, specs)?;
        let log_damaged = mend(&*kv)?;
        let mut ops: Vec<_> = meta::check_format(&*kv)?.into_iter().collect();
        let mut stores = Vec::with_capacity(specs.len());
        for spec in specs.iter() {
            let found = meta::spec_record(&*kv, &spec.name)?;
            let mut newest = BTreeMap::new();
            for window in found.iter().flat_map(|record| &record.windows) {
                newest.insert(window.length, meta::get_u64(&*kv, &newest_record(&spec.name, window.length))?);
            }
            let newest = |length| newest.get(&length).copied().flatten().map(|newest| newest as TimeNs);
            let (record, layout) = SpecRecord::update(found.clone(), spec, newest);
            if found.as_ref() != Some(&record) {
                ops.push(meta::put_spec_record(&spec.name, &record));
            }
            stores.push(SpecStore::open(&*kv, spec, &record, layout)?);
        }
        kv.commit(ops, Durability::Synced)?;
        doom::finish(&*kv, log_damaged)?;
        let orphans = adopt_partitions(&*kv, &stores)?;
        let quarantine = Quarantine::open(kv.clone())?;
        let inner = Inner {
            journal_end: AtomicU64::new(find_journal_end(&*kv)?),
            checkpoints: Mutex::new(load_checkpoints(&*kv, &quarantine)?),
            poisoned: Mutex::default(),
            outbox: Outbox::open(&*kv)?,
            quarantine,
            bars_alone: Mutex::default(),
            backfilled: AtomicBool::new(false),
            spending: Spending::new(),
            commits: Commits::default(),
            replaced: Mutex::default(),
            gate: RwLock::new(()),
            specs: stores,
            orphans,
            convert,
            kv,
        };
        let store = Self { inner: Arc::new(inner) };
        store.load_poisoned()?;
        let checkpoints = store.checkpoints();
        for mut checkpoint in checkpoints {
            checkpoint.late = store.load_late(&checkpoint)?;
            store.note_checkpoint(checkpoint);
        }
        Ok(store)
    }

    /// An empty batch.
    pub fn batch(&self) -> StoreBatch {
        StoreBatch::new(self.clone())
    }

    /// The first arrival number not yet given to a tick of the journal.
    pub fn journal_end(&self) -> u64 {
        self.inner.journal_end.load(Relaxed)
    }

    /// Visits the series of a spec in order of their numbers. `None` stands for one whose key was found corrupt:
    /// its number must not be given again.
    ///
    /// # Errors
    /// The port fails.
    pub fn load_series(
        &self,
        spec: SpecId,
        visit: &mut dyn FnMut(SeriesId, Option<SeriesKey>),
    ) -> Result<(), StoreError> {
        let space = keys::series_space(&self.spec(spec).spec.name);
        let mut corrupt = Vec::new();
        self.inner.kv.scan(&space, &[], None, &mut |key, frame| {
            let Some(id) = keys::parse_series(key) else { return ControlFlow::Continue(()) };
            let payload = value::open(key, &frame);
            // The first byte tells a series' key from a number whose key was lost.
            let found = payload.as_deref().and_then(|payload| SeriesKey::from_bytes(payload.strip_prefix(&[1])?));
            if found.is_none() && payload.as_deref() != Some(&[0]) {
                corrupt.push((id, frame));
            }
            visit(id, found);
            ControlFlow::Continue(())
        })?;
        for (id, frame) in corrupt {
            let key = keys::series(id);
            self.inner.quarantine.take(Kind::Series, &space, &key, &frame, Some(value::frame(&key, &[0])));
        }
        Ok(())
    }

    /// Per granularity of a spec: windows that start before this may lack ticks from before the spec had that granularity.
    pub fn complete_from(&self, spec: SpecId) -> Vec<TimeNs> {
        self.spec(spec).record.windows.iter().map(|window| window.complete_from).collect()
    }

    /// From where aggregator instances can be rebuilt, by how many they were and by instance. Where their number has
    /// changed, those of the last one stay until every new instance has given its own.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        let checkpoints = self.inner.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.values().cloned().collect()
    }

    pub(super) fn note_checkpoint(&self, checkpoint: Checkpoint) {
        let mut checkpoints = self.inner.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.insert((checkpoint.instances, checkpoint.instance), checkpoint);
    }

    pub(super) fn spec(&self, id: SpecId) -> &SpecStore {
        &self.inner.specs[id.0 as usize]
    }
}

impl SpecStore {
    fn open(kv: &dyn Kv, spec: &Arc<Spec>, record: &SpecRecord, layout: usize) -> Result<Self, StoreError> {
        let name = spec.name.as_str();
        let ticks = |family| Mutex::new(Partitions::new(family, name, 0, period_of(family, spec.retention.ticks)));
        let mut bars = Vec::with_capacity(spec.granularities.len());
        for granularity in &spec.granularities {
            let period = period_of(Family::Bars, spec.retention.bars).max(granularity.length);
            let newest = meta::get_u64(kv, &newest_record(name, granularity.length))?;
            bars.push(BarStore {
                parts: Mutex::new(Partitions::new(Family::Bars, name, granularity.length, period)),
                newest: AtomicI64::new(newest.map_or(TimeNs::MIN, |newest| newest as i64)),
            });
        }
        let cutoff = |what| Ok::<_, StoreError>(meta::get_u64(kv, &cutoff_record(name, what))?.map(|at| at as i64));
        let layouts = record.resolve(spec);
        let lacks = |layout: &Vec<Accumulator>| spec.accumulators.iter().any(|wanted| !layout.contains(wanted));
        Ok(Self {
            cutoff_ticks: AtomicI64::new(cutoff("ticks")?.unwrap_or(TimeNs::MIN)),
            cutoff_bars: AtomicI64::new(cutoff("bars")?.unwrap_or(TimeNs::MIN)),
            ticks: ticks(Family::Ticks),
            side: ticks(Family::Side),
            record: record.clone(),
            lacking: layouts.iter().map(lacks).collect(),
            layouts,
            spec: spec.clone(),
            layout,
            bars,
        })
    }

    /// The partitions of `family`; of bars those with this window length.
    fn partitions(&self, family: Family, window: i64) -> Option<&Mutex<Partitions>> {
        match family {
            Family::Ticks | Family::Sorted => Some(&self.ticks),
            Family::Side => Some(&self.side),
            Family::Bars => {
                let index = self.spec.granularities.iter().position(|g| g.length == window)?;
                self.bars.get(index).map(|bars| &bars.parts)
            }
        }
    }
}

/// Locks partitions; a panic of another holder leaves them as they were.
pub(super) fn lock(parts: &Mutex<Partitions>) -> MutexGuard<'_, Partitions> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The record of the highest window start stored.
pub(super) fn newest_record(spec: &str, window: i64) -> String {
    format!("newest/{spec}/{window:x}")
}

/// The record of a cutoff, of `ticks` or `bars`.
pub(super) fn cutoff_record(spec: &str, what: &str) -> String {
    format!("cutoff/{spec}/{what}")
}

/// Hands every partition in the store to its spec; gives back those whose spec is not configured.
fn adopt_partitions(kv: &dyn Kv, stores: &[SpecStore]) -> Result<Vec<Orphan>, StoreError> {
    let mut orphans: Vec<Orphan> = Vec::new();
    for space in ["ticks/", "sorted/", "side/", "bars/"].iter().flat_map(|prefix| kv.spaces(prefix)) {
        let Some(name) = PartitionName::parse(&space) else { continue };
        let store = stores.iter().find(|store| store.spec.name == name.spec);
        if let Some(parts) = store.and_then(|store| store.partitions(name.family, name.window)) {
            lock(parts).adopt(&name, kv.size(&space));
            continue;
        }
        let Some(record) = meta::spec_record(kv, name.spec)? else { continue };
        let mut parts = Partitions::new(name.family, name.spec, name.window, name.length);
        parts.adopt(&name, kv.size(&space));
        orphans.push(Orphan { parts: Mutex::new(parts), record });
    }
    Ok(orphans)
}

/// The end of the highest block of any journal, or what the reaper noted before it dropped that.
fn find_journal_end(kv: &dyn Kv) -> Result<u64, StoreError> {
    Ok(meta::get_u64(kv, "journal_end")?.unwrap_or(0).max(journal_end_of_all(kv)?))
}

/// Checkpoints by number of instances and instance. One that is corrupt is put aside: its series are replayed from the
/// beginning.
fn load_checkpoints(kv: &dyn Kv, quarantine: &Quarantine) -> Result<BTreeMap<(u16, u16), Checkpoint>, StoreError> {
    let (mut found, mut corrupt) = (BTreeMap::new(), Vec::new());
    meta::scan(kv, meta::CHECKPOINT, &mut |key, frame| match meta::read_checkpoint(key, &frame) {
        Some(checkpoint) => _ = found.insert((checkpoint.instances, checkpoint.instance), checkpoint),
        None => corrupt.push((key.to_vec(), frame)),
    })?;
    quarantine.take_all(Kind::Meta, keys::META, corrupt);
    Ok(found)
}
