//! The built binary killed with SIGKILL three times while its bars go out, with ticks that come late; by itself, or together
//! with the broker.
//!
//! By hand, for longer: `BARLINE_KAFKA_KILLS=20`, and `BARLINE_KAFKA_SERIES` and `BARLINE_KAFKA_SECONDS` for the size of it.

use std::path::Path;
use std::time::Duration;

use super::bars::{added_up, once, stored, ticks};
use super::broker::{self, Broker};
use super::consumer::consume;
use super::flow::{self, MARKET, NETWORK};
use crate::crash::{load, quiet_port};
use crate::harness::{Server, block_on};

const SPECS: [(&str, &str); 2] = [("market_ticks", MARKET), ("network_flows", NETWORK)];

fn delivered(server: &Server) -> u64 {
    SPECS.iter().map(|(spec, _)| flow::count(server, spec, "delivered")).sum()
}

/// What a variable says, or else `otherwise`.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Kills it three times under load, each time after it has sent something, and gives it once everything is sent. The broker
/// is killed `together` with it, or left alone.
fn killed_three_times(broker: &mut Broker, dir: &Path, sink: &[&str], together: bool) -> Server {
    let (grpc, data) = (quiet_port(), dir.join("data"));
    let bootstrap = broker.bootstrap();
    let spawn = || flow::spawn_at(grpc, &bootstrap, &data, sink);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut server = spawn();
    server.until_ready();
    let series = number("BARLINE_KAFKA_SERIES", 40);
    let (series, rate) = (format!("series={series}"), format!("rate={}", 20 * series.max(200)));
    let mut loads = load::start_with(grpc, dir, 1, &runtime, &[&series, &rate]);
    for _ in 0..number("BARLINE_KAFKA_KILLS", 3) {
        server.until_ready();
        let before = delivered(&server);
        server.until("bars are sent", |server| delivered(server) > before + 50);
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..1000)));
        if let (Broker::Real(kafka), true) = (&*broker, together) {
            kafka.signal("-KILL");
        }
        server.signal("KILL");
        server.wait();
        if together {
            broker.leave();
            broker.come_back();
        }
        server = spawn();
    }
    server.until_ready();
    std::thread::sleep(Duration::from_secs(number("BARLINE_KAFKA_SECONDS", 0)));
    for load in &mut loads {
        load.end(&runtime);
        let verdict = load.check(grpc, &runtime);
        assert!(verdict.ok, "{}", verdict.problems());
    }
    flow::until_sent(&mut server);
    server
}

/// Holds the topics against what is stored; gives how many records repeat another.
fn check(broker: &Broker, server: &Server) -> usize {
    let mut repeated = 0;
    for (spec, topic) in SPECS {
        let records = consume(&broker.bootstrap(), topic, true);
        let (firsts, again) = once(&records);
        let stored = stored(server, spec);
        assert_eq!(added_up(firsts.iter().copied()), stored, "{spec}");
        let ledgers = block_on(server.ledgers());
        let ledger = ledgers.iter().find(|ledger| ledger.spec == spec).unwrap();
        assert_eq!(ticks(&stored), ledger.in_bars as i64, "{spec}");
        let amended = firsts.iter().filter(|record| record.header("barline.revision") != "0").count();
        assert!(amended > 0, "no bar of {spec} was amended: this says nothing of late ticks");
        println!("{spec}: {} records, {again} of them again, {amended} of amendments", records.len());
        repeated += again;
    }
    repeated
}

#[test]
fn three_kills_lose_no_bar_and_what_comes_again_bears_the_same_id_and_revision() {
    for mut broker in broker::both() {
        let dir = tempfile::tempdir().unwrap();
        let server = killed_three_times(&mut broker, dir.path(), &[], false);
        check(&broker, &server);
        flow::stop(server);
    }
}

/// Whoever reads committed records sees every revision once.
fn exactly_once(together: bool) {
    let Some(mut broker) = broker::real(&[]).map(Broker::Real) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = killed_three_times(&mut broker, dir.path(), &["publish.exactly_once=true"], together);
    assert_eq!(check(&broker, &server), 0);
    flow::stop(server);
}

#[test]
fn three_kills_with_exactly_once_show_a_committed_reader_every_revision_once_and_sums_add_up() {
    exactly_once(false);
}

#[test]
fn three_kills_together_with_the_broker_show_a_committed_reader_every_revision_once_too() {
    exactly_once(true);
}
