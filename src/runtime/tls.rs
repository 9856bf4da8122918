//! TLS of a connection. The handshake is made by whoever first reads or writes, so it holds up nobody but its own
//! connection, and the door's patience with a silent one bounds it.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use crate::topology::security::Tls;

/// A connection, encrypted or not.
pub enum Line {
    /// As it comes.
    Plain(TcpStream),
    /// Not yet encrypted.
    Shaking(Box<Accept<TcpStream>>),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
    /// The handshake failed.
    Broken,
}

impl Line {
    /// Goes on with the handshake; ready once bytes can be read and written.
    pub fn poll_shaken(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) | Self::Tls(_) => Poll::Ready(Ok(())),
            Self::Broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Self::Shaking(accept) => {
                let shaken = ready!(Pin::new(accept).poll(context));
                let (line, result) = match shaken {
                    Ok(stream) => (Self::Tls(Box::new(stream)), Ok(())),
                    Err(error) => (Self::Broken, Err(error)),
                };
                *self = line;
                Poll::Ready(result)
            }
        }
    }
}

/// What makes handshakes for the protocol `alpn`.
pub fn acceptor(config: &ServerConfig, alpn: &[u8]) -> TlsAcceptor {
    let mut config = config.clone();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// Reads the certificates and the key, and checks that they belong together.
///
/// # Errors
/// A file cannot be read, is no PEM, or the key is another certificate's.
pub fn server(tls: &Tls) -> Result<ServerConfig, String> {
    let chain = certificates(&tls.certificate).map_err(|error| format!("security.tls.certificate: {error}"))?;
    let place = tls.key.display();
    let key = PrivateKeyDer::from_pem_file(&tls.key)
        .map_err(|error| format!("security.tls.key {place}: {error}: name a PEM file with a private key"))?;
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("security.tls: {error}"))?;
    let builder = match &tls.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let bad = |error: &dyn std::fmt::Display| format!("security.tls.client_ca {}: {error}", path.display());
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path).map_err(|error| format!("security.tls.client_ca: {error}"))? {
                roots.add(certificate).map_err(|error| bad(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(&error))?)
        }
    };
    let certificate = tls.certificate.display();
    builder.with_single_cert(chain, key).map_err(|error| {
        format!("security.tls: {place} is no key for {certificate}: {error}: name the key made with it")
    })
}

/// What a client needs to trust whom `ca` signed, or else whom this machine trusts, and to show a certificate of its own.
///
/// # Errors
/// A file cannot be read, is no PEM, or the key is another certificate's.
pub fn client(ca: Option<&Path>, own: Option<(&Path, &Path)>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(match ca {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    });
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let builder = builder.with_root_certificates(roots);
    let Some((certificate, key)) = own else { return Ok(builder.with_no_client_auth()) };
    let cannot =
        |error: &dyn std::fmt::Display| format!("key {}: {error}: name the key of the certificate", key.display());
    let read = PrivateKeyDer::from_pem_file(key).map_err(|error| cannot(&error))?;
    builder.with_client_auth_cert(certificates(certificate)?, read).map_err(|error| cannot(&error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let place = path.display();
    let bad = |error| format!("certificates {place}: {error}: name a PEM file of certificates");
    let found = CertificateDer::pem_file_iter(path).map_err(bad)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    if found.is_empty() {
        Err(format!("no certificate in {place}: name a PEM file of certificates"))
    } else {
        Ok(found)
    }
}
