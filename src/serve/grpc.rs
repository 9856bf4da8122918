//! The gRPC services of the query side as one router.

use std::sync::Arc;

use axum::Router;
use barline_proto::barline::barline_server::BarlineServer;
use barline_proto::tikr::tikr_server::TikrServer;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;

use super::barline::BarlineService;
use super::health::HealthService;
use super::served::Served;
use super::tikr::TikrService;

/// Every gRPC service but ingest. `tikr.v1.Tikr/IngestTicks` and `barline.v1.Barline/Ingest` answer `UNIMPLEMENTED`
/// until a `grpc_ingest` stage adds its more specific routes for exactly these two paths.
pub fn grpc(served: Arc<Served>) -> Router {
    let services = Routes::new(TikrServer::new(TikrService(served.clone())).accept_compressed(Gzip))
        .add_service(BarlineServer::new(BarlineService(served.clone())).accept_compressed(Gzip))
        .add_service(HealthServer::new(HealthService(served)));
    let descriptors = || {
        let builder = Builder::configure().register_encoded_file_descriptor_set(barline_proto::DESCRIPTORS);
        builder.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The descriptors are compiled in, and a test reads them: they cannot fail to parse.
    let services = match (descriptors().build_v1(), descriptors().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => services.add_service(v1).add_service(v1alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!("grpc reflection is off: {error}");
            services
        }
    };
    services.prepare().into_axum_router()
}
