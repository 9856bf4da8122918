//! `barline.v1.Barline/Ingest`: columnar batches in, one acknowledgement per batch, in their order.

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use barline_proto::barline::{IngestAck, IngestBatch, Rejection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::collector::{CollectError, Collector, Ticket};
use super::tikr::broken;
use crate::codec::{ColumnarDecoder, Decoded};

/// Batches of one stream that may wait for their acknowledgement; further ones wait in the client.
const UNACKNOWLEDGED: usize = 256;

/// Adds the method to the services of the query side.
pub fn add_route(routes: Router, collector: Arc<Collector>, max_message: usize) -> Router {
    let handler = move |request: http::Request<axum::body::Body>| {
        let collector = collector.clone();
        async move {
            let mut grpc = Grpc::new(ProstCodec::<IngestAck, IngestBatch>::default())
                .max_decoding_message_size(max_message)
                .accept_compressed(CompressionEncoding::Gzip);
            let service = tower::service_fn(move |request: Request<Streaming<IngestBatch>>| {
                let acks = ingest(collector.clone(), request.into_inner());
                async { Ok::<_, Status>(Response::new(acks)) }
            });
            grpc.streaming(service, request).await
        }
    };
    routes.route("/barline.v1.Barline/Ingest", any(handler))
}

type Acks = mpsc::Sender<Result<IngestAck, Status>>;

/// A batch that was taken, and what to say when it is durable.
struct Waiting {
    ack: IngestAck,
    ticket: Option<Ticket>,
}

/// Reads batches in one task and acknowledges them in another, so that reading goes on while batches wait to become
/// durable.
fn ingest(collector: Arc<Collector>, stream: Streaming<IngestBatch>) -> ReceiverStream<Result<IngestAck, Status>> {
    let (acks, replies) = mpsc::channel(UNACKNOWLEDGED);
    let (waiting, durable) = mpsc::channel(UNACKNOWLEDGED);
    tokio::spawn(acknowledge(collector.clone(), durable, acks));
    tokio::spawn(async move {
        if let Err(status) = read(&collector, stream, &waiting).await {
            // The acknowledging task has ended only if the client is gone.
            let _ = waiting.send(Err(status)).await;
        }
    });
    ReceiverStream::new(replies)
}

async fn read(
    collector: &Collector,
    mut stream: Streaming<IngestBatch>,
    waiting: &mpsc::Sender<Result<Waiting, Status>>,
) -> Result<(), Status> {
    let mut decoder = ColumnarDecoder::new(collector.context.specs.clone());
    loop {
        let message = tokio::select! {
            biased;
            message = stream.message() => message,
            () = collector.source.stop.cancelled() => return Err(Status::unavailable("barline is stopping")),
        };
        let Some(batch) = message.map_err(broken)? else { return Ok(()) };
        let now = collector.now();
        let catalog = collector.context.catalog.clone();
        let taken = collector.collect(|builders| Ok(decoder.decode(&batch, now, catalog.as_ref(), builders))).await;
        let (decoded, ticket) = taken.map_err(|error| match error {
            CollectError::Malformed(malformed) => Status::invalid_argument(malformed.to_string()),
            CollectError::Closed => Status::unavailable("barline is stopping"),
        })?;
        let ack = ack_of(batch.batch_id, &decoded);
        if waiting.send(Ok(Waiting { ack, ticket })).await.is_err() {
            return Ok(());
        }
    }
}

async fn acknowledge(collector: Arc<Collector>, mut durable: mpsc::Receiver<Result<Waiting, Status>>, acks: Acks) {
    while let Some(next) = durable.recv().await {
        let reply = match next {
            Ok(Waiting { ack, ticket: None }) => Ok(ack),
            Ok(Waiting { ack, ticket: Some(ticket) }) => {
                let gone = |_| Status::unavailable("the pipeline is gone; this batch may not be stored");
                collector.settle(ticket).await.map(|()| ack).map_err(gone)
            }
            Err(status) => Err(status),
        };
        let last = reply.is_err();
        if acks.send(reply).await.is_err() || last {
            return;
        }
    }
}

fn ack_of(batch_id: u64, decoded: &Decoded) -> IngestAck {
    let rejected = decoded.rejected.iter().map(|rejection| Rejection {
        reason: rejection.reason.name().to_owned(),
        rows: rejection.rows,
        example_rows: rejection.examples.clone(),
        message: rejection.message.clone(),
    });
    IngestAck { batch_id, accepted: decoded.accepted, rejected: rejected.collect(), ..IngestAck::default() }
}
