//! Channels to the server.

use std::time::Duration;

use barline_proto::barline::barline_client::BarlineClient;
use tonic::transport::{Channel, Endpoint};

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes the server may send before the client has read them.
const WINDOW: u32 = 16 << 20;

/// The largest message the client reads.
const LARGEST_REPLY: usize = 256 << 20;

/// Connects to `address`.
///
/// # Errors
/// An address that is no URL, and a server that is not there.
pub async fn connect(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|e| format!("address {address:?} is no URL ({e}), write it as in http://127.0.0.1:9876"))?;
    endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect()
        .await
        .map_err(|e| format!("cannot connect to {address}: {}", chain(&e)))
}

/// A client of `barline.v1` on `channel`, for everything but ingest.
pub fn barline(channel: Channel) -> BarlineClient<Channel> {
    BarlineClient::new(channel).max_decoding_message_size(LARGEST_REPLY)
}

/// An error and everything that caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
