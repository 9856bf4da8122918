//! Instances of the built binary that share the partitions of a topic.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::bars::{Sums, stored};
use super::broker::{self, RealKafka};
use crate::harness::{Server, block_on};

const TOPIC: &str = "ticks";
const SERIES: u64 = 40;

/// Starts `fleet.yaml` towards `kafka`.
fn start(kafka: &RealKafka, data: &Path) -> Server {
    let brokers = format!("ticks.brokers=[\"{}\"]", kafka.bootstrap());
    // Small rounds: more claims to lose.
    Server::start("fleet.yaml", data, &[&brokers, "ticks.format=json", "ticks.commit.every=5ms"])
}

/// Who writes ticks, and what they come to.
struct Writer {
    producer: BaseProducer,
    sent: u64,
    sums: Sums,
}

impl Writer {
    fn new(kafka: &RealKafka) -> Self {
        let producer = ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().unwrap();
        Self { producer, sent: 0, sums: Sums::new() }
    }

    /// Sends `ticks` of the present moment, keyed by series, and waits until the broker has them.
    fn send(&mut self, ticks: u64) {
        for _ in 0..ticks {
            let symbol = format!("S{}", self.sent % SERIES);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
            let quantity = (self.sent % 7 + 1) as i64;
            let value = format!(
                r#"{{"series":"market_ticks","timestamp":{now},"dimensions":{{"symbol":"{symbol}"}},"fields":{{"price":100,"quantity":{quantity}}}}}"#
            );
            let record = BaseRecord::to(TOPIC).key(&symbol).payload(&value);
            self.producer.send(record).map_err(|(error, _)| error).unwrap();
            let id = format!("market_ticks/1s/{}/symbol={symbol}", now - now % 1_000_000_000);
            let sum = self.sums.entry(id).or_default();
            *sum.entry("tick_count".to_owned()).or_default() += 1;
            *sum.entry("volume".to_owned()).or_default() += quantity;
            self.sent += 1;
        }
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }
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

#[test]
fn two_instances_count_every_tick_once_though_one_is_killed_again_and_again() {
    let Some(kafka) = broker::real(&[]) else { return };
    kafka.create_topic(TOPIC, 8);
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let mut writer = Writer::new(&kafka);
    let mut steady = start(&kafka, &one);
    writer.send(500);
    let mut killed = start(&kafka, &other);
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
        killed = start(&kafka, &other);
    }
    writer.send(500);
    steady.until("every tick is in a bar", |steady| {
        let (mine, others) = (counts(steady), counts(&killed));
        assert!(mine.0 + others.0 <= writer.sent, "{mine:?} and {others:?} of {}", writer.sent);
        mine.1 + others.1 == writer.sent
    });
    assert_eq!(union([&steady, &killed]), writer.sums);
    for server in [&mut steady, &mut killed] {
        server.signal("TERM");
        assert!(server.wait().success(), "{}", server.output());
    }
}
