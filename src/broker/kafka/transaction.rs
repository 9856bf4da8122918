//! Transactions: records and the position they lead to become visible together.
//!
//! The position is the metadata of an offset that a consumer group of the transaction's own id commits within the
//! transaction. So it is where the records are, and whoever comes after a crash reads there how far they came.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::metadata::{Metadata, MetadataTopic};
use rdkafka::producer::{BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::life::{CALL, Client, Shared};
use super::outcome::{self, Outcome};
use super::watcher::VOID;
use crate::broker::{Settings, client_config};

/// The pause before a call that may be repeated is.
const PAUSE: Duration = Duration::from_millis(50);

/// Kafka's own topic of what consumer groups commit.
const OFFSETS: &str = "__consumer_offsets";

/// What the last session of a producer left at the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// There was none in this process.
    Unknown,
    /// A transaction that was not asked to be committed, if any.
    Open,
    /// A committed transaction with this position, and no record since.
    Committed(String),
}

/// The transactions of one session.
pub struct Transactions {
    client: Arc<Client>,
    /// A member of the group that is never told anything: it only reads and names the group.
    reader: BaseConsumer,
    /// What the reader was made with.
    config: ClientConfig,
    /// All the producer's topics; the offset of the first one's first partition holds the position.
    topics: Vec<Arc<str>>,
    /// How long a transaction may last.
    timeout: Duration,
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
        let topics = settings.topics.clone();
        if topics.is_empty() {
            return Err("there is no topic to hold the position".to_owned());
        }
        let timeout = settings.connection.transaction_timeout();
        Ok(Self { client, reader, config, topics, timeout })
    }

    /// Ends whatever a predecessor of this id left open, reads the position, and begins.
    ///
    /// A cluster that goes down between deciding a transaction and marking its end may come back with the transaction decided
    /// and never marked: it hangs, and the position is kept back. What is known of the predecessor tells what to do, or else
    /// the log of the cluster's coordinator. A transaction that was committed is marked by the next one of this producer,
    /// wherever that writes; one that was not is aborted.
    ///
    /// # Errors
    /// It cannot, and why.
    pub fn begin(&self, left: &Left, shared: &Shared) -> Result<Option<String>, String> {
        let context = self.client.context();
        let is_down = || context.down.load(Relaxed).then(|| context.reason());
        self.await_leaders(shared);
        repeated(&self.client, shared, is_down, || self.client.init_transactions(CALL))?;
        let position = match (self.position(), left) {
            (Err(error), Left::Unknown) if self.hangs(&error) => {
                match self.decided() {
                    Some(Outcome::Committed) => self.commit_hanging(shared)?,
                    Some(Outcome::Aborted) => self.abort_hanging(shared)?,
                    None => return Err(self.hanging()),
                }
                self.position()
            }
            (Err(error), Left::Committed(position)) if self.hangs(&error) => {
                tracing::warn!("the cluster never marked the end of the last transaction: the next one will");
                Ok(Some(position.clone()))
            }
            (Err(error), Left::Open) if self.hangs(&error) => {
                self.abort_hanging(shared)?;
                self.position()
            }
            (position, _) => position,
        };
        let position = position.map_err(|error| error.to_string())?;
        self.client.begin_transaction().map_err(|error| error.to_string())?;
        Ok(position)
    }

    /// Commits what was handed over and `position`, and begins the next transaction. Tells `down` while no broker can be
    /// reached to ask for the end; that question is repeated for as long as it takes, since the answer may be had nowhere else.
    ///
    /// # Errors
    /// It is aborted, or its fate is not known: the position that the next session reads tells it.
    pub fn commit(&self, position: &str, shared: &Shared, mut down: impl FnMut(String)) -> Result<(), String> {
        let end = Instant::now() + self.timeout;
        self.deliver(end, shared)?;
        let context = self.client.context();
        let is_late = || (Instant::now() >= end).then(|| "the transaction's time is over".to_owned());
        let is_down = || context.down.load(Relaxed).then(|| context.reason());
        self.send_position(position, shared, || is_down().or_else(is_late))?;
        let tell = || {
            is_down().into_iter().for_each(&mut down);
            None
        };
        repeated(&self.client, shared, tell, || self.client.commit_transaction(CALL))?;
        context.down.store(false, Relaxed);
        context.delivered.store(false, Relaxed);
        self.client.begin_transaction().map_err(|error| error.to_string())
    }

    /// Waits until every record is delivered: `commit_transaction` would do so in steps of 100 ms. Once one has failed
    /// librdkafka keeps the others back until the transaction ends, and a broker that is gone may stay so.
    fn deliver(&self, end: Instant, shared: &Shared) -> Result<(), String> {
        let context = self.client.context();
        while self.client.in_flight_count() > 0 && !context.failed.load(Relaxed) {
            if context.down.load(Relaxed) {
                return Err(context.reason());
            }
            if shared.stop.load(Relaxed) || Instant::now() > end {
                return Err("records were not delivered within the transaction's time".to_owned());
            }
            self.client.poll(Duration::from_millis(1));
        }
        let failed = context.failed.load(Relaxed);
        if failed { Err("a record of the transaction was refused".to_owned()) } else { Ok(()) }
    }

    /// The position of the last committed transaction.
    fn position(&self) -> Result<Option<String>, KafkaError> {
        let committed = self.reader.committed_offsets(self.holder(), CALL)?;
        let positions = committed.elements();
        let position = positions.first().filter(|position| matches!(position.offset(), Offset::Offset(_)));
        Ok(position.map(|position| position.metadata().to_owned()).filter(|position| !position.is_empty()))
    }

    /// Whether a transaction that nobody will end keeps the position back, which was not told for this `error`: none of ours
    /// is unfinished by now, and who does not mind unfinished ones is told a position.
    fn hangs(&self, error: &KafkaError) -> bool {
        if !matches!(error, KafkaError::MetadataFetch(Code::OperationTimedOut)) {
            return false;
        }
        let mut config = self.config.clone();
        let reader = config.set("isolation.level", "read_uncommitted").create::<BaseConsumer>();
        reader.is_ok_and(|reader| reader.committed_offsets(self.holder(), CALL).is_ok())
    }

    /// Waits until every partition has a leader: a cluster that starts takes one that has none yet for deleted, and then does
    /// not mark the end of a transaction in it.
    fn await_leaders(&self, shared: &Shared) {
        let end = Instant::now() + CALL * 5;
        let has_leaders = |topic: &str| {
            let metadata = self.client.client().fetch_metadata(Some(topic), CALL);
            let led = |metadata: Metadata| {
                metadata.topics().iter().flat_map(MetadataTopic::partitions).all(|partition| partition.leader() >= 0)
            };
            metadata.is_ok_and(led)
        };
        let topics = || self.topics.iter().map(|topic| &**topic).chain([OFFSETS]);
        while !topics().all(has_leaders) && Instant::now() < end && !shared.stop.load(Relaxed) {
            self.client.poll(PAUSE);
        }
    }

    /// What the cluster decided of the last transaction, where it lets that be read.
    fn decided(&self) -> Option<Outcome> {
        let outcome = outcome::last(&self.config, self.id());
        outcome
            .inspect_err(|error| tracing::warn!("the log of the transaction's coordinator cannot be read: {error}"))
            .ok()?
    }

    /// The transactional id, which is the group's, too.
    fn id(&self) -> &str {
        self.config.get("group.id").unwrap_or_default()
    }

    fn hanging(&self) -> String {
        format!(
            "the cluster holds a hanging transaction of {:?}: it took it for ended but never marked its end, and keeps the \
             position back; end it with kafka-transactions.sh (find-hanging, abort), see \"Hanging transactions\" in \
             docs/kafka.md",
            self.id()
        )
    }

    /// Ends a hanging transaction that was to be committed, as far as the position: the end of a transaction of the same
    /// producer is marked where the position is kept, so one commits an offset beside it. Its records are marked by the next
    /// transactions, wherever they write.
    fn commit_hanging(&self, shared: &Shared) -> Result<(), String> {
        let text = |error: KafkaError| error.to_string();
        tracing::warn!("committing what is left of a transaction that the cluster never marked ended");
        self.client.begin_transaction().map_err(text)?;
        let mut beside = TopicPartitionList::new();
        beside.add_partition(OFFSETS, 0);
        self.send_offset(beside, "", shared, || None)?;
        self.client.commit_transaction(CALL * 5).map_err(text)
    }

    /// Ends a hanging transaction that was not to be committed: the end of a transaction of the same producer is marked in
    /// every partition it touches, so one that touches all of them is aborted. Its records, empty, are visible to nobody
    /// who reads committed ones.
    fn abort_hanging(&self, shared: &Shared) -> Result<(), String> {
        let text = |error: KafkaError| error.to_string();
        tracing::warn!("aborting what is left of a transaction that the cluster never marked ended");
        self.client.begin_transaction().map_err(text)?;
        for topic in &self.topics {
            let metadata = self.client.client().fetch_metadata(Some(topic), CALL).map_err(text)?;
            for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
                let record = BaseRecord::with_opaque_to(topic, VOID).partition(partition.id()).key("").payload("");
                self.client.send(record).map_err(|(error, _)| error.to_string())?;
            }
        }
        self.deliver(Instant::now() + CALL * 5, shared)?;
        self.send_position("", shared, || None)?;
        self.client.abort_transaction(CALL * 5).map_err(text)
    }

    /// Makes `position` part of the transaction.
    fn send_position(
        &self,
        position: &str,
        shared: &Shared,
        enough: impl FnMut() -> Option<String>,
    ) -> Result<(), String> {
        self.send_offset(self.holder(), position, shared, enough)
    }

    /// Makes an offset at each of these partitions, with `note`, part of the transaction.
    fn send_offset(
        &self,
        offsets: TopicPartitionList,
        note: &str,
        shared: &Shared,
        enough: impl FnMut() -> Option<String>,
    ) -> Result<(), String> {
        let group = self.reader.group_metadata().ok_or("no group to commit the position for")?;
        for mut element in offsets.elements() {
            element.set_offset(Offset::Offset(0)).map_err(|error| error.to_string())?;
            element.set_metadata(note);
        }
        let send = || self.client.send_offsets_to_transaction(&offsets, &group, CALL);
        repeated(&self.client, shared, enough, send)
    }

    fn holder(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topics[0], 0);
        list
    }
}

/// Repeats a call until it has an answer, `enough` tells why not to go on, or the producer is dropped.
fn repeated(
    client: &Client,
    shared: &Shared,
    mut enough: impl FnMut() -> Option<String>,
    mut call: impl FnMut() -> Result<(), KafkaError>,
) -> Result<(), String> {
    loop {
        let error = match call() {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        if let Some(reason) = enough() {
            return Err(reason);
        }
        if shared.stop.load(Relaxed) {
            return Err(error);
        }
        client.poll(PAUSE);
    }
}
