//! The OpenTelemetry Collector's Kafka receiver takes every record, and what it hands on is what is stored.
//!
//! Needs a collector built by `scripts/collector build`; without one the test says on stderr that it was skipped.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use barline_proto::barline::Bar;
use barline_proto::barline::value::Kind;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Point;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, NumberDataPoint};
use prost::Message;

use super::broker;
use super::consumer::consume;
use super::flow::{self, MARKET, NETWORK};
use crate::crash::load;
use crate::harness::{block_on, root, skip};

/// Set by `.ci/run` where it has built one: then a collector that cannot be started is a failure.
const REQUIRED: &str = "BARLINE_REQUIRE_COLLECTOR";

/// `market_ticks` with units and a mean.
const SPEC: &str = "
series: market_ticks
timestamp: {field: timestamp_ns, precision: nanosecond}
dimensions: [{name: symbol, type: string}]
metrics:
  - {name: open, field: price, type: int64, aggregation: first, unit: '{cent}'}
  - {name: low, field: price, type: int64, aggregation: min, unit: '{cent}'}
  - {name: mean, field: price, type: int64, aggregation: avg, unit: '{cent}', description: of all trades}
  - {name: volume, field: quantity, type: uint64, aggregation: sum, unit: '{share}'}
granularity: {rollup: 1s}
output: {kafka: {topic: tikr-bars-market-1s, encoding: otlp}}
";

/// Of every metric whether it adds up, and its unit.
const METRICS: [(&str, bool, &str); 12] = [
    ("market_ticks.open", false, "{cent}"),
    ("market_ticks.low", false, "{cent}"),
    ("market_ticks.mean", false, "{cent}"),
    ("market_ticks.volume", true, "{share}"),
    ("market_ticks.tick_count", true, "{tick}"),
    ("network_flows.bytes_total", true, ""),
    ("network_flows.packets_total", true, ""),
    ("network_flows.max_latency_us", false, ""),
    ("network_flows.min_latency_us", false, ""),
    ("network_flows.avg_latency_numerator", true, ""),
    ("network_flows.flow_count", true, ""),
    ("network_flows.tick_count", true, "{tick}"),
];

/// A collector under way; it ends with the guard, and with the process if that is killed.
struct Collector {
    guard: Child,
    log: PathBuf,
    took: PathBuf,
}

impl Collector {
    /// One that reads the topics of both specs; `None` where there is none, which is told on stderr.
    fn start(bootstrap: &str, dir: &Path) -> Option<Self> {
        let (config, log, took) = (dir.join("collector.yaml"), dir.join("collector.log"), dir.join("took"));
        let text = format!(
            "receivers: {{kafka: {{brokers: ['{bootstrap}'], initial_offset: earliest,
               metrics: {{topics: [{MARKET}, {NETWORK}], encoding: otlp_proto}}}}}}
exporters: {{file: {{path: {}, format: proto, flush_interval: 100ms}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{metrics: {{receivers: [kafka], exporters: [file]}}}}
",
            took.display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(root().join("scripts/collector"));
        command.arg("guard").arg(&config).stdin(Stdio::piped()).stdout(Stdio::null());
        let guard = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
        let mut started = Self { guard, log, took };
        // It makes its file as it starts.
        while !started.took.exists() {
            match started.guard.try_wait().unwrap().map(|status| status.code()) {
                None => std::thread::sleep(std::time::Duration::from_millis(20)),
                Some(Some(3)) => {
                    skip(REQUIRED, started.said().trim());
                    return None;
                }
                Some(_) => panic!("the collector ended: {}", started.said()),
            }
        }
        Some(started)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has taken, in its order. Each request is behind its length; the last may not be whole yet.
    fn took(&self) -> Vec<ExportMetricsServiceRequest> {
        let bytes = std::fs::read(&self.took).unwrap();
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while let Some((len, behind)) = rest.split_first_chunk()
            && let Some((request, behind)) = behind.split_at_checked(u32::from_be_bytes(*len) as usize)
        {
            found.push(ExportMetricsServiceRequest::decode(request).unwrap());
            rest = behind;
        }
        found
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().unwrap();
    }
}

/// What the metrics of a bar come to: sums add up, the last gauge counts.
type Values = BTreeMap<String, Point>;

/// Which bar: its spec, window, and dimensions.
type Name = (String, u64, u64, BTreeMap<String, String>);

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref().and_then(|value| value.value.clone()) {
        Some(Any::StringValue(text)) => (attribute.key.clone(), text),
        other => panic!("{}: {other:?}", attribute.key),
    };
    attributes.iter().map(text).collect()
}

/// The one data point of a metric, which is of the kind and unit its spec says.
fn point(metric: &Metric) -> (bool, &NumberDataPoint) {
    let known = METRICS.iter().find(|(name, ..)| metric.name == *name);
    let (_, adds_up, unit) = known.unwrap_or_else(|| panic!("{metric:?}"));
    assert_eq!(metric.unit, *unit, "{}", metric.name);
    assert_eq!(metric.description, if metric.name == "market_ticks.mean" { "of all trades" } else { "" });
    let points = match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Delta);
            // A sum of signed values may fall.
            assert_eq!(sum.is_monotonic, metric.name != "network_flows.avg_latency_numerator", "{}", metric.name);
            &sum.data_points
        }
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    assert_eq!(matches!(metric.data, Some(Data::Sum(_))), *adds_up, "{}", metric.name);
    let [point] = &points[..] else { panic!("{metric:?}") };
    (*adds_up, point)
}

/// What somebody who adds deltas up comes to.
fn added_up(requests: &[ExportMetricsServiceRequest]) -> BTreeMap<Name, Values> {
    let mut bars = BTreeMap::<Name, Values>::new();
    for request in requests {
        let [resource] = &request.resource_metrics[..] else { panic!("{request:?}") };
        let told = texts(&resource.resource.as_ref().unwrap().attributes);
        assert_eq!((told["service.name"].as_str(), told["barline.granularity"].as_str()), ("barline", "1s"));
        for metric in &resource.scope_metrics[0].metrics {
            let (adds_up, point) = point(metric);
            let (start, end) = (point.start_time_unix_nano, point.time_unix_nano);
            let bar = (told["barline.series"].clone(), start, end, texts(&point.attributes));
            let (value, values) = (point.value.unwrap(), bars.entry(bar).or_default());
            let value = match (values.get(&metric.name), value) {
                (Some(Point::AsInt(before)), Point::AsInt(more)) if adds_up => Point::AsInt(before + more),
                _ => value,
            };
            values.insert(metric.name.clone(), value);
        }
    }
    bars
}

/// A stored bar in the same words.
fn stored(bar: &Bar) -> (Name, Values) {
    let dimensions = bar.dimensions.clone().into_iter().collect();
    let value = |kind: &Option<Kind>| match kind {
        Some(Kind::Int(value)) => Point::AsInt(*value),
        Some(Kind::Uint(value)) => Point::AsInt(*value as i64),
        Some(Kind::Float(value)) => Point::AsDouble(*value),
        None => panic!("{bar:?}"),
    };
    let metrics = bar.metrics.iter().map(|(name, metric)| (name.as_str(), value(&metric.kind)));
    let metrics = metrics.chain([("tick_count", Point::AsInt(bar.tick_count as i64))]);
    let metrics = metrics.map(|(name, value)| (format!("{}.{name}", bar.spec), value));
    ((bar.spec.clone(), bar.start_ns as u64, bar.end_ns as u64, dimensions), metrics.collect())
}

/// How often each is there.
fn counted(requests: impl IntoIterator<Item = ExportMetricsServiceRequest>) -> HashMap<Vec<u8>, usize> {
    let mut counts = HashMap::new();
    requests.into_iter().for_each(|request| *counts.entry(request.encode_to_vec()).or_default() += 1);
    counts
}

#[test]
fn the_collectors_kafka_receiver_takes_every_record_and_they_add_up_to_the_stored_bars() {
    let Some(kafka) = broker::real(&[]) else { return };
    let dir = tempfile::tempdir().unwrap();
    [MARKET, NETWORK].iter().for_each(|topic| kafka.create_topic(topic, 3));
    let Some(collector) = Collector::start(kafka.bootstrap(), dir.path()) else { return };
    let specs = dir.path().join("specs");
    std::fs::create_dir(&specs).unwrap();
    std::fs::write(specs.join("market_ticks.yaml"), SPEC).unwrap();
    std::fs::copy(root().join("specs/network_flows.yaml"), specs.join("network_flows.yaml")).unwrap();
    let sink = [flow::NO_NEW_TOPICS, &format!("specs={}", specs.display()), "publish.encoding=otlp"];
    let mut server = flow::start(kafka.bootstrap(), &dir.path().join("data"), &sink);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut loads = load::start(server.grpc, dir.path(), 1, &runtime);
    server.until("bars of both are sent", |server| {
        ["market_ticks", "network_flows"].iter().all(|spec| flow::count(server, spec, "delivered") > 300)
    });
    loads.iter_mut().for_each(|load| load.end(&runtime));
    flow::until_sent(&mut server);
    let records: Vec<_> = [MARKET, NETWORK].iter().flat_map(|topic| consume(kafka.bootstrap(), topic, true)).collect();
    assert!(records.iter().any(|record| record.header("barline.revision") != "0"), "no bar was amended");
    server.until("the collector has taken them", |_| collector.took().len() >= records.len());
    let took = collector.took();
    let sent = records.iter().map(|record| ExportMetricsServiceRequest::decode(&record.value[..]).unwrap());
    assert!(counted(took.clone()) == counted(sent), "other requests than were sent: {}", collector.said());
    let bars = ["market_ticks", "network_flows"].map(|spec| block_on(server.bars(spec))).concat();
    let expected: BTreeMap<_, _> = bars.iter().map(stored).collect();
    assert_eq!(added_up(&took), expected);
    println!("{} records, {} bars", took.len(), expected.len());
    flow::stop(server);
}
