//! gRPC's health protocol: `SERVING` while every instance of the topology is running.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::served::Served;

/// The services whose health can be asked for; the empty name is the whole server.
const SERVICES: [&str; 3] = ["", "tikr.v1.Tikr", "barline.v1.Barline"];
/// How often a watcher is told of a change, at most; nothing runs where nobody watches.
const WATCH: Duration = Duration::from_secs(1);

/// The service.
pub struct HealthService(pub Arc<Served>);

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !SERVICES.contains(&service.as_str()) {
            let known = SERVICES.join(", ");
            return Err(Status::not_found(format!("unknown service, known are the empty name{known}")));
        }
        Ok(Response::new(reply(status(&self.0))))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let known = SERVICES.contains(&request.into_inner().service.as_str());
        let begin = (self.0.clone(), None);
        let changes = stream::unfold(begin, move |(served, told)| async move {
            let now = loop {
                // The protocol keeps a watch on an unknown service open: it may come to be.
                let now = if known { status(&served) } else { ServingStatus::ServiceUnknown };
                if told != Some(now) {
                    break now;
                }
                if served.stopping().is_cancelled() {
                    return None;
                }
                tokio::select! {
                    biased;
                    () = served.stopping().cancelled() => {}
                    () = tokio::time::sleep(WATCH) => {}
                }
            };
            Some((Ok(reply(now)), (served, Some(now))))
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

fn status(served: &Served) -> ServingStatus {
    if served.unready().is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
