//! What every query is answered from, and what bounds them all together.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::model::TimeNs;
use crate::model::time::SECOND;
use crate::runtime::{Context, Meter};
use crate::telemetry::Observed;
use crate::topology::Plan;

/// What queries are answered from.
pub struct Served {
    /// What the stages share: specs, catalog, store, ledger, feed, clock.
    pub context: Context,
    /// What runs.
    pub plan: Arc<Plan>,
    /// The counters of every instance, once the topology is launched.
    pub meters: Arc<OnceLock<Vec<Arc<Meter>>>>,
    /// When the process started.
    pub started: TimeNs,
    /// What is told of it.
    pub observed: Observed,
    /// Places of scans, over gRPC and HTTP together. Each holds some megabytes and a thread while its client reads.
    pub(super) scans: Arc<Semaphore>,
    /// Places of those who look at batches as they flow.
    pub(super) taps: Arc<Semaphore>,
    /// Why the ledger does not balance at rest; empty while it does.
    imbalance: Mutex<Vec<String>>,
    stop: CancellationToken,
    /// Whether another generation follows when this one has stopped.
    reloading: AtomicBool,
}

impl Served {
    /// What the process that is `observed` serves; the meters are filled in when it is launched.
    pub fn new(observed: Observed) -> Arc<Self> {
        let Observed { plan, context, meters, started, .. } = observed.clone();
        let (scans, stop) = (Arc::new(Semaphore::new(plan.security.limits.queries())), CancellationToken::new());
        let taps = Arc::new(Semaphore::new(super::tap::MOST));
        Arc::new(Self {
            context,
            plan,
            meters,
            started,
            observed,
            scans,
            taps,
            imbalance: Mutex::default(),
            stop,
            reloading: AtomicBool::new(false),
        })
    }

    /// Ends every live subscription and makes health checks say that nothing is served any more. To be called when
    /// the topology begins to stop, so that open streams hold nothing up.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Says, before the topology is stopped, that another generation follows.
    pub fn reload(&self) {
        self.reloading.store(true, Relaxed);
    }

    /// Whether another generation follows.
    pub fn is_reloading(&self) -> bool {
        self.reloading.load(Relaxed)
    }

    /// Cancelled by [`Served::stop`].
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whole seconds since the start.
    pub fn uptime_seconds(&self) -> u64 {
        let span = self.context.clock.now().saturating_sub(self.started);
        u64::try_from(span / SECOND).unwrap_or(0)
    }

    /// The counters of every instance; empty before the launch.
    pub fn meters(&self) -> &[Arc<Meter>] {
        self.meters.get().map_or(&[], Vec::as_slice)
    }

    /// Notes what is wrong with the ledger at rest; it is logged once.
    pub(super) fn note_imbalance(&self, wrong: Vec<String>) {
        let mut noted = self.imbalance.lock().unwrap_or_else(PoisonError::into_inner);
        if *noted != wrong {
            wrong.iter().for_each(|wrong| tracing::error!("{wrong}"));
            *noted = wrong;
        }
    }

    /// Why the topology is not at work, one line each; empty when every instance is running or on standby and the ledger balances.
    pub fn unready(&self) -> Vec<String> {
        if self.stop.is_cancelled() {
            let what = if self.is_reloading() { "being reloaded" } else { "stopping" };
            return vec![format!("the topology is {what}")];
        }
        if self.meters.get().is_none() {
            return vec!["the topology is not launched yet".to_owned()];
        }
        let idle = self.meters().iter().filter(|meter| !meter.state().is_up());
        let imbalance = self.imbalance.lock().unwrap_or_else(PoisonError::into_inner).clone();
        idle.map(|meter| reason(meter)).chain(imbalance).collect()
    }
}

/// What keeps an instance from being at work.
fn reason(meter: &Meter) -> String {
    let (stage, instance, state) = (&meter.stage, meter.instance, meter.state().name());
    match meter.last_error() {
        Some(error) => format!("stage {stage} instance {instance} is {state}: {error}"),
        None => format!("stage {stage} instance {instance} is {state}"),
    }
}
