//! `storage_writer`: merges what the aggregators closed into the stored bars, numbers revisions, commits, and passes
//! the whole bars on.
//!
//! Only windows at or below the highest start ever written for their series can be stored already; everything
//! above that is written without looking.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use crate::codec::block;
use crate::model::time::MINUTE;
use crate::model::{
    BarBatch, BarFlags, BarHead, Checkpoint, Envelope, Rows, SeriesId, Signal, SpecId, TickSlice, TimeNs,
};
use crate::routing;
use crate::runtime::{Built, Context, Output, Stage, StageError, StageFactory};
use crate::spec::Spec;
use crate::spec::units::{ByteSize, DurationText};
use crate::store::{BlockFacts, Durability, Keep, StoreBatch};
use crate::topology::{Facts, Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};
use crate::window::state;

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "storage_writer",
    summary: "stores bars, merging amendments into what is stored",
    role: Role::Worker,
    takes: Some(Flow::Bars),
    gives: Some(Flow::Bars),
    max_instances: 1,
    unique: true,
    parse: parse_config::<Config>,
};

/// The stage's `config`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What is kept for those who follow the bars and fall behind.
    pub outbox: OutboxConfig,
}

/// What is kept for those who follow the bars and fall behind: every revision stored, in that order.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboxConfig {
    /// How long.
    pub keep: DurationText,
    /// How much at most.
    pub budget: ByteSize,
}

impl Default for OutboxConfig {
    fn default() -> Self {
        Self { keep: DurationText(10 * MINUTE), budget: ByteSize(256 << 20) }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        Facts { disk: self.outbox.budget.0, ..Facts::default() }
    }
}

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let keep = Keep { time: config.outbox.keep.0, bytes: config.outbox.budget.0 };
    let context = context.clone();
    Ok(Built::Worker(Box::new(move || factory(context.clone(), keep))))
}

fn factory(context: Context, keep: Keep) -> StageFactory {
    let last = Arc::new(Mutex::new(None));
    Box::new(move |_| {
        let frontiers = context.specs.iter().map(|spec| Frontier::load(&context, spec)).collect();
        Ok(Box::new(StorageWriter {
            context: context.clone(),
            keep,
            frontiers,
            side_marks: HashMap::new(),
            reported: (0, BTreeSet::new()),
            last: last.clone(),
        }))
    })
}

struct StorageWriter {
    context: Context,
    keep: Keep,
    /// By spec.
    frontiers: Vec<Frontier>,
    /// By spec, once it has kept any aside: up to where late ticks are, by shard.
    side_marks: HashMap<SpecId, Vec<u64>>,
    /// How many aggregator instances the last checkpoint was of, and those of them that have given one since.
    reported: (u16, BTreeSet<u16>),
    /// The last batch. It outlives the stage: one that comes again after a failure is not merged twice.
    last: Arc<Mutex<Option<Last>>>,
}

/// A bar: head and accumulator states.
type Bar = (BarHead, Vec<u64>);

/// A batch, and the whole bars it leads to.
enum Last {
    /// It is stored; what follows may have failed.
    Stored { input: Arc<BarBatch>, bars: Arc<BarBatch> },
    /// Its commit failed, and may have been one all the same: merged again its ticks would count twice, written again as it
    /// was it changes nothing. That holds for as long as the outbox ends where it did, as nobody else has stored bars.
    Tried { input: Arc<BarBatch>, merged: Merged, outbox_end: u64 },
}

/// Whole bars, and the stored ones they replace.
#[derive(Clone)]
struct Merged {
    bars: BarBatch,
    replaced: Vec<Bar>,
}

/// The highest window start written, per granularity and series of one spec.
struct Frontier {
    by_granularity: Vec<HighestStarts>,
}

struct HighestStarts {
    /// For series not seen since the start: the highest of the whole spec then.
    at_start: TimeNs,
    by_series: Vec<TimeNs>,
}

impl Stage for StorageWriter {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        match input {
            Envelope::Bars(bars) => {
                let bars = match self.already_stored(&bars) {
                    Some(stored) => stored,
                    None => self.store(bars, now)?,
                };
                self.context.announce(&bars);
                out.emit(Envelope::Bars(bars));
                Ok(())
            }
            Envelope::Ticks(late) => self.keep_aside(&late, now),
            Envelope::Signal(Signal::Checkpoint(checkpoint)) => self.checkpoint(checkpoint),
            Envelope::Signal(Signal::Scale(_) | Signal::End) => Ok(()),
        }
    }
}

impl StorageWriter {
    /// Merges and commits. A failed call can be repeated.
    fn store(&mut self, input: Arc<BarBatch>, now: TimeNs) -> Result<Arc<BarBatch>, StageError> {
        let spec = self.context.specs.get(input.spec).clone();
        let store = self.context.store.clone();
        let _alone = store.bars_lock();
        let Merged { mut bars, replaced } = match self.tried(&input) {
            Some(merged) => merged,
            None => self.merged(&spec, &input)?,
        };
        let mut batch = self.context.store.batch();
        let new_series = self.context.add_new_series(&mut batch).map_err(super::store_failed)?;
        for head in &bars.heads {
            batch.put_bar(bars.spec, head, bars.state(head));
        }
        let counts = self.context.ledger.spec(input.spec);
        let ticks = input.heads.iter().filter(|head| head.granularity == 0).map(|head| head.ticks).sum();
        if self.context.journaled {
            batch.put_in_bars(input.spec, counts.in_bars() + ticks);
        }
        bars.position = batch.put_outbox(&bars, &replaced, now, self.keep);
        if let Err(error) = commit(batch) {
            let (merged, outbox_end) = (Merged { bars, replaced }, store.outbox_end());
            *self.last() = Some(Last::Tried { input, merged, outbox_end });
            return Err(error);
        }
        self.context.mark_persisted(&new_series);
        let frontier = &mut self.frontiers[input.spec.0 as usize];
        for head in &bars.heads {
            frontier.raise(head);
        }
        counts.store(ticks);
        let bars = Arc::new(bars);
        *self.last() = Some(Last::Stored { input, bars: bars.clone() });
        self.context.store.trim_outbox(now, self.keep).map_err(super::store_failed)?;
        Ok(bars)
    }

    /// The whole bars that `input` leads to, each once, and the stored ones they replace.
    fn merged(&self, spec: &Spec, input: &BarBatch) -> Result<Merged, StageError> {
        let frontier = &self.frontiers[input.spec.0 as usize];
        let mut at: HashMap<(u8, SeriesId, TimeNs), usize> = HashMap::with_capacity(input.len());
        let mut bars: Vec<Bar> = Vec::with_capacity(input.len());
        let mut replaced = Vec::new();
        for head in &input.heads {
            let state = input.state(head);
            match at.entry((head.granularity, head.series, head.start)) {
                Entry::Occupied(entry) => add(spec, &mut bars[*entry.get()], head, state),
                Entry::Vacant(entry) => {
                    entry.insert(bars.len());
                    bars.push(match self.stored(frontier, input.spec, head)? {
                        Some(mut bar) => {
                            replaced.push(bar.clone());
                            bar.0.revision += 1;
                            add(spec, &mut bar, head, state);
                            bar
                        }
                        None => (*head, state.to_vec()),
                    });
                }
            }
        }
        let mut whole = BarBatch::new(input.spec);
        for (mut head, state) in bars {
            head.flags.set(BarFlags::WHOLE, false);
            whole.push(head, &state);
        }
        Ok(Merged { bars: whole, replaced })
    }

    fn stored(&self, frontier: &Frontier, spec: SpecId, head: &BarHead) -> Result<Option<Bar>, StageError> {
        if frontier.is_new(head) && !self.context.store.is_backfilled() {
            return Ok(None);
        }
        self.context.store.bar(spec, head.granularity, head.series, head.start).map_err(super::store_failed)
    }

    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came of a batch that is stored.
    fn already_stored(&self, batch: &Arc<BarBatch>) -> Option<Arc<BarBatch>> {
        match &*self.last() {
            Some(Last::Stored { input, bars }) if Arc::ptr_eq(input, batch) => Some(bars.clone()),
            _ => None,
        }
    }

    /// What a batch leads to whose commit has failed. To be asked under the lock of the bars.
    fn tried(&self, batch: &Arc<BarBatch>) -> Option<Merged> {
        match &*self.last() {
            Some(Last::Tried { input, merged, outbox_end })
                if Arc::ptr_eq(input, batch) && *outbox_end == self.context.store.outbox_end() =>
            {
                Some(merged.clone())
            }
            _ => None,
        }
    }

    /// Keeps late ticks beside the bars, where queries find them. A replay finds them late again; of each shard they come
    /// in the order of their arrival, so what is below its mark is there already.
    fn keep_aside(&mut self, late: &TickSlice, now: TimeNs) -> Result<(), StageError> {
        let spec = late.batch.spec;
        let mut marks = match self.side_marks.get(&spec) {
            Some(marks) => marks.clone(),
            None => self.context.store.side_marks(spec).map_err(super::store_failed)?,
        };
        let is_new = |row: &usize| {
            let (number, mark) =
                (late.offset + *row as u64, &mut marks[routing::shard_of(late.batch.series_at(*row)) as usize]);
            let is_new = number >= *mark;
            *mark = (*mark).max(number + 1);
            is_new
        };
        let rows: Vec<u32> = late.rows().filter(is_new).map(|row| row as u32).collect();
        let Some(first) = rows.first() else { return Ok(()) };
        let offset = late.offset + u64::from(*first);
        let picked = TickSlice { rows: Rows::Picked(rows), ..late.clone() }.to_batch();
        let facts = BlockFacts::of(&picked, offset, now);
        let mut batch = self.context.store.batch();
        let block = block::encode(&picked, self.context.specs.get(spec), offset, now);
        batch.put_side(spec, facts, block.into());
        batch.put_side_marks(spec, &marks);
        commit(batch)?;
        self.side_marks.insert(spec, marks);
        Ok(())
    }

    /// Keeps a checkpoint. Once every instance of the present number has given one and they lead no further back than
    /// those of another number, the latter say nothing any longer.
    fn checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), StageError> {
        let mut batch = self.context.store.batch();
        let instances = checkpoint.instances;
        if self.reported.0 != instances {
            self.reported = (instances, BTreeSet::new());
        }
        self.reported.1.insert(checkpoint.instance);
        if self.reported.1.len() == usize::from(instances) {
            let stored = self.context.store.checkpoints();
            batch.forget_checkpoints(&outdated(&stored, &checkpoint));
        }
        batch.put_checkpoint(checkpoint);
        commit(batch)
    }
}

/// The numbers of instances whose checkpoints lead nowhere that those of the number of `last` do not: below what they say
/// ticks are accounted for, and none of these would be looked at again without them.
fn outdated(stored: &[Checkpoint], last: &Checkpoint) -> Vec<u16> {
    let present = stored.iter().filter(|told| told.instances == last.instances && told.instance != last.instance);
    let lowest = present.map(|told| told.replay_from).fold(last.replay_from, u64::min);
    let others = stored.iter().filter(|told| told.instances != last.instances);
    let mut further: BTreeMap<u16, u64> = BTreeMap::new();
    for told in others {
        let highest = further.entry(told.instances).or_default();
        *highest = told.replay_from.max(*highest);
    }
    further.into_iter().filter(|(_, highest)| *highest <= lowest).map(|(number, _)| number).collect()
}

/// Adds what was gathered to a bar, or puts a whole bar in its place.
fn add(spec: &Spec, bar: &mut Bar, head: &BarHead, state: &[u64]) {
    if head.flags.contains(BarFlags::WHOLE) {
        *bar = (BarHead { revision: bar.0.revision, ..*head }, state.to_vec());
    } else {
        state::merge(spec, bar, head, state);
    }
}

impl Frontier {
    fn load(context: &Context, spec: &Spec) -> Self {
        let highest = |granularity: usize| HighestStarts {
            at_start: context.store.newest_start(spec.id, granularity as u8).unwrap_or(TimeNs::MIN),
            by_series: Vec::new(),
        };
        Self { by_granularity: (0..spec.granularities.len()).map(highest).collect() }
    }

    /// Whether no bar of this identity can be stored.
    fn is_new(&self, head: &BarHead) -> bool {
        let highest = &self.by_granularity[head.granularity as usize];
        let known = highest.by_series.get(head.series.0 as usize).copied().unwrap_or(highest.at_start);
        head.start > known
    }

    fn raise(&mut self, head: &BarHead) {
        let highest = &mut self.by_granularity[head.granularity as usize];
        let index = head.series.0 as usize;
        if highest.by_series.len() <= index {
            highest.by_series.resize(index + 1, highest.at_start);
        }
        highest.by_series[index] = highest.by_series[index].max(head.start);
    }
}

/// Bars are derived from the journal, so the operating system's word is enough.
fn commit(batch: StoreBatch) -> Result<(), StageError> {
    batch.commit(Durability::Process).map_err(super::store_failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_of_another_number_are_needed_while_one_leads_less_far_back_than_the_present_ones() {
        let told = Checkpoint::told;
        let stored = [told(2, 0, 50), told(2, 1, 70), told(3, 0, 10)];
        assert_eq!(outdated(&stored, &told(2, 1, 70)), [3]);
        assert_eq!(outdated(&stored, &told(3, 0, 69)), [0u16; 0]);
        assert_eq!(outdated(&stored, &told(3, 0, 70)), [2]);
        // What the last one said before does not count.
        assert_eq!(outdated(&[told(1, 0, 0), told(2, 0, 5), told(2, 1, 9)], &told(1, 0, 9)), [2]);
    }
}
