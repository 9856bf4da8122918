//! The Kafka side of the port to brokers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use barline::broker::settings::NewTopics;
use barline::broker::{Brokers, Event, Kafka, Refusal, Settings};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::broker::{self, Broker, Mock};
use super::consumer::consume;
use super::told::{PATIENCE, Told, record, settings};

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
    for broker in broker::both() {
        broker.create_topic("there", 1);
        broker.lack_topic("missing", 1);
        let mut told = Told::new(&settings(&broker.bootstrap(), &["there", "missing"]), None);
        told.ready();
        match told.producer.send(1, &record("missing", "k", "v")) {
            Err(Refusal::Topic(why)) => assert!(why.contains("\"missing\" is missing: create it"), "{why}"),
            other => panic!("{other:?}"),
        }
        told.send(2, &record("there", "k", "v"));
        told.delivered(vec![2]);
        broker.create_topic("missing", 1);
        let deadline = Instant::now() + PATIENCE;
        while told.producer.send(3, &record("missing", "k", "v")).is_err() {
            assert!(Instant::now() < deadline, "the new topic is never found");
            std::thread::sleep(Duration::from_millis(50));
        }
        told.delivered(vec![3]);
    }
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
    let partitions: BTreeSet<_> =
        consume(kafka.bootstrap(), "made", true).into_iter().map(|got| got.partition).collect();
    assert_eq!(partitions, [0, 1, 2].into());
}

#[test]
fn one_record_too_large_fails_alone() {
    for broker in broker::both() {
        match &broker {
            Broker::Mock(mock) => mock.create_topic("narrow", 1),
            Broker::Real(kafka) => kafka.create_topic_with("narrow", 1, &[("max.message.bytes", "2000")]),
        }
        let mut settings = settings(&broker.bootstrap(), &["narrow"]);
        settings.producing.compression = barline::broker::settings::Compression::None;
        let mut told = Told::new(&settings, None);
        told.ready();
        let value = |token: &u64| if *token == 5 { "x".repeat(5_000) } else { "x".repeat(100) };
        let all: BTreeSet<u64> = (0..50).collect();
        // With its neighbours in a batch nobody knows which one is to blame.
        broker.find_too_large();
        all.iter().for_each(|token| told.send(*token, &record("narrow", "k", &value(token))));
        let (again, refused) = told.failures(&all);
        assert!(!again.is_empty() && refused.is_empty(), "{again:?}, for good: {refused:?}");
        // One by one it is.
        told.ready();
        broker.find_too_large();
        again.iter().for_each(|token| told.send(*token, &record("narrow", "k", &value(token))));
        let (again, refused) = told.failures(&again);
        assert!(again.is_empty() && refused.len() == 1, "{again:?}, for good: {refused:?}");
        assert!(matches!(broker, Broker::Mock(_)) || refused == [5].into(), "{refused:?}");
        assert_eq!(consume(&broker.bootstrap(), "narrow", true).len(), 49);
    }
}

#[test]
fn a_broker_out_of_reach_is_told_in_words_and_records_wait_for_its_return() {
    for mut broker in broker::both() {
        broker.create_topic("bars", 1);
        let mut told = Told::new(&settings(&broker.bootstrap(), &["bars"]), None);
        told.ready();
        broker.leave();
        (0..100).for_each(|token| told.send(token, &record("bars", "k", &token.to_string())));
        match told.until(|event| matches!(event, Event::Down(_))).pop() {
            Some(Event::Down(why)) => assert!(why.contains("nobody listens there"), "{why}"),
            other => panic!("{other:?}"),
        }
        broker.come_back();
        told.delivered((0..100).collect());
        let values: Vec<_> = consume(&broker.bootstrap(), "bars", true).into_iter().map(|got| got.value).collect();
        assert_eq!(values, (0..100).map(|token| token.to_string().into_bytes()).collect::<Vec<_>>());
    }
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
    let mock = Mock::start();
    mock.create_topic("bars", 1);
    let mut told = Told::new(&settings(&mock.bootstrap(), &["bars"]), None);
    told.ready();
    mock.fail_requests(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 3]);
    (0..100).for_each(|token| told.send(token, &record("bars", "k", &token.to_string())));
    told.delivered((0..100).collect());
}
