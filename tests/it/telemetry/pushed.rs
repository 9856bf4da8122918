//! What a collector receives of the built binary: over gRPC and over HTTP, encrypted, compressed, and each signal elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use barline::telemetry::table;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::collector::Collector;
use super::exposition::parse;
use crate::harness::{Server, barline, free_port};
use crate::security::kit::{certificates, run};

/// The way of a batch through `quickstart.yaml`.
const PATH: [&str; 6] = ["host", "journal", "route", "aggregate", "write", "reap"];

/// The spans of the first trace that has reached every stage of `path`, by stage.
fn trace_through(collector: &Collector, path: &[&str]) -> Option<BTreeMap<String, Span>> {
    let spans = collector.received().spans.clone();
    let ids: BTreeSet<_> = spans.iter().map(|span| span.trace_id.clone()).collect();
    ids.into_iter().find_map(|id| {
        let mut by_stage = BTreeMap::new();
        for span in spans.iter().filter(|span| span.trace_id == id) {
            let before = by_stage.insert(span.name.clone(), span.clone());
            assert!(before.is_none(), "two spans of {} in a trace", span.name);
        }
        path.iter().all(|stage| by_stage.contains_key(*stage)).then_some(by_stage)
    })
}

fn is_received_whole(protocol: &str) {
    let collector = Collector::default();
    let address = collector.listen(protocol == "grpc", None);
    let otlp = format!("{{endpoint: \"http://{address}\", protocol: {protocol}, every: 1s}}");
    let change = format!("telemetry={{otlp: {otlp}, traces: {{sample: 1}}}}");
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("quickstart.yaml", &dir.path().join("data"), &[&change]);
    let mut trace = BTreeMap::new();
    server.until("a trace has reached every stage and metrics were pushed twice", |_| {
        trace = trace_through(&collector, &PATH).unwrap_or_default();
        !trace.is_empty() && collector.received().metrics.len() >= 2
    });
    let mut parent = Vec::new();
    for stage in PATH {
        let span = &trace[stage];
        assert_eq!(span.parent_span_id, parent, "{stage}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano && span.trace_id.len() == 16, "{span:?}");
        let has = |key: &str| span.attributes.iter().any(|attribute| attribute.key == key);
        assert!(has("barline.queue.duration") && has("barline.handling.duration"), "{span:?}");
        parent = span.span_id.clone();
    }
    let pushed = collector.received().metrics.last().unwrap().clone();
    let metrics = &pushed.resource_metrics[0].scope_metrics[0].metrics;
    for metric in metrics {
        assert_eq!(table::find(&metric.name).map(|instrument| instrument.unit), Some(metric.unit.as_str()));
    }
    let handling = metrics.iter().find(|metric| metric.name == table::HANDLING.name).unwrap();
    let Some(Data::ExponentialHistogram(handling)) = &handling.data else { panic!("{handling:?}") };
    for point in handling.data_points.iter().filter(|point| point.count > 0) {
        assert_eq!(point.positive.as_ref().unwrap().bucket_counts.iter().sum::<u64>(), point.count);
    }
}

#[test]
fn metrics_and_a_span_per_actor_reach_a_collector_over_grpc() {
    is_received_whole("grpc");
}

#[test]
fn metrics_and_a_span_per_actor_reach_a_collector_over_http() {
    is_received_whole("http/protobuf");
}

fn body(record: &LogRecord) -> &str {
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// All signals over TLS, as the topology says; the collector's certificate is signed by an authority of its own.
fn is_received_encrypted(protocol: &str) {
    let (collector, dir) = (Collector::default(), tempfile::tempdir().unwrap());
    certificates(dir.path());
    let address = collector.listen(protocol == "grpc", Some(dir.path()));
    let ca = dir.path().join("ca.pem").display().to_string();
    let otlp =
        format!("{{endpoint: \"https://{address}\", protocol: {protocol}, every: 1s, compression: gzip, ca: {ca:?}}}");
    let change = format!("telemetry={{otlp: {otlp}, traces: {{sample: 1}}}}");
    let environment = [("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b")];
    let mut server = Server::start_in(&environment, "quickstart.yaml", &dir.path().join("data"), &[&change]);
    server.until("metrics and traces are received", |_| {
        let received = collector.received();
        !received.metrics.is_empty() && !received.spans.is_empty()
    });
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    let received = collector.received();
    // What is said last is received too.
    let last = received.logs.iter().find(|record| body(record).starts_with("stopping: ")).unwrap();
    assert_eq!((last.severity_text.as_str(), last.trace_id.len()), ("INFO", 0));
    let encoding = if protocol == "grpc" { "grpc-encoding" } else { "content-encoding" };
    for (path, head) in &received.heads {
        assert_eq!((&head["x-tenant"], &head[encoding]), (&"a b".parse().unwrap(), &"gzip".parse().unwrap()), "{path}");
    }
    assert!(!server.output().contains("telemetry is dropped"), "{}", server.output());
}

#[test]
fn all_signals_reach_a_collector_over_grpc_with_tls_and_gzip() {
    is_received_encrypted("grpc");
}

#[test]
fn all_signals_reach_a_collector_over_https_with_gzip() {
    is_received_encrypted("http/protobuf");
}

#[test]
fn a_collector_nobody_vouches_for_gets_nothing_and_the_reason_is_told() {
    let (collector, dir) = (Collector::default(), tempfile::tempdir().unwrap());
    certificates(dir.path());
    for grpc in [true, false] {
        let address = collector.listen(grpc, Some(dir.path()));
        let protocol = if grpc { "grpc" } else { "http/protobuf" };
        let change =
            format!("telemetry={{otlp: {{endpoint: \"https://{address}\", protocol: {protocol}, every: 1s}}}}");
        let mut server = Server::start("memory.yaml", &dir.path().join("data"), &[&change]);
        server.until("it is told", |server| {
            let output = server.output();
            output.contains("metrics to otlp are not taken") && output.contains("certificate")
        });
    }
    assert!(collector.received().heads.is_empty());
}

#[test]
fn each_signal_may_have_a_collector_of_its_own_as_opentelemetry_s_variables_say() {
    let [general, own, traces] = [(), (), ()].map(|()| Collector::default());
    let (base, at) = (general.listen(false, None), own.listen(false, None));
    let grpc = traces.listen(true, None);
    let urls = [format!("http://{base}/"), format!("http://{at}/own/metrics"), format!("http://{grpc}")];
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", urls[0].as_str()),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &urls[1]),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-own=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &urls[2]),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000"),
        ("OTEL_TRACES_SAMPLER_ARG", "1"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_in(&environment, "quickstart.yaml", &dir.path().join("data"), &[]);
    server.until("metrics and traces are received", |_| {
        !own.received().metrics.is_empty() && !traces.received().spans.is_empty()
    });
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    let paths = |collector: &Collector| -> BTreeSet<String> {
        collector.received().heads.iter().map(|(path, _)| path.clone()).collect()
    };
    assert_eq!(paths(&general), ["/v1/logs".to_owned()].into());
    assert_eq!(paths(&own), ["/own/metrics".to_owned()].into());
    assert_eq!((paths(&traces), traces.received().metrics.len()), (["grpc".to_owned()].into(), 0));
    assert!(own.received().heads.iter().all(|(_, head)| head["x-own"] == "1"));
}

#[test]
fn what_the_store_tells_when_it_is_opened_is_pushed_too() {
    let (collector, dir) = (Collector::default(), tempfile::tempdir().unwrap());
    let data = dir.path().join("data");
    let mut server = Server::start("edge.yaml", &data, &[]);
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    std::fs::remove_file(data.join("keyspaces/1/current")).unwrap();
    let change = format!("telemetry={{otlp: {{endpoint: \"http://{}\", every: 1s}}}}", collector.listen(false, None));
    let mut server = Server::start("edge.yaml", &data, &[&change]);
    server.until("it is received", |_| {
        collector.received().logs.iter().any(|record| body(record).contains("written anew from the manifest"))
    });
}

#[test]
fn a_collector_that_is_down_costs_a_counted_drop() {
    let nobody = free_port();
    let change = format!("telemetry={{otlp: {{endpoint: \"http://{nobody}\", every: 1s}}}}");
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("memory.yaml", &dir.path().join("data"), &[&change]);
    for signal in ["metrics", "logs"] {
        server.until("drops are counted", |server| dropped(server, signal) >= 2.0);
    }
    let output = server.output();
    assert_eq!(output.matches("metrics to otlp are not taken").count(), 1, "{output}");
    // The line about the one is pushed with the other; about neither there is a second.
    assert_eq!(output.matches("telemetry is dropped").count(), 2, "{output}");
}

#[test]
fn http_to_a_port_for_grpc_is_told_as_such() {
    let (collector, dir) = (Collector::default(), tempfile::tempdir().unwrap());
    let change = format!("telemetry={{otlp: {{endpoint: \"http://{}\", every: 1s}}}}", collector.listen(true, None));
    let mut server = Server::start("memory.yaml", &dir.path().join("data"), &[&change]);
    server.until("the remedy is told", |server| server.output().contains("seems to speak gRPC; say `protocol: grpc`"));
}

#[test]
fn what_a_collector_takes_in_part_is_counted_as_dropped_and_its_reason_told() {
    for protocol in ["grpc", "http/protobuf"] {
        let (collector, dir) = (Collector::default(), tempfile::tempdir().unwrap());
        collector.received().rejects = 3;
        let address = collector.listen(protocol == "grpc", None);
        let change = format!("telemetry={{otlp: {{endpoint: \"http://{address}\", protocol: {protocol}, every: 1s}}}}");
        let mut server = Server::start("memory.yaml", &dir.path().join("data"), &[&change]);
        server.until("drops are counted", |server| dropped(server, "metrics") >= 2.0);
        let told = "metrics to otlp are not taken: 3 of one push rejected: too old";
        assert_eq!(server.output().matches(told).count(), 1, "{}", server.output());
        collector.received().rejects = 0;
        server.until("all is taken", |server| server.output().contains("metrics to otlp are taken again"));
        assert_eq!(dropped(&server, "logs"), 0.0);
    }
}

#[test]
fn nobody_who_never_answers_holds_up_a_stop() {
    // It takes connections and says nothing; a push to it may take longer than this test has patience.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for protocol in ["grpc", "http/protobuf"] {
        let otlp = format!("telemetry.otlp={{endpoint: {url:?}, protocol: {protocol}, every: 1s, timeout: 10m}}");
        let kafka = format!("telemetry.kafka={{brokers: [{:?}], every: 1s, timeout: 10m}}", free_port().to_string());
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start("quickstart.yaml", &dir.path().join("data"), &[&otlp, &kafka]);
        server.until("bars are stored", |server| {
            let samples =
                Server::get_from(server.metrics, "/metrics", "*/*").map_or_else(Vec::new, |(_, text)| parse(&text));
            samples.iter().any(|s| s.name == "barline_bar_stored_delay_seconds_count" && s.value > 0.0)
        });
        server.signal("TERM");
        assert!(server.wait().success(), "{}", server.output());
    }
}

/// How many pushes of `signal` to a collector were dropped.
fn dropped(server: &Server, signal: &str) -> f64 {
    let scraped = Server::get_from(server.metrics, "/metrics", "*/*").map_or_else(Vec::new, |(_, text)| parse(&text));
    let about = [("signal", signal), ("destination", "otlp"), ("outcome", "dropped")];
    let is_it = |sample: &&super::exposition::Sample| {
        sample.name == "barline_telemetry_exports_total"
            && about.iter().all(|(label, value)| sample.labels[*label] == *value)
    };
    scraped.iter().find(is_it).map_or(0.0, |sample| sample.value)
}

#[test]
fn what_cannot_be_pushed_to_is_told_by_check() {
    for (change, told) in [
        ("telemetry.otlp={endpoint: collector}", "https://HOST:PORT"),
        ("telemetry.otlp={endpoint: \"http://c\", signals: [metric]}", "did you mean `metrics`?"),
        ("telemetry.otlp={endpoint: \"http://c\", compression: zstd}", "none, gzip"),
        ("telemetry.otlp={endpoint: \"https://c\", ca: /no/such.pem}", "certificates /no/such.pem"),
        ("telemetry.otlp={endpoint: \"https://c\", certificate: a.pem}", "give both or neither"),
    ] {
        let (code, said) = run(&mut barline(&["check", "topologies/edge.yaml", "--set", change]));
        assert!(code == Some(2) && said.contains(told), "{change}: {said}");
    }
}
