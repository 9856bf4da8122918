//! Metrics into a topic of Kafka: every record is what a collector would be pushed, an `ExportMetricsServiceRequest`.
//!
//! One record is under way at a time, and none is kept for a broker that does not take it: the next one says more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::collect::Observed;
use super::otlp;
use crate::broker::settings::{Compression, Connection, InFlight, NewTopics, Producing, Security};
use crate::broker::{Brokers, Event, Failure, Producer, Refusal, Settings, client_config};
use crate::model::time::SECOND;
use crate::model::{DurationNs, Headers, Record};
use crate::spec::Problem;
use crate::spec::units::{ByteSize, DurationText};
use crate::topology::{Complaint, ConfigNode, Facts, ParsedConfig, StageConfig, TelemetryPlan, parse_config};

/// How often is looked for a record's end while it is under way.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The most bytes under way.
const IN_FLIGHT: ByteSize = ByteSize(4 << 20);

/// The block `telemetry.kafka`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Host and port of some brokers of the cluster.
    pub brokers: Vec<String>,
    /// The topic.
    pub topic: String,
    /// How often metrics are sent.
    pub every: DurationText,
    /// How long a record may take.
    pub timeout: DurationText,
    /// Encryption and authentication.
    pub security: Security,
    /// Properties of librdkafka, as they are.
    pub properties: BTreeMap<String, String>,
    /// How records are compressed.
    pub compression: Compression,
    /// What is made of a topic that is missing; records are dropped until it is there, where this is absent.
    pub create_topics: Option<NewTopics>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: "barline-metrics".to_owned(),
            every: DurationText(15 * SECOND),
            timeout: DurationText(10 * SECOND),
            security: Security::default(),
            properties: BTreeMap::new(),
            compression: Producing::default().compression,
            create_topics: None,
        }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        Facts { memory: IN_FLIGHT.0, ..Facts::default() }
    }

    fn check(&self) -> Vec<Complaint> {
        let Settings { connection, producing, .. } = self.settings();
        let mut problems = client_config::check(&connection, client_config::producer(&connection, &producing, None));
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if !(1..=249).contains(&self.topic.len()) || !self.topic.chars().all(legal) {
            let message = "no name for a topic\n1 to 249 of a-z A-Z 0-9 . _ -, as in barline-metrics";
            problems.push(("topic".into(), message.to_owned()));
        }
        for (key, span) in [("every", self.every), ("timeout", self.timeout)] {
            if span.0 < SECOND {
                problems.push((key.into(), "too short a time for a push\n1s or longer".to_owned()));
            }
        }
        if self.create_topics.as_ref().is_some_and(|topics| topics.partitions == 0) {
            problems.push(("create_topics.partitions".into(), "no partition\n1 or more".to_owned()));
        }
        problems
    }
}

impl Config {
    /// How the cluster is reached.
    fn settings(&self) -> Settings {
        let (brokers, security) = (self.brokers.clone(), self.security.clone());
        let producing = Producing {
            compression: self.compression,
            in_flight: InFlight { records: 2, bytes: IN_FLIGHT },
            ..Producing::default()
        };
        Settings {
            connection: Connection { brokers, security, properties: self.properties.clone() },
            producing,
            topics: vec![self.topic.as_str().into()],
            new_topics: self.create_topics.clone(),
            patience: Some(self.timeout.0),
        }
    }
}

/// Reads the block `telemetry.kafka`.
///
/// # Errors
/// Every problem of it.
pub fn parse(config: &ConfigNode) -> Result<ParsedConfig, Vec<Problem>> {
    parse_config::<Config>(config)
}

/// Sends metrics to a topic.
pub struct Exporter {
    producer: Box<dyn Producer>,
    topic: Arc<str>,
    every: Duration,
    timeout: Duration,
    /// The number of the record that was made last.
    number: u64,
    /// Why no broker can be reached, as far as is known.
    down: Option<String>,
}

impl Exporter {
    /// The exporter of `plan`, if it names a topic.
    ///
    /// # Errors
    /// The settings cannot be, and why.
    pub fn open(plan: &TelemetryPlan, brokers: &dyn Brokers) -> Result<Option<Self>, String> {
        let config = plan.kafka.as_ref().and_then(|config| config.value.downcast_ref::<Config>());
        let Some(config) = config else { return Ok(None) };
        let cannot = |error| format!("telemetry.kafka: {error}");
        Ok(Some(Self {
            producer: brokers.producer(&config.settings(), None).map_err(cannot)?,
            topic: config.topic.as_str().into(),
            every: span(config.every.0),
            timeout: span(config.timeout.0),
            number: 0,
            down: None,
        }))
    }

    /// Sends until `stop` is cancelled, and a last time then.
    pub async fn run(mut self, observed: &Observed, stop: &CancellationToken) {
        let mut due = interval(self.every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = due.tick() => self.send(observed).await,
            }
        }
        self.send(observed).await;
    }

    async fn send(&mut self, observed: &Observed) {
        let message = otlp::metrics(&observed.snapshot(), &observed.plan.telemetry);
        let key = observed.plan.name.clone().into_bytes();
        let topic = self.topic.clone();
        let sent =
            self.deliver(&Record { topic, key, value: message.encode_to_vec(), headers: Headers::default() }).await;
        observed.exports.kafka.note(sent);
    }

    /// Hands a record over and waits for its end.
    async fn deliver(&mut self, record: &Record) -> Result<(), String> {
        self.number += 1;
        let until = Instant::now() + self.timeout;
        loop {
            self.look();
            match self.producer.send(self.number, record) {
                Ok(()) => break,
                Err(Refusal::Record(why) | Refusal::Topic(why)) => return Err(why),
                Err(Refusal::Full) if Instant::now() < until => sleep(LOOK_EVERY).await,
                Err(Refusal::Full) => return Err(self.why_not()),
            }
        }
        // The producer gives a record up in time; it is waited for a little longer, so that there is one at a time.
        while Instant::now() < until + self.timeout {
            if let Some(ended) = self.look() {
                return ended;
            }
            sleep(LOOK_EVERY).await;
        }
        Err(self.why_not())
    }

    /// Reads what has happened; how the last record ended, if it has.
    fn look(&mut self) -> Option<Result<(), String>> {
        let (mut events, mut ended) = (Vec::new(), None);
        self.producer.poll(&mut events);
        for event in events {
            match event {
                Event::Ready { .. } => self.down = None,
                Event::Down(why) => self.down = Some(why),
                Event::Delivered(number) if number == self.number => ended = Some(Ok(())),
                Event::Failed(number, failure) if number == self.number => {
                    let (Failure::Record(why) | Failure::Topic(why) | Failure::Passing(why)) = failure;
                    ended = Some(Err(self.down.clone().unwrap_or(why)));
                }
                _ => {}
            }
        }
        ended
    }

    fn why_not(&self) -> String {
        self.down.clone().unwrap_or_else(|| format!("no acknowledgement within {:?}", self.timeout))
    }
}

fn span(nanoseconds: DurationNs) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}
