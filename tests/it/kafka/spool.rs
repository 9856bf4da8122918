//! A spool that is spent while the broker is away: what is lost is the oldest and counted, or nothing is and the writer waits.

use super::bars::{added_up, once, stored};
use super::batches::{batches, send};
use super::broker;
use super::consumer::consume;
use super::flow::{self, MARKET};

/// However much the writer keeps for others.
const SMALL: [&str; 2] = ["publish.specs=[\"market_ticks\"]", "publish.spool={bytes: 1MiB, age: 1h}"];

/// More bars than the spool holds.
fn many() -> Vec<barline_proto::barline::IngestBatch> {
    let symbols: Vec<_> = (0..500).map(|number| format!("S{number}")).collect();
    batches(&symbols, 400)
}

#[test]
fn a_full_spool_drops_the_oldest_bars_counts_them_and_sends_the_rest_later() {
    for mut broker in broker::both() {
        broker.leave();
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
        let mut server = flow::start(&bootstrap, &dir.path().join("data"), &SMALL);
        send(&server, many());
        let row = |server: &crate::harness::Server| flow::follower(server, "market_ticks");
        server.until("the spool is spent", |server| row(server)["dropped"]["spool_full"].as_u64() > Some(0));
        // Between a commit and the trim after it there is more.
        server.until("no more is held than the spool takes and a partition", |server| {
            (256 << 10..=5 << 18).contains(&flow::count(server, "market_ticks", "spooled_bytes"))
        });
        let output = server.output();
        assert!(output.contains("the spool is spent: the oldest bars in it are dropped"), "{output}");
        // More is stored, and given up, while what there is goes out.
        broker.come_back();
        flow::until_sent(&mut server);
        let row = row(&server);
        let mut bars = stored(&server, "market_ticks");
        let (stored, number) = (bars.len() as u64, |value: &serde_json::Value| value.as_u64().unwrap());
        assert_eq!(number(&row["delivered"]) + number(&row["dropped"]["spool_full"]), stored, "{row}");
        let arrived = added_up(once(&consume(&bootstrap, MARKET, true)).0);
        assert_eq!(arrived.len() as u64, number(&row["delivered"]));
        bars.retain(|id, _| arrived.contains_key(id));
        assert_eq!(arrived, bars);
        flow::stop(server);
    }
}

#[test]
fn a_full_spool_that_blocks_holds_up_the_writer_and_loses_nothing() {
    for mut broker in broker::both() {
        broker.leave();
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
        let sink = [&SMALL[..], &["publish.on_failure=block"]].concat();
        let mut server = flow::start(&bootstrap, &dir.path().join("data"), &sink);
        // The journal takes them all: what waits is the writer.
        send(&server, many());
        server.until("the writer says why it waits", |server| server.output().contains("has not delivered take"));
        broker.come_back();
        let sink = flow::until_sent(&mut server);
        assert_eq!(sink["specs"][0]["dropped"], serde_json::json!({}), "{sink}");
        assert_eq!(added_up(once(&consume(&bootstrap, MARKET, true)).0), stored(&server, "market_ticks"));
        flow::stop(server);
    }
}
