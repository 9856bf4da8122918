//! The `security` block: who may come in, over what, and how much of the machine they may take.

use std::path::PathBuf;

use serde::Deserialize;

use crate::spec::decode::{At, decode};
use crate::spec::yaml::{Node, Sources};
use crate::spec::{Problem, Secret};

/// The block as it applies to every listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// TLS on every listener.
    pub tls: Option<Tls>,
    /// Who may do what; nobody is asked where there is none.
    pub tokens: Vec<Token>,
    /// What one client may take.
    pub limits: Limits,
    /// Whether a listener beyond this machine may do without both.
    pub insecure: bool,
}

/// Certificates; all files are PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's chain, its own certificate first.
    pub certificate: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
    /// Who signs the certificates clients must show; none are asked for where it is absent.
    pub client_ca: Option<PathBuf>,
}

/// A word that opens a door.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What its holder may do.
    pub role: Role,
    /// The word.
    pub token: At<Secret>,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Send ticks.
    Ingest,
    /// Read.
    Query,
    /// Everything.
    Admin,
}

/// What one client may take.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most connections of one listener.
    pub connections: Option<std::num::NonZeroU16>,
    /// The most calls at once on one gRPC connection.
    pub streams: Option<std::num::NonZeroU16>,
}

impl Role {
    /// Whether its holder may do what asks for `needed`.
    pub fn covers(self, needed: Self) -> bool {
        self == Self::Admin || self == needed
    }
}

impl Security {
    /// Reads the block of `root`.
    pub(super) fn of(root: &Node, sources: &Sources, problems: &mut Vec<Problem>) -> Self {
        let Some(node) = root.get("security") else { return Self::default() };
        let security: Self = decode(node, sources, problems).unwrap_or_default();
        for token in security.tokens.iter().filter(|token| matches!(token.token.value, Secret::Plain(_))) {
            let problem = Problem::new("a token written into the topology").allowed("{env: NAME} or {file: PATH}");
            problems.push(sources.at(token.token.place, problem.remedy("move it out of the file, and change it")));
        }
        security
    }

    /// Whether strangers on the network are kept out or at least kept from listening, or it is said that they need not.
    pub fn guarded(&self) -> bool {
        self.insecure || self.tls.is_some() || !self.tokens.is_empty()
    }
}
