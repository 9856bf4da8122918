//! The whole of `edge-kafka.yaml` simulated, its broker in memory: whatever is killed, stalls, panics or goes down, what
//! lies in the topic are the stored bars, and every bar is accounted for.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use barline::app::Seams;
use barline::broker::MemoryBroker;
use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{BarHead, Record, TimeNs};
use barline::runtime::sim::{Rates, SeededChaos, for_seeds, simulate};
use barline::runtime::{Chaos, Placement};
use barline::store::{BarScan, FollowerCounts, Memory, Store};

use super::naive::{self, Tick};
use super::scripted::{Script, assemble, plan, specs};

const START: TimeNs = 1_750_000_000 * SECOND;
const TOPIC: &str = "tikr-bars-market-1s";
const SERIES: u32 = 5;
const ROUGH: Rates = Rates { stall: 0.1, longest: Duration::from_millis(300), panic: 0.02 };
const CALM: Rates = Rates { stall: 0.0, longest: Duration::ZERO, panic: 0.0 };

fn script(random: &mut fastrand::Rng, begins: TimeNs) -> Script {
    let mut time = begins;
    let mut script = Script::new();
    for _ in 0..random.usize(5..30) {
        let pause = Duration::from_micros(random.u64(0..300_000));
        time += pause.as_nanos() as TimeNs;
        let late = if random.f32() < 0.2 { 4 * SECOND } else { 100 * MILLISECOND };
        let ticks = (0..random.usize(1..20)).map(|_| Tick {
            series: random.u32(0..SERIES),
            time: time - random.i64(0..late),
            sequence: 0,
            price: random.i64(1..50),
            quantity: random.i64(1..1000),
        });
        script.push((pause, ticks.collect()));
    }
    script
}

/// Takes the broker down and up again, and leaves it up.
async fn disturb(broker: MemoryBroker, mut random: fastrand::Rng) {
    for _ in 0..random.usize(0..6) {
        tokio::time::sleep(Duration::from_millis(random.u64(0..1500))).await;
        let down = random.bool().then(|| "unplugged".to_owned());
        broker.change(|manner| {
            (manner.down, manner.per_poll) = (down, random.usize(1..50));
            manner.patience = [3, 20, u32::MAX][random.usize(0..3)];
        });
    }
    broker.change(|manner| manner.down = None);
}

/// What one life leaves: the counts of its sink, and all stored bars of the finest granularity.
struct Left {
    counts: FollowerCounts,
    bars: Vec<BarHead>,
}

/// One process: until its script ends, or until it is killed.
fn live(
    (kv, broker): (&Arc<Memory>, &MemoryBroker),
    begins: TimeNs,
    script: Script,
    (overrides, rates): (&[&str], Rates),
    random: &mut fastrand::Rng,
    killed_after: Option<Duration>,
) -> Left {
    let seed = random.u64(..);
    simulate(begins, async |clock| {
        let chaos: Arc<dyn Chaos> = Arc::new(SeededChaos::new(seed, rates));
        let brokers = Arc::new(broker.clone());
        let seams = Seams { kv: kv.clone(), clock, brokers, chaos: Some(chaos), sources: Vec::new() };
        let app = assemble(seams, plan("edge-kafka.yaml", overrides), specs(), SERIES, script);
        let context = app.context.clone();
        let launched = app.launch(Placement::SameThread);
        actix::spawn(disturb(broker.clone(), fastrand::Rng::with_seed(seed)));
        match killed_after {
            Some(after) => tokio::time::sleep(after).await,
            None => {
                let report = launched.wait().await;
                assert!(report.is_clean(), "{:?}", report.exits);
            }
        }
        let sink = &context.sinks.all()[0];
        let follower = sink.followers.iter().find(|(spec, _)| spec == "market_ticks").unwrap();
        Left { counts: follower.1.counts(), bars: stored(&context.store, naive::spec_id(&context.specs)) }
    })
}

fn stored(store: &Store, spec: barline::model::SpecId) -> Vec<BarHead> {
    let mut heads = Vec::new();
    let scan = BarScan { spec, granularity: 0, series: None, from: TimeNs::MIN, to: TimeNs::MAX };
    let visit = &mut |head: &BarHead, _: &[u64]| {
        heads.push(*head);
        ControlFlow::Continue(())
    };
    store.scan_bars(&scan, visit).unwrap();
    heads
}

/// The records of a topic by (dimensions, window start, revision): how often each came, and its ticks.
fn arrived(records: &[Record]) -> BTreeMap<(String, i64, u32), (u32, u64)> {
    let mut arrived = BTreeMap::new();
    for record in records {
        let bar: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
        let number = |name: &str| bar[name].as_i64().unwrap();
        let key = (String::from_utf8(record.key.clone()).unwrap(), number("start_ns"), number("revision") as u32);
        let entry = arrived.entry(key).or_insert((0, number("tick_count") as u64));
        assert_eq!(entry.1, number("tick_count") as u64, "two records of one revision differ");
        entry.0 += 1;
    }
    arrived
}

/// Three lives, the first of them killed, the last one in peace; gives what is left and what arrived.
fn run(seed: u64, overrides: &[&str]) -> (Left, BTreeMap<(String, i64, u32), (u32, u64)>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (kv, broker) = (Arc::new(Memory::new()), MemoryBroker::default());
    let overrides = [&["publish.encoding=json", "publish.service_name=test"], overrides].concat();
    let kill = Duration::from_millis(random.u64(100..6000));
    let (first, second) = (script(&mut random, START), script(&mut random, START + 20 * SECOND));
    let both = (&kv, &broker);
    live(both, START, first, (&overrides, ROUGH), &mut random, Some(kill));
    live(both, START + 20 * SECOND, second, (&overrides, ROUGH), &mut random, None);
    let last = Tick { series: 0, time: START + 80 * SECOND, sequence: 0, price: 1, quantity: 1 };
    let script = vec![(Duration::from_secs(20), vec![last]), (Duration::from_secs(5), vec![last])];
    let left = live(both, START + 60 * SECOND, script, (&overrides, CALM), &mut random, None);
    (left, arrived(&broker.records(TOPIC)))
}

/// Every revision of every stored bar arrived, and the last one has the bar's ticks, or all together have them.
fn check(seed: u64, left: &Left, arrived: &BTreeMap<(String, i64, u32), (u32, u64)>, increments: bool) {
    let Left { counts, bars } = left;
    let revisions: u64 = bars.iter().map(|head| u64::from(head.revision) + 1).sum();
    assert_eq!((counts.outstanding, counts.named()), (0, revisions), "seed {seed}: {counts:?}");
    assert_eq!(counts.delivered, revisions, "seed {seed}: {counts:?}");
    for head in bars {
        let of = |revision| arrived.get(&(format!("symbol=S{}", head.series.0), head.start, revision));
        let ticks = (0..=head.revision).map(|revision| of(revision).map(|(_, ticks)| *ticks));
        let ticks: Vec<u64> =
            ticks.map(|ticks| ticks.unwrap_or_else(|| panic!("seed {seed}: {head:?} is missing"))).collect();
        let told = if increments { ticks.iter().sum() } else { ticks[ticks.len() - 1] };
        assert_eq!(told, head.ticks, "seed {seed}: {head:?} {ticks:?}");
    }
    assert_eq!(arrived.len() as u64, revisions, "seed {seed}: records of bars that are not stored");
}

#[test]
fn every_revision_arrives_at_least_once_whatever_goes_down() {
    let orders = [
        &["publish.on_failure=spool"][..],
        &["publish.on_failure=block", "publish.order=fresh_first", "publish.backlog_rate=200"],
    ];
    for_seeds(1, 250, "every_revision_arrives", |seed| {
        let (left, arrived) = run(seed, orders[seed as usize % 2]);
        check(seed, &left, &arrived, false);
    });
}

#[test]
fn increments_add_up_to_the_bars() {
    let overrides = ["publish.on_failure=spool", "publish.amendments=increment"];
    for_seeds(1, 150, "increments_add_up", |seed| {
        let (left, arrived) = run(seed, &overrides);
        check(seed, &left, &arrived, true);
    });
}

#[test]
fn with_transactions_every_revision_arrives_exactly_once() {
    let overrides = ["publish.on_failure=spool", "publish.amendments=increment", "publish.exactly_once=true"];
    for_seeds(1, 150, "with_transactions", |seed| {
        let (left, arrived) = run(seed, &overrides);
        check(seed, &left, &arrived, true);
        assert!(arrived.values().all(|(times, _)| *times == 1), "seed {seed}: a revision is there twice");
    });
}
