//! The `security` block: who may come in, over what, and how much of the machine they may take.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::spec::decode::{At, decode};
use crate::spec::units::DurationText;
use crate::spec::yaml::{Node, Sources, Yaml};
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
    pub roles: At<Vec<Role>>,
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

/// What clients may take.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The most connections of one listener.
    pub connections: Option<NonZeroU16>,
    /// The most calls at once on one gRPC connection; a client waits with further ones.
    pub streams: Option<NonZeroU16>,
    /// The most queries that read at once, over gRPC and HTTP together.
    pub queries: Option<NonZeroU16>,
    /// How long a new connection may take to say what it wants.
    pub handshake: Option<DurationText>,
}

impl Limits {
    /// The most calls at once on one gRPC connection.
    pub fn streams(&self) -> u32 {
        self.streams.map_or(1024, |most| most.get().into())
    }

    /// The most queries that read at once.
    pub fn queries(&self) -> usize {
        self.queries.map_or(16, |most| most.get().into())
    }

    /// How long a new connection may take to say what it wants.
    pub fn handshake(&self) -> Duration {
        let given = self.handshake.and_then(|span| u64::try_from(span.0).ok());
        given.map_or(Duration::from_secs(10), Duration::from_nanos)
    }
}

impl Role {
    /// Whether its holder may do what asks for `needed`.
    pub fn covers(self, needed: Self) -> bool {
        self == Self::Admin || self == needed
    }

    /// Its name in topology files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Query => "query",
            Self::Admin => "admin",
        }
    }
}

impl Security {
    /// Reads the block of `root`.
    pub(super) fn of(root: &Node, sources: &Sources, problems: &mut Vec<Problem>) -> Self {
        let Some(node) = root.get("security") else { return Self::default() };
        let told = problems.len();
        written_out(node, sources, problems);
        if problems.len() > told {
            // What else is wrong could be told only with the line of the token.
            return Self { insecure: true, ..Self::default() };
        }
        let security: Option<Self> = decode(node, sources, problems);
        // A block that cannot be read is told by itself; that nobody is kept out would only be told beside.
        let Some(security) = security else { return Self { insecure: true, ..Self::default() } };
        for token in security.tokens.iter().filter(|token| token.roles.value.is_empty()) {
            let problem = Problem::new("a token without a role opens nothing").allowed("ingest, query, admin");
            problems.push(sources.at(token.roles.place, problem.remedy("name what its holder may do")));
        }
        if let (Some(DurationText(..=0)), Some(limits)) = (security.limits.handshake, node.get("limits")) {
            let problem = Problem::new("a handshake in no time closes every connection").allowed("longer than 0s");
            problems.push(sources.at(limits.place, problem.remedy("set limits.handshake: 10s")));
        }
        security
    }

    /// Whether strangers on the network are kept out or at least kept from listening, or it is said that they need not.
    pub fn guarded(&self) -> bool {
        self.insecure || self.tls.is_some() || !self.tokens.is_empty()
    }

    /// Whether a token shown to a listener at `address` goes over the network as it is, and nobody has said that it may.
    pub fn can_be_overheard(&self, address: SocketAddr) -> bool {
        let guarded = self.tls.is_some() || self.insecure;
        !self.tokens.is_empty() && !guarded && !address.ip().is_loopback()
    }

    /// Whether nothing is asked of anybody.
    pub fn is_empty(&self) -> bool {
        !self.guarded()
    }
}

/// Tokens that stand in the topology itself, told without the line they stand in.
fn written_out(security: &Node, sources: &Sources, problems: &mut Vec<Problem>) {
    let tokens = security.get("tokens").map_or(&[][..], |tokens| match &tokens.value {
        Yaml::List(tokens) => tokens,
        _ => &[],
    });
    for token in tokens.iter().filter_map(|entry| entry.get("token")).filter(|token| token.text().is_some()) {
        let problem = Problem::new("a token written into the topology").allowed("{env: NAME} or {file: PATH}");
        let problem = sources.at(token.place, problem.remedy("move it out of the file, and change it"));
        problems.push(Problem { snippet: None, ..problem });
    }
}

/// What is asked of clients, in a line, without a secret.
impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.tls {
            None => "no TLS",
            Some(Tls { client_ca: None, .. }) => "TLS",
            Some(Tls { client_ca: Some(_), .. }) => "TLS with client certificates",
        })?;
        let opens = |role: Role| self.tokens.iter().any(|token| token.roles.value.contains(&role));
        let roles: Vec<_> =
            [Role::Ingest, Role::Query, Role::Admin].into_iter().filter(|role| opens(*role)).map(Role::name).collect();
        if roles.is_empty() { f.write_str(" · no tokens") } else { write!(f, " · tokens for {}", roles.join(", ")) }?;
        if self.insecure { f.write_str(" · insecure: open listeners are allowed") } else { Ok(()) }
    }
}
