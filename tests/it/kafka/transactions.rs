//! Transactions of the Kafka side of the port to brokers.

use std::time::{Duration, Instant};

use barline::broker::Event;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::broker::{self, Mock};
use super::consumer::{consume, end_of_committed};
use super::told::{PATIENCE, Told, record, settings};

/// The end of a transaction under which everything up to `position` was sent.
fn committed(told: &mut Told, position: &str) {
    told.producer.commit(position);
    told.until(|event| *event == Event::Committed);
}

#[test]
fn what_is_sent_in_transactions_arrives_and_every_commit_is_told() {
    for broker in broker::both() {
        broker.create_topic("bars", 2);
        let mut told = Told::new(&settings(&broker.bootstrap(), &["bars"]), Some("sink"));
        assert_eq!(told.ready(), None);
        for last in [10, 20, 30] {
            (last - 10..last).for_each(|token| told.send(token, &record("bars", "k", &token.to_string())));
            committed(&mut told, &format!("at {last}"));
        }
        let values: Vec<_> = consume(&broker.bootstrap(), "bars", true).into_iter().map(|got| got.value).collect();
        assert_eq!(values, (0..30).map(|token| token.to_string().into_bytes()).collect::<Vec<_>>());
    }
}

#[test]
fn a_coordinator_that_puts_off_every_step_of_a_transaction_is_asked_again() {
    let mock = Mock::start();
    mock.create_topic("bars", 1);
    let later = [
        (RDKafkaApiKey::InitProducerId, RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
        (RDKafkaApiKey::AddPartitionsToTxn, RDKafkaRespErr::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS),
        (RDKafkaApiKey::AddOffsetsToTxn, RDKafkaRespErr::RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS),
        (RDKafkaApiKey::TxnOffsetCommit, RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS),
        (RDKafkaApiKey::EndTxn, RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE),
    ];
    later.into_iter().for_each(|(step, error)| mock.fail_requests(step, &[error; 2]));
    let mut told = Told::new(&settings(&mock.bootstrap(), &["bars"]), Some("sink"));
    assert_eq!(told.ready(), None);
    told.send(1, &record("bars", "k", "v"));
    committed(&mut told, "at 1");
    assert_eq!(consume(&mock.bootstrap(), "bars", true).len(), 1);
}

#[test]
fn a_producer_that_is_fenced_at_the_end_of_a_transaction_tells_so_and_begins_anew() {
    let mock = Mock::start();
    mock.create_topic("bars", 1);
    let mut told = Told::new(&settings(&mock.bootstrap(), &["bars"]), Some("sink"));
    told.ready();
    told.send(1, &record("bars", "k", "v"));
    mock.fail_requests(RDKafkaApiKey::EndTxn, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
    told.producer.commit("at 1");
    told.until(|event| matches!(event, Event::Aborted(_)));
    told.ready();
    told.send(2, &record("bars", "k", "v"));
    committed(&mut told, "at 2");
}

#[test]
fn what_a_transaction_commits_is_visible_with_its_position_and_nothing_else_is() {
    let Some(kafka) = broker::real(&[]) else { return };
    kafka.create_topic("bars", 2);
    let settings = settings(kafka.bootstrap(), &["bars"]);
    let mut first = Told::new(&settings, Some("sink"));
    assert_eq!(first.ready(), None);
    (0..10).for_each(|token| first.send(token, &record("bars", "k", "committed")));
    committed(&mut first, "at 10");
    (10..20).for_each(|token| first.send(token, &record("bars", "k", "open")));
    // Another producer of the same id, as after a kill: the open transaction is gone, and the first one fenced.
    let mut second = Told::new(&settings, Some("sink"));
    assert_eq!(second.ready().as_deref(), Some("at 10"));
    second.send(1, &record("bars", "k", "second"));
    committed(&mut second, "at 11");
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
    committed(&mut told, "at 2");
    let values: Vec<_> = consume(kafka.bootstrap(), "bars", true).into_iter().map(|got| got.value).collect();
    assert_eq!(values, [b"again".to_vec()]);
}
