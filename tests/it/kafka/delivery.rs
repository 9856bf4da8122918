//! Bars of the built binary in the topics of a broker.

use std::collections::BTreeMap;
use std::path::Path;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Point;
use prost::Message;

use super::broker::{self, RealKafka};
use super::consumer::{Got, consume};
use super::producer::sarama;
use crate::harness::Server;

/// Starts `edge-kafka.yaml` towards `kafka`.
pub fn start(kafka: &RealKafka, data: &Path, overrides: &[&str]) -> Server {
    let brokers = format!("publish.brokers=[\"{}\"]", kafka.bootstrap());
    let mut all = vec![brokers.as_str()];
    all.extend(overrides);
    Server::start("edge-kafka.yaml", data, &all)
}

/// Sends `ticks` market ticks of `series` series at `rate`, and has every bar verified.
pub fn load(server: &Server, overrides: &[&str], duration_ms: i64) -> loadgen::report::Report {
    let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
    let profile = loadgen::profile::Profile::load("market", &overrides).unwrap();
    profile.check().unwrap();
    let patience = std::time::Duration::from_secs(60);
    let options = loadgen::run::Options {
        address: format!("http://{}", server.grpc),
        limit: loadgen::plan::Limit::For(duration_ms * 1_000_000),
        prebuild: false,
        verify: true,
        settle: patience,
        reconnect: patience,
        stream_ticks: Some(100),
        producer: None,
        record: None,
        stop: loadgen::run::Stop::default(),
    };
    let report = crate::harness::block_on(loadgen::run::run(profile, &options)).unwrap();
    assert_eq!(report.ticks.unaccounted, 0, "{}", report.table());
    report
}

/// Waits until the sink has nothing outstanding; gives what the server says of it.
pub fn until_sent(server: &mut Server) -> serde_json::Value {
    let mut sink = serde_json::Value::Null;
    server.until("every bar is sent", |server| {
        let Some((200, body)) = server.get("/api/v1/sinks") else { return false };
        let sinks: serde_json::Value = serde_json::from_str(&body).unwrap();
        sink = sinks["sinks"][0].clone();
        let followers = sink["specs"].as_array().unwrap();
        followers.iter().all(|spec| spec["outstanding"] == 0) && followers.iter().any(|spec| spec["delivered"] != 0)
    });
    sink
}

/// A bar as one record says it: key, window start, revision → ticks, volume.
pub type Sums = BTreeMap<(String, i64), (i64, i64)>;

/// What a consumer that adds delta sums up comes to, by series and window start.
pub fn added_up(records: &[Got]) -> Sums {
    let mut sums = Sums::new();
    for record in records {
        let request = ExportMetricsServiceRequest::decode(&record.value[..]).unwrap();
        let sum = |name: &str| {
            let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
            let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
            let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
            match sum.data_points[0].value {
                Some(Point::AsInt(value)) => value,
                other => panic!("{other:?}"),
            }
        };
        let start = record.header("barline.window_start_ns").parse().unwrap();
        let key = (String::from_utf8(record.key.clone().unwrap()).unwrap(), start);
        let entry = sums.entry(key).or_default();
        entry.0 += sum("market_ticks.tick_count");
        entry.1 += sum("market_ticks.volume");
    }
    sums
}

/// What is stored, in the same words.
pub fn stored(server: &Server) -> Sums {
    let bars = crate::harness::block_on(server.bars("market_ticks"));
    let int = |bar: &barline_proto::barline::Bar, name: &str| match bar.metrics[name].kind {
        Some(barline_proto::barline::value::Kind::Uint(value)) => value as i64,
        other => panic!("{other:?}"),
    };
    let entry = |bar: barline_proto::barline::Bar| {
        let key = format!("symbol={}", bar.dimensions["symbol"]);
        ((key, bar.start_ns), (bar.tick_count as i64, int(&bar, "volume")))
    };
    bars.into_iter().map(entry).collect()
}

#[test]
fn every_stored_bar_is_in_its_topic_once_with_key_partition_and_headers() {
    let Some(kafka) = broker::real(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut server = start(&kafka, &dir.path().join("data"), &[]);
    load(&server, &["series=200", "connections=2", "rate=4k"], 4_000);
    let sink = until_sent(&mut server);
    assert_eq!(sink["link"], "up", "{sink}");
    let records = consume(kafka.bootstrap(), "tikr-bars-market-1s", true);
    assert_eq!(added_up(&records), stored(&server));
    for record in &records {
        let key = record.key.clone().unwrap();
        assert_eq!(record.partition, sarama(&key, 3));
        let id =
            format!("market_ticks/1s/{}/{}", record.header("barline.window_start_ns"), String::from_utf8(key).unwrap());
        assert_eq!((record.header("barline.bar_id"), record.header("barline.series")), (id.as_str(), "market_ticks"));
    }
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
}
