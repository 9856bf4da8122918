//! Who may call what: bearer tokens and their roles, the same for every listener.
//!
//! A token is looked for among all of them without stopping at the first that fits, so that the time taken tells
//! nothing of how much of it was right. Refusals are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tonic::Status;

use super::tls;
use crate::topology::security::{Role, Security};

/// The tokens, read.
#[derive(Default)]
pub struct Guard {
    tokens: Vec<(Role, Vec<u8>)>,
    tls: Option<ServerConfig>,
    /// What was refused.
    pub refused: Arc<Refused>,
}

/// Refusals since the start.
#[derive(Debug, Default)]
pub struct Refused {
    /// Calls without a token, or with a wrong one.
    pub unauthenticated: AtomicU64,
    /// Calls whose token has another role.
    pub forbidden: AtomicU64,
    /// Connections for which there was no place.
    pub crowded: AtomicU64,
    /// Connections that said nothing, or never ended their handshake.
    pub silent: AtomicU64,
    /// Connections whose handshake failed.
    pub unshaken: AtomicU64,
}

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody knows who calls.
    #[error("no valid token; send `authorization: Bearer TOKEN`")]
    Unauthenticated,
    /// The caller is known and may not.
    #[error("the token's role does not allow this; it needs role {0:?} or Admin")]
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
                Ok(word) if word.len() < SHORTEST => {
                    let from = &token.token.value;
                    problems.push(format!("{from:?} has fewer than {SHORTEST} bytes: make a longer token"));
                }
                Ok(word) => tokens.push((token.role, word.into_bytes())),
                Err(error) => problems.push(error.replace("\n\n", ": ")),
            }
        }
        let tls = security.tls.as_ref().map(tls::load).transpose().unwrap_or_else(|error| {
            problems.push(error);
            None
        });
        if problems.is_empty() { Ok(Self { tokens, tls, refused: Arc::default() }) } else { Err(problems.join("\n")) }
    }

    /// What makes handshakes for the protocol `alpn`, where there is TLS.
    pub fn acceptor(&self, alpn: &[u8]) -> Option<TlsAcceptor> {
        self.tls.as_ref().map(|config| tls::acceptor(config, alpn))
    }

    /// Lets a call with these headers pass, if it may do what asks for `needed`.
    ///
    /// # Errors
    /// It may not; that is counted.
    pub fn admit(&self, headers: &HeaderMap, needed: Role) -> Result<(), Refusal> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let word = headers.get(AUTHORIZATION).and_then(|value| word(value.as_bytes())).unwrap_or_default();
        let (mut known, mut allowed) = (false, false);
        for (role, token) in &self.tokens {
            let same = same(token, &word);
            known |= same;
            allowed |= same & role.covers(needed);
        }
        if allowed {
            return Ok(());
        }
        let (count, refusal) = if known {
            (&self.refused.forbidden, Refusal::Forbidden(needed))
        } else {
            (&self.refused.unauthenticated, Refusal::Unauthenticated)
        };
        count.fetch_add(1, Relaxed);
        Err(refusal)
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Unauthenticated => Self::unauthenticated(refusal.to_string()),
            Refusal::Forbidden(_) => Self::permission_denied(refusal.to_string()),
        }
    }
}

/// A shorter token can be guessed.
const SHORTEST: usize = 16;

/// The token in an `authorization` header: a bearer's, or the password browsers ask for.
fn word(header: &[u8]) -> Option<Vec<u8>> {
    let space = header.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (header.get(..space)?, header.get(space + 1..)?);
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    let pair = scheme.eq_ignore_ascii_case(b"basic").then(|| STANDARD.decode(rest).ok())??;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

/// Whether two words are the same, in a time that depends on their lengths alone.
fn same(token: &[u8], word: &[u8]) -> bool {
    let differ = token.iter().zip(word).fold(0, |differ, (a, b)| std::hint::black_box(differ | (a ^ b)));
    (token.len() == word.len()) & (differ == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_token_opens_what_its_role_covers_and_every_refusal_is_counted() {
        let tokens = vec![(Role::Ingest, b"ingest-token-123".to_vec()), (Role::Admin, b"admin-token-1234".to_vec())];
        let guard = Guard { tokens, ..Guard::default() };
        assert_eq!(guard.admit(&headers("Bearer ingest-token-123"), Role::Ingest), Ok(()));
        assert_eq!(guard.admit(&headers("bearer admin-token-1234"), Role::Query), Ok(()));
        let basic = format!("Basic {}", STANDARD.encode("anyone:admin-token-1234"));
        assert_eq!(guard.admit(&headers(&basic), Role::Query), Ok(()));
        let forbidden = guard.admit(&headers("Bearer ingest-token-123"), Role::Query);
        assert_eq!(forbidden, Err(Refusal::Forbidden(Role::Query)));
        for wrong in ["Bearer ingest-token-12", "Bearer ingest-token-1234", "Bearer ", "ingest-token-123", "Basic !"] {
            assert_eq!(guard.admit(&headers(wrong), Role::Ingest), Err(Refusal::Unauthenticated), "{wrong}");
        }
        assert_eq!(guard.admit(&HeaderMap::new(), Role::Ingest), Err(Refusal::Unauthenticated));
        let counted = (guard.refused.forbidden.load(Relaxed), guard.refused.unauthenticated.load(Relaxed));
        assert_eq!(counted, (1, 6));
    }
}
