//! Writes of several kinds, committed together: all or nothing.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use super::open::{lock, newest_record};
use super::{BlockFacts, Durability, Op, Store, StoreError, bar_bytes, keys, meta, value};
use crate::model::{BarHead, Checkpoint, SeriesId, SeriesKey, SpecId, TimeNs};

/// Writes in the making. Nothing is stored before [`StoreBatch::commit`]; dropping it forgets them.
pub struct StoreBatch {
    store: Store,
    writes: Vec<Write>,
    /// Per granularity that got bars: the highest window start among them.
    newest: Vec<(SpecId, u8, TimeNs)>,
    checkpoints: Vec<Checkpoint>,
    /// Numbers of instances whose checkpoints are forgotten.
    forgotten: Vec<u16>,
    /// Where the outbox ends with this batch.
    pub(super) outbox_end: u64,
    /// How many bars of a spec it adds to the outbox, by granularity.
    pub(super) outbox_added: Option<(SpecId, Vec<u64>)>,
    /// Why it cannot be committed.
    pub(super) error: Option<StoreError>,
}

enum Write {
    /// In a space that does not age.
    Fixed(Op),
    Block {
        spec: SpecId,
        side: bool,
        facts: BlockFacts,
        key: Bytes,
        value: Bytes,
    },
    Bar {
        spec: SpecId,
        granularity: u8,
        start: TimeNs,
        key: Bytes,
        value: Bytes,
    },
}

impl StoreBatch {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            writes: Vec::new(),
            newest: Vec::new(),
            checkpoints: Vec::new(),
            forgotten: Vec::new(),
            outbox_end: 0,
            outbox_added: None,
            error: None,
        }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Names a series.
    pub fn put_series(&mut self, spec: SpecId, id: SeriesId, key: &SeriesKey) {
        let space = keys::series_space(&self.store.spec(spec).spec.name).into();
        let id = keys::series(id);
        let mut frame = value::begin(1 + key.as_bytes().len());
        frame.push(1);
        frame.extend_from_slice(key.as_bytes());
        let value = value::seal(frame, &id);
        self.writes.push(Write::Fixed(Op::Put { space, key: Bytes::copy_from_slice(&id), value }));
    }

    /// Appends a block to the journal.
    pub fn append(&mut self, spec: SpecId, facts: BlockFacts, block: Bytes) {
        let key = Bytes::copy_from_slice(&keys::block(&facts));
        self.put_block(spec, facts, key, &block, false);
    }

    /// Puts a block of late ticks aside. The same block put again changes nothing.
    pub fn put_side(&mut self, spec: SpecId, facts: BlockFacts, block: Bytes) {
        let key = Bytes::copy_from_slice(&keys::side_block(&facts, &block));
        self.put_block(spec, facts, key, &block, true);
    }

    fn put_block(&mut self, spec: SpecId, facts: BlockFacts, key: Bytes, block: &[u8], side: bool) {
        let value = value::frame(&key, block);
        self.writes.push(Write::Block { spec, side, facts, key, value });
    }

    /// Stores a bar in place of an earlier one of the same series, granularity and window. A granularity the
    /// spec does not have makes the commit fail.
    pub fn put_bar(&mut self, spec: SpecId, head: &BarHead, state: &[u64]) {
        let store = self.store.spec(spec);
        if let Err(error) = store.granularity(head.granularity) {
            self.error = Some(error);
            return;
        }
        let key = Bytes::copy_from_slice(&keys::bar(head.series, head.start));
        let value = bar_bytes::encode(&key, head, state, store.layout);
        let (granularity, start) = (head.granularity, head.start);
        match self.newest.iter_mut().find(|mark| (mark.0, mark.1) == (spec, granularity)) {
            Some(mark) => mark.2 = mark.2.max(start),
            None => self.newest.push((spec, granularity, start)),
        }
        self.writes.push(Write::Bar { spec, granularity, start, key, value });
    }

    /// Notes from where an aggregator instance can be rebuilt.
    pub fn put_checkpoint(&mut self, checkpoint: Checkpoint) {
        self.put_late(&checkpoint);
        self.put_record(meta::put_checkpoint(&checkpoint));
        self.checkpoints.push(checkpoint);
    }

    /// Forgets the checkpoints of `instances` aggregator instances: others have told of all their series.
    pub fn forget_checkpoints(&mut self, instances: u16) {
        for instance in 0..instances {
            self.put_record(meta::remove(&meta::checkpoint_record(instances, instance)));
        }
        self.forgotten.push(instances);
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn put_record(&mut self, write: Op) {
        self.writes.push(Write::Fixed(write));
    }

    /// Writes everything, and returns when it is as durable as asked. An empty batch makes what was committed
    /// before as durable.
    ///
    /// # Errors
    /// The port fails, or a bar's granularity is unknown; then nothing of the batch is stored.
    pub fn commit(self, durability: Durability) -> Result<(), StoreError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let inner = &self.store.inner;
        let (ticks, bars) = self.writes.iter().map(Write::bytes).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        inner.spending.admit(ticks, bars)?;
        let gate = inner.gate.read().unwrap_or_else(PoisonError::into_inner);
        let mut ops = Vec::with_capacity(self.writes.len() + self.newest.len());
        let (mut end, mut settled) = (0, Vec::new());
        for write in self.writes {
            if let Write::Block { side: false, facts, .. } = &write {
                end = end.max(facts.end());
            }
            let (op, left) = write.place(&self.store);
            ops.push(op);
            settled.extend(left);
        }
        for (spec, granularity, start) in &self.newest {
            ops.extend(self.store.mark_newest(*spec, *granularity, *start));
        }
        inner.kv.commit(ops, durability)?;
        inner.spending.note(ticks, bars);
        inner.journal_end.fetch_max(end, Relaxed);
        inner.outbox.advance(self.outbox_end, self.outbox_added);
        for (spec, granularity, start) in self.newest {
            self.store.spec(spec).bars[granularity as usize].newest.fetch_max(start, Relaxed);
        }
        self.checkpoints.into_iter().for_each(|checkpoint| self.store.note_checkpoint(checkpoint));
        let mut checkpoints = inner.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoints.retain(|(instances, _), _| !self.forgotten.contains(instances));
        drop(checkpoints);
        drop(gate);
        settled.iter().for_each(|space| inner.kv.settle(space));
        Ok(())
    }
}

impl Write {
    /// The bytes of ticks and of bars in it.
    fn bytes(&self) -> (u64, u64) {
        match self {
            Self::Fixed(_) => (0, 0),
            Self::Block { key, value, .. } => ((key.len() + value.len()) as u64, 0),
            Self::Bar { key, value, .. } => (0, (key.len() + value.len()) as u64),
        }
    }

    /// Finds the space of what ages; also tells the space that is left behind by a new one.
    fn place(self, store: &Store) -> (Op, Option<Arc<str>>) {
        let bytes = self.bytes();
        let (placed, key, value) = match self {
            Self::Fixed(op) => return (op, None),
            Self::Block { spec, side, facts, key, value } => {
                let limit = store.inner.spending.ticks.limit.load(Relaxed);
                let spec = store.spec(spec);
                let parts = if side { &spec.side } else { &spec.ticks };
                (lock(parts).place_block(facts.received_at, bytes.0, limit), key, value)
            }
            Self::Bar { spec, granularity, start, key, value } => {
                let limit = store.inner.spending.bars.limit.load(Relaxed);
                let bars = &store.spec(spec).bars[granularity as usize];
                let newest = bars.newest.load(Relaxed);
                (lock(&bars.parts).place_bar(start, bytes.1, limit, newest), key, value)
            }
        };
        (Op::Put { space: placed.space, key, value }, placed.settled)
    }
}

impl Store {
    /// The write that notes a window start, where it is the highest so far.
    fn mark_newest(&self, spec: SpecId, granularity: u8, start: TimeNs) -> Option<Op> {
        let spec = self.spec(spec);
        let index = granularity as usize;
        let higher = start > spec.bars[index].newest.load(Relaxed);
        let record = newest_record(&spec.spec.name, spec.spec.granularities[index].length);
        higher.then(|| meta::put(&record, &start.to_be_bytes()))
    }
}
