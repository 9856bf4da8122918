//! Busy, idle and backpressured time of every instance of the built binary under load add up to the time that passes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use barline::spec::units::parse_duration;

use super::exposition::{Sample, parse};
use crate::harness::{Server, block_on};

/// How far the sum may be from the time that has passed.
const MAY_DIFFER: f64 = 0.02;
/// A scrape that took no longer was of one moment: the figures of the last instance are no older than its uptime says.
const ONE_MOMENT: Duration = Duration::from_millis(25);

/// What one scrape says: the uptime, and by stage, instance and phase the time spent.
struct Scrape {
    uptime: f64,
    spent: BTreeMap<(String, String), BTreeMap<String, f64>>,
}

fn scrape(server: &mut Server) -> Scrape {
    let mut samples: Vec<Sample> = Vec::new();
    server.until("a scrape is of one moment", |server| {
        let since = Instant::now();
        samples = Server::get_from(server.metrics, "/metrics", "*/*").map_or_else(Vec::new, |(_, text)| parse(&text));
        !samples.is_empty() && since.elapsed() < ONE_MOMENT
    });
    let uptime = samples.iter().find(|sample| sample.name == "barline_process_uptime_seconds").unwrap().value;
    let mut spent: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for Sample { labels, value, .. } in samples.iter().filter(|s| s.name == "barline_stage_time_seconds_total") {
        let instance = (labels["stage"].clone(), labels["instance"].clone());
        spent.entry(instance).or_default().insert(labels["phase"].clone(), *value);
    }
    Scrape { uptime, spent }
}

/// How long is looked on: a few seconds, unless `BARLINE_PHASES` says more, as in `30s`.
fn span() -> Duration {
    let asked = std::env::var("BARLINE_PHASES").ok();
    let span = asked.map(|text| parse_duration(&text).unwrap_or_else(|| panic!("BARLINE_PHASES={text:?} is no time")));
    span.map_or(Duration::from_secs(6), |span| Duration::from_nanos(span.unsigned_abs()))
}

/// Sends market ticks until it is told to stop.
fn load(grpc: std::net::SocketAddr, stop: loadgen::run::Stop) -> std::thread::JoinHandle<()> {
    let overrides = ["rate=20k", "series=500", "connections=2"].map(str::to_owned);
    let profile = loadgen::profile::Profile::load("market", &overrides).unwrap();
    let patience = Duration::from_secs(60);
    let options = loadgen::run::Options {
        server: loadgen::connect::Server::open(format!("http://{grpc}")),
        limit: loadgen::plan::Limit::For(3_600_000_000_000),
        prebuild: false,
        verify: false,
        settle: patience,
        reconnect: patience,
        stream_ticks: None,
        producer: None,
        record: None,
        stop,
    };
    std::thread::spawn(move || _ = block_on(loadgen::run::run(profile, &options)).unwrap())
}

#[test]
fn busy_idle_and_backpressured_time_of_every_instance_add_up_to_the_time_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("scaled.yaml", &dir.path().join("data"), &[]);
    let stop = loadgen::run::Stop::default();
    let load = load(server.grpc, stop.clone());
    server.until("ticks are in bars", |server| block_on(server.ledgers()).iter().any(|ledger| ledger.in_bars > 0));
    let before = scrape(&mut server);
    std::thread::sleep(span());
    let after = scrape(&mut server);
    stop.store(true, Relaxed);
    load.join().unwrap();
    let passed = after.uptime - before.uptime;
    // One of every stage, but four aggregators.
    assert_eq!(after.spent.len(), 9);
    for (instance, spent) in &after.spent {
        let share = |phase: &str| (spent[phase] - before.spent[instance][phase]) / passed;
        let shares = ["busy", "idle", "backpressured"].map(share);
        let sum: f64 = shares.iter().sum();
        println!("{} {}: {shares:.4?} = {sum:.5} of {passed:.2} s", instance.0, instance.1);
        assert!((sum - 1.0).abs() < MAY_DIFFER, "{instance:?}: {shares:?} of {passed} s");
        assert!(shares.iter().all(|share| *share >= 0.0), "{instance:?}: {shares:?}");
    }
}
