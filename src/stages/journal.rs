//! `journal`: appends every batch as a compressed columnar block, commits in groups, acknowledges, and passes on
//! what is durable.
//!
//! A commit happens when the oldest waiting batch has waited `commit.every`, or when `commit.bytes` have gathered.
//! Batches wait as inputs held back: if the stage is restarted the shell hands them to it again.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize;

use crate::codec::block;
use crate::model::time::{MILLISECOND, SECOND};
use crate::model::{Envelope, Rows, SpecLedger, TickBatch, TickSlice, TimeNs};
use crate::runtime::context::JOURNAL;
use crate::runtime::{Built, Context, Output, Promise, Stage, StageError, StageFactory};
use crate::spec::units::{ByteSize, DurationText};
use crate::store::{BlockFacts, Durability, Journaled, StoreBatch};
use crate::topology::{Facts, Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: JOURNAL,
    summary: "appends ticks to disk, acknowledges them and passes on what is durable",
    role: Role::Worker,
    takes: Some(Flow::Ticks),
    gives: Some(Flow::Ticks),
    max_instances: 1,
    unique: true,
    parse: parse_config::<Config>,
};

/// The most rows of one block.
const MAX_ROWS: usize = 1 << 18;

/// The stage's `config`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// When to commit.
    pub commit: Commit,
    /// What a commit, and so an acknowledgement, means.
    pub sync: Sync,
}

/// When to commit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Commit {
    /// The longest a batch waits.
    pub every: DurationText,
    /// The most bytes of compressed blocks that wait.
    pub bytes: ByteSize,
}

/// What a commit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// Synced to the device: an acknowledged tick survives loss of power.
    Always,
    /// Handed to the operating system, and synced once a second: loss of power may cost the last second.
    Interval,
    /// Handed to the operating system: an acknowledged tick survives the death of the process only.
    Never,
}

impl Default for Config {
    fn default() -> Self {
        Self { commit: Commit::default(), sync: Sync::Always }
    }
}

impl Default for Commit {
    fn default() -> Self {
        Self { every: DurationText(5 * MILLISECOND), bytes: ByteSize(4 << 20) }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        // Until the commit the batches themselves are held too: about six times their compressed size.
        Facts { memory: self.commit.bytes.0 * 7, ..Facts::default() }
    }
}

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let context = context.clone();
    Ok(Built::Worker(Box::new(move || factory(context.clone(), config.clone()))))
}

/// What an acknowledgement promises under `plan`.
pub fn promise(plan: &Plan) -> Promise {
    let journal = plan.stages.iter().find(|stage| stage.kind.name == JOURNAL);
    let config = journal.and_then(|stage| stage.config.downcast_ref::<Config>());
    match config.filter(|_| plan.data_dir.is_some()).map(|config| config.sync) {
        None => Promise::Accepted,
        Some(Sync::Always) => Promise::Synced,
        Some(Sync::Interval | Sync::Never) => Promise::Written,
    }
}

fn factory(context: Context, config: Arc<Config>) -> StageFactory {
    let committed = Arc::new(Mutex::new(Vec::new()));
    Box::new(move |start| {
        Ok(Box::new(Journal {
            next_offset: context.store.journal_end(),
            context: context.clone(),
            config: config.clone(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            due: None,
            stored: Vec::new(),
            look_at: start.now + SECOND,
            synced_at: start.now,
            committed: committed.clone(),
        }))
    })
}

struct Journal {
    context: Context,
    config: Arc<Config>,
    /// Batches of the next commit, numbered, with their blocks.
    waiting: Vec<(TickSlice, Vec<(BlockFacts, Bytes)>)>,
    waiting_bytes: u64,
    due: Option<TimeNs>,
    /// What the ledger last stored says, by spec, ticks that named none behind them.
    stored: Vec<Journaled>,
    /// When to look whether the ledger has changed without a tick: refused ones must be stored too.
    look_at: TimeNs,
    synced_at: TimeNs,
    next_offset: u64,
    /// The batches of the last commit. It outlives the stage: batches that come again after a failure between
    /// commit and sending are recognised by it and not written twice.
    committed: Arc<Mutex<Vec<TickSlice>>>,
}

impl Stage for Journal {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        let Envelope::Ticks(slice) = input else { return Ok(()) };
        if let Some(slice) = self.already_committed(&slice.batch) {
            pass_on(slice, out);
            return Ok(());
        }
        self.append(slice, now);
        if self.waiting_bytes >= self.config.commit.bytes.0 { self.commit(now, out) } else { Ok(()) }
    }

    fn wake(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.commit(now, out)
    }

    fn next_wake(&self) -> Option<TimeNs> {
        Some(self.due.unwrap_or(self.look_at))
    }

    fn held(&self) -> usize {
        self.waiting.len()
    }

    fn finish(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.commit(now, out)
    }
}

impl Journal {
    /// Numbers and compresses a batch for the next commit; does nothing when a failed commit made the shell repeat
    /// the call.
    fn append(&mut self, slice: TickSlice, now: TimeNs) {
        if self.waiting.last().is_some_and(|(last, _)| Arc::ptr_eq(&last.batch, &slice.batch)) {
            return;
        }
        let slice = TickSlice::whole(slice.batch, self.next_offset);
        let spec = self.context.specs.get(slice.batch.spec);
        let mut blocks = Vec::new();
        for_each_part(&slice, &mut |part, offset| {
            let block = Bytes::from(block::encode(part, spec, offset, now));
            self.waiting_bytes += block.len() as u64;
            blocks.push((BlockFacts::of(part, offset, now), block));
        });
        self.next_offset = slice.end_offset();
        self.due = self.due.or(Some(now + self.config.commit.every.0));
        self.waiting.push((slice, blocks));
    }

    /// Makes everything that waits durable, acknowledges it and passes it on.
    fn commit(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        let mut batch = self.context.store.batch();
        let new_series = self.context.add_new_series(&mut batch).map_err(super::store_failed)?;
        for (slice, blocks) in &self.waiting {
            for (facts, block) in blocks {
                batch.append(slice.batch.spec, *facts, block.clone());
            }
        }
        let origins = self.waiting.iter().flat_map(|(slice, _)| &slice.batch.origins);
        self.context.producers.put(origins, now, &mut batch);
        let counted = self.count(&mut batch);
        self.look_at = now + SECOND;
        if batch.is_empty() {
            return Ok(());
        }
        let durability = self.durability(now);
        batch.commit(durability).map_err(super::store_failed)?;
        self.context.mark_persisted(&new_series);
        self.stored = counted;
        for (slice, _) in &self.waiting {
            self.context.ledger.spec(slice.batch.spec).journal(slice.len() as u64);
        }
        if durability == Durability::Synced {
            self.synced_at = now;
        }
        let done: Vec<_> = self.waiting.drain(..).map(|(slice, _)| slice).collect();
        self.waiting_bytes = 0;
        self.due = None;
        for slice in &done {
            pass_on(slice.clone(), out);
        }
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = done;
        Ok(())
    }

    /// Adds what has been counted since the last commit to `batch`; gives what the stored ledger says with it.
    fn count(&self, batch: &mut StoreBatch) -> Vec<Journaled> {
        let Context { specs, ledger, .. } = &self.context;
        let mut accepted: Vec<u64> = specs.iter().map(|spec| ledger.spec(spec.id).journaled()).collect();
        for (slice, _) in &self.waiting {
            accepted[slice.batch.spec.0 as usize] += slice.len() as u64;
        }
        let known = specs.iter().map(|spec| (Some(spec.id), ledger.spec(spec.id)));
        let counts = known.chain([(None, ledger.unknown())]).zip(accepted.into_iter().chain([0]));
        let row = |(index, ((spec, counters), accepted)): (usize, ((_, &SpecLedger), _))| {
            let counted = Journaled::of(&counters.snapshot(), accepted);
            if self.stored.get(index) != Some(&counted) && counted != Journaled::default() {
                batch.put_journaled(spec, &counted);
            }
            counted
        };
        counts.enumerate().map(row).collect()
    }

    fn durability(&self, now: TimeNs) -> Durability {
        match self.config.sync {
            Sync::Always => Durability::Synced,
            Sync::Interval if now - self.synced_at >= SECOND => Durability::Synced,
            Sync::Interval | Sync::Never => Durability::Process,
        }
    }

    fn already_committed(&self, batch: &Arc<TickBatch>) -> Option<TickSlice> {
        let committed = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        committed.iter().find(|slice| Arc::ptr_eq(&slice.batch, batch)).cloned()
    }
}

/// Cuts a batch into parts of a size that replays and queries can hold; all of them are committed together.
fn for_each_part(slice: &TickSlice, visit: &mut dyn FnMut(&TickBatch, u64)) {
    if slice.batch.len() <= MAX_ROWS {
        return visit(&slice.batch, slice.offset);
    }
    let rows: Vec<u32> = (0..slice.batch.len() as u32).collect();
    let mut offset = slice.offset;
    for rows in rows.chunks(MAX_ROWS) {
        let part = TickSlice { batch: slice.batch.clone(), rows: Rows::Picked(rows.to_vec()), offset: 0 }.to_batch();
        visit(&part, offset);
        offset += part.len() as u64;
    }
}

fn pass_on(slice: TickSlice, out: &mut Output) {
    if let Some(receipt) = &slice.batch.receipt {
        receipt.acknowledge();
    }
    out.emit(Envelope::Ticks(slice));
}
