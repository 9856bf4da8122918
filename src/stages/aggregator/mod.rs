//! `aggregator`: keeps the open windows of its share of the series and gives away what closes.
//!
//! All its state can be derived again (`restore.rs`): a new instance replays the journal from its checkpoint, passing over
//! ticks that stored bars cover already.

mod restore;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use crate::model::time::SECOND;
use crate::model::{BarBatch, Checkpoint, Envelope, Reason, Rows, Signal, SpecId, TickSlice, TimeNs};
use crate::runtime::{Built, Context, Output, Stage, StageError, StageFactory};
use crate::topology::{Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};
use crate::window::Windows;

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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

impl StageConfig for Config {}

/// How often an instance says from where it would have to be replayed.
const CHECKPOINT_EVERY: TimeNs = SECOND;

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let (context, instances) = (context.clone(), stage.instances);
    Ok(Built::Worker(Box::new(move || factory(context.clone(), instances))))
}

fn factory(context: Context, instances: u16) -> StageFactory {
    let counted = Arc::new(Mutex::new(Counted::of(context.specs.len())));
    Box::new(move |start| {
        let mut aggregator = Aggregator {
            windows: context.specs.iter().map(|spec| Windows::new(spec.clone())).collect(),
            context: context.clone(),
            instance: start.instance,
            instances,
            counted: counted.clone(),
            position: start.handled,
            replayed_from: 0,
            checkpoint: None,
            checkpoint_at: None,
            carry: Vec::new(),
        };
        aggregator.forget_open();
        if context.journaled {
            aggregator.restore(&start)?;
        }
        Ok(Box::new(aggregator))
    })
}

struct Aggregator {
    context: Context,
    instance: u16,
    instances: u16,
    /// By spec.
    windows: Vec<Windows>,
    counted: Arc<Mutex<Counted>>,
    /// Every tick that arrived below this has been applied.
    position: u64,
    /// From where this instance was rebuilt.
    replayed_from: u64,
    /// The last checkpoint given.
    checkpoint: Option<Checkpoint>,
    /// When a checkpoint was last looked for.
    checkpoint_at: Option<TimeNs>,
    /// What the replay closed, to be given away at the first opportunity.
    carry: Vec<Envelope>,
}

/// What this instance has told the ledger. It outlives the stage, so that a replay counts nothing twice.
struct Counted {
    /// Ticks in open windows, by spec.
    open: Vec<i64>,
    /// Late ticks that arrived below this are counted.
    late_below: u64,
    /// Whether what an earlier process left in the journal is counted.
    recovered: bool,
}

impl Counted {
    fn of(specs: usize) -> Self {
        Self { open: vec![0; specs], late_below: 0, recovered: false }
    }
}

impl Stage for Aggregator {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.give_carried(out);
        let Envelope::Ticks(slice) = input else { return Ok(()) };
        self.apply(&slice, now, &mut |envelope| out.emit(envelope));
        self.give_checkpoint(now, out);
        Ok(())
    }

    fn wake(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.give_carried(out);
        for spec in 0..self.windows.len() {
            self.close(spec, out, |windows, bars| windows.close_due(now, bars));
        }
        self.give_checkpoint(now, out);
        Ok(())
    }

    fn next_wake(&self) -> Option<TimeNs> {
        if !self.carry.is_empty() {
            return Some(TimeNs::MIN);
        }
        self.windows.iter().filter_map(Windows::next_deadline).min()
    }

    fn finish(&mut self, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        self.give_carried(out);
        for spec in 0..self.windows.len() {
            self.close(spec, out, |windows, bars| windows.close_all(now, bars));
        }
        self.checkpoint_at = None;
        self.give_checkpoint(now, out);
        Ok(())
    }
}

impl Aggregator {
    /// Applies ticks and gives away what they close. Returns how many were covered by stored bars already.
    fn apply(&mut self, slice: &TickSlice, now: TimeNs, give: &mut dyn FnMut(Envelope)) -> u64 {
        let spec = slice.batch.spec;
        let mut bars = BarBatch::new(spec);
        let applied = self.windows[spec.0 as usize].apply(slice, now, &mut bars);
        self.position = self.position.max(slice.end_offset());
        self.count_late(slice, applied.late_dropped, applied.late_rows.len() as u64);
        if !applied.late_rows.is_empty() {
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
            self.lower_checkpoint(&mut |envelope| out.emit(envelope));
            out.emit(Envelope::Bars(Arc::new(bars)));
            self.count_open(spec_id);
        }
    }

    fn give_carried(&mut self, out: &mut Output) {
        for envelope in self.carry.drain(..) {
            out.emit(envelope);
        }
    }

    /// Says from where this instance could be rebuilt: the oldest tick of an open window, or the next one to come.
    fn give_checkpoint(&mut self, now: TimeNs, out: &mut Output) {
        if !self.context.journaled || self.checkpoint_at.is_some_and(|at| now < at + CHECKPOINT_EVERY) {
            return;
        }
        for windows in &mut self.windows {
            windows.measure_cascade();
        }
        let open = self.windows.iter().filter_map(Windows::replay_from).min();
        let checkpoint = Checkpoint {
            instance: self.instance,
            instances: self.instances,
            replay_from: open.unwrap_or(self.position),
            cascade_from: self.cascade_from(),
        };
        if self.checkpoint != Some(checkpoint) {
            out.emit(Envelope::Signal(Signal::Checkpoint(checkpoint)));
        }
        self.checkpoint = Some(checkpoint);
        self.checkpoint_at = Some(now);
    }

    /// Before finer bars are stored whose coarser window has just opened, the checkpoint must lead back to that window:
    /// if the process dies between the two, it is added up from them.
    fn lower_checkpoint(&mut self, give: &mut dyn FnMut(Envelope)) {
        let cascade_from = self.cascade_from();
        let known = self.checkpoint.map_or(TimeNs::MAX, |checkpoint| checkpoint.cascade_from);
        if !self.context.journaled || cascade_from >= known {
            return;
        }
        let first = || Checkpoint { replay_from: self.replayed_from, ..Checkpoint::retired(self.instance) };
        let last = self.checkpoint.unwrap_or_else(first);
        let checkpoint = Checkpoint { instances: self.instances, cascade_from, ..last };
        give(Envelope::Signal(Signal::Checkpoint(checkpoint)));
        self.checkpoint = Some(checkpoint);
    }

    fn cascade_from(&self) -> TimeNs {
        self.windows.iter().map(Windows::cascade_from).min().unwrap_or(TimeNs::MAX)
    }

    /// What an earlier process left to be put into bars counts as accepted by this one, once.
    fn count_recovered(&self, recovered: &[u64]) {
        if std::mem::replace(&mut self.counted().recovered, true) {
            return;
        }
        for (spec, ticks) in self.context.specs.iter().zip(recovered) {
            self.context.ledger.spec(spec.id).accept(*ticks);
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_late(&self, slice: &TickSlice, dropped: u64, kept_aside: u64) {
        let mut counted = self.counted();
        if slice.offset < counted.late_below {
            return;
        }
        counted.late_below = slice.end_offset();
        let ledger = self.context.ledger.spec(slice.batch.spec);
        if dropped > 0 {
            ledger.drop(Reason::Late, dropped);
        }
        if kept_aside > 0 {
            ledger.drop(Reason::SideOutput, kept_aside);
        }
    }

    fn count_open(&self, spec: SpecId) {
        let mut counted = self.counted();
        let open = self.windows[spec.0 as usize].open_ticks() as i64;
        let before = std::mem::replace(&mut counted.open[spec.0 as usize], open);
        self.context.ledger.spec(spec).open(open - before);
    }

    /// Takes back what a failed predecessor had in open windows: the replay will find it again, or without a journal
    /// it is lost and counted.
    fn forget_open(&self) {
        let mut counted = self.counted();
        for (spec, open) in self.context.specs.iter().zip(&mut counted.open) {
            let lost = std::mem::take(open);
            let ledger = self.context.ledger.spec(spec.id);
            ledger.open(-lost);
            if !self.context.journaled && lost > 0 {
                ledger.drop(Reason::Restart, lost as u64);
            }
        }
    }
}
