//! The way from a broker: a member of a consumer group, as a source needs it.
//!
//! One thread owns it and calls it; partitions are given and taken only within [`Consumer::poll`], so between two calls
//! it is known what is held.

use std::sync::Arc;
use std::time::Duration;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic.
    pub topic: Arc<str>,
    /// Its number.
    pub number: i32,
}

/// How far the group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// The next offset to be read.
    pub offset: i64,
    /// What was committed with it.
    pub note: String,
}

/// What a consumer tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The group was joined anew, and these partitions have come, perhaps none.
    Assigned(Vec<Partition>),
    /// These partitions are gone.
    Revoked(Vec<Partition>),
    /// A message.
    Message(Partition, i64, Vec<u8>),
    /// Something is wrong that may pass, in words.
    Down(String),
    /// Nothing helps.
    Fatal(String),
}

/// A member of a consumer group.
pub trait Consumer: Send {
    /// The next thing that happened; waits for it up to `wait`.
    fn poll(&mut self, wait: Duration) -> Option<Happening>;

    /// Commits positions of partitions that are held, and waits for the coordinator's answer.
    ///
    /// # Errors
    /// The coordinator refused, or its answer is not known.
    fn commit(&mut self, positions: &[Position]) -> Result<(), String>;

    /// What is committed of these partitions; those of which nothing is are left out.
    ///
    /// # Errors
    /// The coordinator cannot be asked.
    fn committed(&mut self, partitions: &[Partition]) -> Result<Vec<Position>, String>;

    /// Whether messages are to be held back: polling goes on meanwhile, for who does not poll is put out of the group.
    fn pause(&mut self, paused: bool);
}
