//! What is sent meanwhile: `loadgen`, over barline's own wire as a producer that resumes, and over tikr's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use loadgen::connect::Server;
use loadgen::plan::Limit;
use loadgen::profile::Profile;
use loadgen::record::Record;
use loadgen::report::Report;
use loadgen::run::{self, Failure, Options, Stop};
use loadgen::verify::Verdict;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Longer than any server is away.
const PATIENCE: Duration = Duration::from_secs(120);

/// One `loadgen run` under way.
pub struct Load {
    /// Where its ticks go.
    pub spec: &'static str,
    record: PathBuf,
    stop: Stop,
    run: JoinHandle<Result<Report, Failure>>,
}

/// Ticks a little and much too late, and some to be refused, over two connections that share their series.
const ODD: [&str; 6] = [
    "connections=2",
    "shared_series=true",
    "linger=10ms",
    "disorder={fraction: 0.1, up_to: 150ms}",
    "late={fraction: 0.02, by: 3s}",
    "bad={fraction: 0.01}",
];

/// Starts one on each wire, each with a spec of its own, with their records in `dir`.
pub fn start(server: SocketAddr, dir: &Path, seed: u64, runtime: &Runtime) -> Vec<Load> {
    start_with(server, dir, seed, runtime, &[])
}

/// As [`start`], with more to override of the load on barline's own wire.
pub fn start_with(server: SocketAddr, dir: &Path, seed: u64, runtime: &Runtime, more: &[&str]) -> Vec<Load> {
    let load = |profile: &str, spec, own: &[&str]| {
        let overrides: Vec<String> = ODD.iter().chain(own).map(|text| (*text).to_owned()).collect();
        let mut profile = Profile::load(profile, &overrides).unwrap();
        profile.seed = seed;
        profile.check().unwrap();
        let (record, stop) = (dir.join(spec), Stop::default());
        let (server, limit) = (Server::open(format!("http://{server}")), Limit::For(4 * 3_600_000_000_000));
        let options = Options {
            reconnect: PATIENCE,
            stream_ticks: Some(100),
            record: Some(record.clone()),
            stop: stop.clone(),
            ..Options::new(server, limit)
        };
        let run = runtime.spawn(async move { run::run(profile, &options).await });
        Load { spec, record, stop, run }
    };
    let market = [&["protocol=barline.v1", "series=40", "rate=4k", "in_flight=16"], more].concat();
    vec![
        load("market", "market_ticks", &market),
        load("network", "network_flows", &["protocol=tikr.v1", "series=30", "rate=2k"]),
    ]
}

impl Load {
    /// Ticks the server has said it took, until now.
    pub fn acknowledged(&self) -> u64 {
        Record::read(&self.record).map_or(0, |record| record.connections.iter().map(|known| known.taken).sum())
    }

    /// Stops sending and waits for what is still to be acknowledged.
    pub fn end(&mut self, runtime: &Runtime) {
        self.stop.store(true, Relaxed);
        let report = runtime.block_on(&mut self.run).unwrap().unwrap();
        print!("{}", report.table());
        assert_eq!(report.ticks.unaccounted, 0, "{}", report.table());
    }

    /// Holds what the server has against the record.
    pub fn check(&self, server: SocketAddr, runtime: &Runtime) -> Verdict {
        runtime.block_on(run::check(&self.record, &Server::open(format!("http://{server}")), PATIENCE)).unwrap()
    }
}
