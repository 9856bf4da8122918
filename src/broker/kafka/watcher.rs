//! What librdkafka calls back with: ends of records, errors, log lines.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use flume::Sender;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::topics::describe;
use crate::broker::{Event, Failure, words};

/// The token of a record whose end is nobody's business.
pub const VOID: usize = usize::MAX;

/// The context of one client.
pub struct Watcher {
    events: Sender<Event>,
    /// Every batch has one record, so one that is too large is at fault itself.
    alone: bool,
    /// A record of a batch was too large, or the batch was.
    pub too_large: AtomicBool,
    /// A record was delivered since the last commit.
    pub delivered: AtomicBool,
    /// A record of this session failed.
    pub failed: AtomicBool,
    /// No broker can be reached, as far as is known.
    pub down: AtomicBool,
    log: Log,
}

/// What librdkafka logs: passed on, and the last line kept that may say why a cluster cannot be reached.
#[derive(Default)]
pub struct Log(Mutex<String>);

impl Log {
    /// A line of the log.
    pub fn line(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(?level, facility, "{line}");
        self.note(line);
    }

    /// An error's own words.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
        self.note(reason);
    }

    /// Why no broker can be reached.
    pub fn reason(&self) -> String {
        words::explain(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, line: &str) {
        if words::tells(line) {
            // Behind the thread's name, which says nothing.
            let line = line.split_once("]: ").map_or(line, |(_, line)| line);
            line.clone_into(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl Watcher {
    /// A context that tells `events`.
    pub fn new(events: Sender<Event>, alone: bool) -> Self {
        let no = AtomicBool::default;
        Self { events, alone, too_large: no(), delivered: no(), failed: no(), down: no(), log: Log::default() }
    }

    /// Why no broker can be reached.
    pub fn reason(&self) -> String {
        self.log.reason()
    }

    fn failure(&self, error: &KafkaError, topic: &str) -> Failure {
        let text = error.to_string();
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) if self.alone => Failure::Record(text),
            Some(Code::InvalidMessage | Code::InvalidMessageSize | Code::InvalidRecord) => Failure::Record(text),
            Some(Code::MessageSizeTooLarge) => {
                self.too_large.store(true, Relaxed);
                Failure::Passing(text)
            }
            Some(code) if is_about_topic(code) => Failure::Topic(describe(topic, Some(code))),
            _ => Failure::Passing(text),
        }
    }
}

/// Whether an error is about a topic, not about the record.
pub fn is_about_topic(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition | Code::TopicAuthorizationFailed
    )
}

impl ClientContext for Watcher {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.log.line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
        if let Some(Code::AllBrokersDown | Code::Authentication | Code::SSL | Code::Resolve) =
            error.rdkafka_error_code()
        {
            self.down.store(true, Relaxed);
        }
    }
}

impl ProducerContext for Watcher {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, token: usize) {
        let event = match result {
            Ok(_) if token == VOID => return,
            Ok(_) => {
                self.delivered.store(true, Relaxed);
                Event::Delivered(token as u64)
            }
            Err((error, message)) => {
                self.failed.store(true, Relaxed);
                Event::Failed(token as u64, self.failure(error, message.topic()))
            }
        };
        // Whoever no longer listens has been dropped.
        let _ = self.events.send(event);
    }
}
