//! A served store: two specs, a handful of ticks whose bars are known, real sockets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use barline::catalog::Catalog;
use barline::codec::admit::Interner;
use barline::codec::block;
use barline::model::time::SECOND;
use barline::model::{BarBatch, Ledger, SeriesKey, TickBatch, TickSlice, TimeNs, Value};
use barline::runtime::{BarFeed, Clock, Context, InstanceState, Meter, Promise};
use barline::serve::{self, Served};
use barline::spec::{Spec, load_texts};
use barline::store::{BlockFacts, Durability, Keep, Memory, Store};
use barline::telemetry::Observed;
use barline::topology::{
    Budget, Facts, Flow, Kind, MailboxPlan, Plan, Role, StageConfig, StagePlan, WhenFull, parse_config,
};
use barline::window::{Windows, state};
use barline_proto::barline::barline_client::BarlineClient;
use barline_proto::tikr::tikr_client::TikrClient;
use bytes::Bytes;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;

/// The start of a minute; it is also the server's time, less an hour.
pub const START: TimeNs = 1_699_999_980 * SECOND;

const MARKET: &str = "
series: market
timestamp: {field: ts}
dimensions: [{name: symbol}, {name: venue}]
metrics:
  - {name: open, field: price, type: int64, aggregation: first}
  - {name: close, field: price, type: int64, aggregation: last}
  - {name: volume, field: quantity, type: uint64, aggregation: sum}
  - {name: ticks, type: uint64, aggregation: count}
granularity: {rollup: 1s, cascade: [1m]}
";

const SENSOR: &str = "
series: sensor
timestamp: {field: ts}
dimensions: [{name: device}]
metrics:
  - {name: mean, field: level, type: float64, aggregation: avg}
  - {name: peak, field: level, type: float64, aggregation: max}
granularity: {rollup: 1s}
window: {late: side_output}
cardinality: {limit: 2}
";

/// What is served, and where.
pub struct Fixture {
    pub served: Arc<Served>,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    /// What is kept for subscribers that fall behind.
    pub keep: Keep,
}

/// One tick: series, time, sequence, and the spec's fields in their order.
pub struct Tick<'a> {
    pub series: &'a [(&'a str, &'a str)],
    pub time: TimeNs,
    pub sequence: u32,
    pub fields: Vec<Option<Value>>,
}

struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> TimeNs {
        START + 3600 * SECOND
    }
}

/// A tick of `market` without a sequence.
pub fn trade<'a>(series: &'a [(&'a str, &'a str)], time: TimeNs, price: i64, quantity: u64) -> Tick<'a> {
    Tick { series, time, sequence: 0, fields: vec![Some(Value::Int(price)), Some(Value::Uint(quantity))] }
}

/// A dimension set.
pub fn dimensions(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Fixture {
    /// Serves a store with three seconds of two symbols, one series without dimensions, and one sensor.
    pub async fn start() -> Self {
        let fixture = Self::empty().await;
        let (a, b) = ([("symbol", "A"), ("venue", "X")], [("symbol", "B"), ("venue", "Y")]);
        fixture.put(
            "market",
            &[
                trade(&a, START + 2, 12, 1),
                trade(&a, START + 1, 11, 2),
                Tick { sequence: 7, ..trade(&a, START + 2, 14, 3) },
                Tick { sequence: 3, ..trade(&a, START + 2, 13, 4) },
                trade(&b, START + 5, 50, 1),
                trade(&a, START + SECOND, 20, 5),
                trade(&[], START + SECOND + 9, 70, 1),
                trade(&a, START + 2 * SECOND, 30, u64::MAX),
            ],
            false,
        );
        let level = |time, level| Tick {
            series: &[("device", "*")],
            time,
            sequence: 0,
            fields: vec![Some(Value::Float(level))],
        };
        fixture.put("sensor", &[level(START, 1.0), level(START + 1, 2.0), level(START + 2, 4.5)], false);
        fixture.put("sensor", &[level(START + 3, 9.0)], true);
        fixture
    }

    /// Serves a store without ticks.
    pub async fn empty() -> Self {
        let specs = load_texts([MARKET, SENSOR].map(|text| (String::from("test.yaml"), String::from(text)))).unwrap();
        let store = Store::open(Arc::new(Memory::new()), &specs, state::convert).unwrap();
        let context = Context {
            guard: Arc::default(),
            catalog: Arc::new(Catalog::new(&specs)),
            ledger: Arc::new(Ledger::new(specs.len())),
            clock: Arc::new(FixedClock),
            feed: BarFeed::new(),
            routes: axum::Router::new(),
            journaled: true,
            promise: Promise::Synced,
            producers: Arc::default(),
            recovered_to: 0,
            recovery: Arc::default(),
            measures: Arc::default(),
            tracer: None,
            brokers: Arc::new(barline::broker::MemoryBroker::default()),
            sinks: Arc::default(),
            scaling: None,
            chaos: None,
            specs: Arc::new(specs),
            store,
            listeners: Arc::default(),
            hand_over: Arc::default(),
        };
        let meters = Arc::new(OnceLock::new());
        meters.set(vec![Meter::new("ingest", 0), Meter::new("write", 0)]).unwrap();
        let (plan, exports) = (Arc::new(plan()), Arc::default());
        let observed = Observed { plan, context, meters, started: START, exports, before: None };
        let served = Served::new(observed);
        served.meters().iter().for_each(|meter| meter.set_state(InstanceState::Running));
        let (grpc, http) = (bind().await, bind().await);
        let keep = Keep { time: TimeNs::MAX, bytes: u64::MAX };
        let fixture =
            Self { grpc: grpc.local_addr().unwrap(), http: http.local_addr().unwrap(), served: served.clone(), keep };
        let routes = tonic::service::Routes::from(serve::grpc(served.clone()));
        let server = tonic::transport::Server::builder().add_routes(routes);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(grpc)));
        tokio::spawn(axum::serve(http, serve::http(served)).into_future());
        fixture
    }

    /// Stores ticks and their bars; `late` puts the ticks aside instead and makes no bars.
    pub fn put(&self, spec: &str, ticks: &[Tick<'_>], late: bool) {
        let context = &self.served.context;
        let spec = context.specs.by_name(spec).unwrap();
        let batch = Arc::new(self.batch(spec, ticks));
        let facts = BlockFacts {
            offset: context.store.journal_end(),
            rows: batch.len() as u32,
            min_time: *batch.timestamps.iter().min().unwrap(),
            max_time: *batch.timestamps.iter().max().unwrap(),
            received_at: START,
        };
        let bytes = Bytes::from(block::encode(&batch, spec, facts.offset, START));
        let mut commit = context.store.batch();
        context.add_new_series(&mut commit).unwrap();
        if late {
            commit.put_side(spec.id, facts, bytes);
        } else {
            commit.append(spec.id, facts, bytes);
            let mut bars = BarBatch::new(spec.id);
            let mut windows = Windows::new(spec.clone());
            windows.apply(&TickSlice::whole(batch, facts.offset), START, &mut bars);
            windows.close_all(context.clock.now(), &mut bars);
            bars.heads.iter().for_each(|head| commit.put_bar(spec.id, head, bars.state(head)));
            bars.position = commit.put_outbox(&bars, &[], context.clock.now(), self.keep);
            commit.commit(Durability::Synced).unwrap();
            context.store.trim_outbox(context.clock.now(), self.keep).unwrap();
            context.feed.publish(&Arc::new(bars));
            return;
        }
        commit.commit(Durability::Synced).unwrap();
    }

    fn batch(&self, spec: &Spec, ticks: &[Tick<'_>]) -> TickBatch {
        let mut batch = TickBatch::new(spec.id, spec.fields.len());
        for (row, tick) in ticks.iter().enumerate() {
            let key = SeriesKey::new(tick.series.iter().copied()).unwrap();
            batch.series.push(self.served.context.catalog.intern(spec.id, &key).unwrap().0);
            batch.timestamps.push(tick.time);
            batch.sequences.push(tick.sequence);
            for (column, value) in batch.fields.iter_mut().zip(&tick.fields) {
                column.bits.push(value.map_or(0, bits));
                if value.is_none() {
                    column.set_absent(row);
                }
            }
        }
        batch
    }

    pub async fn tikr(&self) -> TikrClient<Channel> {
        TikrClient::connect(format!("http://{}", self.grpc)).await.unwrap()
    }

    pub async fn barline(&self) -> BarlineClient<Channel> {
        BarlineClient::connect(format!("http://{}", self.grpc)).await.unwrap()
    }

    /// Status and JSON body of a GET.
    pub async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let (status, body) = self.raw(format!("GET {path} HTTP/1.0\r\n\r\n").into_bytes()).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    /// Status and body of the reply to these bytes; 0 where there is no reply.
    pub async fn raw(&self, request: Vec<u8>) -> (u16, String) {
        let address = self.http;
        let reply = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            // Some requests are the beginning of something that never comes: then there is no reply either.
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut reply = Vec::new();
            // Whoever is refused early may find the connection closed under what it still sends.
            let _ = stream.write_all(&request).and_then(|()| stream.read_to_end(&mut reply));
            String::from_utf8_lossy(&reply).into_owned()
        });
        let reply = reply.await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_default();
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
    }
}

/// All messages of a streamed reply.
pub async fn all<T>(
    reply: Result<tonic::Response<tonic::Streaming<T>>, tonic::Status>,
) -> Result<Vec<T>, tonic::Status> {
    let (mut stream, mut messages) = (reply?.into_inner(), Vec::new());
    while let Some(message) = stream.message().await? {
        messages.push(message);
    }
    Ok(messages)
}

async fn bind() -> tokio::net::TcpListener {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap()
}

fn bits(value: Value) -> u64 {
    match value {
        Value::Int(v) => v as u64,
        Value::Uint(v) => v,
        Value::Float(v) => v.to_bits(),
    }
}

#[derive(PartialEq, serde::Deserialize)]
struct Nothing {}

impl StageConfig for Nothing {}

const fn kind(name: &'static str, role: Role, takes: Option<Flow>, gives: Option<Flow>) -> Kind {
    Kind { name, summary: "", role, takes, gives, max_instances: 1, unique: false, parse: parse_config::<Nothing> }
}

static INGEST: Kind = kind("grpc_ingest", Role::Source, None, Some(Flow::Ticks));
static WRITE: Kind = kind("storage_writer", Role::Worker, Some(Flow::Ticks), None);

fn plan() -> Plan {
    let stage = |name: &str, kind, from: &[usize], to: &[usize]| StagePlan {
        name: name.into(),
        kind,
        from: from.into(),
        to: to.into(),
        instances: 1,
        scale: None,
        mailbox: MailboxPlan { capacity: 4, when_full: WhenFull::Block },
        config: Arc::new(Nothing {}),
        facts: Facts::default(),
        batch_bytes: 0,
    };
    Plan {
        security: barline::topology::security::Security::default(),
        name: "by-hand".into(),
        data_dir: None,
        specs_dir: "specs".into(),
        http: None,
        metrics: None,
        telemetry: barline::topology::TelemetryPlan::default(),
        drain: SECOND,
        budget: Budget { memory: 1 << 30, disk: 0 },
        cache_bytes: 0,
        stages: vec![stage("ingest", &INGEST, &[], &[1]), stage("write", &WRITE, &[0], &[])],
    }
}
