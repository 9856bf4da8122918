//! Towards Kafka: on librdkafka's mock cluster, and on a real broker where Java and Maven are (`scripts/kafka`).

mod bars;
mod batches;
mod broker;
mod collector;
mod consumer;
mod delivery;
mod fleet;
mod flow;
mod kills;
mod metrics;
mod outage;
mod producer;
mod refusals;
mod reload;
#[cfg(feature = "kafka-tls")]
mod secure;
mod spool;
mod ticks;
mod told;
mod transactions;
