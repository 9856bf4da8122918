//! What opens a barline that asks for something: a token, a certificate, and whom to trust.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use super::Failure;
use crate::runtime::tls;
use crate::telemetry::web;

/// What opens it; on the command line stand files, never a secret.
#[derive(Debug, Clone, Default, Args)]
pub struct Access {
    /// A file with the token to send [default: the variable BARLINE_TOKEN, if it is set].
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Who signed the server's certificate, for https:// [default: whom this machine trusts].
    #[arg(long, global = true, value_name = "PEM")]
    pub ca: Option<PathBuf>,
    /// The certificate to show, where the server asks for one; with --key.
    #[arg(long, global = true, value_name = "PEM")]
    pub cert: Option<PathBuf>,
    /// The key of --cert.
    #[arg(long, global = true, value_name = "PEM")]
    pub key: Option<PathBuf>,
}

/// A channel that shows its token with every call.
pub type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Shows a token, if there is one.
#[derive(Debug, Clone, Default)]
pub struct Bearer(Option<HeaderValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().as_mut().insert(AUTHORIZATION, token.clone());
        }
        Ok(request)
    }
}

impl Access {
    /// A channel to the gRPC port at `addr`.
    ///
    /// # Errors
    /// What was given cannot be used (exit code 2), or nobody answers (3).
    pub async fn channel(&self, addr: &str) -> Result<Channel, Failure> {
        let bad =
            |error| Failure::input(format!("--addr {addr:?} is no address such as http://127.0.0.1:9876: {error}"));
        let mut endpoint = Endpoint::from_shared(addr.to_owned()).map_err(bad)?;
        match endpoint.uri().scheme_str() {
            Some("http") => {}
            Some("https") => {
                let cannot = |error| Failure::input(format!("--ca, --cert or --key cannot be used: {}", root(&error)));
                endpoint = endpoint.tls_config(self.tls()?).map_err(cannot)?;
            }
            _ => {
                let allowed = "only http:// and https:// are spoken, as in http://127.0.0.1:9876";
                return Err(Failure::input(format!("--addr {addr:?}: {allowed}")));
            }
        }
        let bearer = Bearer(self.token()?);
        let nobody = |error: tonic::transport::Error| {
            let cause = root(&error);
            Failure::start(format!("nobody answers at {addr} ({cause}); start barline, or say where it is with --addr"))
        };
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(nobody)?;
        Ok(InterceptedService::new(channel, bearer))
    }

    /// What opens the HTTP port at `address`.
    ///
    /// # Errors
    /// What was given cannot be used.
    pub fn web(&self, address: &str) -> Result<web::Access, Failure> {
        let own = self.own()?;
        let tls = match address.starts_with("https://") {
            true => Some(Arc::new(tls::client(self.ca.as_deref(), own).map_err(Failure::input)?)),
            false => None,
        };
        Ok(web::Access { authorization: self.token()?, tls })
    }

    /// The header that shows the token.
    fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let token = match &self.token_file {
            Some(path) => Some(read("token-file", path)?),
            None => std::env::var("BARLINE_TOKEN").ok(),
        };
        let Some(token) = token else { return Ok(None) };
        let unfit = |_| Failure::input("the token has characters that cannot be sent; one line of ASCII can");
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim())).map_err(unfit)?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let tls = ClientTlsConfig::new();
        let tls = match &self.ca {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read("ca", path)?)),
            None => tls.with_native_roots(),
        };
        match self.own()? {
            Some((cert, key)) => Ok(tls.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?))),
            None => Ok(tls),
        }
    }

    /// The certificate to show and its key.
    fn own(&self) -> Result<Option<(&Path, &Path)>, Failure> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            (None, None) => Ok(None),
            _ => Err(Failure::input("--cert and --key go together; give both")),
        }
    }
}

fn read(flag: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::input(format!("--{flag} {}: {error}", path.display())))
}

/// The innermost cause: what the operating system said.
fn root(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => root(source),
        None => error.to_string(),
    }
}
