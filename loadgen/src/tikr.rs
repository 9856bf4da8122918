//! One stream of `tikr.v1`: messages one way, one reply when it ends.

use std::collections::BTreeMap;

use barline_proto::tikr::IngestResponse;
use http::uri::PathAndQuery;
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, client::Grpc, metadata::MetadataMap};

use crate::{codec::FrameCodec, connect::Channel, connection::Connection, link::Broken, wire::Frame};

/// Trailing metadata with this prefix counts rejected ticks; the rest of the key is the reason.
pub const REJECTED: &str = "barline-rejected-";

/// What the server said of one stream.
#[derive(Debug, Default)]
pub struct Reply {
    /// Ticks it took.
    pub accepted: u64,
    /// Ticks it refused, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// Sends `frames` until their sender is gone.
///
/// # Errors
/// The stream broke.
pub async fn send(connection: &Connection, channel: Channel, frames: Receiver<Frame>) -> Result<Reply, Broken> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|e| Broken::passing(format!("the connection is gone: {e}")))?;
    let codec = FrameCodec::<IngestResponse>::new(connection.meter.clone(), connection.seed.pool.clone());
    let path = PathAndQuery::from_static("/tikr.v1.Tikr/IngestTicks");
    let reply = client.client_streaming(Request::new(ReceiverStream::new(frames)), path, codec).await?;
    Ok(Reply { accepted: reply.get_ref().ticks_received, rejected: rejected(reply.metadata()) })
}

fn rejected(metadata: &MetadataMap) -> BTreeMap<String, u64> {
    let count = |(key, value): (&str, &str)| Some((key.strip_prefix(REJECTED)?.to_owned(), value.parse().ok()?));
    let text = metadata.as_ref().iter().filter_map(|(key, value)| Some((key.as_str(), value.to_str().ok()?)));
    text.filter_map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_read_from_the_trailing_metadata() {
        let mut metadata = MetadataMap::new();
        metadata.insert("barline-rejected-expired", "12".parse().unwrap());
        metadata.insert("barline-rejected-unknown_series", "3".parse().unwrap());
        metadata.insert("content-type", "application/grpc".parse().unwrap());
        let expected = [("expired".to_owned(), 12), ("unknown_series".to_owned(), 3)];
        assert_eq!(rejected(&metadata), BTreeMap::from(expected));
    }
}
