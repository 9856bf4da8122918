//! `tikr.v1.Tikr/IngestTicks`: a client stream of rows, one reply at its end.
//!
//! A bad tick never fails the stream: the reply counts the accepted ticks, its trailing metadata the rejected ones by
//! reason. Only bytes that are no message end the stream, and what was accepted before them is kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use barline_proto::tikr::IngestResponse;
use bytes::{Buf, Bytes};
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::collector::{CollectError, Collector, Ticket};
use crate::codec::{Decoded, TikrDecoder};
use crate::model::{Reason, SpecId};

/// Adds the method to the services of the query side.
pub fn add_route(routes: Router, collector: Arc<Collector>, max_message: usize) -> Router {
    let handler = move |request: http::Request<axum::body::Body>| {
        let collector = collector.clone();
        async move {
            let mut grpc =
                Grpc::new(RawCodec).max_decoding_message_size(max_message).accept_compressed(CompressionEncoding::Gzip);
            let service =
                tower::service_fn(move |request: Request<Streaming<Bytes>>| ingest(collector.clone(), request));
            grpc.streaming(service, request).await
        }
    };
    routes.route("/tikr.v1.Tikr/IngestTicks", any(handler))
}

/// The reply of a client-streaming call: one message, then a status whose metadata becomes the trailers.
type Reply = tokio_stream::Iter<std::vec::IntoIter<Result<IngestResponse, Status>>>;

async fn ingest(collector: Arc<Collector>, request: Request<Streaming<Bytes>>) -> Result<Response<Reply>, Status> {
    let mut tally = Tally::default();
    let ended = read(&collector, request.into_inner(), &mut tally).await;
    for ticket in tally.tickets() {
        if collector.settle(ticket).await.is_err() {
            return Err(tally.status(Code::Unavailable, "the pipeline is gone; the last ticks may not be stored"));
        }
    }
    match ended {
        Ok(()) => {
            let response = IngestResponse { ticks_received: tally.accepted };
            let trailers = tally.status(Code::Ok, "");
            Ok(Response::new(tokio_stream::iter(vec![Ok(response), Err(trailers)])))
        }
        Err(status) => Err(tally.status(status.code(), status.message())),
    }
}

/// Reads the stream to its end.
async fn read(collector: &Collector, mut stream: Streaming<Bytes>, tally: &mut Tally) -> Result<(), Status> {
    let mut decoder = TikrDecoder::new(collector.context.specs.clone());
    loop {
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            () = collector.source.stop.cancelled() => return Err(Status::unavailable("barline is stopping")),
        };
        let Some(message) = message.map_err(broken)? else { return Ok(()) };
        let now = collector.now();
        let catalog = collector.context.catalog.clone();
        let taken = collector.collect(|builders| decoder.decode(&message, now, catalog.as_ref(), builders)).await;
        match taken {
            Ok((decoded, ticket)) => tally.add(&decoded, ticket),
            Err(CollectError::Malformed(malformed)) => return Err(Status::invalid_argument(malformed.to_string())),
            Err(CollectError::Closed) => return Err(Status::unavailable("barline is stopping")),
        }
    }
}

/// What a client's stream broke with, in the field's words. tonic calls a message over the limit out of range, and one
/// that cannot be decoded an error of its own.
pub fn broken(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::resource_exhausted(status.message().to_owned()),
        Code::Internal => Status::invalid_argument(status.message().to_owned()),
        _ => status,
    }
}

/// What became of a stream's ticks so far.
#[derive(Default)]
struct Tally {
    accepted: u64,
    rejected: BTreeMap<Reason, u64>,
    /// By spec, the last batch that holds ticks of this stream.
    last: BTreeMap<SpecId, u64>,
}

impl Tally {
    fn add(&mut self, decoded: &Decoded, ticket: Option<Ticket>) {
        self.accepted += decoded.accepted;
        for rejection in decoded.rejected.iter() {
            *self.rejected.entry(rejection.reason).or_default() += rejection.rows;
        }
        if let Some(ticket) = ticket {
            self.last.insert(ticket.spec, ticket.batch);
        }
    }

    fn tickets(&self) -> Vec<Ticket> {
        self.last.iter().map(|(spec, batch)| Ticket { spec: *spec, batch: *batch }).collect()
    }

    /// A status that says in its metadata what was accepted and what was rejected, why.
    fn status(&self, code: Code, message: &str) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert("barline-accepted", self.accepted.into());
        for (reason, ticks) in &self.rejected {
            if let Ok(key) = MetadataKey::from_bytes(format!("barline-rejected-{}", reason.name()).as_bytes()) {
                metadata.insert(key, (*ticks).into());
            }
        }
        Status::with_metadata(code, message, metadata)
    }
}

/// Hands messages over as the bytes they are; replies are ordinary protobuf.
struct RawCodec;

/// See [`RawCodec`].
struct RawDecoder;

impl Codec for RawCodec {
    type Encode = IngestResponse;
    type Decode = Bytes;
    type Encoder = <ProstCodec<IngestResponse, ()> as Codec>::Encoder;
    type Decoder = RawDecoder;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<IngestResponse, ()>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        RawDecoder
    }
}

impl Decoder for RawDecoder {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(message.copy_to_bytes(message.remaining())))
    }
}
