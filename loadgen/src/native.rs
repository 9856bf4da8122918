//! One stream of `barline.v1`: batches one way, an acknowledgement for each the other way, in the order of the batches.

use std::sync::Arc;

use barline_proto::barline::IngestAck;
use http::uri::PathAndQuery;
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, client::Grpc};

use crate::{
    codec::FrameCodec,
    connect::Channel,
    connection::Connection,
    in_flight::{InFlight, Sent},
    link::Broken,
    record::{Ack, Line},
    wire::Frame,
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
/// The stream broke; the server acknowledged what was not sent, or said less of a batch than it has ticks; the record
/// cannot be written.
pub async fn send(
    connection: &mut Connection,
    channel: Channel,
    frames: Receiver<Frame>,
    in_flight: Arc<InFlight>,
) -> Result<(), Broken> {
    let _guard = CloseOnDrop(in_flight.clone());
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| Broken::passing(format!("the connection is gone: {e}")))?;
    let codec = FrameCodec::<IngestAck>::new(connection.meter.clone(), connection.seed.pool.clone());
    let path = PathAndQuery::from_static("/barline.v1.Barline/Ingest");
    let acks = client.streaming(Request::new(ReceiverStream::new(frames)), path, codec).await?;
    let mut acks = acks.into_inner();
    while let Some(ack) = acks.message().await? {
        let sent = in_flight.leave(ack.batch_id).map_err(Broken::lasting)?;
        connection.meter.acknowledged(sent.due);
        connection.acknowledged(&sent, ack).map_err(Broken::lasting)?;
    }
    match in_flight.len() {
        (0, _) => Ok(()),
        (left, _) => Err(Broken::passing(format!("the stream ended with {left} batches unacknowledged"))),
    }
}

impl Connection {
    fn acknowledged(&mut self, sent: &Sent, ack: IngestAck) -> Result<(), String> {
        let rejected: u64 = ack.rejected.iter().map(|rejection| rejection.rows).sum();
        if ack.accepted + rejected + ack.duplicate != sent.ticks {
            return Err(format!(
                "the server said of batch {} that it took {} ticks, refused {rejected} and had {} before: it has {}",
                sent.batch, ack.accepted, ack.duplicate, sent.ticks
            ));
        }
        self.record.write(&Line::Ack(Ack {
            connection: self.seed.connection,
            batch: sent.batch,
            ticks: sent.ticks,
            accepted: ack.accepted,
            duplicate: ack.duplicate,
        }))?;
        self.link.well();
        let tally = &mut self.tally;
        tally.start.at = sent.start;
        tally.start.acknowledged = sent.batch;
        tally.accepted += ack.accepted;
        tally.duplicate += ack.duplicate;
        tally.at = self.meter.pacer().elapsed();
        for rejection in ack.rejected {
            *tally.rejected.entry(rejection.reason).or_default() += rejection.rows;
        }
        Ok(())
    }
}
