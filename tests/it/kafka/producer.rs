//! The Kafka side of the port to brokers.

use std::time::{Duration, Instant};

use barline::broker::settings::{Connection, NewTopics};
use barline::broker::{Brokers, Event, Failure, Kafka, Producer, Refusal, Settings};
use barline::model::{Headers, Record};

use super::broker::{self, Broker};
use super::consumer::{consume, end_of_committed};

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A producer, and what it has told.
pub struct Told {
    pub producer: Box<dyn Producer>,
    pub events: Vec<Event>,
}

fn settings(bootstrap: &str, topics: &[&str]) -> Settings {
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

    fn ready(&mut self) -> Option<String> {
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

#[test]
fn records_arrive_once_with_key_and_headers_and_those_of_a_key_in_order() {
    for broker in broker::both() {
        broker.create_topic("bars", 4);
        let mut told = Told::new(&settings(&broker.bootstrap(), &["bars"]), None);
        told.ready();
        for token in 0..2_000 {
            told.send(token, &record("bars", &format!("k{}", token % 37), &token.to_string()));
        }
        told.delivered((0..2_000).collect());
        assert_eq!(told.producer.in_flight(), 0);
        let got = consume(&broker.bootstrap(), "bars", true);
        assert_eq!(got.len(), 2_000);
        let mut last = std::collections::HashMap::new();
        for got in got {
            let (key, number) = (String::from_utf8(got.key.clone().unwrap()).unwrap(), got.value.clone());
            let number: u64 = String::from_utf8(number).unwrap().parse().unwrap();
            assert_eq!((got.header("kind"), key.as_str()), ("test", format!("k{}", number % 37).as_str()));
            assert_eq!(got.partition, sarama(key.as_bytes(), 4), "the partition of {key}");
            assert!(last.insert(key, number).is_none_or(|before| before < number));
        }
    }
}

/// Sarama's hash partitioner: FNV-1a, as a signed number, modulo, without its sign.
pub fn sarama(key: &[u8], partitions: i32) -> i32 {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    ((hash as i32) % partitions).abs()
}

#[test]
fn a_missing_topic_is_told_its_records_wait_and_others_go_on() {
    let Some(kafka) = broker::real(&[]) else { return };
    kafka.create_topic("there", 1);
    let mut told = Told::new(&settings(kafka.bootstrap(), &["there", "missing"]), None);
    told.ready();
    match told.producer.send(1, &record("missing", "k", "v")) {
        Err(Refusal::Topic(why)) => assert!(why.contains("\"missing\" is missing: create it"), "{why}"),
        other => panic!("{other:?}"),
    }
    told.send(2, &record("there", "k", "v"));
    told.delivered(vec![2]);
    kafka.create_topic("missing", 1);
    let deadline = Instant::now() + PATIENCE;
    while told.producer.send(3, &record("missing", "k", "v")).is_err() {
        assert!(Instant::now() < deadline, "the new topic is never found");
        std::thread::sleep(Duration::from_millis(50));
    }
    told.delivered(vec![3]);
}

#[test]
fn missing_topics_are_made_where_the_settings_say_so() {
    let Some(kafka) = broker::real(&[]) else { return };
    let config = [("retention.ms".to_owned(), "60000".to_owned())].into();
    let new_topics = Some(NewTopics { partitions: 3, replication: Some(1), config });
    let mut told = Told::new(&Settings { new_topics, ..settings(kafka.bootstrap(), &["made"]) }, None);
    told.ready();
    (0..30).for_each(|token| told.send(token, &record("made", &token.to_string(), "v")));
    told.delivered((0..30).collect());
    let partitions: std::collections::BTreeSet<_> =
        consume(kafka.bootstrap(), "made", true).into_iter().map(|got| got.partition).collect();
    assert_eq!(partitions, [0, 1, 2].into());
}

#[test]
fn one_record_too_large_fails_alone() {
    let Some(kafka) = broker::real(&[]) else { return };
    broker::create_topic(kafka.bootstrap(), "narrow", 1, &[("max.message.bytes", "2000")]);
    let mut settings = settings(kafka.bootstrap(), &["narrow"]);
    settings.producing.compression = barline::broker::settings::Compression::None;
    let mut told = Told::new(&settings, None);
    told.ready();
    let value = |token: u64| if token == 5 { "x".repeat(5_000) } else { "x".repeat(100) };
    let mut open: std::collections::BTreeSet<u64> = (0..50).collect();
    open.iter().for_each(|token| told.send(*token, &record("narrow", "k", &value(*token))));
    while !open.is_empty() {
        let event = told.until(|event| matches!(event, Event::Delivered(_) | Event::Failed(..))).pop().unwrap();
        match event {
            Event::Delivered(token) => assert!(token != 5 && open.remove(&token)),
            Event::Failed(token, Failure::Record(_)) => assert!(token == 5 && open.remove(&5)),
            Event::Failed(token, Failure::Passing(_)) => told.send(token, &record("narrow", "k", &value(token))),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(consume(kafka.bootstrap(), "narrow", true).len(), 49);
}

#[test]
fn a_broker_out_of_reach_is_told_in_words_and_records_wait_for_its_return() {
    let Some(mut kafka) = broker::real(&[]) else { return };
    kafka.create_topic("bars", 1);
    let mut told = Told::new(&settings(kafka.bootstrap(), &["bars"]), None);
    told.ready();
    kafka.kill();
    (0..100).for_each(|token| told.send(token, &record("bars", "k", &token.to_string())));
    match told.until(|event| matches!(event, Event::Down(_))).pop() {
        Some(Event::Down(why)) => assert!(why.contains("nobody listens there"), "{why}"),
        other => panic!("{other:?}"),
    }
    kafka.restart();
    told.delivered((0..100).collect());
    let values: Vec<_> = consume(kafka.bootstrap(), "bars", true).into_iter().map(|got| got.value).collect();
    assert_eq!(values, (0..100).map(|token| token.to_string().into_bytes()).collect::<Vec<_>>());
}

#[test]
fn a_wrong_password_is_told_as_one() {
    let Some(kafka) = broker::real(&["--sasl"]) else { return };
    kafka.create_topic("bars", 1);
    for (password, is_right) in [("alice-secret", true), ("wrong", false)] {
        let mut settings = settings(kafka.fact("sasl"), &["bars"]);
        settings.connection.security.sasl = Some(barline::broker::settings::Sasl {
            mechanism: barline::broker::settings::Mechanism::Plain,
            username: "alice".into(),
            password: barline::broker::Secret::Plain(password.into()),
        });
        let mut told = Told::new(&settings, None);
        match told.until(|event| matches!(event, Event::Down(_) | Event::Ready { .. })).pop() {
            Some(Event::Ready { .. }) => assert!(is_right),
            Some(Event::Down(why)) => assert!(!is_right && why.contains("password is wrong"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_a_transaction_commits_is_visible_with_its_position_and_nothing_else_is() {
    let Some(kafka) = broker::real(&[]) else { return };
    kafka.create_topic("bars", 2);
    let settings = settings(kafka.bootstrap(), &["bars"]);
    let mut first = Told::new(&settings, Some("sink"));
    assert_eq!(first.ready(), None);
    (0..10).for_each(|token| first.send(token, &record("bars", "k", "committed")));
    first.producer.commit("at 10");
    first.until(|event| *event == Event::Committed);
    (10..20).for_each(|token| first.send(token, &record("bars", "k", "open")));
    // Another producer of the same id, as after a kill: the open transaction is gone, and the first one fenced.
    let mut second = Told::new(&settings, Some("sink"));
    assert_eq!(second.ready().as_deref(), Some("at 10"));
    second.send(1, &record("bars", "k", "second"));
    second.producer.commit("at 11");
    second.until(|event| *event == Event::Committed);
    first.producer.commit("at 20");
    first.until(|event| matches!(event, Event::Aborted(_)));
    assert_eq!(first.ready().as_deref(), Some("at 11"));
    let values: Vec<_> = consume(kafka.bootstrap(), "bars", true).into_iter().map(|got| got.value).collect();
    let expected = std::iter::repeat_n("committed", 10).chain(["second"]).map(|value| value.as_bytes().to_vec());
    assert_eq!(values, expected.collect::<Vec<_>>());
}

#[test]
fn a_transaction_that_outlives_its_time_is_aborted_and_its_producer_is_made_anew() {
    let options = ["--set", "transaction.abort.timed.out.transaction.cleanup.interval.ms=100"];
    let Some(kafka) = broker::real(&options) else { return };
    kafka.create_topic("bars", 1);
    let mut settings = settings(kafka.bootstrap(), &["bars"]);
    settings.connection.properties.insert("transaction.timeout.ms".into(), "1000".into());
    let mut told = Told::new(&settings, Some("sink"));
    assert_eq!(told.ready(), None);
    told.send(1, &record("bars", "k", "too late"));
    told.delivered(vec![1]);
    let deadline = Instant::now() + PATIENCE;
    while end_of_committed(kafka.bootstrap(), "bars") == 0 {
        assert!(Instant::now() < deadline, "the broker never gives the transaction up");
        std::thread::sleep(Duration::from_millis(50));
    }
    told.producer.commit("at 1");
    told.until(|event| matches!(event, Event::Aborted(_)));
    assert_eq!(told.ready(), None);
    told.send(2, &record("bars", "k", "again"));
    told.producer.commit("at 2");
    told.until(|event| *event == Event::Committed);
    let values: Vec<_> = consume(kafka.bootstrap(), "bars", true).into_iter().map(|got| got.value).collect();
    assert_eq!(values, [b"again".to_vec()]);
}

#[test]
fn settings_that_cannot_be_are_refused_at_once() {
    let mut settings = settings("127.0.0.1:1", &["bars"]);
    settings.connection.properties.insert("no.such.property".into(), "1".into());
    let refused = Kafka.producer(&settings, None).err().unwrap();
    assert!(refused.contains("no.such.property"), "{refused}");
}

#[test]
fn a_producer_can_be_dropped_with_the_broker_down() {
    let mut told = Told::new(&settings("127.0.0.1:1", &["bars"]), None);
    told.until(|event| matches!(event, Event::Down(_)));
    assert_eq!(told.producer.send(1, &record("bars", "k", "v")), Err(Refusal::Full));
    drop(told);
}

#[test]
fn the_mock_clusters_passing_errors_are_retried_unseen() {
    let Some(Broker::Mock(mock)) = broker::both().next() else { panic!("the mock comes first") };
    mock.create_topic("bars", 1, 1).unwrap();
    let mut told = Told::new(&settings(&mock.bootstrap_servers(), &["bars"]), None);
    told.ready();
    let errors = [rdkafka::types::RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 3];
    mock.request_errors(rdkafka::types::RDKafkaApiKey::Produce, &errors);
    (0..100).for_each(|token| told.send(token, &record("bars", "k", &token.to_string())));
    told.delivered((0..100).collect());
}
