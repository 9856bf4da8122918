//! The Kafka side of the port, over librdkafka.
//!
//! A thread of its own, `life`, connects, asks about topics (`topics`), serves callbacks (`watcher`) and ends
//! transactions (`transaction`); the port's own calls hand records to librdkafka's queue and read what was told.
//! [`Member`] is the other way: a member of a consumer group.

mod consumer;
mod life;
mod outcome;
mod topics;
mod transaction;
mod watcher;

pub use consumer::Member;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use flume::{Receiver, Sender};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::BaseRecord;

use self::life::{Commit, Life, Shared};
use self::topics::describe;
use self::watcher::is_about_topic;
use super::{Brokers, Event, Producer, Refusal, Settings};
use crate::model::Record;

/// Clusters, as librdkafka reaches them.
pub struct Kafka;

impl Brokers for Kafka {
    fn producer(&self, settings: &Settings, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, String> {
        Ok(Box::new(KafkaProducer::open(settings.clone(), transactional_id)?))
    }
}

/// A producer of records for Kafka.
pub struct KafkaProducer {
    shared: Arc<Shared>,
    events: Receiver<Event>,
    commits: Sender<Commit>,
    /// With transactions: the last session whose beginning the caller knows of. What it hands over is meant for that one
    /// alone: the next takes up at another position.
    session: Option<u64>,
    in_flight: usize,
}

impl KafkaProducer {
    /// A producer that begins to connect at once.
    ///
    /// # Errors
    /// librdkafka does not take the settings, or no thread can be started.
    pub fn open(settings: Settings, transactional_id: Option<&str>) -> Result<Self, String> {
        let (event_sender, events) = flume::unbounded();
        let (commits, commit_receiver) = flume::bounded(1);
        let shared = Arc::new(Shared::default());
        let life = Life::new(settings, transactional_id, shared.clone(), event_sender, commit_receiver)?;
        let thread = std::thread::Builder::new().name("kafka".into());
        thread.spawn(move || life.live()).map_err(|error| format!("no thread can be started: {error}"))?;
        Ok(Self { shared, events, commits, session: transactional_id.map(|_| 0), in_flight: 0 })
    }
}

impl Producer for KafkaProducer {
    fn send(&mut self, token: u64, record: &Record) -> Result<(), Refusal> {
        if let Some(why) = self.shared.refused(&record.topic) {
            return Err(Refusal::Topic(why));
        }
        let Some((session, producer)) = self.shared.producer() else { return Err(Refusal::Full) };
        if self.session.is_some_and(|known| known != session) {
            return Err(Refusal::Full);
        }
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (key, value) in record.headers.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let message = BaseRecord::with_opaque_to(&record.topic, token as usize)
            .key(&record.key)
            .payload(&record.value)
            .headers(headers);
        match producer.send(message) {
            Ok(()) => {
                self.in_flight += 1;
                Ok(())
            }
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => Err(Refusal::Record(error.to_string())),
                Some(code) if is_about_topic(code) => {
                    let why = describe(&record.topic, Some(code));
                    self.shared.refuse(&record.topic, why.clone());
                    Err(Refusal::Topic(why))
                }
                _ => Err(Refusal::Full),
            },
        }
    }

    fn poll(&mut self, events: &mut Vec<Event>) {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Delivered(_) | Event::Failed(..) = event {
                self.in_flight = self.in_flight.saturating_sub(1);
            }
            if let (Event::Ready { .. }, Some(session)) = (&event, &mut self.session) {
                *session += 1;
            }
            events.push(event);
        }
    }

    fn commit(&mut self, position: &str) {
        let Some(session) = self.session else { return };
        // There is room: nothing is committed while a commit is on its way.
        let _ = self.commits.try_send(Commit { session, position: position.to_owned() });
    }

    fn in_flight(&self) -> usize {
        self.in_flight
    }
}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_for_the_session_its_caller_knows_of() {
        let (tell, events) = flume::unbounded();
        let (commits, asked) = flume::bounded(1);
        let shared = Arc::new(Shared::default());
        let mut producer = KafkaProducer { shared, events, commits, session: Some(0), in_flight: 0 };
        tell.send(Event::Ready { position: None }).unwrap();
        producer.poll(&mut Vec::new());
        tell.send(Event::Aborted("fenced".into())).unwrap();
        tell.send(Event::Ready { position: Some("at 1".into()) }).unwrap();
        producer.commit("at 2");
        assert_eq!(asked.try_recv(), Ok(Commit { session: 1, position: "at 2".into() }));
        producer.poll(&mut Vec::new());
        producer.commit("at 3");
        assert_eq!(asked.try_recv(), Ok(Commit { session: 2, position: "at 3".into() }));
    }
}
