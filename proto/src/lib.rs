//! The gRPC contracts barline serves: messages, clients and servers generated from `proto/`.
//!
//! [`tikr`] is the wire of existing tikr clients, unchanged. [`barline`] is barline's own: columnar
//! ingest with one acknowledgement per batch, live bars, and queries.

/// `tikr.v1`: the contract existing tikr clients speak.
#[allow(missing_docs, clippy::all)]
pub mod tikr {
    tonic::include_proto!("tikr.v1");
}

/// `barline.v1`: columnar ingest, live bars, queries, the ledger, and the operators' jobs.
#[allow(missing_docs, clippy::all)]
pub mod barline {
    tonic::include_proto!("barline.v1");
}

/// The encoded descriptor set of what the ports serve, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
