//! Rewriting a sealed partition of the journal by series, so that one series is cheap to read.
//!
//! A partition may be rewritten once all its ticks are in stored bars or counted as dropped: from then on no replay
//! needs its order of arrival. It is read run by run, each run is sorted by series and written as small blocks into a
//! space of its own; one synced commit then puts that in the place of the first, which goes when nobody reads it any
//! more. Until that commit the new space is doomed, after it the old one is, so a crash leaves exactly one of them.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::keys::{self, PartitionName};
use super::open::{SpecStore, lock};
use super::partition::{Partition, State};
use super::run::{Run, RunSize};
use super::ticks::{Cursor, journal_end_of};
use super::types::Family;
use super::{Durability, Op, Store, StoreError, budget, doom, meta, value};
use crate::codec::block::Block;
use crate::model::{SpecId, TimeNs};
use crate::routing::ReplayBounds;

/// Roughly the most memory that rewriting takes, in bytes.
pub const MEMORY: u64 = 32 << 20;

/// Rows read or written in one step.
const STEP_ROWS: usize = 1 << 15;

/// What one step of rewriting did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// Rows read.
    pub read: u64,
    /// Rows written.
    pub written: u64,
}

/// A partition in the course of being rewritten.
pub struct Clustering {
    spec: SpecId,
    part: Partition,
    size: RunSize,
    /// Where its blocks go.
    space: Arc<str>,
    cursor: Cursor,
    /// A block that has other fields than the run before it.
    next: Option<Block>,
    run: Run,
    /// The arrival number of its first tick.
    base: Option<u64>,
    runs: u32,
    blocks: u32,
    rows: u64,
    bytes: u64,
}

impl Store {
    /// Does one step of rewriting, some milliseconds long. `work` is what is under way; an error gives it up, and it begins
    /// anew. `None` where nothing is to be done now.
    ///
    /// # Errors
    /// The port fails.
    pub fn cluster(
        &self,
        work: &mut Option<Clustering>,
        now: TimeNs,
        size: RunSize,
    ) -> Result<Option<Step>, StoreError> {
        let mut clustering = match work.take() {
            Some(clustering) => clustering,
            None => {
                // One at a time: there is room for one partition beside the budget.
                let found = if self.sweep()? { self.find_sealed(now)? } else { None };
                let Some((spec, part)) = found else { return Ok(None) };
                self.begin(spec, part, size)?
            }
        };
        let step = if clustering.run.is_closed() {
            self.write_some(&mut clustering)?
        } else {
            self.read_some(&mut clustering)?
        };
        if clustering.run.is_closed() && clustering.run.is_empty() {
            self.complete(clustering)?;
        } else {
            *work = Some(clustering);
        }
        Ok(Some(step))
    }

    /// Ticks of the journal that arrived before this are in stored bars or counted as dropped, whatever their series.
    pub fn replay_floor(&self) -> u64 {
        ReplayBounds::of(&self.checkpoints()).lowest()
    }

    /// The newest partition that can be rewritten now; from here on nothing more goes into it.
    fn find_sealed(&self, now: TimeNs) -> Result<Option<(SpecId, Partition)>, StoreError> {
        let floor = self.replay_floor();
        for store in &self.inner.specs {
            let cutoff = store.cutoff_ticks.load(Relaxed);
            let newest = |part: &Partition| part.end.saturating_add(store.spec.window.max_ahead);
            let parts = lock(&store.ticks).all();
            let sealed = |part: &&Partition| {
                let is_over = !part.is_last || part.end <= now;
                is_over && part.state != State::Sorted && newest(part) > cutoff
            };
            for part in parts.iter().rev().filter(sealed) {
                let bytes = budget::size(&*self.inner.kv, part);
                if self.has_poisoned(store.spec.id, part)? {
                    continue;
                }
                let is_in_bars = || Ok::<_, StoreError>(journal_end_of(&*self.inner.kv, &part.space)? <= floor);
                if !is_in_bars()? || !self.inner.spending.ticks.has_room(bytes) {
                    continue;
                }
                self.seal(store, part);
                // Something may have slipped in before.
                if is_in_bars()? {
                    return Ok(Some((store.spec.id, part.clone())));
                }
            }
        }
        Ok(None)
    }

    /// Whether ticks of a partition were given up: they are told from others by their arrival numbers, so it stays as it
    /// is.
    fn has_poisoned(&self, spec: SpecId, part: &Partition) -> Result<bool, StoreError> {
        let poisoned = self.poisoned();
        if poisoned.is_empty() {
            return Ok(false);
        }
        let (mut begin, end) = (0, journal_end_of(&*self.inner.kv, &part.space)?);
        self.inner.kv.scan_keys(&part.space, &[], None, &mut |key| {
            begin = keys::parse_block(key).map_or(0, |first| first.offset);
            ControlFlow::Break(())
        })?;
        Ok(poisoned.iter().any(|(of, poisoned)| *of == spec && poisoned.offset < end && begin < poisoned.end()))
    }

    /// Lets nothing more into a partition: whoever was about to write into it has done so when the gate opens.
    pub(super) fn seal(&self, store: &SpecStore, part: &Partition) {
        let _alone = self.inner.gate.write().unwrap_or_else(PoisonError::into_inner);
        lock(&store.ticks).seal(part.start);
    }

    /// Dooms what an attempt may leave behind, and what an earlier one has.
    fn begin(&self, spec: SpecId, part: Partition, size: RunSize) -> Result<Clustering, StoreError> {
        let name = PartitionName::parse(&part.space).map(|name| PartitionName { family: Family::Sorted, ..name });
        let space: Arc<str> = name.map(|name| name.space()).unwrap_or_default().into();
        self.inner.kv.commit(vec![doom::put(&space)], Durability::Synced)?;
        self.inner.kv.drop_space(&space)?;
        let cursor = Cursor::new(spec, part.space.clone(), 0);
        let (next, base) = (None, None);
        let (run, runs, blocks, rows, bytes) = (Run::default(), 0, 0, 0, 0);
        Ok(Clustering { spec, part, size, space, cursor, next, run, base, runs, blocks, rows, bytes })
    }

    /// Reads some blocks, and closes the run when it is full, the next block has other fields, or there is none: a run
    /// that stays empty is the end.
    fn read_some(&self, clustering: &mut Clustering) -> Result<Step, StoreError> {
        let Clustering { part, size, cursor, next, base, run, .. } = clustering;
        let before = run.rows();
        if let Some(block) = next.take() {
            run.push(block);
        }
        while !run.is_full(*size) && run.rows() < before + STEP_ROWS {
            let Some((facts, key)) = cursor.next(&*self.inner.kv, &|_| true)? else {
                run.close();
                break;
            };
            base.get_or_insert(facts.offset);
            let Some(block) = self.read_block(&part.space, &key, false, None)? else { continue };
            if !run.fits(&block) {
                *next = Some(block);
                run.close();
                break;
            }
            run.push(block);
        }
        let read = (run.rows() - before) as u64;
        if run.is_full(*size) {
            run.close();
        }
        Ok(Step { read, written: 0 })
    }

    /// Writes some blocks of the run; after the last the next run begins.
    fn write_some(&self, clustering: &mut Clustering) -> Result<Step, StoreError> {
        let spec = &self.spec(clustering.spec).spec;
        let (mut ops, mut written) = (Vec::new(), 0);
        while written < STEP_ROWS as u64 {
            let Clustering { run, runs, blocks, rows, base, size, .. } = clustering;
            let Some((key, block)) = run.take(spec, *size, *runs, *blocks, base.unwrap_or(0) + *rows) else {
                clustering.run = Run::default();
                clustering.runs += 1;
                break;
            };
            let key_bytes = Bytes::copy_from_slice(&key.bytes());
            let value = value::frame(&key_bytes, &block);
            clustering.blocks += 1;
            clustering.rows += u64::from(key.rows);
            clustering.bytes += (key_bytes.len() + value.len()) as u64;
            written += u64::from(key.rows);
            ops.push(Op::Put { space: clustering.space.clone(), key: key_bytes, value });
        }
        self.inner.kv.commit(ops, Durability::Process)?;
        Ok(Step { read: 0, written })
    }

    /// Puts what was written in the place of what it was made from.
    fn complete(&self, clustering: Clustering) -> Result<(), StoreError> {
        let Clustering { spec, part, space, rows, bytes, .. } = clustering;
        let parts = &self.spec(spec).ticks;
        let gate = self.inner.gate.write().unwrap_or_else(PoisonError::into_inner);
        if !lock(parts).all().iter().any(|present| present.space == part.space) {
            drop(gate);
            self.inner.kv.drop_space(&space)?;
            return Ok(self.inner.kv.commit(vec![doom::lift(&space)], Durability::Synced)?);
        }
        let end = meta::put("journal_end", &self.journal_end().to_be_bytes());
        self.inner.kv.commit(vec![doom::lift(&space), doom::put(&part.space), end], Durability::Synced)?;
        lock(parts).replace(&part, space.clone(), bytes);
        drop(gate);
        self.inner.kv.settle(&space);
        let (name, before) = (&self.spec(spec).spec.name, part.bytes);
        tracing::info!(
            spec = name,
            start = part.start,
            ticks = rows,
            before,
            after = bytes,
            "partition sorted by series"
        );
        self.inner.replaced.lock().unwrap_or_else(PoisonError::into_inner).push(part);
        self.sweep()?;
        Ok(())
    }
}
