//! `kafka_source`: takes ticks from topics, as a member of a consumer group that shares their partitions with others.
//!
//! A thread (`reader.rs`) polls, keeps what it polled in the store's inbox, commits it to the group and hands it over; the
//! source (`apply.rs`) decodes it and sends it down the pipeline; once the journal has it, the inbox forgets it. Why every
//! message counts once, whoever dies when, is told in `ownership.rs`.

mod apply;
mod claim;
mod format;
mod ownership;
mod reader;
#[cfg(test)]
mod scripted;
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::broker::client_config;
use crate::broker::consumer::Consumer;
use crate::broker::kafka::Member;
use crate::broker::settings::{Connection, Security};
use crate::model::time::MILLISECOND;
use crate::runtime::source::Running;
use crate::runtime::{Built, Context, Source, SourceContext, StageError};
use crate::spec::units::{ByteSize, DurationText};
use crate::topology::{Complaint, Facts, Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};
use apply::Applier;
use format::Format;
use reader::{Limits, Reader};
use shared::Shared;

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "kafka_source",
    summary: "takes ticks from Kafka, sharing the partitions of its topics with others",
    role: Role::Source,
    takes: None,
    gives: Some(Flow::Ticks),
    max_instances: 1,
    unique: false,
    parse: parse_config::<Config>,
};

/// Claims handed over and not yet in the journal, in rounds of `commit.bytes`.
const ROUNDS: u64 = 8;
/// How much larger a batch may be than the messages it was read from.
const GROWTH: u64 = 4;
/// How long the reader may take to leave the group when the topology stops.
const LEAVING: Duration = Duration::from_secs(5);

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
    /// The consumer group; all who name the same share the partitions.
    pub group: String,
    /// The topics.
    pub topics: Vec<String>,
    /// How their messages are written.
    pub format: Format,
    /// With `json`: the spec of ticks that name no series.
    pub spec: Option<String>,
    /// A name of its own in the group: it then keeps its partitions over a short restart.
    pub member: Option<String>,
    /// When messages are claimed.
    pub commit: Commit,
}

/// When messages are claimed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Commit {
    /// The longest the first message waits.
    pub every: DurationText,
    /// The most bytes that wait.
    pub bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            security: Security::default(),
            properties: BTreeMap::new(),
            group: "barline".to_owned(),
            topics: Vec::new(),
            format: Format::Tikr,
            spec: None,
            member: None,
            commit: Commit::default(),
        }
    }
}

impl Default for Commit {
    fn default() -> Self {
        Self { every: DurationText(50 * MILLISECOND), bytes: ByteSize(1 << 20) }
    }
}

impl Config {
    fn connection(&self) -> Connection {
        let Self { brokers, security, properties, .. } = self.clone();
        Connection { brokers, security, properties }
    }

    fn limits(&self) -> Limits {
        Limits {
            every: Duration::from_nanos(self.commit.every.0.max(MILLISECOND) as u64),
            bytes: self.commit.bytes.0 as usize,
            outstanding: (self.commit.bytes.0 * ROUNDS) as usize,
        }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        let bytes = self.commit.bytes.0;
        // What librdkafka reads ahead, a round being gathered and one being decoded.
        Facts { batch_bytes: bytes * GROWTH, memory: (16 << 20) + 3 * bytes, disk: bytes * ROUNDS, ..Facts::default() }
    }

    fn check(&self) -> Vec<Complaint> {
        let connection = self.connection();
        let config = client_config::consumer(&connection, &self.group, self.member.as_deref());
        let mut problems = client_config::check(&connection, config);
        if self.topics.is_empty() {
            problems.push(("topics".into(), "no topic is named\na list of topics\nname at least one".to_owned()));
        }
        if self.group.is_empty() {
            problems.push((
                "group".into(),
                "the group has no name\n\nname it, alike on all that share the topics".to_owned(),
            ));
        }
        if self.spec.is_some() && self.format != Format::Json {
            let message = "messages of this format name their spec\n\nremove it, or set format: json";
            problems.push(("spec".into(), message.to_owned()));
        }
        if !(64 << 10..=64 << 20).contains(&self.commit.bytes.0) {
            problems.push(("commit.bytes".into(), format!("{} bytes is not in 64KiB..=64MiB", self.commit.bytes.0)));
        }
        if self.commit.every.0 < MILLISECOND {
            problems.push(("commit.every".into(), "shorter than 1ms\n1ms or longer".to_owned()));
        }
        problems
    }
}

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    if let Some(spec) = config.spec.as_ref().filter(|spec| context.specs.by_name(spec).is_none()) {
        return Err(StageError::fatal(format!("stage {:?}: there is no spec {spec:?}", stage.name)));
    }
    if !context.journaled {
        tracing::warn!(stage = stage.name, "no journal: messages that are under way when the process dies are lost");
    }
    let (context, name) = (context.clone(), stage.name.clone());
    Ok(Built::Source(Box::new(move |_| {
        Ok(Box::new(KafkaSource { context: context.clone(), config: config.clone(), name: name.clone() }))
    })))
}

struct KafkaSource {
    context: Context,
    config: Arc<Config>,
    name: String,
}

impl Source for KafkaSource {
    fn run(self: Box<Self>, source: SourceContext) -> Running {
        Box::pin(async move {
            let Self { context, config, name } = *self;
            let shared = Arc::new(Shared::new(source.stop.clone(), source.meter.clone()));
            let (claims, claimed) = flume::bounded(1);
            let (end, ended) = flume::bounded(1);
            let (store, limits, told) = (context.store.clone(), config.limits(), shared.clone());
            let (settings, stage) = (config.clone(), name.clone());
            let read = move || {
                let result = join(&settings)
                    .and_then(|consumer| Reader::open(consumer, store, &stage, limits, claims, told)?.run());
                // Whoever asks is gone only when the process ends.
                let _ = end.send(result);
            };
            std::thread::Builder::new().name(name.clone()).spawn(read).map_err(StageError::fatal)?;
            let mut applier = Applier::new(context, &config, &name, source, shared.clone());
            let left = async {
                shared.stop.cancelled().await;
                tokio::time::sleep(LEAVING).await;
            };
            tokio::pin!(left);
            loop {
                let next = tokio::select! {
                    biased;
                    next = claimed.recv_async() => next.ok(),
                    () = &mut left => {
                        tracing::warn!(stage = name, "the broker does not answer, leaving the group without a word");
                        return Ok(());
                    }
                };
                let Some(claims) = next else { break };
                applier.apply(claims).await?;
            }
            applier.finish().await;
            ended.recv_async().await.unwrap_or_else(|_| Err(StageError::fatal("the thread that reads has died")))
        })
    }
}

/// Joins the group.
fn join(config: &Config) -> Result<Box<dyn Consumer>, StageError> {
    let settings = client_config::consumer(&config.connection(), &config.group, config.member.as_deref());
    let settings = settings.map_err(|(key, reason)| StageError::fatal(format!("{key}: {reason}")))?;
    let member = Member::new(&settings, &config.topics).map_err(StageError::fatal)?;
    Ok(Box::new(member))
}
