//! One request over HTTP, on a connection of its own.

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::snapshot::Snapshot;

/// The most bytes of a reply that are read.
const REPLY: usize = 16 << 20;

/// What went wrong, for people.
pub type Wrong = Box<dyn std::error::Error + Send + Sync>;

/// Sends `request`, whose address is a whole URL; gives status and body of the reply.
pub async fn send(request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Wrong> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the address has no host")?.clone();
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    head.headers.insert(header::HOST, authority.as_str().parse()?);
    head.uri = head.uri.path_and_query().map_or_else(|| "/".parse(), |path| path.as_str().parse::<Uri>())?;
    let reply = sender.send_request(Request::from_parts(head, body)).await?;
    let status = reply.status();
    let read = Limited::new(reply.into_body(), REPLY).collect().await;
    connection.abort();
    Ok((status, read?.to_bytes()))
}

/// The figures of the barline whose HTTP port is at `address`.
pub async fn snapshot(address: &str) -> Result<Snapshot, Wrong> {
    let address = format!("{}/api/v1/metrics", address.trim_end_matches('/'));
    let (status, body) = send(Request::get(&address).body(Full::default())?).await?;
    if status != StatusCode::OK {
        return Err(format!("{address} answered {status}").into());
    }
    Ok(serde_json::from_slice(&body)?)
}
