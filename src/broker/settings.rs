//! How a topology says where a Kafka cluster is and how to talk to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::Secret;
use crate::model::DurationNs;
use crate::model::time::MILLISECOND;
use crate::spec::units::{ByteSize, DurationText};

/// Everything a producer needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// The cluster.
    pub connection: Connection,
    /// How records are produced.
    pub producing: Producing,
    /// The topics records go to.
    pub topics: Vec<Arc<str>>,
    /// What is made of those that are missing; nothing where it is absent.
    pub new_topics: Option<NewTopics>,
    /// How long a record may take before it is given up; without transactions it may take for ever where this is absent.
    pub patience: Option<DurationNs>,
}

/// A cluster, and the way into it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// `host:port` of some of its brokers.
    pub brokers: Vec<String>,
    /// Who we are, and who may listen.
    pub security: Security,
    /// Properties of librdkafka, as they are; they win over what we set.
    pub properties: BTreeMap<String, String>,
}

/// Encryption and authentication.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// A user name and password.
    pub sasl: Option<Sasl>,
    /// TLS; `{}` trusts whom the system trusts.
    pub tls: Option<Tls>,
}

/// SASL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How the password is shown.
    pub mechanism: Mechanism,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// As it is: only over TLS, or within a machine.
    #[serde(rename = "PLAIN")]
    Plain,
    /// By proof of it.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// By proof of it.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// TLS. All files are PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whom we trust, instead of the system's authorities.
    pub ca: Option<String>,
    /// Our own certificate, where the cluster wants one.
    pub certificate: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// What the key is locked with.
    pub key_password: Option<Secret>,
}

/// How records are produced.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Producing {
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a record waits for others to go with.
    pub linger: DurationText,
    /// The largest batch. It must fit the topic's `max.message.bytes`: what is larger is refused as a whole.
    pub batch: ByteSize,
    /// Which partition a key goes to.
    pub partitioner: Partitioner,
    /// The most that is under way.
    pub in_flight: InFlight,
}

/// The most that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InFlight {
    /// Records.
    pub records: u32,
    /// Their bytes.
    pub bytes: ByteSize,
}

/// A compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Which partition a record goes to, by its key: the names are librdkafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioner {
    /// Sarama's hash partitioner, which tikr uses.
    Fnv1aRandom,
    /// The Java client's default.
    Murmur2Random,
    /// librdkafka's own default.
    ConsistentRandom,
}

/// What is made of topics that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTopics {
    /// Partitions.
    pub partitions: u16,
    /// Copies; the cluster's default where it is not given.
    #[serde(default)]
    pub replication: Option<u16>,
    /// The topic's own settings.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

impl Default for Producing {
    fn default() -> Self {
        Self {
            compression: Compression::Lz4,
            linger: DurationText(5 * MILLISECOND),
            batch: ByteSize(512 << 10),
            partitioner: Partitioner::Fnv1aRandom,
            in_flight: InFlight::default(),
        }
    }
}

impl Default for InFlight {
    fn default() -> Self {
        Self { records: 10_000, bytes: ByteSize(16 << 20) }
    }
}

impl Connection {
    /// How long a transaction may last before the broker gives it up, and a record of one wait.
    pub fn transaction_timeout(&self) -> Duration {
        let told = self.properties.get("transaction.timeout.ms").and_then(|text| text.trim().parse().ok());
        told.map_or(TRANSACTION_TIMEOUT, Duration::from_millis)
    }
}

impl Mechanism {
    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Compression {
    /// librdkafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl Partitioner {
    /// librdkafka's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fnv1aRandom => "fnv1a_random",
            Self::Murmur2Random => "murmur2_random",
            Self::ConsistentRandom => "consistent_random",
        }
    }
}

/// How long a transaction may last before the broker gives it up, where `properties` do not say so.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(60);
