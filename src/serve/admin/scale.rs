//! Changing how many instances of a stage are active.

use std::time::Instant;

use barline_proto::barline::{ScaleReply, ScaleRequest};
use tonic::Status;

use crate::runtime::{ScaleError, Scaling};
use crate::serve::Served;
use crate::serve::read::select;

/// Does what the request says, and answers when that is done. A number that is asked for here is kept until somebody lets
/// it follow the load again.
pub(super) async fn scale(served: &Served, request: ScaleRequest) -> Result<ScaleReply, Status> {
    let scaling = scaling(served, &request.stage)?;
    let (before, since) = (scaling.active(), Instant::now());
    if let Some(instances) = request.instances {
        let change = change(scaling, u16::try_from(instances).unwrap_or(u16::MAX));
        tokio::select! {
            changed = change => changed.map_err(|error| status(&error))?,
            () = served.stopping().cancelled() => {
                return Err(Status::unavailable("the topology is stopping"));
            }
        }
        tracing::info!(stage = scaling.stage, from = before, to = instances, took = ?since.elapsed(), "scaled by hand");
    } else {
        scaling.hold(false).map_err(|error| status(&error))?;
    }
    Ok(ScaleReply {
        before: before.into(),
        instances: scaling.active().into(),
        took_ns: since.elapsed().as_nanos() as u64,
        follows_load: scaling.plan.target_lag.is_some() && !scaling.is_held(),
    })
}

/// Waits for its turn behind a change under way, and for the end of its own.
async fn change(scaling: &Scaling, instances: u16) -> Result<(), ScaleError> {
    let number = loop {
        match scaling.ask(instances) {
            Err(ScaleError::Busy { .. }) => scaling.done(scaling.asked().number).await?,
            asked => break asked?,
        }
    };
    scaling.hold(true)?;
    scaling.done(number).await
}

/// The scaling of the stage of this name.
fn scaling<'a>(served: &'a Served, stage: &str) -> Result<&'a Scaling, Status> {
    if let Some(scaling) = served.context.scaling.as_deref().filter(|scaling| scaling.stage == stage) {
        return Ok(scaling);
    }
    select::stage(&served.plan, stage)?;
    let told = match &served.context.scaling {
        Some(scaling) => {
            format!("the instances of `{stage}` cannot change while it runs; those of `{}` can", scaling.stage)
        }
        None => format!(
            "the instances of `{stage}` cannot change while it runs; write `instances: {{min: 1, max: 8}}` for an \
             aggregator behind a journal and a shard_router, and start barline anew"
        ),
    };
    Err(Status::invalid_argument(told))
}

fn status(error: &ScaleError) -> Status {
    match error {
        ScaleError::Bounds { .. } | ScaleError::NoTarget { .. } => Status::invalid_argument(error.to_string()),
        ScaleError::Busy { .. } => Status::failed_precondition(error.to_string()),
        ScaleError::Ended { .. } => Status::unavailable(error.to_string()),
    }
}
