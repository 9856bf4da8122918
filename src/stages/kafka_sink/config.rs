//! The `config` of a `kafka_sink`, and what it comes to for one spec.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use crate::broker::settings::{Compression, Connection, InFlight, NewTopics, Partitioner, Producing, Security};
use crate::broker::{Settings, client_config};
use crate::codec::bar::Encoding;
use crate::model::DurationNs;
use crate::model::time::{HOUR, SECOND};
use crate::spec::Spec;
use crate::spec::units::{ByteSize, DurationText};
use crate::store::{Spool, WhenSpent};
use crate::topology::{Complaint, Facts, StageConfig};

/// The stage's `config`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Host and port of some brokers of the cluster.
    pub brokers: Vec<String>,
    /// Encryption and authentication.
    pub security: Security,
    /// Properties of librdkafka, as they are.
    pub properties: BTreeMap<String, String>,
    /// How batches are compressed.
    pub compression: Compression,
    /// How long a record waits for others to go with.
    pub linger: DurationText,
    /// The largest batch.
    pub batch: ByteSize,
    /// Which partition a key goes to.
    pub partitioner: Partitioner,
    /// The most that is under way.
    pub in_flight: InFlight,
    /// What is made of topics that are missing; they are waited for, where this is absent.
    pub create_topics: Option<NewTopics>,
    /// The specs whose bars are sent; all that have a topic, where none is named.
    pub specs: Vec<String>,
    /// The topic, in which `{spec}` and `{granularity}` stand for these; the spec's own where there is none.
    pub topic: Option<String>,
    /// The window lengths whose bars are sent; the finest alone, where none is named: whoever adds up the sums of several
    /// counts every tick once for each.
    pub granularities: Vec<String>,
    /// How bars are written; the spec says so where this does not.
    pub encoding: Option<Encoding>,
    /// What becomes of bars that cannot be delivered; the spec says so where this does not.
    pub on_failure: Option<OnFailure>,
    /// What is kept for a broker that does not take it.
    pub spool: SpoolConfig,
    /// Which bars go first after an outage.
    pub order: Order,
    /// With `fresh_first`: how many bars of the backlog go out in a second.
    pub backlog_rate: u32,
    /// How amended bars go out; increments for `otlp`, whole bars for the others.
    pub amendments: Option<Amendments>,
    /// Whether everything is sent in transactions that carry the position.
    pub exactly_once: bool,
    /// `service.name` in what is sent.
    pub service_name: String,
    /// Where a sink begins that never ran before.
    pub start: StartAt,
}

/// What becomes of bars that cannot be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// They are kept as far as the spool goes, then the oldest are dropped.
    Spool,
    /// They are kept as far as the spool goes, then nothing more is stored.
    Block,
    /// They are given up when the broker has been out of reach for ten seconds.
    Drop,
}

/// What is kept for a broker that does not take it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// How much at most.
    pub bytes: ByteSize,
    /// How long at most.
    pub age: DurationText,
}

/// Which bars go first after an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The oldest.
    InOrder,
    /// New ones at once, and the backlog beside them at a bounded rate.
    FreshFirst,
}

/// How amended bars go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Amendments {
    /// Whole, with a higher revision.
    Replace,
    /// Sums and counts say only what was added.
    Increment,
    /// Not at all.
    None,
}

/// Where a sink begins that never ran before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// With the oldest bar the outbox has.
    Earliest,
    /// With the next bar stored.
    Latest,
}

/// Bytes of records that are encoded and not settled, per spec.
pub(super) const LANE_BYTES: usize = 8 << 20;

impl Default for Config {
    fn default() -> Self {
        let Producing { compression, linger, batch, partitioner, in_flight } = Producing::default();
        Self {
            brokers: Vec::new(),
            security: Security::default(),
            properties: BTreeMap::new(),
            compression,
            linger,
            batch,
            partitioner,
            in_flight,
            create_topics: None,
            specs: Vec::new(),
            topic: None,
            granularities: Vec::new(),
            encoding: None,
            on_failure: None,
            spool: SpoolConfig::default(),
            order: Order::InOrder,
            backlog_rate: 10_000,
            amendments: None,
            exactly_once: false,
            service_name: "barline".to_owned(),
            start: StartAt::Earliest,
        }
    }
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self { bytes: ByteSize(1 << 30), age: DurationText(24 * HOUR) }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        // Per spec what is encoded here, and once what the producer has taken over.
        let memory = 4 * LANE_BYTES as u64 + self.in_flight.bytes.0;
        Facts { disk: self.spool.bytes.0, memory, ..Facts::default() }
    }

    fn check(&self) -> Vec<Complaint> {
        let settings = self.settings(Vec::new());
        let id = self.exactly_once.then_some("barline");
        let config = client_config::producer(&settings.connection, &settings.producing, id);
        let mut problems = client_config::check(&settings.connection, config);
        if self.spool.bytes.0 < 1 << 20 {
            problems.push(("spool.bytes".into(), "less than 1 MiB\n1MiB or more".to_owned()));
        }
        if self.spool.age.0 < 10 * SECOND {
            problems.push(("spool.age".into(), "less than 10 s\n10s or longer".to_owned()));
        }
        if self.backlog_rate == 0 {
            problems.push(("backlog_rate".into(), "0 bars per second\n1 or more".to_owned()));
        }
        if self.exactly_once && self.order == Order::FreshFirst {
            let message = "fresh_first with exactly_once\na transaction carries one position per spec; use in_order";
            problems.push(("order".into(), message.to_owned()));
        }
        if self.create_topics.as_ref().is_some_and(|topics| topics.partitions == 0) {
            problems.push(("create_topics.partitions".into(), "no partition\n1 or more".to_owned()));
        }
        problems
    }
}

/// What it comes to for the bars of one spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// By granularity: the topic, where bars of it are sent.
    pub topics: Vec<Option<String>>,
    pub encoding: Encoding,
    pub on_failure: OnFailure,
    pub amendments: Amendments,
    pub spool: Spool,
}

impl Config {
    /// How brokers are reached, and what is sent to them: records of `topics`.
    pub fn settings(&self, topics: Vec<Arc<str>>) -> Settings {
        let (brokers, security) = (self.brokers.clone(), self.security.clone());
        let connection = Connection { brokers, security, properties: self.properties.clone() };
        let producing = Producing {
            compression: self.compression,
            linger: self.linger,
            batch: self.batch,
            partitioner: self.partitioner,
            in_flight: self.in_flight.clone(),
        };
        Settings { connection, producing, topics, new_topics: self.create_topics.clone(), patience: None }
    }

    /// What it comes to for `spec`; `None` where its bars are not sent.
    ///
    /// # Errors
    /// The spec says something that nobody understands.
    pub(super) fn policy(&self, spec: &Spec) -> Result<Option<Policy>, String> {
        let named = self.specs.is_empty() || self.specs.contains(&spec.name);
        let own = spec.kafka.as_ref();
        let Some(topic) = self.topic.as_ref().or(own.map(|own| &own.topic)).filter(|_| named) else { return Ok(None) };
        let encoding = match (self.encoding, own.and_then(|own| own.encoding.as_deref())) {
            (Some(encoding), _) => encoding,
            (None, None) => Encoding::Otlp,
            (None, Some(name)) => Encoding::parse(name).ok_or_else(|| unknown(spec, "encoding", name))?,
        };
        let on_failure = match (self.on_failure, own.and_then(|own| own.on_failure.as_deref())) {
            (Some(on_failure), _) => on_failure,
            (None, None | Some("spool")) => OnFailure::Spool,
            (None, Some("block")) => OnFailure::Block,
            (None, Some("drop")) => OnFailure::Drop,
            (None, Some(name)) => return Err(unknown(spec, "on_failure", name)),
        };
        let increments = if encoding == Encoding::Otlp { Amendments::Increment } else { Amendments::Replace };
        let when_spent = if on_failure == OnFailure::Block { WhenSpent::Refuse } else { WhenSpent::DropOldest };
        let policy = Policy {
            topics: self.topics(spec, topic),
            encoding,
            on_failure,
            amendments: self.amendments.unwrap_or(increments),
            spool: Spool { bytes: self.spool.bytes.0, age: self.spool.age.0, when_spent },
        };
        Ok(Some(policy).filter(|policy| policy.topics.iter().any(Option::is_some)))
    }

    fn topics(&self, spec: &Spec, template: &str) -> Vec<Option<String>> {
        let wanted = |at: usize, name: &String| match self.granularities.is_empty() {
            true => at == 0,
            false => self.granularities.contains(name),
        };
        let topic = |(at, granularity): (usize, &crate::spec::Granularity)| {
            let topic = || template.replace("{spec}", &spec.name).replace("{granularity}", &granularity.name);
            wanted(at, &granularity.name).then(topic)
        };
        spec.granularities.iter().enumerate().map(topic).collect()
    }
}

fn unknown(spec: &Spec, key: &str, value: &str) -> String {
    format!("spec {:?} has {key} {value:?}, which this sink does not know", spec.name)
}

/// How long a broker may be out of reach before bars are given up under [`OnFailure::Drop`].
pub(super) const DROP_AFTER: DurationNs = 10 * SECOND;
