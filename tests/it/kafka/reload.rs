//! Specs and sinks change while bars go out: every bar arrives, in order and once, and a sink that comes back goes on where it
//! ended.

use std::fs;

use super::bars::{added_up, check_revisions, once, stored};
use super::broker::{self, Broker};
use super::consumer::consume;
use super::flow::{self, ASIC, MARKET, NETWORK};
use crate::crash::load;
use crate::harness::{Server, root};
use crate::reload::site::{Site, runtime};

const SPECS: [(&str, &str); 3] = [("market_ticks", MARKET), ("network_flows", NETWORK), ("asic_metrics", ASIC)];

/// The sink's block of the topology.
fn sink(topology: &str) -> &str {
    let from = topology.find("  publish:").unwrap();
    let to = topology[from..].find("  reap:").unwrap();
    &topology[from..from + to]
}

fn until_delivered(server: &mut Server, spec: &str, more: u64) {
    let before = flow::count(server, spec, "delivered");
    server.until("more bars are sent", |server| flow::count(server, spec, "delivered") >= before + more);
}

#[test]
fn reloads_lose_no_bar_repeat_none_and_a_sink_that_comes_back_goes_on_where_it_ended() {
    broker::both().for_each(|broker| reloads(&broker));
}

fn reloads(broker: &Broker) {
    SPECS.iter().for_each(|(_, topic)| broker.create_topic(topic, 3));
    let bootstrap = broker.bootstrap();
    let mut site = Site::start_as("edge-kafka.yaml", |text| text.replace("127.0.0.1:9092", &bootstrap));
    let runtime = runtime();
    let mut loads = load::start(site.server.grpc, site.dir.path(), 1, &runtime);
    until_delivered(&mut site.server, "market_ticks", 50);

    // A spec that is new: its bars are sent, too.
    fs::copy(root().join("specs/asic_metrics.yaml"), site.spec("asic_metrics.yaml")).unwrap();
    assert_eq!(site.reloaded()["specs_added"], serde_json::json!(["asic_metrics"]));
    flow::load_of("asic", site.server.grpc, &["series=20", "rate=400"], 2_000, false);
    site.server.until("its bars are sent", |server| flow::count(server, "asic_metrics", "delivered") >= 20);

    // A spec and the sink itself in other words.
    site.edit("specs/market_ticks.yaml", "aggregation: sum}", "aggregation: sum, unit: '{share}'}");
    site.edit("topology.yaml", "bytes: 4GiB", "bytes: 2GiB");
    assert_eq!(site.reloaded()["stages_changed"], serde_json::json!(["publish"]));
    until_delivered(&mut site.server, "network_flows", 50);

    // The sink is no more, and bars are stored all the same.
    let with = fs::read_to_string(site.dir.path().join("topology.yaml")).unwrap();
    site.edit("topology.yaml", sink(&with), "");
    assert_eq!(site.reloaded()["stages_removed"], serde_json::json!(["publish"]));
    assert_eq!(flow::sinks(&site.server)["sinks"], serde_json::json!([]));
    let (sent, bars) = (consume(&bootstrap, MARKET, true).len(), stored(&site.server, "market_ticks").len());
    site.server.until("bars are stored", |server| stored(server, "market_ticks").len() > bars + 50);
    assert_eq!(consume(&bootstrap, MARKET, true).len(), sent, "bars are sent by a sink that is gone");

    // It comes back, and goes on at its cursor.
    fs::write(site.dir.path().join("topology.yaml"), &with).unwrap();
    assert_eq!(site.reloaded()["stages_added"], serde_json::json!(["publish"]));
    until_delivered(&mut site.server, "market_ticks", 50);
    site.end(&mut loads, &runtime);
    flow::until_sent(&mut site.server);
    for (spec, topic) in SPECS {
        let records = consume(&bootstrap, topic, true);
        let (firsts, again) = once(&records);
        assert_eq!((added_up(firsts.iter().copied()), again), (stored(&site.server, spec), 0), "{spec}");
        check_revisions(&firsts);
        let delivered = flow::count(&site.server, spec, "delivered");
        assert_eq!(delivered, records.len() as u64, "{spec}: the cursor has counted from its beginning");
    }
    site.stop();
    assert!(site.server.output().contains("sink     publish: "), "{}", site.server.output());
}
