//! Towards Kafka: on librdkafka's mock cluster, and on a real broker where Java and Maven are (`scripts/kafka`).

mod broker;
mod consumer;
mod delivery;
mod producer;
#[cfg(feature = "kafka-tls")]
mod secure;
