//! `aggregator`: keeps the open windows of its share of the series and gives away what closes.
//!
//! All its state can be derived again (`restore.rs`): a new instance replays the journal from its checkpoint, passing over
//! ticks that stored bars cover already.

mod clocks;
mod restore;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use crate::model::time::SECOND;
use crate::model::{BarBatch, Checkpoint, Envelope, Reason, Rows, Signal, SpecId, TickSlice, TimeNs};
use crate::runtime::{Built, Context, Output, Stage, StageError, StageFactory};
use crate::spec::{LatePolicy, Spec};
use crate::store::StoreError;
use crate::store::ledger::late_reason;
use crate::topology::{Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};
use crate::window::Windows;
use clocks::Clocks;

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "aggregator",
    summary: "rolls ticks up into bars, one window per series at a time",
    role: Role::Worker,
    takes: Some(Flow::Ticks),
    gives: Some(Flow::Bars),
    max_instances: 64,
    // Two of them would put every tick into bars twice.
    unique: true,
    parse: parse_config::<Config>,
};

/// The stage's `config`: nothing to set, windows are the specs' business.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

impl StageConfig for Config {}

/// How often an instance says from where it would have to be replayed.
const CHECKPOINT_EVERY: TimeNs = SECOND;

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, _stage: &StagePlan) -> Result<Built, StageError> {
    let context = context.clone();
    Ok(Built::Worker(Box::new(move || factory(context.clone()))))
}

/// How many aggregators `plan` has.
pub fn instances(plan: &Plan) -> u16 {
    plan.stages.iter().filter(|stage| stage.kind.name == KIND.name).map(|stage| stage.instances).max().unwrap_or(0)
}

fn factory(context: Context) -> StageFactory {
    let counted: Arc<Mutex<Option<Counted>>> = Arc::default();
    Box::new(move |start| {
        let specs = context.specs.len();
        let mut aggregator = Aggregator {
            windows: context.specs.iter().map(|spec| windows(&context, spec)).collect(),
            clocks: Clocks::new(&context, start.instance, start.instances),
            context: context.clone(),
            instance: start.instance,
            instances: start.instances,
            counted: counted.clone(),
            position: start.handled,
            replayed_from: 0,
            checkpoint: None,
            untold: false,
            checkpoint_at: None,
            late: vec![0; specs],
            late_since: VecDeque::new(),
            carry: Vec::new(),
        };
        aggregator.begin_count();
        if context.journaled && start.is_active() {
            aggregator.restore(&start)?;
        }
        aggregator.measure(None);
        Ok(Box::new(aggregator))
    })
}

fn windows(context: &Context, spec: &Arc<Spec>) -> Windows {
    let mut windows = Windows::new(spec.clone());
    windows.set_complete_from(context.store.complete_from(spec.id));
    windows
}

struct Aggregator {
    context: Context,
    instance: u16,
    instances: u16,
    /// By spec.
    windows: Vec<Windows>,
    clocks: Clocks,
    counted: Arc<Mutex<Option<Counted>>>,
    /// Every tick that arrived below this has been applied.
    position: u64,
    /// From where this instance was rebuilt.
    replayed_from: u64,
    /// The last checkpoint given.
    checkpoint: Option<Checkpoint>,
    /// Something has changed since it was given.
    untold: bool,
    /// When a checkpoint was last looked for.
    checkpoint_at: Option<TimeNs>,
    /// By spec: late ticks put into no bar, ever.
    late: Vec<u64>,
    /// Of these, the arrival number and spec of those no checkpoint tells of yet, ascending.
    late_since: VecDeque<(u64, SpecId)>,
    /// What the replay closed, to be given away at the first opportunity.
    carry: Vec<Envelope>,
}

/// What this instance has told the ledger, by spec. It outlives the stage, so that a replay counts nothing twice.
struct Counted {
    /// Among how many instances this one had its share.
    instances: u16,
    /// Ticks in open windows.
    open: Vec<i64>,
    /// Late ticks put into no bar.
    late: Vec<u64>,
}

impl Stage for Aggregator {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        if let Envelope::Ticks(slice) = &input {
            self.meet(slice).map_err(super::try_later)?;
        }
        self.give_carried(out);
        let Envelope::Ticks(slice) = input else { return Ok(()) };
        self.apply(&slice, now, &mut |envelope| out.emit(envelope));
        self.give_checkpoint(now, out);
        self.measure(slice.batch.timestamps.last().copied());
        Ok(())
    }

    fn wake(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.give_carried(out);
        for spec in 0..self.windows.len() {
            self.close(spec, out, |windows, bars| windows.close_due(now, bars));
        }
        self.give_checkpoint(now, out);
        self.measure(None);
        Ok(())
    }

    fn next_wake(&self) -> Option<TimeNs> {
        if self.is_idle() {
            return None;
        }
        // A fresh instance tells at once what holds of its series, so that older checkpoints of them can be forgotten.
        if !self.carry.is_empty() || self.context.journaled && self.checkpoint_at.is_none() {
            return Some(TimeNs::MIN);
        }
        let checkpoint =
            self.checkpoint_at.filter(|_| self.context.journaled && self.untold).map(|at| at + CHECKPOINT_EVERY);
        self.windows.iter().filter_map(Windows::next_deadline).chain(checkpoint).min()
    }

    fn finish(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.give_carried(out);
        for spec in 0..self.windows.len() {
            // What the next generation rebuilds from the journal it rolls up by its own definition.
            let handed_over = self.context.journaled && self.context.hand_over.includes(SpecId(spec as u16));
            self.close(
                spec,
                out,
                |windows, bars| {
                    if handed_over { windows.close_coarser(bars) } else { windows.close_all(now, bars) }
                },
            );
        }
        self.checkpoint_at = None;
        self.give_checkpoint(now, out);
        Ok(())
    }
}

impl Aggregator {
    /// Finds the clocks of the series that are met for the first time. To be called before their ticks are applied.
    fn meet(&mut self, slice: &TickSlice) -> Result<(), StoreError> {
        let windows = &mut self.windows[slice.batch.spec.0 as usize];
        self.clocks.meet_all(windows, slice, &self.context)
    }

    /// Applies ticks and gives away what they close. Returns how many were covered by stored bars already.
    fn apply(&mut self, slice: &TickSlice, now: TimeNs, give: &mut dyn FnMut(Envelope)) -> u64 {
        let spec = slice.batch.spec;
        let mut bars = BarBatch::new(spec);
        let applied = self.windows[spec.0 as usize].apply(slice, now, &mut bars);
        self.position = self.position.max(slice.end_offset());
        self.untold = true;
        self.note_late(slice, &applied.late_rows);
        if !applied.late_rows.is_empty() && self.context.specs.get(spec).window.late == LatePolicy::SideOutput {
            give(Envelope::Ticks(TickSlice { rows: Rows::Picked(applied.late_rows), ..slice.clone() }));
        }
        if !bars.is_empty() {
            self.lower_checkpoint(give);
            give(Envelope::Bars(Arc::new(bars)));
        }
        self.count_open(spec);
        applied.skipped
    }

    fn close(&mut self, spec: usize, out: &mut Output, close: impl FnOnce(&mut Windows, &mut BarBatch)) {
        let spec_id = SpecId(spec as u16);
        let mut bars = BarBatch::new(spec_id);
        close(&mut self.windows[spec], &mut bars);
        if !bars.is_empty() {
            self.untold = true;
            self.lower_checkpoint(&mut |envelope| out.emit(envelope));
            out.emit(Envelope::Bars(Arc::new(bars)));
            self.count_open(spec_id);
        }
    }

    /// Shows how much is open, and how young the last tick of a batch was.
    fn measure(&self, newest: Option<TimeNs>) {
        let Some(measures) = self.context.measures.windows(self.instance) else { return };
        if self.is_idle() {
            measures.rest();
            return;
        }
        let open = self.windows.iter().map(Windows::open_windows).sum();
        measures.note(open, self.windows.iter().map(Windows::series).sum());
        newest.into_iter().for_each(|time| measures.see(time));
    }

    fn give_carried(&mut self, out: &mut Output) {
        for envelope in self.carry.drain(..) {
            out.emit(envelope);
        }
    }

    /// Says from where this instance could be rebuilt: the oldest tick of an open window, or the next one to come.
    fn give_checkpoint(&mut self, now: TimeNs, out: &mut Output) {
        if !self.context.journaled || self.is_idle() || self.checkpoint_at.is_some_and(|at| now < at + CHECKPOINT_EVERY)
        {
            return;
        }
        for windows in &mut self.windows {
            windows.measure_cascade();
        }
        let open = self.windows.iter().filter_map(Windows::replay_from).min();
        let replay_from = open.unwrap_or(self.position);
        let told = self.late_since.partition_point(|(number, _)| *number < replay_from);
        self.late_since.drain(..told);
        let cascade_from = self.cascade_from();
        self.tell(Checkpoint { replay_from, cascade_from, ..self.first_checkpoint() }, &mut |envelope| {
            out.emit(envelope)
        });
        self.checkpoint_at = Some(now);
        self.untold = false;
    }

    /// Before finer bars are stored whose coarser window has just opened, the checkpoint must lead back to that window:
    /// if the process dies between the two, it is added up from them.
    fn lower_checkpoint(&mut self, give: &mut dyn FnMut(Envelope)) {
        let cascade_from = self.cascade_from();
        let known = self.checkpoint.as_ref().map_or(TimeNs::MAX, |checkpoint| checkpoint.cascade_from);
        if !self.context.journaled || cascade_from >= known {
            return;
        }
        let last = self.checkpoint.clone().unwrap_or_else(|| self.first_checkpoint());
        self.tell(Checkpoint { cascade_from, ..last }, give);
    }

    /// Gives a checkpoint away, unless the last one said the same.
    fn tell(&mut self, checkpoint: Checkpoint, give: &mut dyn FnMut(Envelope)) {
        if self.checkpoint.as_ref() != Some(&checkpoint) {
            give(Envelope::Signal(Signal::Checkpoint(checkpoint.clone())));
        }
        self.checkpoint = Some(checkpoint);
    }

    /// What holds of a freshly restored instance.
    fn first_checkpoint(&self) -> Checkpoint {
        let mut late = self.late.clone();
        self.late_since.iter().for_each(|(_, spec)| late[spec.0 as usize] -= 1);
        let Self { instance, instances, replayed_from: replay_from, .. } = *self;
        Checkpoint { instance, instances, replay_from, cascade_from: TimeNs::MAX, late }
    }

    fn cascade_from(&self) -> TimeNs {
        self.windows.iter().map(Windows::cascade_from).min().unwrap_or(TimeNs::MAX)
    }

    /// Notes late ticks that went into no window. Of those above the last checkpoint each is remembered: a replay judges
    /// them again.
    fn note_late(&mut self, slice: &TickSlice, rows: &[u32]) {
        let spec = slice.batch.spec;
        self.late[spec.0 as usize] += rows.len() as u64;
        if self.context.journaled {
            self.late_since.extend(rows.iter().map(|row| (slice.offset + u64::from(*row), spec)));
        }
        if !rows.is_empty() {
            self.count_late(spec);
        }
    }

    /// Whether it has no share of the series for now.
    fn is_idle(&self) -> bool {
        self.instance >= self.instances
    }

    fn with_counted<T>(&self, with: impl FnOnce(&mut Counted) -> T) -> T {
        let mut counted: MutexGuard<'_, _> = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let instances = self.instances;
        // The ledger knows of the late ticks that the last process stored.
        let first = || Counted { instances, open: vec![0; self.late.len()], late: self.stored_late(instances) };
        with(counted.get_or_insert_with(first))
    }

    /// Late ticks that are told of by the stored checkpoint of this instance among so many.
    fn stored_late(&self, instances: u16) -> Vec<u64> {
        let is_mine = |stored: &Checkpoint| (stored.instance, stored.instances) == (self.instance, instances);
        let mine = self.context.store.checkpoints().into_iter().find(is_mine).map(|stored| stored.late);
        let mut late = mine.unwrap_or_default();
        late.resize(self.late.len(), 0);
        late
    }

    fn count_late(&self, spec: SpecId) {
        let late = self.late[spec.0 as usize];
        let before = self.with_counted(|counted| std::mem::replace(&mut counted.late[spec.0 as usize], late));
        let (ledger, reason) = (self.context.ledger.spec(spec), late_reason(self.context.specs.get(spec)));
        ledger.drop(reason, late.saturating_sub(before));
        ledger.undrop(reason, before.saturating_sub(late));
    }

    fn count_open(&self, spec: SpecId) {
        let open = self.windows[spec.0 as usize].open_ticks() as i64;
        let before = self.with_counted(|counted| std::mem::replace(&mut counted.open[spec.0 as usize], open));
        self.context.ledger.spec(spec).open(open - before);
    }

    /// Takes back what a predecessor had in open windows and had found late since its last checkpoint: the replay
    /// will find it again. Without a journal what was in open windows is lost and counted.
    fn begin_count(&mut self) {
        let (journaled, instances) = (self.context.journaled, self.instances);
        let (told, before) = self.with_counted(|counted| (counted.late.clone(), counted.instances));
        self.late = if journaled { self.stored_late(before) } else { told };
        for spec in self.context.specs.iter() {
            self.count_late(spec.id);
            let lost = self.with_counted(|counted| std::mem::take(&mut counted.open[spec.id.0 as usize]));
            let ledger = self.context.ledger.spec(spec.id);
            ledger.open(-lost);
            if !journaled && lost > 0 {
                ledger.drop(Reason::Restart, lost as u64);
            }
        }
        if instances != before {
            // The ledger knows of both.
            self.late = self.stored_late(instances);
            self.with_counted(|counted| (counted.instances, counted.late) = (instances, self.late.clone()));
        }
    }
}
