//! How instances end: each with a reason a person can act on.

use std::fmt;
use std::time::Duration;

/// Why an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// Its inputs ended, or it was a source and was told to stop.
    Completed,
    /// It failed for good.
    Failed(String),
    /// The stage after it, or the one before it, was gone.
    Severed,
    /// It had not ended when the deadline came.
    Overdue,
}

/// How a topology ended.
#[derive(Debug, Clone, Default)]
pub struct DrainReport {
    /// (stage, instance, why), in the order in which they ended; the overdue ones last.
    pub exits: Vec<(String, u16, Exit)>,
    /// How long the drain took.
    pub took: Duration,
}

impl DrainReport {
    /// Whether every instance ended in order.
    pub fn is_clean(&self) -> bool {
        self.exits.iter().all(|(_, _, exit)| *exit == Exit::Completed)
    }

    /// The instances that did not end in order.
    pub fn troubled(&self) -> impl Iterator<Item = &(String, u16, Exit)> {
        self.exits.iter().filter(|(_, _, exit)| *exit != Exit::Completed)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Failed(message) => write!(f, "failed: {message}"),
            Self::Severed => f.write_str("severed: a neighbouring stage was gone"),
            Self::Overdue => f.write_str("overdue: still at work when the drain deadline came"),
        }
    }
}
