//! `shard_router`: hands every tick to the aggregator instance that owns its series, without copying a column.

use serde::Deserialize;

use crate::model::time::SECOND;
use crate::model::{Envelope, TickSlice, TimeNs};
use crate::routing;
use crate::runtime::{Built, Context, Output, Stage, StageError};
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
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {}

impl StageConfig for Config {}

/// Makes the stage.
pub fn build(_context: &Context, plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let instances: Vec<u16> = stage.to.iter().map(|to| plan.stages[*to].instances).collect();
    Ok(Built::Worker(Box::new(move || {
        let instances = instances.clone();
        let never = instances.iter().map(|instances| vec![TimeNs::MIN; usize::from(*instances)]).collect::<Vec<_>>();
        Box::new(move |_| Ok(Box::new(ShardRouter { instances: instances.clone(), told: never.clone() })))
    })))
}

/// How often an instance that none of the ticks are for is told how far they have got: what it need not replay is needed
/// by nobody once all say so.
const TELL_EVERY: TimeNs = SECOND;

struct ShardRouter {
    /// Of every stage below.
    instances: Vec<u16>,
    /// When each of these instances was last sent something.
    told: Vec<Vec<TimeNs>>,
}

impl Stage for ShardRouter {
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError> {
        let Envelope::Ticks(slice) = input else {
            out.emit(input);
            return Ok(());
        };
        for (stage, instances) in self.instances.iter().enumerate() {
            for (instance, rows) in routing::split(&slice.batch, *instances).into_iter().enumerate() {
                let part = TickSlice { rows, ..slice.clone() };
                let told = &mut self.told[stage][instance];
                if !part.is_empty() || now >= told.saturating_add(TELL_EVERY) {
                    *told = now;
                    out.route(stage, instance as u16, Envelope::Ticks(part));
                }
            }
        }
        Ok(())
    }
}
