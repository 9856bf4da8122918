//! `loadgen` beside a test, until it is stopped; then every bar is verified.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use loadgen::plan::Limit;
use loadgen::profile::Profile;
use loadgen::report::Report;
use loadgen::run::{Failure, Options, Stop};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::harness::Server;

const PATIENCE: Duration = Duration::from_secs(120);

/// Ticks in and out of order, some late.
pub const MIXED: &[&str] = &[
    "series=300",
    "rate=20k",
    "linger=5ms",
    "disorder={fraction: 0.1, up_to: 150ms}",
    "late={fraction: 0.02, by: 3s}",
];

/// A run of a profile under way.
pub struct Load {
    stop: Stop,
    run: JoinHandle<Result<Report, Failure>>,
    runtime: Runtime,
}

impl Load {
    /// Begins to send `profile`, changed by `shape`.
    pub fn start(server: &Server, profile: &str, shape: &[&str]) -> Self {
        let shape: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let profile = Profile::load(profile, &shape).unwrap();
        profile.check().unwrap();
        let stop = Stop::default();
        let at = loadgen::connect::Server::open(format!("http://{}", server.grpc));
        let options = Options {
            verify: true,
            settle: PATIENCE,
            reconnect: PATIENCE,
            stream_ticks: Some(100),
            stop: stop.clone(),
            ..Options::new(at, Limit::For(3_600_000_000_000))
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let run = runtime.spawn(async move { loadgen::run::run(profile, &options).await });
        Self { stop, run, runtime }
    }

    /// Stops sending; every bar and the ledger must be right.
    pub fn end(self) {
        self.stop.store(true, Relaxed);
        let report = self.runtime.block_on(self.run).unwrap().unwrap();
        assert_eq!(report.ticks.unaccounted, 0, "{}", report.table());
        assert!(report.verify.as_ref().is_some_and(|verdict| verdict.ok), "{}", report.table());
    }
}
