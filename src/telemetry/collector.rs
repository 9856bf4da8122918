//! A collector that one signal is pushed to, over gRPC or over HTTP. It is connected to when there is something to push,
//! and nothing is repeated: what it does not take in time is dropped.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flate2::write::GzEncoder;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, header};
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::web::{self, Wrong};
use crate::runtime::tls;
use crate::topology::{CollectorPlan, CollectorTls, Compression, Protocol, Signal, TelemetryPlan};

/// What a signal is pushed as.
pub trait Export: Message + 'static {
    /// What is answered.
    type Reply: Message + Default + 'static;
    /// The signal.
    const SIGNAL: Signal;
    /// The method of gRPC.
    const METHOD: &'static str;
    /// How many points, spans or lines were not taken though the rest was, and why.
    fn rejected(reply: Self::Reply) -> Option<(i64, String)>;
}

impl Export for ExportMetricsServiceRequest {
    type Reply = ExportMetricsServiceResponse;
    const SIGNAL: Signal = Signal::Metrics;
    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

    fn rejected(reply: Self::Reply) -> Option<(i64, String)> {
        reply.partial_success.map(|part| (part.rejected_data_points, part.error_message))
    }
}

impl Export for ExportTraceServiceRequest {
    type Reply = ExportTraceServiceResponse;
    const SIGNAL: Signal = Signal::Traces;
    const METHOD: &'static str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

    fn rejected(reply: Self::Reply) -> Option<(i64, String)> {
        reply.partial_success.map(|part| (part.rejected_spans, part.error_message))
    }
}

impl Export for ExportLogsServiceRequest {
    type Reply = ExportLogsServiceResponse;
    const SIGNAL: Signal = Signal::Logs;
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

    fn rejected(reply: Self::Reply) -> Option<(i64, String)> {
        reply.partial_success.map(|part| (part.rejected_log_records, part.error_message))
    }
}

/// What is said where HTTP/2 is answered to HTTP/1: its first frame comes before or after the question.
const ANSWERS_OF_GRPC: [&str; 2] = ["invalid HTTP version", "unexpected message from connection"];

/// Where pushes of one signal go.
pub struct Collector {
    way: Way,
    headers: http::HeaderMap,
    compression: Compression,
    timeout: Duration,
}

/// How it is spoken to.
enum Way {
    Http {
        url: http::Uri,
        access: web::Access,
    },
    Grpc {
        endpoint: Box<Endpoint>,
        /// It connects by itself, and again when it has to.
        channel: Option<Channel>,
    },
}

impl Collector {
    /// The collector of `signal`, if `plan` names one; reads the certificates it needs.
    ///
    /// # Errors
    /// A URL, header, certificate or key cannot be used, and why.
    pub fn open(plan: &TelemetryPlan, signal: Signal) -> Result<Option<Self>, String> {
        let Some(plan) = plan.collector(signal) else { return Ok(None) };
        let told = |error: String| format!("telemetry: {} cannot be pushed to {}: {error}", signal.name(), plan.url);
        Self::of(&plan).map(Some).map_err(told)
    }

    fn of(plan: &CollectorPlan) -> Result<Self, String> {
        let url: http::Uri = plan.url.parse().map_err(|error| format!("it is no URL: {error}"))?;
        let secure = url.scheme_str() == Some("https");
        let way = match plan.protocol {
            Protocol::Http => {
                let tls = secure.then(|| tls::client(plan.tls.ca.as_deref(), own(&plan.tls)?)).transpose()?;
                Way::Http { url, access: web::Access { authorization: None, tls: tls.map(Arc::new) } }
            }
            Protocol::Grpc => {
                let mut endpoint = Endpoint::from(url);
                if secure {
                    // What is read here is checked as for HTTP, whose errors say more.
                    tls::client(plan.tls.ca.as_deref(), own(&plan.tls)?)?;
                    endpoint = endpoint.tls_config(grpc_tls(&plan.tls)?).map_err(|error| error.to_string())?;
                }
                Way::Grpc { endpoint: Box::new(endpoint), channel: None }
            }
        };
        let timeout = Duration::from_nanos(u64::try_from(plan.timeout).unwrap_or(0));
        Ok(Self { way, headers: headers(&plan.headers)?, compression: plan.compression, timeout })
    }

    /// Pushes `message`.
    ///
    /// # Errors
    /// It was not taken in time, and why.
    pub async fn push<M: Export>(&mut self, message: M) -> Result<(), String> {
        let (timeout, headers, compression) = (self.timeout, self.headers.clone(), self.compression);
        let pushed = async {
            match &mut self.way {
                Way::Http { url, access } => post(url.clone(), access, headers, compression, message).await,
                Way::Grpc { endpoint, channel } => {
                    let channel = channel.get_or_insert_with(|| endpoint.connect_lazy()).clone();
                    call(channel, headers, compression, message).await
                }
            }
        };
        let in_time = tokio::time::timeout(timeout, pushed).await;
        let reply = in_time.map_err(|_| format!("no answer within {timeout:?}"))?.map_err(|error| told(&*error));
        reply.map_err(|error| match self.way {
            Way::Http { .. } if ANSWERS_OF_GRPC.iter().any(|answer| error.contains(answer)) => {
                format!("{error}: whoever listens there seems to speak gRPC; say `protocol: grpc`, or name its port for HTTP")
            }
            _ => error,
        })
    }
}

async fn post<M: Export>(
    url: http::Uri,
    access: &web::Access,
    headers: http::HeaderMap,
    compression: Compression,
    message: M,
) -> Result<(), Wrong> {
    let mut body = message.encode_to_vec();
    let mut request = http::Request::post(url).body(Full::default())?;
    *request.headers_mut() = headers;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    if compression == Compression::Gzip {
        let mut gzip = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&body)?;
        body = gzip.finish()?;
        request.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    *request.body_mut() = Full::from(body);
    let (status, body) = web::send(request, access).await?;
    if !status.is_success() {
        return Err(format!("the collector answered {status}").into());
    }
    // Whoever answers in other words has taken it.
    whole::<M>(M::Reply::decode(body).unwrap_or_default())
}

async fn call<M: Export>(
    channel: Channel,
    headers: http::HeaderMap,
    compression: Compression,
    message: M,
) -> Result<(), Wrong> {
    let mut client = Grpc::new(channel);
    if compression == Compression::Gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    client.ready().await?;
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    let codec = tonic_prost::ProstCodec::<M, M::Reply>::default();
    whole::<M>(client.unary(request, PathAndQuery::from_static(M::METHOD), codec).await?.into_inner())
}

/// Whether all of it was taken.
fn whole<M: Export>(reply: M::Reply) -> Result<(), Wrong> {
    match M::rejected(reply) {
        Some((rejected, why)) if rejected > 0 => Err(format!("{rejected} of one push rejected: {why}").into()),
        _ => Ok(()),
    }
}

/// An error and what caused it in the first place: "transport error" alone says nothing.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last().map(ToString::to_string);
    let told = error.to_string();
    match innermost.filter(|innermost| !told.contains(innermost)) {
        Some(innermost) => format!("{told}: {innermost}"),
        None => told,
    }
}

/// What is sent with every push; none of it is shown.
fn headers(pairs: &[(String, String)]) -> Result<http::HeaderMap, String> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in pairs {
        let unfit = |error: &dyn std::fmt::Display| format!("the header {name:?} cannot be sent: {error}");
        let key = HeaderName::try_from(name).map_err(|error| unfit(&error))?;
        let mut value = HeaderValue::try_from(value).map_err(|error| unfit(&error))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// Our own certificate and its key.
fn own(tls: &CollectorTls) -> Result<Option<(&Path, &Path)>, String> {
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        _ => Err("a certificate needs its key, and a key its certificate: give both or neither".to_owned()),
    }
}

fn grpc_tls(tls: &CollectorTls) -> Result<ClientTlsConfig, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let config = ClientTlsConfig::new();
    let config = match &tls.ca {
        Some(path) => config.ca_certificate(Certificate::from_pem(read(path)?)),
        None => config.with_native_roots(),
    };
    Ok(match own(tls)? {
        Some((certificate, key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
        None => config,
    })
}
