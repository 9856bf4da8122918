//! A topology that is held up: its sink has no broker, and the writer is to wait once the spool is spent, which is soon.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::harness::{Server, free_port};

/// Starts it.
pub fn without_a_broker(data: &Path) -> Server {
    let nobody = format!("publish.brokers=[\"{}\"]", free_port());
    let overrides = [
        nobody.as_str(),
        "publish.specs=[\"market_ticks\"]",
        "publish.spool={bytes: 1MiB, age: 1h}",
        "publish.on_failure=block",
        "write.outbox={keep: 1m, budget: 1MiB}",
    ];
    Server::start("edge-kafka.yaml", data, &overrides)
}

/// Sends ticks until it is dropped, whether or not they are taken.
pub fn load(grpc: SocketAddr) -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let shape = ["series=2k", "rate=max", "event_rate=4k", "connections=1"].map(str::to_owned);
    let profile = loadgen::profile::Profile::load("market", &shape).unwrap();
    let (server, limit) = (format!("http://{grpc}"), loadgen::plan::Limit::Ticks(20_000_000));
    let mut options = loadgen::run::Options::new(loadgen::connect::Server::open(server), limit);
    options.reconnect = Duration::ZERO;
    runtime.spawn(async move { loadgen::run::run(profile, &options).await });
    runtime
}
