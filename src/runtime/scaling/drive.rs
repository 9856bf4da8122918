//! Looks at the instances of the stage that scales, and changes their number as the controller says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Controller, Scaling, Seen};
use crate::runtime::context::Context;
use crate::runtime::meter::Meter;
use crate::runtime::phases::Spent;

/// The time between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Follows the load until the topology stops. Where the plan has no target it ends at once.
pub async fn drive(context: Context, meters: Vec<Arc<Meter>>, stopping: CancellationToken) {
    let Some(scaling) = context.scaling.clone() else { return };
    let Some(target) = scaling.plan.target_lag else { return };
    let meters: Vec<_> = meters.into_iter().filter(|meter| meter.stage == scaling.stage).collect();
    let mut controller = Controller::new(scaling.plan, target);
    let mut before = spent(&meters);
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let (now, after) = (context.clock.now(), spent(&meters));
        if scaling.is_held() || scaling.is_changing() {
            controller.rest(now);
        } else if let Some(instances) = controller.look(now, seen(&scaling, &meters, &before, &after)) {
            change(&scaling, instances).await;
            controller.rest(context.clock.now());
        }
        before = after;
    }
}

async fn change(scaling: &Scaling, instances: u16) {
    let (stage, from, since) = (&scaling.stage, scaling.active(), Instant::now());
    let changed = match scaling.ask(instances) {
        Ok(number) => scaling.done(number).await,
        Err(error) => Err(error),
    };
    match changed {
        Ok(()) => tracing::info!(stage, from, to = instances, took = ?since.elapsed(), "scaled to the load"),
        Err(error) => tracing::debug!(stage, "not scaled to the load: {error}"),
    }
}

fn spent(meters: &[Arc<Meter>]) -> Vec<Spent> {
    meters.iter().map(|meter| meter.spent()).collect()
}

fn seen(scaling: &Scaling, meters: &[Arc<Meter>], before: &[Spent], after: &[Spent]) -> Seen {
    let active = scaling.active();
    let mean = |of: fn(&Spent) -> Duration| {
        let shares = before.iter().zip(after).take(active.into());
        let worked: Duration = shares.map(|(before, after)| of(after).saturating_sub(of(before))).sum();
        (worked.as_secs_f64() / LOOK.as_secs_f64() / f64::from(active)).min(1.0)
    };
    let lag = meters.iter().take(active.into()).map(|meter| meter.take_longest_lag()).max().unwrap_or_default();
    Seen {
        active,
        lag: lag.as_nanos() as i64,
        busy: mean(|spent| spent.busy),
        blocked: mean(|spent| spent.backpressured),
    }
}
