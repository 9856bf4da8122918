//! What librdkafka calls back with: ends of records, errors, log lines.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use flume::Sender;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use crate::broker::{Event, Failure, words};

/// The context of one client.
pub struct Watcher {
    events: Sender<Event>,
    /// Every batch has one record, so one that is too large is at fault itself.
    alone: bool,
    /// A record of a batch was too large, or the batch was.
    pub too_large: AtomicBool,
    /// A record of this session failed.
    pub failed: AtomicBool,
    /// No broker can be reached, as far as is known.
    pub down: AtomicBool,
    /// The last line that may say why.
    line: Mutex<String>,
}

impl Watcher {
    /// A context that tells `events`.
    pub fn new(events: Sender<Event>, alone: bool) -> Self {
        let no = AtomicBool::default;
        Self { events, alone, too_large: no(), failed: no(), down: no(), line: Mutex::default() }
    }

    /// Why no broker can be reached.
    pub fn reason(&self) -> String {
        words::explain(&self.line.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, line: &str) {
        if words::tells(line) {
            // Behind the thread's name, which says nothing.
            let line = line.split_once("]: ").map_or(line, |(_, line)| line);
            line.clone_into(&mut self.line.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn failure(&self, error: &KafkaError) -> Failure {
        let text = error.to_string();
        match error.rdkafka_error_code() {
            Some(Code::MessageSizeTooLarge) if self.alone => Failure::Record(text),
            Some(Code::InvalidMessage | Code::InvalidMessageSize | Code::InvalidRecord) => Failure::Record(text),
            Some(Code::MessageSizeTooLarge) => {
                self.too_large.store(true, Relaxed);
                Failure::Passing(text)
            }
            Some(code) if is_about_topic(code) => Failure::Topic(text),
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
        tracing::debug!(?level, facility, "{line}");
        self.note(line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
        self.note(reason);
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
            Ok(_) => Event::Delivered(token as u64),
            Err((error, _)) => {
                self.failed.store(true, Relaxed);
                Event::Failed(token as u64, self.failure(error))
            }
        };
        // Whoever no longer listens has been dropped.
        let _ = self.events.send(event);
    }
}
