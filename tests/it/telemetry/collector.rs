//! A collector for tests: it takes all signals over gRPC or HTTP, with TLS and gzip, and keeps them with their headers.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::State;
use axum::routing::post;
use barline::runtime::tls;
use barline::topology::security::Tls;
use http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// What has been received.
#[derive(Default)]
pub struct Received {
    pub metrics: Vec<ExportMetricsServiceRequest>,
    pub spans: Vec<Span>,
    pub logs: Vec<LogRecord>,
    /// The headers of every push, and the path it came to.
    pub heads: Vec<(String, HeaderMap)>,
    /// How many points of every push of metrics it says it did not take.
    pub rejects: i64,
}

/// Clones are the same one.
#[derive(Clone, Default)]
pub struct Collector(Arc<Mutex<Received>>);

impl Collector {
    /// What has been received.
    pub fn received(&self) -> MutexGuard<'_, Received> {
        self.0.lock().unwrap()
    }

    /// Listens on a thread of its own; with TLS where `certificates` has a `server.pem` and its key.
    pub fn listen(&self, grpc: bool, certificates: Option<&Path>) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (address, collector) = (listener.local_addr().unwrap(), self.clone());
        let certificates = certificates.map(|dir| (dir.join("server.pem"), dir.join("server.key")));
        std::thread::spawn(move || {
            crate::harness::block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                match (grpc, certificates) {
                    (true, certificates) => collector.serve_grpc(listener, certificates.map(identity)).await,
                    (false, None) => axum::serve(listener, collector.routes()).await.unwrap(),
                    (false, Some((certificate, key))) => {
                        let config = tls::server(&Tls { certificate, key, client_ca: None }).unwrap();
                        let listener = Encrypted(listener, tls::acceptor(&config, b"http/1.1"));
                        axum::serve(listener, collector.routes()).await.unwrap();
                    }
                }
            });
        });
        address
    }

    async fn serve_grpc(self, listener: TcpListener, identity: Option<Identity>) {
        let mut server = tonic::transport::Server::builder();
        if let Some(identity) = identity {
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        }
        server
            .add_service(MetricsServiceServer::new(self.clone()).accept_compressed(Gzip))
            .add_service(TraceServiceServer::new(self.clone()).accept_compressed(Gzip))
            .add_service(LogsServiceServer::new(self).accept_compressed(Gzip))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await
            .unwrap();
    }

    /// Every signal at its usual path, and metrics at one of their own.
    fn routes(self) -> axum::Router {
        axum::Router::new()
            .route("/v1/metrics", post(http_metrics))
            .route("/own/metrics", post(http_metrics))
            .route("/v1/traces", post(http_traces))
            .route("/v1/logs", post(http_logs))
            .with_state(self)
    }

    fn take_metrics(
        &self,
        path: &str,
        head: HeaderMap,
        request: ExportMetricsServiceRequest,
    ) -> ExportMetricsServiceResponse {
        let mut received = self.received();
        received.heads.push((path.to_owned(), head));
        received.metrics.push(request);
        let partial_success = (received.rejects > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points: received.rejects,
            error_message: "too old".to_owned(),
        });
        ExportMetricsServiceResponse { partial_success }
    }

    fn take_traces(&self, path: &str, head: HeaderMap, request: ExportTraceServiceRequest) {
        let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        let mut received = self.received();
        received.heads.push((path.to_owned(), head));
        received.spans.extend(scopes.flat_map(|scope| scope.spans));
    }

    fn take_logs(&self, path: &str, head: HeaderMap, request: ExportLogsServiceRequest) {
        let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
        let mut received = self.received();
        received.heads.push((path.to_owned(), head));
        received.logs.extend(scopes.flat_map(|scope| scope.log_records));
    }
}

fn identity((certificate, key): (std::path::PathBuf, std::path::PathBuf)) -> Identity {
    Identity::from_pem(std::fs::read(certificate).unwrap(), std::fs::read(key).unwrap())
}

/// A listener whose connections are encrypted.
struct Encrypted(TcpListener, tokio_rustls::TlsAcceptor);

impl axum::serve::Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A body as it was before it was compressed.
fn decoded<M: Message + Default>(head: &HeaderMap, body: &[u8]) -> M {
    let mut plain = Vec::new();
    match head.get("content-encoding").map(|encoding| encoding.to_str().unwrap()) {
        Some("gzip") => _ = flate2::read::GzDecoder::new(body).read_to_end(&mut plain).unwrap(),
        None => plain.extend(body),
        Some(other) => panic!("{other}"),
    }
    M::decode(plain.as_slice()).unwrap()
}

async fn http_metrics(
    State(collector): State<Collector>,
    uri: axum::http::Uri,
    head: HeaderMap,
    body: bytes::Bytes,
) -> Vec<u8> {
    let request = decoded(&head, &body);
    collector.take_metrics(uri.path(), head, request).encode_to_vec()
}

async fn http_traces(State(collector): State<Collector>, uri: axum::http::Uri, head: HeaderMap, body: bytes::Bytes) {
    let request = decoded(&head, &body);
    collector.take_traces(uri.path(), head, request);
}

async fn http_logs(State(collector): State<Collector>, uri: axum::http::Uri, head: HeaderMap, body: bytes::Bytes) {
    let request = decoded(&head, &body);
    collector.take_logs(uri.path(), head, request);
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let head = request.metadata().clone().into_headers();
        Ok(Response::new(self.take_metrics("grpc", head, request.into_inner())))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_traces("grpc", request.metadata().clone().into_headers(), request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.take_logs("grpc", request.metadata().clone().into_headers(), request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}
