//! One request over HTTP, on a connection of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::snapshot::Snapshot;

/// The most bytes of a reply that are read.
const REPLY: usize = 16 << 20;

/// What went wrong, for people.
pub type Wrong = Box<dyn std::error::Error + Send + Sync>;

/// What opens a server.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The `authorization` header to send.
    pub authorization: Option<HeaderValue>,
    /// Whom to trust, for https.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A connection, encrypted or not.
trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

/// Sends `request`, whose address is a whole URL; gives status and body of the reply.
pub async fn send(request: Request<Full<Bytes>>, access: &Access) -> Result<(StatusCode, Bytes), Wrong> {
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().ok_or("the address has no host")?.clone();
    let line = connect(&head.uri, access).await?;
    if let Some(authorization) = &access.authorization {
        head.headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    let (mut sender, connection) = http1::handshake(TokioIo::new(line)).await?;
    let connection = tokio::spawn(connection);
    head.headers.insert(header::HOST, authority.as_str().parse()?);
    head.uri = head.uri.path_and_query().map_or_else(|| "/".parse(), |path| path.as_str().parse::<Uri>())?;
    let reply = sender.send_request(Request::from_parts(head, body)).await?;
    let status = reply.status();
    let read = Limited::new(reply.into_body(), REPLY).collect().await;
    connection.abort();
    Ok((status, read?.to_bytes()))
}

async fn connect(uri: &Uri, access: &Access) -> Result<Box<dyn Line>, Wrong> {
    let host = uri.host().ok_or("the address has no host")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 }))).await?;
    if !encrypted {
        return Ok(Box::new(stream));
    }
    let tls = access.tls.clone().ok_or("https is not spoken here")?;
    Ok(Box::new(TlsConnector::from(tls).connect(ServerName::try_from(host.to_owned())?, stream).await?))
}

/// The figures of the barline whose HTTP port is at `address`.
pub async fn snapshot(address: &str, access: &Access) -> Result<Snapshot, Wrong> {
    let address = format!("{}/api/v1/metrics", address.trim_end_matches('/'));
    let (status, body) = send(Request::get(&address).body(Full::default())?, access).await?;
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(format!(
            "{address} answered {status}: give a token of role query with --token-file or BARLINE_TOKEN"
        )
        .into());
    }
    if status != StatusCode::OK {
        return Err(format!("{address} answered {status}").into());
    }
    Ok(serde_json::from_slice(&body)?)
}
