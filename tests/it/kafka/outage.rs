//! A broker that goes away, or was never there: nothing else notices, and its bars wait.

use std::path::Path;

use super::bars::{Sums, added_up, check_order, once, stored};
use super::broker::{self, Broker};
use super::consumer::consume;
use super::flow::{self, MARKET};
use crate::harness::{Server, block_on};

const ONLY_MARKET: &str = "publish.specs=[\"market_ticks\"]";

fn accepted(server: &Server) -> u64 {
    block_on(server.ledgers()).iter().map(|ledger| ledger.accepted).sum()
}

/// How long the broker stays away, in seconds: a few, unless `BARLINE_KAFKA_OUTAGE` says more.
fn outage() -> u64 {
    std::env::var("BARLINE_KAFKA_OUTAGE").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// A broker that stays away for a while.
struct Outage {
    sink: &'static [&'static str],
    seconds: u64,
    exactly_once: bool,
    /// What is to be told meanwhile.
    told: &'static str,
}

impl Outage {
    fn new(told: &'static str) -> Self {
        Self { sink: &[], seconds: outage(), exactly_once: false, told }
    }

    /// Under load, and until so many seconds' ticks have been taken, each of `brokers` is as `away` leaves it; then `back`.
    fn befalls(
        self,
        brokers: impl IntoIterator<Item = Broker>,
        away: impl Fn(&mut Broker),
        back: impl Fn(&mut Broker),
    ) {
        brokers.into_iter().for_each(|mut broker| self.happens(&mut broker, &away, &back));
    }

    fn happens(&self, broker: &mut Broker, away: impl Fn(&mut Broker), back: impl Fn(&mut Broker)) {
        const RATE: u64 = 2_000;
        let dir = tempfile::tempdir().unwrap();
        let exactly_once = format!("publish.exactly_once={}", self.exactly_once);
        let overrides = [&[ONLY_MARKET, &exactly_once], self.sink].concat();
        let mut server = flow::start(&broker.bootstrap(), &dir.path().join("data"), &overrides);
        let (grpc, rate) = (server.grpc, format!("rate={RATE}"));
        let duration = 10_000 + self.seconds as i64 * 1_000;
        let sending = std::thread::spawn(move || flow::load(grpc, &["series=100", "connections=2", &rate], duration));
        server.until("bars are sent", |server| flow::count(server, "market_ticks", "delivered") > 100);
        away(broker);
        let before = accepted(&server);
        server.until("ticks are taken all the same", |server| accepted(server) > before + self.seconds * RATE);
        let told = flow::until_told(&mut server, self.told);
        assert!(flow::count(&server, "market_ticks", "outstanding") > 0);
        println!("{told}");
        back(broker);
        // The load holds every bar against its ticks, and the ledger against what it sent.
        let report = sending.join().unwrap();
        println!("{}", report.table());
        let sink = flow::until_sent(&mut server);
        assert_eq!(sink["specs"][0]["dropped"], serde_json::json!({}), "{sink}");
        let records = consume(&broker.bootstrap(), MARKET, true);
        let (firsts, again) = once(&records);
        let (sent, stored) = (added_up(firsts.iter().copied()), stored(&server, "market_ticks"));
        assert_eq!(sent, stored, "{}", server.output());
        check_order(&firsts);
        println!("{} records, {again} of them again", records.len());
        assert!(again == 0 || !self.exactly_once, "{}", server.output());
        flow::stop(server);
    }
}

const GONE: &str = "nobody listens there";

#[test]
fn a_broker_killed_and_restarted_under_load_costs_no_bar_and_no_order() {
    Outage::new(GONE).befalls(broker::both(), Broker::leave, Broker::come_back);
}

#[test]
fn a_broker_killed_and_restarted_costs_no_bar_with_exactly_once_either() {
    let outage = Outage { exactly_once: true, ..Outage::new(GONE) };
    outage.befalls(broker::real(&[]).map(Broker::Real), Broker::leave, Broker::come_back);
}

/// A broker that looks all the time for transactions to give up.
fn strict() -> Option<Broker> {
    broker::real(&["--set", "transaction.abort.timed.out.transaction.cleanup.interval.ms=100"]).map(Broker::Real)
}

/// Records and transactions that are given up after a second and a half.
fn impatient(told: &'static str) -> Outage {
    Outage {
        sink: &["publish.properties={transaction.timeout.ms: \"1500\", socket.timeout.ms: \"1000\", \
                 reconnect.backoff.max.ms: \"500\"}"],
        seconds: outage().max(4),
        exactly_once: true,
        told,
    }
}

#[test]
fn an_outage_longer_than_records_and_transactions_may_last_costs_no_bar_and_shows_none_twice() {
    impatient(GONE).befalls(strict(), Broker::leave, Broker::come_back);
}

#[test]
fn a_broker_frozen_for_longer_than_records_and_transactions_may_last_costs_no_bar_and_shows_none_twice() {
    impatient("down:").befalls(strict(), Broker::freeze, Broker::thaw);
}

#[test]
fn a_frozen_broker_costs_no_bar_and_its_silence_is_told() {
    let sink = &["publish.properties={socket.timeout.ms: \"1000\", reconnect.backoff.max.ms: \"500\"}"];
    Outage { sink, ..Outage::new("down:") }.befalls(broker::both(), Broker::freeze, Broker::thaw);
}

/// Starts over `data` again: what is stored there goes out.
fn goes_out(bars: &Sums, bootstrap: &str, data: &Path) {
    let mut server = flow::start(bootstrap, data, &[ONLY_MARKET]);
    flow::until_sent(&mut server);
    let records = consume(bootstrap, MARKET, true);
    assert_eq!(&added_up(once(&records).0), bars);
    flow::stop(server);
}

#[test]
fn barline_starts_ingests_answers_and_stops_without_a_broker_and_sends_everything_once_there_is_one() {
    for mut broker in broker::both() {
        broker.leave();
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
        let data = dir.path().join("data");
        let mut server = flow::start(&bootstrap, &data, &[ONLY_MARKET]);
        flow::load(server.grpc, &["series=50", "rate=2k"], 2_000);
        flow::until_told(&mut server, "down: nobody listens there");
        let bars = stored(&server, "market_ticks");
        let row = flow::follower(&server, "market_ticks");
        assert!(bars.len() >= 50 && row["outstanding"].as_u64() >= Some(bars.len() as u64), "{row}");
        let output = server.output();
        assert!(output.contains("the broker is out of reach, bars wait in the outbox"), "{output}");
        flow::stop(server);
        broker.come_back();
        goes_out(&bars, &bootstrap, &data);
    }
}

#[test]
fn a_stop_with_a_frozen_broker_ends_by_the_deadline_and_the_rest_goes_out_later() {
    for mut broker in broker::both() {
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
        let data = dir.path().join("data");
        let mut server = flow::start(&bootstrap, &data, &[ONLY_MARKET, "drain=6s"]);
        flow::load(server.grpc, &["series=50", "rate=2k"], 1_000);
        flow::until_sent(&mut server);
        broker.freeze();
        flow::load(server.grpc, &["series=50", "rate=2k"], 1_000);
        assert!(flow::count(&server, "market_ticks", "outstanding") > 0);
        let bars = stored(&server, "market_ticks");
        server.signal("TERM");
        server.wait();
        broker.thaw();
        goes_out(&bars, &bootstrap, &data);
    }
}
