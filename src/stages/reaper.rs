//! `reaper`: drops whole partitions that are expired or over budget, oldest first.

use std::sync::Arc;

use serde::Deserialize;

use crate::model::time::MINUTE;
use crate::model::{Envelope, TimeNs};
use crate::runtime::{Built, Context, Output, Stage, StageError};
use crate::spec::units::{ByteSize, DurationText};
use crate::store::Budget;
use crate::topology::{Facts, Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};

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
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How often it looks.
    pub every: DurationText,
    /// The most that is kept.
    pub budget: SizeBudget,
}

/// The most that is kept, over all specs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SizeBudget {
    /// Raw ticks.
    pub ticks: ByteSize,
    /// Bars.
    pub bars: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self { every: DurationText(10 * MINUTE), budget: SizeBudget::default() }
    }
}

impl Default for SizeBudget {
    fn default() -> Self {
        Self { ticks: ByteSize(50 << 30), bars: ByteSize(5 << 30) }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        Facts { disk: self.budget.ticks.0 + self.budget.bars.0, ..Facts::default() }
    }

    fn check(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if self.every.0 <= 0 {
            problems.push(("every", "must be longer than zero".to_owned()));
        }
        problems
    }
}

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let context = context.clone();
    Ok(Built::Worker(Box::new(move || {
        let (context, config) = (context.clone(), config.clone());
        Box::new(move |start| {
            Ok(Box::new(Reaper { context: context.clone(), config: config.clone(), next: start.now }))
        })
    })))
}

struct Reaper {
    context: Context,
    config: Arc<Config>,
    next: TimeNs,
}

impl Stage for Reaper {
    /// Bars only tell the reaper that there is still something to reap for; their end is its end.
    fn handle(&mut self, _input: Envelope, _now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        Ok(())
    }

    fn wake(&mut self, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        let budget = Budget { ticks: self.config.budget.ticks.0, bars: self.config.budget.bars.0 };
        let reaped = self.context.store.reap(now, &budget).map_err(super::try_later)?;
        for dropped in &reaped.dropped {
            tracing::info!(
                spec = dropped.spec,
                family = ?dropped.family,
                reason = ?dropped.reason,
                start = dropped.start,
                bytes = dropped.bytes,
                ticks = dropped.ticks,
                "partition dropped"
            );
        }
        if reaped.over_budget > 0 {
            tracing::warn!(bytes = reaped.over_budget, "over budget, and only partitions being written are left");
        }
        self.next = now + self.config.every.0;
        Ok(())
    }

    fn next_wake(&self) -> Option<TimeNs> {
        Some(self.next)
    }
}
