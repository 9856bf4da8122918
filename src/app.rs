//! A checked plan becomes a running process: specs, store, catalog, stages, servers; and then an orderly end.
//!
//! Where topology or specs are reloaded that is one generation of several over the same store: `opened` is the store as one
//! of them sees it, `legacy` what it leaves to the next, [`changes`] what the next may change.

pub mod changes;
mod legacy;
mod opened;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use legacy::Legacy;
pub use opened::Opened;

use crate::broker::{Brokers, Kafka};
use crate::model::TimeNs;
use crate::runtime::gate;
use crate::runtime::places::Peer;
use crate::runtime::{
    BarFeed, Built, Chaos, Clock, Context, Door, DrainReport, Guard, Measures, Meter, Placement, Running, Scaling,
    Speaks, StageError, Steady, SystemClock, Tracer, launch, scaling,
};
use crate::serve::{self, Served};
use crate::spec::Specs;
use crate::stages;
use crate::store::{Fjall, Kv, KvError, Memory, StoreError};
use crate::telemetry::push::{Exporters, FAREWELL};
use crate::telemetry::{Observed, prometheus};
use crate::topology::{Plan, Signal};

/// The most HTTP connections at once to one port.
const HTTP_CONNECTIONS: usize = 128;

/// Everything of a process, ready to be launched.
pub struct App {
    /// What runs.
    pub plan: Arc<Plan>,
    /// What its stages share.
    pub context: Context,
    /// What queries are answered from.
    pub served: Arc<Served>,
    /// What is told of it.
    pub observed: Observed,
    built: Vec<Built>,
    meters: Arc<OnceLock<Vec<Arc<Meter>>>>,
    exporters: Exporters,
}

/// What a process touches of the outside world; simulations bring their own.
pub struct Seams {
    /// Where bytes are kept.
    pub kv: Arc<dyn Kv>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The way to brokers.
    pub brokers: Arc<dyn Brokers>,
    /// Who breaks things.
    pub chaos: Option<Arc<dyn Chaos>>,
    /// Sources to be used instead of the topology's, by stage name.
    pub sources: Vec<(String, Built)>,
}

impl Seams {
    /// The real ones: the store the plan names, the machine's clock, brokers over the network.
    ///
    /// # Errors
    /// The data directory cannot be opened.
    pub fn of(plan: &Plan) -> Result<Self, KvError> {
        let kv: Arc<dyn Kv> = match &plan.data_dir {
            Some(path) => Arc::new(Fjall::open(path, plan.cache_bytes)?),
            None => Arc::new(Memory::new()),
        };
        let clock = Arc::new(Steady::new(SystemClock));
        Ok(Self { kv, clock, brokers: Arc::new(Kafka), chaos: None, sources: Vec::new() })
    }

    /// The same outside world, for another generation; sources are the topology's.
    pub fn again(&self) -> Self {
        let (kv, clock, brokers, chaos) =
            (self.kv.clone(), self.clock.clone(), self.brokers.clone(), self.chaos.clone());
        Self { kv, clock, brokers, chaos, sources: Vec::new() }
    }
}

/// Why a process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// What is in it cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Opening the store failed in a way that should not be.
    #[error("opening the store failed unexpectedly: {0}")]
    Panicked(String),
    /// A stage cannot be made.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A token or certificate cannot be used.
    #[error("{0}")]
    Security(String),
    /// Where figures, spans or lines of the log are pushed to cannot be as it is written.
    #[error("{0}")]
    Telemetry(String),
    /// A port of HTTP cannot be had.
    #[error("cannot listen on {address}: {error}")]
    Http {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

impl App {
    /// Opens the store and puts the stages together. Sources take their ports here.
    ///
    /// # Errors
    /// What is in the store cannot be used, or a stage cannot be made.
    pub fn over(seams: Seams, plan: Plan, specs: Specs) -> Result<Self, StartError> {
        let legacy = Legacy::default();
        let opened = Opened::open(seams.kv.clone(), &seams.clock, &plan, specs, &legacy)?;
        Self::after(legacy, opened, seams, plan)
    }

    /// As [`App::over`], going on after the generation that left `legacy`, with the store opened for this one.
    pub fn after(legacy: Legacy, opened: Opened, seams: Seams, plan: Plan) -> Result<Self, StartError> {
        let guard = Arc::new(Guard::load(&plan.security).map_err(StartError::Security)?);
        let Seams { clock, brokers, chaos, sources, .. } = seams;
        let exporters = Exporters::open(&plan.telemetry, brokers.as_ref()).map_err(StartError::Telemetry)?;
        let Opened { specs, store, catalog, ledger, recovery, producers, journaled } = opened;
        let mut context = Context {
            catalog: Arc::new(catalog),
            recovered_to: store.journal_end(),
            recovery: Arc::new(recovery),
            store,
            ledger: Arc::new(ledger),
            clock: clock.clone(),
            feed: BarFeed::new(),
            routes: axum::Router::new(),
            journaled,
            promise: stages::journal::promise(&plan),
            producers,
            measures: Arc::new(Measures::new(stages::aggregator::instances(&plan))),
            tracer: tracer(&plan),
            guard,
            brokers,
            sinks: Arc::default(),
            scaling: Scaling::of(&plan),
            chaos,
            specs,
            listeners: legacy.listeners,
            hand_over: Arc::default(),
        };
        let plan = Arc::new(plan);
        let meters = Arc::new(OnceLock::new());
        let started = legacy.started.unwrap_or_else(|| clock.now());
        let observed = Observed {
            plan: plan.clone(),
            context: context.clone(),
            meters: meters.clone(),
            started,
            exports: Arc::default(),
            before: legacy.figures,
        };
        let served = Served::new(observed.clone());
        context.routes = serve::grpc(served.clone());
        let built = stages::build_all(&context, &plan, sources)?;
        Ok(Self { plan, context, served, observed, built, meters, exporters })
    }

    /// Launches every stage. Must be called inside an actix `System`.
    pub fn launch(self, placement: Placement) -> Launched {
        let running = launch(&self.plan, self.built, &self.context, placement);
        let (served, stopping, retired) = (self.served.clone(), running.stopping().clone(), CancellationToken::new());
        let retire = retired.clone();
        actix::spawn(async move {
            stopping.cancelled().await;
            served.stop();
            // While the topology is reloaded somebody has to say so.
            if !served.is_reloading() {
                retire.cancel();
            }
        });
        // Nobody else sets them.
        let _ = self.meters.set(running.meters().to_vec());
        actix::spawn(serve::balance::watch(self.served.clone()));
        actix::spawn(scaling::drive(self.context.clone(), running.meters().to_vec(), running.stopping().clone()));
        let ended = CancellationToken::new();
        let pushing = actix::spawn(self.exporters.run(self.observed.clone(), ended.clone()));
        Launched {
            plan: self.plan,
            context: self.context,
            served: self.served,
            observed: self.observed,
            running,
            retired,
            ended,
            pushing,
        }
    }
}

/// A process at work.
pub struct Launched {
    /// What runs.
    pub plan: Arc<Plan>,
    /// What its stages share.
    pub context: Context,
    /// What queries are answered from.
    pub served: Arc<Served>,
    /// What is told of it.
    pub observed: Observed,
    /// The stages.
    pub running: Running,
    /// Cancelled when nobody is to serve HTTP for it any more.
    pub retired: CancellationToken,
    /// Cancelled when every stage has ended.
    ended: CancellationToken,
    /// What pushes.
    pushing: JoinHandle<()>,
}

impl Launched {
    /// Serves HTTP and Prometheus, where the plan says so, until the topology stops; where it is reloaded, until the next
    /// generation does.
    pub fn serve_http(&self) -> Result<(), StartError> {
        self.listen("http", self.plan.http, serve::http(self.served.clone()))?;
        self.listen("metrics", self.plan.metrics, prometheus::router(self.observed.clone()))
    }

    fn listen(&self, name: &str, address: Option<SocketAddr>, router: axum::Router) -> Result<(), StartError> {
        let Some(address) = address else { return Ok(()) };
        let listener = self.context.listeners.at(address).and_then(tokio::net::TcpListener::from_std);
        let listener = listener.map_err(|error| StartError::Http { address, error })?;
        let most = self.plan.security.limits.connections.map_or(HTTP_CONNECTIONS, |most| most.get().into());
        let guard = self.context.guard.clone();
        let door = Door::new(listener, guard.places(name, most), &guard, Speaks::Http);
        let stop = self.retired.clone();
        let service = gate::http(router, guard).into_make_service_with_connect_info::<Peer>();
        tokio::task::spawn_local(async move {
            let served = axum::serve(door, service).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!("http at {address}: {error}");
            }
        });
        Ok(())
    }

    /// Waits until every stage has ended, at the latest the plan's drain deadline after the stop began.
    pub async fn wait(self) -> DrainReport {
        let report = self.running.wait(duration(self.plan.drain)).await;
        self.ended.cancel();
        if !self.served.is_reloading() {
            self.retired.cancel();
            // What is told last is what the process came to.
            let left = duration(self.plan.drain).saturating_sub(report.took);
            let _ = tokio::time::timeout(left.min(FAREWELL), self.pushing).await;
        }
        report
    }
}

/// Who follows batches, where their spans are pushed.
fn tracer(plan: &Plan) -> Option<Arc<Tracer>> {
    let telemetry = &plan.telemetry;
    telemetry.collector(Signal::Traces).map(|_| Arc::new(Tracer::new(telemetry.sample)))
}

fn duration(ns: TimeNs) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}
