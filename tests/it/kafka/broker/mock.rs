//! librdkafka's mock cluster of one broker, in this process.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

/// Its one broker, or all of them.
const ALL: i32 = -1;
/// Longer than any client waits for an answer.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// See the module's text.
pub struct Mock(MockCluster<'static, DefaultProducerContext>);

impl Mock {
    /// Starts one.
    pub fn start() -> Self {
        Self(MockCluster::new(1).unwrap())
    }

    /// Where clients go.
    pub fn bootstrap(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Makes a topic, or lets one be seen and used that was not.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        match self.0.create_topic(name, partitions, 1) {
            Ok(()) => {}
            Err(KafkaError::MockCluster(Code::TopicAlreadyExists)) => {
                self.fail_topic(name, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Whoever asks for a topic that is there is answered so: it would make one that is not.
    pub fn fail_topic(&self, name: &str, error: RDKafkaRespErr) {
        self.0.topic_error(name, error).unwrap();
    }

    /// The next requests of a kind are answered so.
    pub fn fail_requests(&self, kind: RDKafkaApiKey, errors: &[RDKafkaRespErr]) {
        self.0.request_errors(kind, errors);
    }

    /// Ends every connection and takes no other, or does again.
    pub fn listen(&self, listens: bool) {
        let done = if listens { self.0.broker_up(ALL) } else { self.0.broker_down(ALL) };
        done.unwrap();
    }

    /// Takes requests and does not answer them, or does again.
    pub fn answer(&self, answers: bool) {
        self.0.broker_round_trip_time(ALL, if answers { Duration::ZERO } else { NEVER }).unwrap();
    }
}
