//! `barline.v1.Barline/Ingest`: columnar batches in, one acknowledgement per batch, in their order.

use std::sync::Arc;

use axum::Router;
use axum::routing::any;
use barline_proto::barline::{Durability, IngestAck, IngestBatch, Rejection};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::server::Grpc;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::collector::{CollectError, Collector, Ticket};
use super::tikr::broken;
use crate::codec::{Builders, ColumnarDecoder, Decoded};
use crate::model::{Fate, Origin};
use crate::runtime::producers::{LONGEST_ID, MOST};
use crate::runtime::{Admission, Context, Promise};

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
        let waits = match admit(collector, &batch).await? {
            Some(origin) => take(collector, &mut decoder, &batch, origin).await?,
            None => Waiting { ack: pass_over(collector, &mut decoder, &batch), ticket: None },
        };
        if waiting.send(Ok(waits)).await.is_err() {
            return Ok(());
        }
    }
}

/// Who sent a batch, where the producer says so.
type Sender = Option<Origin>;

/// Asks whether a batch is to be taken; `None` where it was taken before. One that was sent before and is still on its
/// way is waited for.
async fn admit(collector: &Collector, batch: &IngestBatch) -> Result<Option<Sender>, Status> {
    let (producer, number) = (batch.producer_id.as_str(), batch.batch_id);
    if producer.is_empty() {
        return Ok(Some(None));
    }
    if producer.len() > LONGEST_ID {
        let length = producer.len();
        return Err(Status::invalid_argument(format!("producer_id has {length} bytes, {LONGEST_ID} are allowed")));
    }
    loop {
        match collector.context.producers.admit(producer, number, collector.now()) {
            Admission::Fresh(origin) => return Ok(Some(Some(origin))),
            Admission::Taken => return Ok(None),
            // Where the sender is gone its fate is known, too.
            Admission::Pending(mut fate) => drop(fate.wait_for(Option::is_some).await),
            Admission::Forgotten { below } => {
                return Err(Status::failed_precondition(format!(
                    "batch_id {number} of producer {producer:?} lies below {below}, from where on is remembered what was \
                     taken; number batches upwards, and query what is stored before sending old ones again"
                )));
            }
            Admission::TooMany => {
                return Err(Status::resource_exhausted(format!(
                    "{MOST} producers are remembered already; a producer keeps its producer_id over connections and restarts"
                )));
            }
        }
    }
}

/// Takes the rows of a batch.
async fn take(
    collector: &Collector,
    decoder: &mut ColumnarDecoder,
    batch: &IngestBatch,
    sender: Sender,
) -> Result<Waiting, Status> {
    let now = collector.now();
    let context = &collector.context;
    let fill = |builders: &mut Builders| {
        let decoded = decoder.decode(batch, now, context.catalog.as_ref(), builders);
        match decoded.spec.filter(|_| decoded.accepted > 0) {
            Some(spec) => builders.batch(spec).origins.extend(sender.clone()),
            // Nothing of it is on its way.
            None => context.producers.settle(sender.as_slice(), Fate::Lost),
        }
        Ok(decoded)
    };
    let taken = collector.collect(fill).await;
    let (decoded, ticket) = taken.map_err(|error| match error {
        CollectError::Malformed(malformed) => Status::invalid_argument(malformed.to_string()),
        CollectError::Closed => {
            context.producers.settle(sender.as_slice(), Fate::Lost);
            Status::unavailable("barline is stopping")
        }
    })?;
    Ok(Waiting { ack: ack_of(batch.batch_id, &decoded, context.promise), ticket })
}

/// Counts a batch that was taken before, and learns the series it names for those that follow.
fn pass_over(collector: &Collector, decoder: &mut ColumnarDecoder, batch: &IngestBatch) -> IngestAck {
    let Context { catalog, ledger, promise, .. } = &collector.context;
    let rows = batch.timestamps.len() as u64;
    let counts = decoder.skip(batch, catalog.as_ref()).map_or(ledger.unknown(), |spec| ledger.spec(spec));
    counts.duplicate(rows);
    let durability = durability(*promise).into();
    IngestAck { batch_id: batch.batch_id, duplicate: rows, durability, ..IngestAck::default() }
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

fn durability(promise: Promise) -> Durability {
    match promise {
        Promise::Accepted => Durability::Accepted,
        Promise::Written => Durability::Written,
        Promise::Synced => Durability::Synced,
    }
}

fn ack_of(batch_id: u64, decoded: &Decoded, promise: Promise) -> IngestAck {
    let rejected = decoded.rejected.iter().map(|rejection| Rejection {
        reason: rejection.reason.name().to_owned(),
        rows: rejection.rows,
        example_rows: rejection.examples.clone(),
        message: rejection.message.clone(),
    });
    let durability = durability(promise).into();
    IngestAck { batch_id, accepted: decoded.accepted, rejected: rejected.collect(), duplicate: 0, durability }
}
