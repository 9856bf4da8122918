//! A producer of the port to brokers, and what it tells.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use barline::broker::settings::Connection;
use barline::broker::{Brokers, Event, Failure, Kafka, Producer, Refusal, Settings};
use barline::model::{Headers, Record};

/// How long anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A producer, and what it has told.
pub struct Told {
    pub producer: Box<dyn Producer>,
    pub events: Vec<Event>,
}

pub fn settings(bootstrap: &str, topics: &[&str]) -> Settings {
    let connection = Connection { brokers: vec![bootstrap.to_owned()], ..Connection::default() };
    Settings { connection, topics: topics.iter().map(|topic| (*topic).into()).collect(), ..Settings::default() }
}

pub fn record(topic: &str, key: &str, value: &str) -> Record {
    let mut headers = Headers::default();
    headers.add("kind", |out| out.extend_from_slice(b"test"));
    Record { topic: topic.into(), key: key.into(), value: value.into(), headers }
}

impl Told {
    pub fn new(settings: &Settings, transactional: Option<&str>) -> Self {
        Self { producer: Kafka.producer(settings, transactional).unwrap(), events: Vec::new() }
    }

    /// Waits until `is_it` has been told; gives what has been told up to then, and forgets it.
    pub fn until(&mut self, mut is_it: impl FnMut(&Event) -> bool) -> Vec<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.producer.poll(&mut self.events);
            if let Some(at) = self.events.iter().position(&mut is_it) {
                return self.events.drain(..=at).collect();
            }
            assert!(Instant::now() < deadline, "not told in time; told: {:?}", self.events);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn ready(&mut self) -> Option<String> {
        match self.until(|event| matches!(event, Event::Ready { .. })).pop() {
            Some(Event::Ready { position }) => position,
            _ => None,
        }
    }

    /// Hands over, waiting for room.
    pub fn send(&mut self, token: u64, record: &Record) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.producer.send(token, record) {
                Ok(()) => return,
                Err(Refusal::Full) => assert!(Instant::now() < deadline, "never any room"),
                Err(refusal) => panic!("{refusal:?}"),
            }
            self.producer.poll(&mut self.events);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the end of all `tokens` is told; gives those that may be sent again, and those that failed for good.
    pub fn failures(&mut self, tokens: &BTreeSet<u64>) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut open, mut again, mut refused) = (tokens.clone(), BTreeSet::new(), BTreeSet::new());
        while !open.is_empty() {
            match self.until(|event| matches!(event, Event::Delivered(_) | Event::Failed(..))).pop() {
                Some(Event::Delivered(token)) => assert!(open.remove(&token)),
                Some(Event::Failed(token, failure)) => {
                    assert!(open.remove(&token));
                    if let Failure::Record(_) = failure { &mut refused } else { &mut again }.insert(token);
                }
                other => panic!("{other:?}"),
            }
        }
        (again, refused)
    }

    pub fn delivered(&mut self, mut tokens: Vec<u64>) {
        while !tokens.is_empty() {
            let told = self.until(|event| matches!(event, Event::Delivered(_) | Event::Failed(..)));
            match told.last() {
                Some(Event::Delivered(token)) => tokens.retain(|waiting| waiting != token),
                other => panic!("{other:?}"),
            }
        }
    }
}
