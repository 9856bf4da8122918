//! Topics: whether they can be used, and making those that are missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::producer::Producer as _;

use super::life::{CALL, Client};
use crate::broker::settings::NewTopics;
use crate::broker::{Settings, client_config};

/// Asks about topics.
pub struct Topics {
    settings: Arc<Settings>,
}

impl Topics {
    /// Asks with these settings.
    pub fn new(settings: Arc<Settings>) -> Self {
        Self { settings }
    }

    /// Those of `topics` that cannot be used, and why. Missing ones are made where the topology says so.
    pub fn look(&self, client: &Client, topics: &[Arc<str>]) -> BTreeMap<Arc<str>, String> {
        let mut refused = BTreeMap::new();
        for topic in topics {
            let found = match self.find(client, topic) {
                Err(Some(Code::UnknownTopicOrPartition)) if self.settings.new_topics.is_some() => {
                    self.make(topic).and_then(|()| self.find(client, topic).map_err(|code| describe(topic, code)))
                }
                found => found.map_err(|code| describe(topic, code)),
            };
            if let Err(why) = found {
                refused.insert(topic.clone(), why);
            }
        }
        refused
    }

    fn find(&self, client: &Client, topic: &str) -> Result<(), Option<Code>> {
        let metadata = client.client().fetch_metadata(Some(topic), CALL).map_err(|_| None)?;
        let found = metadata.topics().first().ok_or(None)?;
        match found.error() {
            Some(error) => Err(Some(Code::from(error))),
            None if found.partitions().is_empty() => Err(Some(Code::UnknownTopicOrPartition)),
            None => Ok(()),
        }
    }

    fn make(&self, topic: &str) -> Result<(), String> {
        let Some(NewTopics { partitions, replication, config }) = &self.settings.new_topics else { return Ok(()) };
        let failed = |error: &dyn std::fmt::Display| format!("topic {topic:?} is missing and cannot be made: {error}");
        let client = client_config::client(&self.settings.connection).map_err(|(_, reason)| failed(&reason))?;
        let admin: AdminClient<_> = client.create().map_err(|error| failed(&error))?;
        let copies = replication.map_or(-1, i32::from);
        let mut new = NewTopic::new(topic, i32::from(*partitions), TopicReplication::Fixed(copies));
        for (name, value) in config {
            new = new.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(CALL)).request_timeout(Some(CALL));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let made = runtime.map_err(|error| failed(&error))?.block_on(admin.create_topics([&new], &options));
        match made.map_err(|error| failed(&error))?.into_iter().next() {
            Some(Err((_, code))) if code != Code::TopicAlreadyExists => Err(failed(&code)),
            _ => {
                tracing::info!(topic, partitions, "topic made");
                Ok(())
            }
        }
    }
}

/// What is wrong with a topic, in words.
pub fn describe(topic: &str, code: Option<Code>) -> String {
    match code {
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            format!("topic {topic:?} is missing: create it, or let `create_topics` do so")
        }
        Some(Code::TopicAuthorizationFailed) => {
            format!("topic {topic:?} may not be written to by this user: grant Describe and Write")
        }
        Some(code) => format!("topic {topic:?} cannot be used: {code}"),
        None => format!("topic {topic:?}: nobody answers whether it is there"),
    }
}
