//! Transactions: records and the position they lead to become visible together.
//!
//! The position is the metadata of an offset that a consumer group of the transaction's own id commits within the
//! transaction. So it is where the records are, and whoever comes after a crash reads there how far they came.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};

use super::life::{CALL, Client, Shared};
use crate::broker::settings::TRANSACTION_TIMEOUT;
use crate::broker::{Settings, client_config};

/// The pause before a call that may be repeated is.
const PAUSE: Duration = Duration::from_millis(50);

/// The transactions of one session.
pub struct Transactions {
    client: Arc<Client>,
    /// A member of the group that is never told anything: it only reads and names the group.
    reader: BaseConsumer,
    /// The topic whose first partition's offset holds the position.
    topic: Arc<str>,
}

impl Transactions {
    /// Transactions of the producer `id`.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn new(client: Arc<Client>, settings: &Settings, id: &str) -> Result<Self, String> {
        let mut config = client_config::client(&settings.connection).map_err(|(_, reason)| reason)?;
        config.set("group.id", id);
        let reader = config.create().map_err(|error| error.to_string())?;
        let topic = settings.topics.first().cloned().ok_or("there is no topic to hold the position")?;
        Ok(Self { client, reader, topic })
    }

    /// Ends whatever a predecessor of this id left open, reads the position, and begins.
    ///
    /// # Errors
    /// It cannot, and why.
    pub fn begin(&self, shared: &Shared) -> Result<Option<String>, String> {
        repeated(shared, None, || self.client.init_transactions(CALL)).map_err(|error| error.to_string())?;
        let position = self.position()?;
        self.client.begin_transaction().map_err(|error| error.to_string())?;
        Ok(position)
    }

    /// Commits what was handed over and `position`, and begins the next transaction.
    ///
    /// # Errors
    /// It is aborted, or its fate is not known: the position that the next session reads tells it.
    pub fn commit(&self, position: &str, shared: &Shared) -> Result<(), String> {
        let end = Instant::now() + Duration::from_nanos(TRANSACTION_TIMEOUT as u64);
        self.deliver(end, shared)?;
        let group = self.reader.group_metadata().ok_or("no group to commit the position for")?;
        let offsets = self.holder();
        for mut element in offsets.elements() {
            element.set_offset(Offset::Offset(0)).map_err(|error| error.to_string())?;
            element.set_metadata(position);
        }
        let sent = repeated(shared, Some(end), || self.client.send_offsets_to_transaction(&offsets, &group, CALL));
        let committed = sent.and_then(|()| repeated(shared, Some(end), || self.client.commit_transaction(CALL)));
        committed.map_err(|error| error.to_string())?;
        self.client.begin_transaction().map_err(|error| error.to_string())
    }

    /// Waits until every record is delivered: `commit_transaction` would do so in steps of 100 ms.
    fn deliver(&self, end: Instant, shared: &Shared) -> Result<(), String> {
        while self.client.in_flight_count() > 0 {
            if shared.stop.load(Relaxed) || Instant::now() > end {
                return Err("records were not delivered within the transaction's time".to_owned());
            }
            self.client.poll(Duration::from_millis(1));
        }
        let failed = self.client.context().failed.load(Relaxed);
        if failed { Err("a record of the transaction was refused".to_owned()) } else { Ok(()) }
    }

    /// The position of the last committed transaction.
    fn position(&self) -> Result<Option<String>, String> {
        let committed = self.reader.committed_offsets(self.holder(), CALL).map_err(|error| error.to_string())?;
        let positions = committed.elements();
        let position = positions.first().filter(|position| matches!(position.offset(), Offset::Offset(_)));
        Ok(position.map(|position| position.metadata().to_owned()).filter(|position| !position.is_empty()))
    }

    fn holder(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, 0);
        list
    }
}

/// Repeats a call for as long as that may help, until `end` where there is one.
fn repeated(
    shared: &Shared,
    end: Option<Instant>,
    mut call: impl FnMut() -> Result<(), KafkaError>,
) -> Result<(), KafkaError> {
    loop {
        match call() {
            Err(KafkaError::Transaction(error))
                if error.is_retriable() && !shared.stop.load(Relaxed) && end.is_none_or(|end| Instant::now() < end) =>
            {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}
