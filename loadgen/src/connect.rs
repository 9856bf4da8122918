//! Channels to the server, with what opens it: certificates and a token.

use std::path::PathBuf;
use std::time::Duration;

use barline_proto::barline::barline_client::BarlineClient;
use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes the server may send before the client has read them.
const WINDOW: u32 = 16 << 20;

/// The largest message the client reads.
const LARGEST_REPLY: usize = 256 << 20;

/// Where the server is, and what opens it.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9876")]
    addr: String,
    /// A file with the token to send [default: the variable BARLINE_TOKEN, if it is set].
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Who signed the server's certificate, for https:// [default: whom this machine trusts].
    #[arg(long, value_name = "PEM")]
    ca: Option<PathBuf>,
    /// The certificate to show, where the server asks for one.
    #[arg(long, value_name = "PEM", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of --cert.
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<PathBuf>,
}

/// The server, and what opens it.
#[derive(Debug, Clone, Default)]
pub struct Server {
    /// Its address.
    pub address: String,
    bearer: Bearer,
    tls: ClientTlsConfig,
}

/// A channel that shows its token with every call.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Shows a token, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Server {
    /// A server at `address` that asks for nothing.
    pub fn open(address: impl Into<String>) -> Self {
        Self { address: address.into(), ..Self::default() }
    }
}

impl ServerArgs {
    /// Reads what opens the server.
    ///
    /// # Errors
    /// A file cannot be read; a token cannot be sent.
    pub fn resolve(&self) -> Result<Server, String> {
        let read = |flag: &str, path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|e| format!("--{flag} {}: {e}", path.display()))
        };
        let token = match &self.token_file {
            Some(path) => Some(read("token-file", path)?),
            None => std::env::var("BARLINE_TOKEN").ok(),
        };
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read("ca", path)?)),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            tls = tls.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?));
        }
        Ok(Server { address: self.addr.clone(), bearer: token.map_or(Ok(Bearer::default()), Bearer::of)?, tls })
    }
}

impl Bearer {
    fn of(token: String) -> Result<Self, String> {
        let value = MetadataValue::try_from(format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| "the token has characters that cannot be sent, one line of ASCII can")?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

/// Connects to `server`.
///
/// # Errors
/// An address that is no URL, a certificate that cannot be used, and a server that is not there.
pub async fn connect(server: &Server) -> Result<Channel, String> {
    let address = &server.address;
    let mut endpoint = Endpoint::from_shared(address.clone())
        .map_err(|e| format!("address {address:?} is no URL ({e}), write it as in http://127.0.0.1:9876"))?;
    if address.starts_with("https://") {
        let tls = endpoint.tls_config(server.tls.clone());
        endpoint = tls.map_err(|e| format!("--ca, --cert or --key cannot be used: {}", chain(&e)))?;
    }
    let channel = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .connect()
        .await
        .map_err(|e| format!("cannot connect to {address}: {}", chain(&e)))?;
    Ok(InterceptedService::new(channel, server.bearer.clone()))
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
