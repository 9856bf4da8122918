//! L4: one file per stage kind, in the order in which a tick meets them; this table lists them.
//!
//! Adding a kind is one new file and its row in [`ROWS`].

pub mod aggregator;
pub mod grpc_ingest;
pub mod host_metrics;
pub mod journal;
pub mod kafka_sink;
pub mod kafka_source;
pub mod reaper;
pub mod shard_router;
pub mod storage_writer;

use std::any::Any;
use std::sync::Arc;

use crate::runtime::{Built, Context, StageError};
use crate::store::StoreError;
use crate::topology::{Kind, Plan, StagePlan};

/// A stage kind: what the topology has to know of it, and how an instance is made.
pub struct Row {
    /// For the checks of the topology.
    pub kind: Kind,
    /// Makes the stage `stage` of `plan`.
    pub build: fn(&Context, &Plan, &StagePlan) -> Result<Built, StageError>,
}

/// Every stage kind, in flow order.
pub static ROWS: [Row; 9] = [
    Row { kind: grpc_ingest::KIND, build: grpc_ingest::build },
    Row { kind: kafka_source::KIND, build: kafka_source::build },
    Row { kind: host_metrics::KIND, build: host_metrics::build },
    Row { kind: journal::KIND, build: journal::build },
    Row { kind: shard_router::KIND, build: shard_router::build },
    Row { kind: aggregator::KIND, build: aggregator::build },
    Row { kind: storage_writer::KIND, build: storage_writer::build },
    Row { kind: kafka_sink::KIND, build: kafka_sink::build },
    Row { kind: reaper::KIND, build: reaper::build },
];

/// Builds every stage of `plan`, in its order; `given` ones are taken as they are.
pub fn build_all(context: &Context, plan: &Plan, mut given: Vec<(String, Built)>) -> Result<Vec<Built>, StageError> {
    let build = |stage: &StagePlan| {
        if let Some(at) = given.iter().position(|(name, _)| *name == stage.name) {
            return Ok(given.swap_remove(at).1);
        }
        let row = ROWS.iter().find(|row| row.kind.name == stage.kind.name);
        let row = row.ok_or_else(|| StageError::fatal(format!("no stage kind {:?}", stage.kind.name)))?;
        (row.build)(context, plan, stage)
    };
    plan.stages.iter().map(build).collect()
}

/// The config of a stage, as its kind parsed it.
fn config_of<C: Send + Sync + 'static>(stage: &StagePlan) -> Result<Arc<C>, StageError> {
    let config: Arc<dyn Any + Send + Sync> = stage.config.clone();
    config
        .downcast()
        .map_err(|_| StageError::fatal(format!("stage {:?} was given the config of another kind", stage.name)))
}

/// What may work later is tried again, unless the data itself cannot be read.
fn try_later(error: StoreError) -> StageError {
    if error.is_lasting() { StageError::fatal(error) } else { StageError::transient(error) }
}

/// A full device may have room again later; what will not heal by itself ends the process.
fn store_failed(error: StoreError) -> StageError {
    match error {
        StoreError::SpoolSpent { .. } => StageError::no_room(error),
        error if error.may_pass() => StageError::transient(error),
        error => StageError::fatal(error),
    }
}
