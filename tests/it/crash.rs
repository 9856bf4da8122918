//! The built binary is killed with SIGKILL at random instants, also while it recovers and twice in a row, now and then
//! asked to stop, and started again on the same data with another number of aggregators. Meanwhile `loadgen` sends on both
//! wires and keeps the record of what was acknowledged, and a subscriber follows the live bars. Afterwards
//!
//! - every acknowledged tick can be queried, none that carries a producer's batch id twice, and no such batch in part;
//! - every bar is what the ticks that are there add up to;
//! - no bar was ever seen with two contents under one revision, in queries or live;
//! - the subscriber, which resumes by position, was shown every stored bar, and no revision of one twice;
//! - the ledger balances, and says of the whole history what is there.
//!
//! By hand, for longer: `BARLINE_KILLS=500 cargo test --release -p barline --test it sigkill -- --nocapture`.

pub mod load;
mod sightings;
mod subscriber;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use barline_proto::barline::SpecLedger;

use super::harness::Server;
use load::Load;
use sightings::Sightings;
use subscriber::Subscriber;

/// How often the process is killed; `BARLINE_KILLS` says otherwise.
const KILLS: u64 = 20;

/// The history of one data directory.
struct Story {
    seed: u64,
    random: fastrand::Rng,
    data: PathBuf,
    grpc: SocketAddr,
    kills: u64,
    kills_left: u64,
    stops: u64,
    sightings: Arc<Sightings>,
    loads: Vec<Load>,
    since: Instant,
    runtime: tokio::runtime::Runtime,
}

#[test]
fn sigkill_at_any_instant_loses_nothing_that_was_acknowledged_and_shows_nothing_twice() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (kills, seed) = (number("BARLINE_KILLS").unwrap_or(KILLS), number("BARLINE_SEED").unwrap_or(1));
    println!("seed {seed}, {kills} kills");
    let dir = tempfile::tempdir().unwrap();
    let mut story = Story {
        seed,
        random: fastrand::Rng::with_seed(seed),
        data: dir.path().join("data"),
        grpc: quiet_port(),
        kills: 0,
        kills_left: kills,
        stops: 0,
        sightings: Arc::default(),
        loads: Vec::new(),
        since: Instant::now(),
        runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap(),
    };
    let mut server = story.start();
    let subscriber = Subscriber::follow(story.grpc, story.sightings.clone(), &story.runtime);
    server.until("the subscriber is there", |_| subscriber.connected());
    story.loads = load::start(story.grpc, dir.path(), seed, &story.runtime);
    // Killed before the first bar it could not say where to go on.
    server.until("the subscriber has a position", |_| subscriber.located());
    while story.kills_left > 0 {
        story.live(server);
        server = story.start();
        story.look(&server);
    }
    let said = story.end(&server, &subscriber);
    server.signal("TERM");
    assert!(server.wait().success(), "{}{}", story.place(), server.output());
    let server = story.start();
    story.look(&server);
    let again = story.ledger(&server, |_| true);
    assert_eq!(again, said, "{}the ledger of before the restart is on the right", story.place());
    println!("{}{} kills, {} stops, {}", story.place(), story.kills, story.stops, story.sightings.summary());
}

/// A port nobody listens on, below those the system gives away for outgoing connections: it stays free while the server
/// is away.
pub fn quiet_port() -> SocketAddr {
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(10_000..30_000)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Story {
    /// Where in the history one is, for whoever reads a failure.
    fn place(&self) -> String {
        let seconds = self.since.elapsed().as_secs_f64();
        format!("seed {}, {seconds:.3} s, after kill {}: ", self.seed, self.kills)
    }

    fn spawn(&mut self) -> Server {
        let instances = format!("aggregate.instances={}", self.random.u32(1..5));
        Server::spawn_at(self.grpc, "scaled.yaml", &self.data, &[&instances])
    }

    /// Starts the server; as long as there are kills left it may be killed before it is ready, and again.
    fn start(&mut self) -> Server {
        let mut server = self.spawn();
        while self.kills > 0 && self.kills_left > 0 && self.random.u8(0..10) < 3 {
            std::thread::sleep(Duration::from_millis(self.random.u64(0..400)));
            self.kill(server);
            server = self.spawn();
        }
        server.until_ready();
        server
    }

    fn kill(&mut self, mut server: Server) {
        server.signal("KILL");
        server.wait();
        self.kills += 1;
        self.kills_left -= 1;
        println!("{}killed", self.place());
    }

    /// Lets the server live for a while, short or long enough for bars to close, and ends it.
    fn live(&mut self, mut server: Server) {
        let most = if self.random.bool() { 500 } else { 2500 };
        std::thread::sleep(Duration::from_millis(self.random.u64(0..most)));
        if self.random.u8(0..6) > 0 {
            return self.kill(server);
        }
        server.signal("TERM");
        assert!(server.wait().success(), "{}{}", self.place(), server.output());
        self.stops += 1;
        println!("{}stopped", self.place());
    }

    /// What can be seen at any time: what the ledger says is no less than what was acknowledged, and balances; and bars
    /// are those seen before, or of a higher revision.
    fn look(&self, server: &Server) {
        let acknowledged: Vec<u64> = self.loads.iter().map(Load::acknowledged).collect();
        let ledgers = self.ledger(server, |_| true);
        for (load, acknowledged) in self.loads.iter().zip(acknowledged) {
            let accepted = ledgers.iter().find(|ledger| ledger.spec == load.spec).map_or(0, |ledger| ledger.accepted);
            assert!(
                accepted >= acknowledged,
                "{}the ledger of {} has {accepted} ticks accepted, {acknowledged} are acknowledged",
                self.place(),
                load.spec
            );
        }
        for load in &self.loads {
            for bar in self.runtime.block_on(server.bars(load.spec)) {
                self.sightings.see(bar, &self.place());
            }
        }
        self.check_sightings();
    }

    fn check_sightings(&self) {
        let problems = self.sightings.problems();
        assert!(problems.is_empty(), "{}{}", self.place(), problems.join("\n"));
    }

    /// The ledger of every spec, as soon as it balances and `wanted` holds: counters are read one after the other.
    fn ledger(&self, server: &Server, wanted: impl Fn(&SpecLedger) -> bool) -> Vec<SpecLedger> {
        let since = Instant::now();
        loop {
            let ledgers = self.runtime.block_on(server.ledgers());
            let balanced = |ledger: &SpecLedger| {
                let rejected: u64 = ledger.rejected.values().sum();
                let dropped: u64 = ledger.dropped.values().sum();
                ledger.received == ledger.accepted + rejected + ledger.duplicate
                    && ledger.accepted as i64 == (ledger.in_bars + ledger.open + dropped) as i64 + ledger.in_flight
                    && wanted(ledger)
            };
            if ledgers.iter().all(balanced) {
                return ledgers;
            }
            let patience = since.elapsed() < Duration::from_secs(60);
            assert!(patience, "{}the ledger does not balance: {ledgers:#?}", self.place());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the loads and holds what there is against what they know; gives the ledger at rest.
    fn end(&mut self, server: &Server, subscriber: &Subscriber) -> Vec<SpecLedger> {
        for load in &mut self.loads {
            load.end(&self.runtime);
        }
        for load in &self.loads {
            let (spec, verdict) = (load.spec, load.check(self.grpc, &self.runtime));
            let text = format!("{}{spec}: {}", self.place(), verdict.text());
            println!("{text}");
            assert!(verdict.ok, "{text}\n{}", verdict.problems());
            let ticks = verdict.ticks.unwrap();
            assert!(ticks.acknowledged > 1000, "{text}: too few to say anything");
            let ledgers = self.ledger(server, |ledger| ledger.open == 0 && ledger.in_flight == 0);
            let ledger = ledgers.iter().find(|ledger| ledger.spec == spec).unwrap();
            assert_eq!((ledger.accepted, ledger.in_bars), (ticks.stored, ticks.stored), "{text}: {ledger:#?}");
            let bars = self.runtime.block_on(server.bars(spec));
            self.sightings.expect_shown(&bars);
        }
        let since = Instant::now();
        while let [first, rest @ ..] = &self.sightings.unshown()[..] {
            let patience = since.elapsed() < Duration::from_secs(20);
            let (unshown, subscriber) = (rest.len() + 1, subscriber.place());
            assert!(patience, "{}{unshown} bars were never shown live, one is {first}; {subscriber}", self.place());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(subscriber.missed(), 0, "{}bars the subscriber was not shown", self.place());
        self.check_sightings();
        self.ledger(server, |ledger| ledger.open == 0 && ledger.in_flight == 0)
    }
}
