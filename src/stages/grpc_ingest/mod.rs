//! `grpc_ingest`: takes ticks over gRPC, as `tikr.v1` rows and as `barline.v1` columns.
//!
//! Bytes are read straight into columns by the connection's own decoder; all connections of an instance fill the
//! same batches (see `collector.rs`), so many small messages become few large batches. The services of the query
//! side are served on the same port.

mod collector;
mod columnar;
mod tikr;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use serde::Deserialize;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::model::time::MILLISECOND;
use crate::runtime::gate;
use crate::runtime::places::Places;
use crate::runtime::source::Running;
use crate::runtime::{Built, Context, Door, Source, SourceContext, Speaks, StageError};
use crate::spec::units::{Address, ByteSize, DurationText};
use crate::topology::{Complaint, Facts, Flow, Kind, Plan, StageConfig, StagePlan, parse_config};
use collector::Collector;

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "grpc_ingest",
    summary: "takes ticks over gRPC (tikr.v1 and barline.v1) and serves queries",
    role: crate::topology::Role::Source,
    takes: None,
    gives: Some(Flow::Ticks),
    max_instances: 16,
    unique: false,
    parse: parse_config::<Config>,
};

/// The stage's `config`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens; all instances share the port.
    pub listen: Address,
    /// When a batch leaves.
    pub batch: BatchConfig,
    /// The largest message taken.
    pub max_message: ByteSize,
    /// The most connections at once, over all instances; a further one takes the place of an idle one.
    pub max_connections: usize,
}

/// When a batch leaves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// As soon as it has this many ticks.
    pub rows: usize,
    /// At the latest this long after its first tick.
    pub linger: DurationText,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Address(SocketAddr::from(([127, 0, 0, 1], 9876))),
            batch: BatchConfig::default(),
            max_message: ByteSize(16 << 20),
            max_connections: 512,
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { rows: 8192, linger: DurationText(2 * MILLISECOND) }
    }
}

/// How often a silent connection is asked whether it is still there.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// HTTP/2 windows: how much a client may send ahead of what is read, per stream and per connection.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The most ticks a batch may be set to gather before it leaves.
const MAX_ROWS: usize = 1 << 18;

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        // A tick of a dozen fields takes about this much in columns.
        let row_bytes = 64;
        Facts {
            listens: vec![self.listen.0],
            batch_bytes: self.batch.rows as u64 * row_bytes,
            memory: self.max_message.0 + u64::from(CONNECTION_WINDOW),
            ..Facts::default()
        }
    }

    fn check(&self) -> Vec<Complaint> {
        let mut problems = Vec::new();
        if !(1..=MAX_ROWS).contains(&self.batch.rows) {
            problems.push(("batch.rows".into(), format!("{} is not in 1..={MAX_ROWS}", self.batch.rows)));
        }
        if self.batch.linger.0 <= 0 {
            problems.push(("batch.linger".into(), "must be longer than zero".to_owned()));
        }
        if !(1..=65_536).contains(&self.max_connections) {
            problems.push(("max_connections".into(), format!("{} is not in 1..=65536", self.max_connections)));
        }
        if !(1024..=256 << 20).contains(&self.max_message.0) {
            problems.push(("max_message".into(), format!("{} bytes is not in 1KiB..=256MiB", self.max_message.0)));
        }
        problems
    }
}

/// Makes the stage: takes the port, which all instances share.
pub fn build(context: &Context, plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let listen = config.listen.0;
    let cannot = move |error| StageError::fatal(format!("cannot listen on {listen}: {error}"));
    let listener = context.listeners.at(listen).map_err(cannot)?;
    let limits = plan.security.limits;
    let most = limits.connections.map_or(config.max_connections, |most| config.max_connections.min(most.get().into()));
    let (places, streams) = (context.guard.places(&stage.name, most), limits.streams());
    let context = context.clone();
    Ok(Built::Source(Box::new(move |_| {
        let listener = listener.try_clone().map_err(cannot)?;
        let (context, config, places) = (context.clone(), config.clone(), places.clone());
        Ok(Box::new(GrpcIngest { context, config, listener, places, streams }))
    })))
}

struct GrpcIngest {
    context: Context,
    config: Arc<Config>,
    listener: TcpListener,
    places: Arc<Places>,
    /// The most calls at once on one connection.
    streams: u32,
}

impl Source for GrpcIngest {
    fn run(self: Box<Self>, source: SourceContext) -> Running {
        Box::pin(async move {
            let collector = Arc::new(Collector::new(self.context.clone(), &self.config, source.clone()));
            let max_message = self.config.max_message.0 as usize;
            let routes = self.context.routes.clone();
            let routes = tikr::add_route(routes, collector.clone(), max_message);
            let routes = columnar::add_route(routes, collector.clone(), max_message);
            let routes = gate::grpc(routes, self.context.guard.clone());
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(StageError::fatal)?;
            let server = Server::builder()
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_frame_size(1 << 20)
                .max_concurrent_streams(Some(self.streams))
                // A peer that is gone is noticed although it said nothing.
                .http2_keepalive_interval(Some(KEEPALIVE))
                .add_routes(Routes::from(routes))
                .serve_with_incoming_shutdown(
                    Door::new(listener, self.places, &self.context.guard, Speaks::Grpc).visitors(),
                    source.stop.clone().cancelled_owned(),
                );
            tokio::select! {
                biased;
                served = server => served.map_err(StageError::fatal)?,
                () = collector.linger() => {}
                () = grace(&source) => tracing::warn!(stage = source.meter.stage, "connections still open, leaving them"),
            }
            collector.close().await;
            Ok(())
        })
    }
}

/// How long open connections may take to notice that the source stops.
async fn grace(source: &SourceContext) {
    source.stop.cancelled().await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
}
