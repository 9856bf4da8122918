//! Sending on `barline.v1`: batches one way, an acknowledgement for each the other way.

use std::sync::Arc;

use barline_proto::barline::IngestAck;
use http::uri::PathAndQuery;
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, client::Grpc, transport::Channel};

use crate::{
    codec::FrameCodec,
    in_flight::InFlight,
    meter::Meter,
    tikr::Reply,
    wire::{Frame, Pool},
};

/// Frees the producer when the transport ends, in whatever way.
struct CloseOnDrop(Arc<InFlight>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Sends `frames` until their sender is gone and every batch is acknowledged.
///
/// # Errors
/// The stream broke, the server acknowledged what was not sent, or did not acknowledge what was.
pub async fn send(
    channel: Channel,
    frames: Receiver<Frame>,
    in_flight: Arc<InFlight>,
    meter: Arc<Meter>,
    pool: Pool,
) -> Result<Reply, String> {
    let _guard = CloseOnDrop(in_flight.clone());
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| format!("the connection is gone: {e}"))?;
    let codec = FrameCodec::<IngestAck>::new(meter.clone(), pool);
    let path = PathAndQuery::from_static("/barline.v1.Barline/Ingest");
    let acks = client.streaming(Request::new(ReceiverStream::new(frames)), path, codec).await.map_err(|s| broke(&s))?;
    let mut acks = acks.into_inner();
    let mut reply = Reply::default();
    while let Some(ack) = acks.message().await.map_err(|s| broke(&s))? {
        let due = in_flight.leave(ack.batch_id).ok_or_else(|| format!("batch {} was not in flight", ack.batch_id))?;
        meter.acknowledged(due);
        reply.accepted += ack.accepted;
        for rejection in ack.rejected {
            *reply.rejected.entry(rejection.reason).or_default() += rejection.rows;
        }
    }
    match in_flight.len() {
        0 => Ok(Reply { at: meter.pacer().elapsed(), ..reply }),
        left => Err(format!("the stream ended with {left} batches unacknowledged")),
    }
}

fn broke(status: &Status) -> String {
    format!("the stream broke: {:?}: {}", status.code(), status.message())
}
