//! `reaper`: drops whole partitions that are expired or over budget, oldest first, and rewrites sealed partitions of the
//! journal by series.
//!
//! It looks at its counters once a second: a budget is enforced soon after it is spent, not at the next full round.
//! One step of rewriting is some milliseconds, so that neither that, nor its end, nor the writer has to wait.

use std::sync::Arc;

use serde::Deserialize;

use crate::model::time::{MILLISECOND, MINUTE, SECOND};
use crate::model::{Envelope, TimeNs};
use crate::runtime::{Built, Context, Output, Stage, StageError};
use crate::spec::units::{ByteSize, DurationText};
use crate::store::{Budget, Clustering, Dropped, OnFull, RunSize, cluster};
use crate::topology::{Complaint, Facts, Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};

/// How often it looks at its counters.
const LOOK: TimeNs = SECOND;
/// The pause after a row that was read or written while ticks come in, about four times what it took.
const PAUSE_PER_ROW: TimeNs = 400;
const SHORTEST_PAUSE: TimeNs = MILLISECOND;

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "reaper",
    summary: "enforces time to live and size budgets by dropping whole partitions",
    role: Role::Worker,
    takes: Some(Flow::Bars),
    gives: None,
    max_instances: 1,
    unique: true,
    parse: parse_config::<Config>,
};

/// The stage's `config`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often it looks for what has expired; a budget that is spent it notices at once.
    pub every: DurationText,
    /// The most that is kept.
    pub budget: SizeBudget,
    /// Whether the journal is rewritten by series where nothing replays it any more.
    pub cluster: bool,
}

/// The most that is kept, over all specs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SizeBudget {
    /// Raw ticks.
    pub ticks: ByteSize,
    /// Bars.
    pub bars: ByteSize,
    /// What happens when one is spent on data that has not expired.
    pub on_full: OnFull,
}

impl Default for Config {
    fn default() -> Self {
        Self { every: DurationText(10 * MINUTE), budget: SizeBudget::default(), cluster: true }
    }
}

impl Default for SizeBudget {
    fn default() -> Self {
        Self { ticks: ByteSize(50 << 30), bars: ByteSize(5 << 30), on_full: OnFull::Expire }
    }
}

impl SizeBudget {
    fn budget(&self) -> Budget {
        Budget { ticks: self.ticks.0, bars: self.bars.0, on_full: self.on_full }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        let memory = if self.cluster { cluster::MEMORY } else { 0 };
        Facts { disk: self.budget.ticks.0.saturating_add(self.budget.bars.0), memory, ..Facts::default() }
    }

    fn check(&self) -> Vec<Complaint> {
        let mut problems = Vec::new();
        if self.every.0 <= 0 {
            problems.push(("every".into(), "must be longer than zero".to_owned()));
        }
        problems
    }
}

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let context = context.clone();
    // The budget holds from the first commit on.
    context.store.set_budget(&config.budget.budget());
    Ok(Built::Worker(Box::new(move || {
        let (context, config) = (context.clone(), config.clone());
        Box::new(move |start| {
            Ok(Box::new(Reaper {
                context: context.clone(),
                config: config.clone(),
                due: start.now,
                wake: start.now,
                clustering: None,
                journal_end: 0,
                told_over: false,
            }))
        })
    })))
}

struct Reaper {
    context: Context,
    config: Arc<Config>,
    /// When it looks for what has expired, at the latest.
    due: TimeNs,
    wake: TimeNs,
    clustering: Option<Clustering>,
    /// Where the journal ended at the last wake: whether it still grows.
    journal_end: u64,
    /// It has been said that the budget is spent and nothing can be dropped.
    told_over: bool,
}

impl Stage for Reaper {
    /// Bars only tell the reaper that there is still something to reap for; their end is its end.
    fn handle(&mut self, _input: Envelope, _now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        Ok(())
    }

    fn wake(&mut self, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        if now >= self.due || self.context.store.is_over_budget() {
            self.reap(now)?;
        }
        let pause = if self.config.cluster { self.cluster(now)? } else { LOOK };
        self.wake = now + pause;
        Ok(())
    }

    fn next_wake(&self) -> Option<TimeNs> {
        Some(self.wake)
    }
}

impl Reaper {
    fn reap(&mut self, now: TimeNs) -> Result<(), StageError> {
        let reaped = self.context.store.reap(now, &self.config.budget.budget()).map_err(super::try_later)?;
        for dropped in &reaped.dropped {
            let Dropped { spec, family, reason, start, bytes, ticks, bars, pending, .. } = dropped;
            tracing::info!(spec, ?family, ?reason, start, bytes, ticks, bars, "partition dropped");
            if *pending > 0 {
                tracing::error!(spec, ticks = pending, "the budget was spent on ticks that may be in no bar yet");
            }
        }
        if reaped.over_budget > 0 && !self.told_over {
            tracing::warn!(bytes = reaped.over_budget, "over budget, and nothing is left that may be dropped");
        }
        self.told_over = reaped.over_budget > 0;
        self.due = now + self.config.every.0;
        Ok(())
    }

    /// Does a step of rewriting, and tells how long to leave the machine to others. While the journal grows that is
    /// about four times as long as the step took.
    fn cluster(&mut self, now: TimeNs) -> Result<TimeNs, StageError> {
        let store = &self.context.store;
        let step = store.cluster(&mut self.clustering, now, RunSize::default()).map_err(super::try_later)?;
        let is_growing = std::mem::replace(&mut self.journal_end, store.journal_end()) != store.journal_end();
        let pause = step.map(|step| if is_growing { (step.read + step.written) as TimeNs * PAUSE_PER_ROW } else { 0 });
        Ok(pause.map_or(LOOK, |pause| pause.clamp(SHORTEST_PAUSE, LOOK)))
    }
}
