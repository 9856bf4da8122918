//! A member of a consumer group on librdkafka.
//!
//! Commits are synchronous on purpose: librdkafka puts a commit off while it has no coordinator, and one sent later than
//! the partition's loss would be taken under the new generation. While this thread waits in a commit no partition can be
//! taken from it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::watcher::Log;
use crate::broker::consumer::{Consumer, Happening, Partition, Position};

/// How long the coordinator may take to say what is committed.
const ASKING: Duration = Duration::from_secs(5);

/// See the module's text.
pub struct Member {
    client: BaseConsumer<Told>,
}

/// What librdkafka told while it was polled.
#[derive(Default)]
struct Told {
    happened: Mutex<VecDeque<Happening>>,
    log: Log,
}

impl Member {
    /// Joins the group of `config` for `topics`.
    ///
    /// # Errors
    /// The config is refused.
    pub fn new(config: &ClientConfig, topics: &[String]) -> Result<Self, String> {
        let client: BaseConsumer<Told> =
            config.create_with_context(Told::default()).map_err(|error| error.to_string())?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        client.subscribe(&topics).map_err(|error| error.to_string())?;
        Ok(Self { client })
    }
}

impl Consumer for Member {
    fn poll(&mut self, wait: Duration) -> Option<Happening> {
        let told = self.client.context();
        if let Some(happening) = told.happened().pop_front() {
            return Some(happening);
        }
        match self.client.poll(wait) {
            Some(Ok(message)) => {
                let partition = Partition { topic: message.topic().into(), number: message.partition() };
                let value = message.payload().unwrap_or_default().to_vec();
                Some(Happening::Message(partition, message.offset(), value))
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => Some(Happening::Fatal(code.to_string())),
            Some(Err(error)) => {
                let unreachable = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::AllBrokersDown);
                Some(Happening::Down(if unreachable { told.log.reason() } else { error.to_string() }))
            }
            None => told.happened().pop_front(),
        }
    }

    fn commit(&mut self, positions: &[Position]) -> Result<(), String> {
        if self.client.assignment_lost() {
            return Err("the group has gone on without this member".to_owned());
        }
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for Position { partition, offset, note } in positions {
            let mut entry = list.add_partition(&partition.topic, partition.number);
            entry.set_offset(Offset::Offset(*offset)).map_err(|error| error.to_string())?;
            entry.set_metadata(note);
        }
        self.client.commit(&list, CommitMode::Sync).map_err(|error| error.to_string())
    }

    fn committed(&mut self, partitions: &[Partition]) -> Result<Vec<Position>, String> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        partitions.iter().for_each(|partition| _ = list.add_partition(&partition.topic, partition.number));
        let found = self.client.committed_offsets(list, ASKING).map_err(|error| error.to_string())?;
        let mut positions = Vec::new();
        for entry in found.elements() {
            entry.error().map_err(|error| error.to_string())?;
            let Offset::Offset(offset) = entry.offset() else { continue };
            let partition = Partition { topic: entry.topic().into(), number: entry.partition() };
            positions.push(Position { partition, offset, note: entry.metadata().to_owned() });
        }
        Ok(positions)
    }

    fn pause(&mut self, paused: bool) {
        let Ok(held) = self.client.assignment() else { return };
        let done = if paused { self.client.pause(&held) } else { self.client.resume(&held) };
        if let Err(error) = done {
            tracing::debug!(paused, %error, "partitions could not be held back or let go");
        }
    }
}

impl Told {
    fn happened(&self) -> MutexGuard<'_, VecDeque<Happening>> {
        self.happened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.log.line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(&error, reason);
    }
}

impl ConsumerContext for Told {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let partitions = |list: &TopicPartitionList| {
            let of = |entry: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| Partition {
                topic: entry.topic().into(),
                number: entry.partition(),
            };
            list.elements().iter().map(of).collect()
        };
        self.happened().push_back(match rebalance {
            Rebalance::Assign(list) => Happening::Assigned(partitions(list)),
            Rebalance::Revoke(list) => Happening::Revoked(partitions(list)),
            Rebalance::Error(error) => Happening::Down(error.to_string()),
        });
    }
}
