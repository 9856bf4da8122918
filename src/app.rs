//! A checked plan becomes a running process: specs, store, catalog, stages, servers; and then an orderly end.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::broker::{Brokers, Kafka};
use crate::model::{Ledger, TimeNs};
use crate::runtime::gate;
use crate::runtime::places::Peer;
use crate::runtime::{
    BarFeed, Built, Chaos, Clock, Context, Door, DrainReport, Guard, Measures, Meter, Placement, Producers, Recovery,
    Running, Speaks, StageError, Steady, SystemClock, Tracer, launch, load_catalog,
};
use crate::serve::{self, Served};
use crate::spec::Specs;
use crate::stages;
use crate::store::{Fjall, Kv, KvError, Memory, Store, StoreError};
use crate::telemetry::{Observed, prometheus, push};
use crate::topology::Plan;
use crate::window::state;

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

/// Why a process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// What is in it cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stage cannot be made.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A token or certificate cannot be used.
    #[error("{0}")]
    Security(String),
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
    /// Opens the store the plan names and puts the stages together. Sources bind their ports here.
    pub fn assemble(plan: Plan, specs: Specs) -> Result<Self, StartError> {
        let kv: Arc<dyn Kv> = match &plan.data_dir {
            Some(path) => Arc::new(Fjall::open(path, plan.cache_bytes)?),
            None => Arc::new(Memory::new()),
        };
        Self::over(
            Seams {
                kv,
                clock: Arc::new(Steady::new(SystemClock)),
                brokers: Arc::new(Kafka),
                chaos: None,
                sources: Vec::new(),
            },
            plan,
            specs,
        )
    }

    /// As [`App::assemble`], with the outside world given.
    pub fn over(seams: Seams, plan: Plan, specs: Specs) -> Result<Self, StartError> {
        let guard = Arc::new(Guard::load(&plan.security).map_err(StartError::Security)?);
        let Seams { kv, clock, brokers, chaos, sources } = seams;
        let specs = Arc::new(specs);
        let store = Store::open(kv, &specs, state::convert)?;
        let catalog = Arc::new(load_catalog(&store, &specs)?);
        let ledger = Arc::new(Ledger::new(specs.len()));
        let journaled = plan.stages.iter().any(|stage| stage.kind.name == stages::journal::KIND.name);
        // Without a journal nobody knows what an earlier process had accepted.
        let recovery = if journaled { Recovery::begin(&store, &specs, &ledger)? } else { Recovery::default() };
        let producers = Arc::new(Producers::load(&store, clock.now())?);
        let mut context = Context {
            catalog,
            recovered_to: store.journal_end(),
            recovery: Arc::new(recovery),
            store,
            ledger,
            clock: clock.clone(),
            feed: BarFeed::new(),
            routes: axum::Router::new(),
            journaled,
            promise: stages::journal::promise(&plan),
            producers,
            measures: Arc::new(Measures::new(stages::aggregator::instances(&plan))),
            tracer: plan.telemetry.endpoint.as_ref().map(|_| Arc::new(Tracer::new(plan.telemetry.sample))),
            guard,
            brokers,
            sinks: Arc::default(),
            chaos,
            specs,
        };
        let plan = Arc::new(plan);
        let meters = Arc::new(OnceLock::new());
        let started = clock.now();
        let observed = Observed {
            plan: plan.clone(),
            context: context.clone(),
            meters: meters.clone(),
            started,
            exports: Arc::default(),
        };
        let served = Served::new(observed.clone());
        context.routes = serve::grpc(served.clone());
        let built = stages::build_all(&context, &plan, sources)?;
        Ok(Self { plan, context, served, observed, built, meters })
    }

    /// Launches every stage. Must be called inside an actix `System`.
    pub fn launch(self, placement: Placement) -> Launched {
        let running = launch(&self.plan, self.built, &self.context, placement);
        let (served, stopping) = (self.served.clone(), running.stopping().clone());
        actix::spawn(async move {
            stopping.cancelled().await;
            served.stop();
        });
        // Nobody else sets them.
        let _ = self.meters.set(running.meters().to_vec());
        actix::spawn(serve::balance::watch(self.served.clone()));
        actix::spawn(push::run(self.observed.clone(), running.stopping().clone()));
        Launched { plan: self.plan, context: self.context, served: self.served, observed: self.observed, running }
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
}

impl Launched {
    /// Serves HTTP and Prometheus, where the plan says so, until the topology stops.
    pub async fn serve_http(&self) -> Result<(), StartError> {
        self.listen("http", self.plan.http, serve::http(self.served.clone())).await?;
        self.listen("metrics", self.plan.metrics, prometheus::router(self.observed.clone())).await
    }

    async fn listen(&self, name: &str, address: Option<SocketAddr>, router: axum::Router) -> Result<(), StartError> {
        let Some(address) = address else { return Ok(()) };
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.map_err(|error| StartError::Http { address, error })?;
        let most = self.plan.security.limits.connections.map_or(HTTP_CONNECTIONS, |most| most.get().into());
        let guard = self.context.guard.clone();
        let door = Door::new(listener, guard.places(name, most), &guard, Speaks::Http);
        let stop = self.running.stopping().clone();
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
        self.running.wait(duration(self.plan.drain)).await
    }
}

fn duration(ns: TimeNs) -> Duration {
    Duration::from_nanos(u64::try_from(ns).unwrap_or(0))
}
