//! A collector to push to, over gRPC or over HTTP. It is connected to when there is something to push, and nothing is
//! repeated: what it does not take in time is dropped.

use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::Full;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use super::web::{self, Wrong};
use crate::topology::{Protocol, TelemetryPlan};

/// Where pushes go.
pub struct Collector {
    endpoint: String,
    protocol: Protocol,
    headers: Vec<(String, String)>,
    timeout: Duration,
    /// Of gRPC; it connects by itself, and again when it has to.
    channel: Option<Channel>,
}

impl Collector {
    /// The collector of `plan`, if it names one.
    pub fn of(plan: &TelemetryPlan) -> Option<Self> {
        Some(Self {
            endpoint: plan.endpoint.clone()?,
            protocol: plan.protocol,
            headers: plan.headers.clone(),
            timeout: Duration::from_nanos(u64::try_from(plan.timeout).unwrap_or(0)),
            channel: None,
        })
    }

    /// Pushes metrics.
    pub async fn metrics(&mut self, message: ExportMetricsServiceRequest) -> Result<(), Wrong> {
        match self.protocol {
            Protocol::Http => self.bounded(self.post("/v1/metrics", message.encode_to_vec())).await,
            Protocol::Grpc => {
                let request = self.request(message)?;
                let mut client = MetricsServiceClient::new(self.channel()?);
                self.bounded(async { Ok(client.export(request).await.map(drop)?) }).await
            }
        }
    }

    /// Pushes traces.
    pub async fn traces(&mut self, message: ExportTraceServiceRequest) -> Result<(), Wrong> {
        match self.protocol {
            Protocol::Http => self.bounded(self.post("/v1/traces", message.encode_to_vec())).await,
            Protocol::Grpc => {
                let request = self.request(message)?;
                let mut client = TraceServiceClient::new(self.channel()?);
                self.bounded(async { Ok(client.export(request).await.map(drop)?) }).await
            }
        }
    }

    async fn bounded(&self, push: impl Future<Output = Result<(), Wrong>>) -> Result<(), Wrong> {
        match tokio::time::timeout(self.timeout, push).await {
            Ok(pushed) => pushed,
            Err(_) => Err(format!("no answer within {:?}", self.timeout).into()),
        }
    }

    fn channel(&mut self) -> Result<Channel, Wrong> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let channel = Endpoint::from_shared(self.endpoint.clone())?.connect_lazy();
        Ok(self.channel.insert(channel).clone())
    }

    fn request<M>(&self, message: M) -> Result<tonic::Request<M>, Wrong> {
        let mut request = tonic::Request::new(message);
        for (key, value) in &self.headers {
            let key = MetadataKey::from_bytes(key.to_ascii_lowercase().as_bytes())?;
            request.metadata_mut().insert(key, MetadataValue::try_from(value)?);
        }
        Ok(request)
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<(), Wrong> {
        let uri = format!("{}{path}", self.endpoint.trim_end_matches('/'));
        let mut request = Request::post(uri).header(header::CONTENT_TYPE, "application/x-protobuf");
        for (key, value) in &self.headers {
            request = request.header(key, value);
        }
        let (status, _) = web::send(request.body(Full::from(body))?, &web::Access::default()).await?;
        if status == StatusCode::OK { Ok(()) } else { Err(format!("the collector answered {status}").into()) }
    }
}
