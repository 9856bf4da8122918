//! Metrics of the built binary in a topic.

use std::collections::BTreeSet;

use barline::telemetry::table;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;

use super::broker::{self, Broker};
use super::consumer::{Got, consume};
use crate::harness::{Server, barline, free_port};
use crate::security::kit::run;

const TOPIC: &str = "barline-metrics";

/// `memory.yaml` that sends its metrics to `bootstrap` every second.
fn start(bootstrap: &str, data: &std::path::Path, further: &[&str]) -> Server {
    let kafka = format!("telemetry.kafka={{brokers: [\"{bootstrap}\"], every: 1s, timeout: 5s}}");
    Server::start("memory.yaml", data, &[&[kafka.as_str()], further].concat())
}

/// How many records ended so.
fn ended(server: &Server, outcome: &str) -> u64 {
    let (_, scrape) = Server::get_from(server.metrics, "/metrics", "*/*").unwrap();
    let is_it = |line: &&str| {
        line.starts_with("barline_telemetry_exports_total{")
            && line.contains("destination=\"kafka\"")
            && line.contains(&format!("outcome=\"{outcome}\""))
    };
    scrape.lines().find(is_it).unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64
}

/// Holds that a record is what a collector would be pushed.
fn check(record: &Got) {
    assert_eq!(record.key.as_deref(), Some(&b"memory"[..]));
    let request = ExportMetricsServiceRequest::decode(record.value.as_slice()).unwrap();
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let names: BTreeSet<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
    assert!(names.iter().all(|name| table::find(name).is_some()), "{names:?}");
    for instrument in [&table::UPTIME, &table::LAG, &table::TIME, &table::ACCEPTED, &table::EXPORTS] {
        assert!(names.contains(instrument.name), "no {} in {names:?}", instrument.name);
    }
}

#[test]
fn metrics_reach_a_topic_as_a_collector_would_be_pushed_them() {
    for broker in broker::both() {
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
        let mut create = vec!["telemetry.kafka.create_topics={partitions: 2}"];
        if let Broker::Mock(_) = broker {
            // It makes none when asked.
            broker.create_topic(TOPIC, 2);
            create.clear();
        }
        let mut server = start(&bootstrap, &dir.path().join("data"), &create);
        server.until("records are sent", |server| ended(server, "sent") >= 3);
        server.signal("TERM");
        assert!(server.wait().success(), "{}", server.output());
        let records = consume(&bootstrap, TOPIC, true);
        // One more says what it came to.
        assert!(records.len() >= 4, "{} records", records.len());
        records.iter().for_each(check);
        let partitions: BTreeSet<_> = records.iter().map(|record| record.partition).collect();
        assert_eq!(partitions.len(), 1, "records of a topology keep their order");
        assert!(!server.output().contains("telemetry is dropped"), "{}", server.output());
    }
}

#[test]
fn a_broker_that_goes_away_costs_counted_drops_and_the_next_record_arrives_when_it_is_back() {
    for mut broker in broker::both() {
        broker.create_topic(TOPIC, 1);
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
        let short = "telemetry.kafka.properties={socket.timeout.ms: \"1000\"}";
        let mut server = start(&bootstrap, &dir.path().join("data"), &[short]);
        server.until("records are sent", |server| ended(server, "sent") >= 2);
        broker.leave();
        server.until("drops are counted", |server| ended(server, "dropped") >= 2);
        let (sent, output) = (ended(&server, "sent"), server.output());
        assert_eq!(output.matches("metrics to kafka are not taken").count(), 1, "{output}");
        broker.come_back();
        server.until("records are sent again", |server| ended(server, "sent") > sent);
        assert!(server.output().contains("metrics to kafka are taken again"), "{}", server.output());
        consume(&bootstrap, TOPIC, true).iter().for_each(check);
    }
}

#[test]
fn without_a_broker_drops_are_counted_with_the_reason_and_a_stop_ends_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&free_port().to_string(), &dir.path().join("data"), &["drain=10s"]);
    server.until("drops are counted", |server| ended(server, "dropped") >= 2);
    assert!(server.output().contains("nobody listens there"), "{}", server.output());
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
}

#[test]
fn a_topic_that_is_missing_costs_counted_drops_until_it_is_there() {
    for broker in broker::both() {
        broker.lack_topic(TOPIC, 1);
        let (dir, bootstrap) = (tempfile::tempdir().unwrap(), broker.bootstrap());
        let mut server = start(&bootstrap, &dir.path().join("data"), &[]);
        server.until("drops are counted", |server| ended(server, "dropped") >= 2);
        assert!(server.output().contains("is missing: create it"), "{}", server.output());
        broker.create_topic(TOPIC, 1);
        server.until("records are sent", |server| ended(server, "sent") >= 1);
        consume(&bootstrap, TOPIC, true).iter().for_each(check);
    }
}

#[test]
fn a_reload_moves_metrics_to_another_topic() {
    broker::both().for_each(|broker| reload_moves(&broker));
}

fn reload_moves(broker: &Broker) {
    ["one", "two"].iter().for_each(|topic| broker.create_topic(topic, 1));
    let dir = tempfile::tempdir().unwrap();
    let shipped = std::fs::read_to_string(crate::harness::root().join("topologies/memory.yaml")).unwrap();
    let file = dir.path().join("metrics.yaml");
    let write = |topic: &str| {
        let kafka = format!("{{ brokers: [\"{}\"], topic: {topic}, every: 1s }}", broker.bootstrap());
        std::fs::write(&file, format!("{shipped}\ntelemetry: {{ kafka: {kafka} }}\n")).unwrap();
    };
    write("one");
    let mut server = Server::start(file.to_str().unwrap(), &dir.path().join("data"), &[]);
    server.until("records are sent", |server| ended(server, "sent") >= 1);
    write("two");
    server.signal("HUP");
    server.until("it is reloaded", |server| server.output().contains("reloaded: topology file changed"));
    let bootstrap = broker.bootstrap();
    server.until("records are sent elsewhere", |_| !consume(&bootstrap, "two", true).is_empty());
    let sent = consume(&bootstrap, "one", true).len();
    server.until("records are sent on", |_| consume(&bootstrap, "two", true).len() >= 3);
    assert_eq!(consume(&bootstrap, "one", true).len(), sent);
}

#[test]
fn what_cannot_be_sent_to_is_told_by_check_at_its_place() {
    for (change, told) in [
        ("telemetry.kafka={}", "no broker is named"),
        ("telemetry.kafka={brokers: [kafka]}", "host:port"),
        ("telemetry.kafka={brokers: [\"k:9092\"], topic: \"a b\"}", "no name for a topic"),
        ("telemetry.kafka={brokers: [\"k:9092\"], every: 10ms}", "1s or longer"),
        ("telemetry.kafka={brokers: [\"k:9092\"], create_topics: {partitions: 0}}", "1 or more"),
        ("telemetry.kafka={brokers: [\"k:9092\"], properties: {acks: \"0\"}}", "`acks` is set by barline"),
        ("telemetry.kafka={brokers: [\"k:9092\"], properties: {linger.mz: \"0\"}}", "linger.mz"),
        ("telemetry.kafka={brokers: [\"k:9092\"], topics: x}", "did you mean `topic`?"),
    ] {
        let (code, said) = run(&mut barline(&["check", "topologies/edge.yaml", "--set", change]));
        assert!(code == Some(2) && said.contains(told), "{change}: {said}");
    }
    let fine = "telemetry.kafka={brokers: [\"k:9092\"]}";
    assert_eq!(run(&mut barline(&["check", "topologies/edge.yaml", "--set", fine])).0, Some(0));
}
