//! Instances of the built binary that share the partitions of a topic.

use std::path::Path;

use super::bars::{Sums, stored};
use super::broker::{self, Broker};
use super::ticks::{Format, TOPIC, Writer};
use crate::harness::{Server, block_on};

/// The mock puts every rebalancing off by a second less than a session lasts, and the first one by three seconds, which a
/// session has to outlast: with barline's own ten seconds the test would take minutes. A real broker has to be told to allow
/// sessions this short.
const SESSION: &str = "ticks.properties={session.timeout.ms: \"3500\", heartbeat.interval.ms: \"250\"}";
const SHORT_SESSIONS: [&str; 2] = ["--set", "group.min.session.timeout.ms=1000"];

/// Starts `fleet.yaml` towards the cluster at `bootstrap`.
fn start(bootstrap: &str, format: Format, data: &Path) -> Server {
    let (brokers, format) = (format!("ticks.brokers=[\"{bootstrap}\"]"), format!("ticks.format={}", format.name()));
    // Small rounds: more claims to lose.
    Server::start("fleet.yaml", data, &[&brokers, &format, SESSION, "ticks.commit.every=5ms"])
}

/// Ticks accepted and ticks in bars.
fn counts(server: &Server) -> (u64, u64) {
    let ledgers = block_on(server.ledgers());
    let ledger = ledgers.iter().find(|ledger| ledger.spec == "market_ticks").unwrap();
    (ledger.accepted, ledger.in_bars)
}

/// The bars of both, those of one window added up.
fn union(servers: [&Server; 2]) -> Sums {
    let mut all = Sums::new();
    for (id, sums) in servers.into_iter().flat_map(|server| stored(server, "market_ticks")) {
        let bar = all.entry(id).or_default();
        sums.into_iter().for_each(|(name, value)| *bar.entry(name).or_default() += value);
    }
    all
}

/// Two instances on one topic of eight partitions, one of them killed three times under writes.
fn killed_again_and_again(broker: &Broker, format: Format) {
    broker.create_topic(TOPIC, 8);
    let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let mut writer = Writer::new(&bootstrap, format);
    let mut steady = start(&bootstrap, format, &one);
    writer.send(500);
    let mut killed = start(&bootstrap, format, &other);
    for _ in 0..3 {
        let before = counts(&killed).0;
        killed.until("it takes its share", |killed| {
            writer.send(50);
            counts(killed).0 > before
        });
        writer.send(200);
        killed.signal("KILL");
        killed.wait();
        writer.send(500);
        killed = start(&bootstrap, format, &other);
    }
    writer.send(500);
    steady.until("every tick is in a bar", |steady| {
        let (mine, others) = (counts(steady), counts(&killed));
        assert!(mine.0 + others.0 <= writer.sent, "{mine:?} and {others:?} of {}", writer.sent);
        mine.1 + others.1 == writer.sent
    });
    assert!(counts(&steady).0 > 0 && counts(&killed).0 > 0, "one has had no partition at all");
    assert_eq!(union([&steady, &killed]), writer.sums);
    for server in [&mut steady, &mut killed] {
        server.signal("TERM");
        assert!(server.wait().success(), "{}", server.output());
    }
}

#[test]
fn two_instances_count_every_tick_of_json_once_though_one_is_killed_again_and_again() {
    broker::both_with(&SHORT_SESSIONS).for_each(|broker| killed_again_and_again(&broker, Format::Json));
}

#[test]
fn two_instances_count_every_tick_of_tikr_requests_once_though_one_is_killed_again_and_again() {
    broker::both_with(&SHORT_SESSIONS).for_each(|broker| killed_again_and_again(&broker, Format::Tikr));
}

#[test]
fn two_instances_count_every_tick_of_barline_batches_once_though_one_is_killed_again_and_again() {
    broker::both_with(&SHORT_SESSIONS).for_each(|broker| killed_again_and_again(&broker, Format::Barline));
}

#[test]
fn a_message_that_cannot_be_read_is_counted_told_and_passed_over_in_every_format() {
    for format in [Format::Json, Format::Tikr, Format::Barline] {
        let mock = broker::Mock::start();
        mock.create_topic(TOPIC, 1);
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), mock.bootstrap());
        let mut writer = Writer::new(&bootstrap, format);
        let mut server = start(&bootstrap, format, &dir.path().join("data"));
        writer.send(20);
        writer.write("K0", b"\xff\xff nothing of the kind");
        writer.send(20);
        server.until(&format!("every tick of {format:?} is in a bar"), |server| counts(server).1 == writer.sent);
        assert_eq!(stored(&server, "market_ticks"), writer.sums);
        let ledgers = block_on(server.ledgers());
        let malformed = ledgers.iter().find(|ledger| ledger.spec.is_empty()).map(|ledger| ledger.rejected["malformed"]);
        assert_eq!(malformed, Some(1), "{}", server.output());
        assert!(server.output().contains("a message cannot be read and is passed over"), "{}", server.output());
        server.signal("TERM");
        assert!(server.wait().success(), "{}", server.output());
    }
}
