//! What a collector receives of the built binary, over gRPC and over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::post;
use barline::telemetry::table;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::harness::Server;

/// What has been received.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<(Vec<ExportMetricsServiceRequest>, Vec<Span>)>>);

impl Collector {
    fn take_metrics(&self, request: ExportMetricsServiceRequest) {
        self.0.lock().unwrap().0.push(request);
    }

    fn take_traces(&self, request: ExportTraceServiceRequest) {
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap().1.extend(scopes.flat_map(|scope| scope.spans));
    }

    /// Listens on a thread of its own.
    fn listen(&self, grpc: bool) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, collector) = (listener.local_addr().unwrap(), self.clone());
        std::thread::spawn(move || {
            crate::harness::block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                if grpc {
                    tonic::transport::Server::builder()
                        .add_service(MetricsServiceServer::new(collector.clone()))
                        .add_service(TraceServiceServer::new(collector))
                        .serve_with_incoming(TcpListenerStream::new(listener))
                        .await
                        .unwrap();
                } else {
                    let routes = axum::Router::new()
                        .route("/v1/metrics", post(http_metrics))
                        .route("/v1/traces", post(http_traces))
                        .with_state(collector);
                    axum::serve(listener, routes).await.unwrap();
                }
            });
        });
        address
    }

    /// The spans of the first trace that has reached every stage of `path`, by stage.
    fn trace_through(&self, path: &[&str]) -> Option<BTreeMap<String, Span>> {
        let spans = self.0.lock().unwrap().1.clone();
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
}

async fn http_metrics(State(collector): State<Collector>, body: bytes::Bytes) {
    collector.take_metrics(ExportMetricsServiceRequest::decode(body).unwrap());
}

async fn http_traces(State(collector): State<Collector>, body: bytes::Bytes) {
    collector.take_traces(ExportTraceServiceRequest::decode(body).unwrap());
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.take_metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_traces(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// The way of a batch through `quickstart.yaml`.
const PATH: [&str; 6] = ["host", "journal", "route", "aggregate", "write", "reap"];

fn is_received_whole(protocol: &str) {
    let collector = Collector::default();
    let address = collector.listen(protocol == "grpc");
    let otlp = format!("{{endpoint: \"http://{address}\", protocol: {protocol}, every: 1s}}");
    let change = format!("telemetry={{otlp: {otlp}, traces: {{sample: 1}}}}");
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("quickstart.yaml", &dir.path().join("data"), &[&change]);
    let mut trace = BTreeMap::new();
    server.until("a trace has reached every stage and metrics were pushed twice", |_| {
        trace = collector.trace_through(&PATH).unwrap_or_default();
        !trace.is_empty() && collector.0.lock().unwrap().0.len() >= 2
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
    let pushed = collector.0.lock().unwrap().0.last().unwrap().clone();
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

#[test]
fn a_collector_that_is_down_costs_a_counted_drop() {
    let nobody = crate::harness::free_port();
    let change = format!("telemetry={{otlp: {{endpoint: \"http://{nobody}\", every: 1s}}}}");
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("memory.yaml", &dir.path().join("data"), &[&change]);
    server.until("a drop is counted", |server| {
        let scraped = Server::get_from(server.metrics, "/metrics", "*/*")
            .map_or_else(Vec::new, |(_, text)| super::exposition::parse(&text));
        let dropped = |sample: &&super::exposition::Sample| {
            sample.name == "barline_telemetry_exports_total" && sample.labels["outcome"] == "dropped"
        };
        scraped.iter().filter(dropped).any(|sample| sample.labels["signal"] == "metrics" && sample.value >= 2.0)
    });
    assert_eq!(server.output().matches("telemetry is dropped").count(), 1, "{}", server.output());
}
