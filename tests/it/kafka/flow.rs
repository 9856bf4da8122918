//! The built binary with a sink, what is sent to it, and what it says of what it sends.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Server, block_on, free_port};

/// How long what was sent may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topic of `specs/market_ticks.yaml`.
pub const MARKET: &str = "tikr-bars-market-1s";
/// The topic of `specs/asic_metrics.yaml`.
pub const ASIC: &str = "tikr-bars-asic-1s";
/// The topic of `specs/network_flows.yaml`.
pub const NETWORK: &str = "tikr-bars-network-1s";
/// Override: topics are made by hand.
pub const NO_NEW_TOPICS: &str = "publish.create_topics=null";

/// Starts `edge-kafka.yaml` towards `bootstrap`.
pub fn start(bootstrap: &str, data: &Path, overrides: &[&str]) -> Server {
    let mut server = spawn_at(free_port(), bootstrap, data, overrides);
    server.until_ready();
    server
}

/// As [`start`], at a given address and without waiting.
pub fn spawn_at(grpc: SocketAddr, bootstrap: &str, data: &Path, overrides: &[&str]) -> Server {
    let brokers = format!("publish.brokers=[\"{bootstrap}\"]");
    let mut all = vec![brokers.as_str(), "publish.properties={reconnect.backoff.max.ms: \"500\"}"];
    all.extend(overrides);
    Server::spawn_at(grpc, "edge-kafka.yaml", data, &all)
}

/// Sends market ticks for so long, and has every bar and the ledger verified.
pub fn load(grpc: SocketAddr, overrides: &[&str], duration_ms: i64) -> loadgen::report::Report {
    let report = load_of("market", grpc, overrides, duration_ms, true);
    assert!(report.verify.as_ref().is_some_and(|verdict| verdict.ok), "{}", report.table());
    report
}

/// Sends ticks of any of `loadgen`'s profiles; the ledger can only be verified where nobody else sends.
pub fn load_of(
    profile: &str,
    grpc: SocketAddr,
    overrides: &[&str],
    duration_ms: i64,
    verify: bool,
) -> loadgen::report::Report {
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    let profile = loadgen::profile::Profile::load(profile, &overrides).unwrap();
    profile.check().unwrap();
    let (server, limit) = (format!("http://{grpc}"), loadgen::plan::Limit::For(duration_ms * 1_000_000));
    let options = loadgen::run::Options {
        verify,
        settle: PATIENCE,
        stream_ticks: Some(100),
        ..loadgen::run::Options::new(loadgen::connect::Server::open(server), limit)
    };
    let report = block_on(loadgen::run::run(profile, &options)).unwrap();
    assert_eq!(report.ticks.unaccounted, 0, "{}", report.table());
    report
}

/// Everything `/api/v1/sinks` says.
pub fn sinks(server: &Server) -> Value {
    let Some((200, body)) = server.get("/api/v1/sinks") else { return Value::Null };
    serde_json::from_str(&body).unwrap()
}

/// What the server says of its sink's way with the bars of `spec`.
pub fn follower(server: &Server, spec: &str) -> Value {
    let specs = sinks(server)["sinks"][0]["specs"].clone();
    specs.as_array().into_iter().flatten().find(|row| row["spec"] == spec).cloned().unwrap_or_default()
}

/// One of its numbers; 0 where the server says nothing.
pub fn count(server: &Server, spec: &str, name: &str) -> u64 {
    follower(server, spec)[name].as_u64().unwrap_or(0)
}

/// Waits until every tick is in a bar.
fn until_stored(server: &mut Server) {
    server.until("every tick is in a bar", |server| {
        block_on(server.ledgers()).iter().all(|ledger| ledger.open == 0 && ledger.in_flight == 0)
    });
}

/// Waits until every tick is in a bar and every bar has been sent; gives what the server then says of its sink.
pub fn until_sent(server: &mut Server) -> Value {
    until_stored(server);
    let mut sink = Value::Null;
    server.until("every bar is sent", |server| {
        sink = sinks(server)["sinks"][0].clone();
        let specs = sink["specs"].as_array().cloned().unwrap_or_default();
        specs.iter().all(|spec| spec["outstanding"] == 0) && specs.iter().any(|spec| spec["delivered"] != 0)
    });
    sink
}

/// Waits until the sink says of its link, or of what went wrong last, something with `words`; gives what it says.
pub fn until_told(server: &mut Server, words: &str) -> String {
    let mut told = String::new();
    let what = format!("the sink says {words:?}");
    server.until(&what, |server| {
        let sink = &sinks(server)["sinks"][0];
        let word = |name: &str| sink[name].as_str().unwrap_or_default().to_owned();
        told = format!("{} {}", word("link"), word("last_error"));
        told.contains(words)
    });
    told
}

/// Stops it in order.
pub fn stop(mut server: Server) {
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
}
