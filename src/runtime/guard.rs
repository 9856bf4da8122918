//! Who may call what: bearer tokens and their roles, the same for every listener; and what all doors share.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use subtle::{Choice, ConstantTimeEq};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::places::{Call, Peer, Places};
use super::refusals::{Reason, Refusals};
use super::tls;
use crate::codec::admit::quote;
use crate::topology::security::{Limits, Role, Security};

/// The tokens and certificates, read.
#[derive(Default)]
pub struct Guard {
    tokens: Vec<(Vec<Role>, Vec<u8>)>,
    tls: Option<ServerConfig>,
    /// What one client may take.
    pub limits: Limits,
    /// What was refused.
    pub refusals: Arc<Refusals>,
    listeners: Mutex<Vec<(String, Arc<Places>)>>,
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows who calls.
    #[error("no valid token; send `authorization: Bearer TOKEN`")]
    Unauthenticated,
    /// The caller is known and may not.
    #[error("the token does not allow this; it needs role {} or admin", .0.name())]
    Forbidden(Role),
}

impl Guard {
    /// Reads the tokens and certificates.
    ///
    /// # Errors
    /// Every file that cannot be used, and every token that cannot be read or is too short to keep anybody out, one a line.
    pub fn load(security: &Security) -> Result<Self, String> {
        let (mut tokens, mut problems) = (Vec::new(), Vec::new());
        for token in &security.tokens {
            match token.token.value.read() {
                Ok(word) if word.len() < SHORTEST => problems.push(format!(
                    "the token of {:?} has {} bytes, {SHORTEST} or more are allowed: make one with `openssl rand -hex 32`",
                    token.token.value,
                    word.len()
                )),
                Ok(word) => tokens.push((token.roles.value.clone(), word.into_bytes())),
                Err(error) => problems.push(format!("security.tokens: {}", error.replace("\n\n", ": "))),
            }
        }
        let tls = security.tls.as_ref().map(tls::server).transpose().unwrap_or_else(|error| {
            problems.push(error);
            None
        });
        if !problems.is_empty() {
            return Err(problems.join("\n"));
        }
        Ok(Self { tokens, tls, limits: security.limits, ..Self::default() })
    }

    /// The places of the listener called `name`, for `most` connections.
    pub fn places(&self, name: &str, most: usize) -> Arc<Places> {
        let places = Places::new(most);
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), places.clone()));
        places
    }

    /// The connections of every listener, by its name.
    pub fn connections(&self) -> Vec<(String, usize)> {
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.iter().map(|(name, places)| (name.clone(), places.taken())).collect()
    }

    /// What makes handshakes for the protocol `alpn`, where there is TLS.
    pub fn acceptor(&self, alpn: &[u8]) -> Option<TlsAcceptor> {
        self.tls.as_ref().map(|config| tls::acceptor(config, alpn))
    }

    /// Lets `request` pass if it may do what asks for `needed`; where nothing is needed, it may. While the call is held
    /// its connection is not idle.
    ///
    /// # Errors
    /// It may not; that is counted.
    pub fn enter(&self, request: &Request, needed: Option<Role>) -> Result<Option<Call>, Refusal> {
        let extensions = request.extensions();
        let peer = extensions.get::<Peer>().or_else(|| extensions.get::<ConnectInfo<Peer>>().map(|peer| &peer.0));
        if let Some(peer) = peer {
            peer.asks();
        }
        if let Some(needed) = needed {
            self.admit(request.headers(), needed).inspect_err(|refusal| {
                let reason = match refusal {
                    Refusal::Unauthenticated => Reason::Unauthenticated,
                    Refusal::Forbidden(_) => Reason::Forbidden,
                };
                self.refusals.note(reason, format_args!("{:?}: {refusal}", quote(request.uri().path())));
            })?;
        } else if !self.tokens.is_empty() {
            return Ok(None);
        }
        Ok(peer.cloned().map(Peer::begin))
    }

    /// Whether a call with these headers may do what asks for `needed`. Every token is compared, each in constant time.
    fn admit(&self, headers: &HeaderMap, needed: Role) -> Result<(), Refusal> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let word = headers.get(AUTHORIZATION).and_then(|value| word(value.as_bytes())).unwrap_or_default();
        let (mut known, mut allowed) = (Choice::from(0), Choice::from(0));
        for (roles, token) in &self.tokens {
            let same = token.ct_eq(&word);
            known |= same;
            allowed |= same & Choice::from(u8::from(roles.iter().any(|role| role.covers(needed))));
        }
        match (known.into(), allowed.into()) {
            (_, true) => Ok(()),
            (true, false) => Err(Refusal::Forbidden(needed)),
            (false, false) => Err(Refusal::Unauthenticated),
        }
    }
}

/// A shorter token can be guessed.
const SHORTEST: usize = 16;

/// The token in an `authorization` header: a bearer's, or the password browsers ask for.
fn word(header: &[u8]) -> Option<Vec<u8>> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = header.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    let pair = scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(rest).ok())??;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// `response`, whose body holds `call` until it has been sent.
pub fn holding(response: Response, call: Option<Call>) -> Response {
    response.map(|body| Body::new(Holding { body, _call: call }))
}

struct Holding {
    body: Body,
    _call: Option<Call>,
}

impl HttpBody for Holding {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_token_opens_what_its_roles_cover() {
        let tokens = vec![
            (vec![Role::Ingest], b"ingest-token-123".to_vec()),
            (vec![Role::Ingest, Role::Query], b"both-token-12345".to_vec()),
            (vec![Role::Admin], b"admin-token-1234".to_vec()),
        ];
        let guard = Guard { tokens, ..Guard::default() };
        let basic = format!("Basic {}", STANDARD.encode("anyone:admin-token-1234"));
        for right in ["bearer admin-token-1234", "Bearer  both-token-12345", &basic] {
            assert_eq!(guard.admit(&headers(right), Role::Query), Ok(()), "{right}");
        }
        assert_eq!(guard.admit(&headers("Bearer ingest-token-123"), Role::Ingest), Ok(()));
        let forbidden = guard.admit(&headers("Bearer ingest-token-123"), Role::Query);
        assert_eq!(forbidden, Err(Refusal::Forbidden(Role::Query)));
        assert_eq!(guard.admit(&headers("Bearer both-token-12345"), Role::Admin), Err(Refusal::Forbidden(Role::Admin)));
        let wrong =
            ["Bearer ingest-token-12", "Bearer ingest-token-1234", "Bearer ", "ingest-token-123", "Basic !", "Bearer"];
        for wrong in wrong {
            assert_eq!(guard.admit(&headers(wrong), Role::Ingest), Err(Refusal::Unauthenticated), "{wrong}");
        }
        assert_eq!(guard.admit(&HeaderMap::new(), Role::Ingest), Err(Refusal::Unauthenticated));
    }
}
