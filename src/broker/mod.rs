//! L2: what goes to a broker, over a port that never waits.
//!
//! A [`Producer`] is handed records and tells later, as [`Event`]s, what became of them. Nothing here blocks its caller:
//! connecting, retrying and committing go on elsewhere, so a stage that owns a producer goes on taking its input
//! whatever the broker does.
//!
//! Read in this order: the port (here), its sides [`memory`] and [`kafka`], then [`settings`] (what a topology says of a
//! cluster; how its secrets are kept is [`Secret`]'s), [`client_config`] (the same in librdkafka's properties) and [`words`]
//! (why a cluster cannot be reached).

pub mod client_config;
pub mod consumer;
pub mod kafka;
pub mod memory;
pub mod settings;
pub mod words;

pub use crate::spec::Secret;
pub use kafka::Kafka;
pub use memory::MemoryBroker;
pub use settings::Settings;

use crate::model::Record;

/// Makes producers.
pub trait Brokers: Send + Sync {
    /// A producer; with a transactional id one that does everything in transactions. It connects later, by itself.
    ///
    /// # Errors
    /// The settings cannot be, and why.
    fn producer(&self, settings: &Settings, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, String>;
}

/// The way to a broker.
///
/// In order: [`Event::Ready`] comes first, once the broker can be reached, and tells the position it holds. Records may
/// be handed over from the start, they wait; with transactions only after `Ready`, for what has to be sent is known only
/// then.
pub trait Producer: Send {
    /// Hands over a record. `token` comes back in the event that tells its end. Records of one key arrive in the order in
    /// which they were handed over.
    ///
    /// # Errors
    /// It was not taken, and no event will tell of it.
    fn send(&mut self, token: u64, record: &Record) -> Result<(), Refusal>;

    /// Appends what has happened since the last call.
    fn poll(&mut self, events: &mut Vec<Event>);

    /// With transactions: ends the open one, so that everything handed over since the last one and `position` become
    /// visible together, or nothing. [`Event::Committed`] or [`Event::Aborted`] tells which; until then nothing may be
    /// handed over. Without transactions a producer has none to end, and does nothing.
    fn commit(&mut self, position: &str);

    /// Records handed over whose end has not been told.
    fn in_flight(&self) -> usize;
}

/// What a producer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The broker can be reached.
    Ready {
        /// With transactions: the position of the last committed one, if there was any.
        position: Option<String>,
    },
    /// The broker cannot be reached, in words: told once, and again when the reason changes.
    Down(String),
    /// A record is in the topic, as safely as asked; with transactions visible only once committed.
    Delivered(u64),
    /// A record is not in the topic.
    Failed(u64, Failure),
    /// The transaction is committed, with the position.
    Committed,
    /// Nothing since the last committed transaction is or becomes visible: hand it over again after the next
    /// [`Event::Ready`], which follows.
    Aborted(String),
}

/// Why a record is not in the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The record itself is at fault, too large for instance: it will never be taken.
    Record(String),
    /// The topic is missing or may not be written to: all records of the topic fare alike until somebody mends that.
    Topic(String),
    /// It was not delivered in time, or given up with others: it may be handed over again.
    Passing(String),
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// As many are under way as may be: poll, then try again.
    Full,
    /// It will never be taken, and why.
    Record(String),
    /// Its topic is missing or may not be written to, and why: try again later.
    Topic(String),
}
