//! Brokers for tests: a real Apache Kafka (`scripts/kafka`), and librdkafka's mock cluster in this process.
//!
//! A test runs on [`both`] where the mock can carry it. What it cannot, so that those tests have a real one alone:
//!
//! - what transactions are for: it takes their protocol, but forgets the position, fences no predecessor, shows what was not
//!   committed, and never gives one up;
//! - SASL, TLS and access rules: it knows neither users nor certificates, only topics that are refused to everybody;
//! - topics that a client makes or deletes, and their settings: it has no such requests, and makes whatever topic a producer
//!   asks for, with four partitions;
//! - refusing one record among others: errors are for whole requests;
//! - dying together with barline: it lives in the process of the test and has no disk;
//! - readers of other makes (the OpenTelemetry Collector), and more than 5 MB in a partition, where it forgets the oldest.

mod mock;
mod real;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

pub use mock::Mock;
pub use real::{RealKafka, real};

/// A broker that a test is run on.
pub enum Broker {
    /// librdkafka's mock cluster.
    Mock(Mock),
    /// A real one.
    Real(RealKafka),
}

/// The mock, and a real broker where there can be one.
pub fn both() -> impl Iterator<Item = Broker> {
    both_with(&[])
}

/// As [`both`], the real one with options of its own.
pub fn both_with(options: &[&str]) -> impl Iterator<Item = Broker> {
    let mock = std::iter::once_with(|| Broker::Mock(Mock::start()));
    mock.chain(std::iter::once_with(|| real(options)).flatten().map(Broker::Real))
}

impl Broker {
    /// Where clients go.
    pub fn bootstrap(&self) -> String {
        match self {
            Self::Mock(mock) => mock.bootstrap(),
            Self::Real(real) => real.bootstrap().to_owned(),
        }
    }

    /// Makes a topic.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        match self {
            Self::Mock(mock) => mock.create_topic(name, partitions),
            Self::Real(real) => real.create_topic(name, partitions),
        }
    }

    /// Sees to it that a topic is missing until it is made: the mock would make it with so many `partitions` at the first
    /// question.
    pub fn lack_topic(&self, name: &str, partitions: i32) {
        if let Self::Mock(mock) = self {
            mock.create_topic(name, partitions);
            mock.fail_topic(name, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        }
    }

    /// Is gone at once, and nobody listens where it was.
    pub fn leave(&mut self) {
        match self {
            Self::Mock(mock) => mock.listen(false),
            Self::Real(real) => real.kill(),
        }
    }

    /// Is there again, where it was and with what it had.
    pub fn come_back(&mut self) {
        match self {
            Self::Mock(mock) => mock.listen(true),
            Self::Real(real) => real.restart(),
        }
    }

    /// Takes connections and says nothing any more.
    pub fn freeze(&mut self) {
        match self {
            Self::Mock(mock) => mock.answer(false),
            Self::Real(real) => real.signal("-STOP"),
        }
    }

    /// Goes on.
    pub fn thaw(&mut self) {
        match self {
            Self::Mock(mock) => mock.answer(true),
            Self::Real(real) => real.signal("-CONT"),
        }
    }

    /// The mock finds the next batch too large, whatever is in it; a real one finds out by itself.
    pub fn find_too_large(&self) {
        if let Self::Mock(mock) = self {
            mock.fail_requests(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
        }
    }
}
