//! `shard_router`: hands every tick to the aggregator instance that owns its series, without copying a column.

use std::sync::Arc;

use serde::Deserialize;

use crate::model::time::SECOND;
use crate::model::{Envelope, Scale, Signal, TickSlice, TimeNs};
use crate::routing;
use crate::runtime::{Built, Context, Output, Scaling, Stage, StageError};
use crate::topology::{Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "shard_router",
    summary: "splits ticks by series over the instances of the stages below it",
    role: Role::Router,
    takes: Some(Flow::Ticks),
    gives: Some(Flow::Ticks),
    max_instances: 1,
    unique: false,
    parse: parse_config::<Config>,
};

/// The stage's `config`: nothing to set.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

impl StageConfig for Config {}

/// Makes the stage.
pub fn build(context: &Context, plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let to_stage = |to: &usize| Below {
        launched: plan.stages[*to].instances,
        told: vec![TimeNs::MIN; usize::from(plan.stages[*to].instances)],
        scaling: context.scaling_of(*to),
        change: 0,
    };
    let below: Vec<Below> = stage.to.iter().map(to_stage).collect();
    Ok(Built::Worker(Box::new(move || {
        let below = below.clone();
        Box::new(move |start| {
            let mut below = below.clone();
            for stage in &mut below {
                stage.change = stage.scaling.as_ref().map_or(0, |scaling| scaling.told());
            }
            Ok(Box::new(ShardRouter { below, position: start.handled }))
        })
    })))
}

/// How often an instance that none of the ticks are for is told how far they have got: what it need not replay is needed
/// by nobody once all say so.
const TELL_EVERY: TimeNs = SECOND;

struct ShardRouter {
    below: Vec<Below>,
    /// Every tick that arrived below this has been routed.
    position: u64,
}

/// A stage below.
#[derive(Clone)]
struct Below {
    /// Its instances, also those that are idle.
    launched: u16,
    /// When each of them was last sent something.
    told: Vec<TimeNs>,
    /// What changes the number of its active instances, if anything does.
    scaling: Option<Arc<Scaling>>,
    /// The last change passed on. After a failure that may be one too low, and the change is passed on twice.
    change: u64,
}

impl Stage for ShardRouter {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        let Envelope::Ticks(slice) = input else {
            out.emit(input);
            return Ok(());
        };
        for (stage, below) in self.below.iter_mut().enumerate() {
            let instances = below.active(stage, self.position, out);
            for (instance, rows) in routing::split(&slice.batch, instances).into_iter().enumerate() {
                let part = TickSlice { rows, ..slice.clone() };
                let told = &mut below.told[instance];
                if !part.is_empty() || now >= told.saturating_add(TELL_EVERY) {
                    *told = now;
                    out.route(stage, instance as u16, Envelope::Ticks(part));
                }
            }
        }
        self.position = self.position.max(slice.end_offset());
        Ok(())
    }

    /// A change is passed on also where no tick comes.
    fn wake(&mut self, _now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        for (stage, below) in self.below.iter_mut().enumerate() {
            below.active(stage, self.position, out);
        }
        Ok(())
    }

    fn next_wake(&self) -> Option<TimeNs> {
        let is_behind =
            |below: &Below| below.scaling.as_ref().is_some_and(|scaling| scaling.asked().number != below.change);
        self.below.iter().any(is_behind).then_some(TimeNs::MIN)
    }
}

impl Below {
    /// How many instances what is routed now is for. Where that is another number than before, all are told first that
    /// it holds for what arrived from `position` on.
    fn active(&mut self, stage: usize, position: u64, out: &mut Output) -> u16 {
        let Some(scaling) = &self.scaling else { return self.launched };
        let asked = scaling.asked();
        if asked.number != self.change {
            self.change = asked.number;
            for instance in 0..self.launched {
                out.route(stage, instance, Envelope::Signal(Signal::Scale(Scale { position, ..asked })));
            }
        }
        asked.instances
    }
}
