//! What travels in a lane: data, and signals in the same order as the data.

use std::sync::Arc;

use super::{BarBatch, TickSlice, TimeNs};

/// One message in a lane.
#[derive(Debug, Clone)]
pub enum Envelope {
    /// Ticks, shared by everyone they are sent to.
    Ticks(TickSlice),
    /// Bars, shared by everyone they are sent to.
    Bars(Arc<BarBatch>),
    /// A signal about the data before it.
    Signal(Signal),
}

/// Something said about the data before it in the lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The bars before this one cover the journal up to here.
    Checkpoint(Checkpoint),
    /// What comes after this is shared out among another number of instances.
    Scale(Scale),
    /// Nothing follows: the sender has ended in order.
    End,
}

/// A change of the number of instances of a stage that are active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Counts the changes, from 1.
    pub number: u64,
    /// How many are active from here on: the first so many.
    pub instances: u16,
    /// Ticks that arrived before this were shared out before it, the others will be after it.
    pub position: u64,
}

/// From where one aggregator instance can rebuild its open windows. What it says of its series stays true for ever,
/// also when they are shared out among another number of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The aggregator instance.
    pub instance: u16,
    /// How many instances there are.
    pub instances: u16,
    /// Ticks of this instance's series that arrived before this offset are in stored bars or counted as dropped.
    pub replay_from: u64,
    /// Coarser windows that start before this are not open; the others are added up from stored finer bars.
    pub cascade_from: TimeNs,
    /// Per spec: late ticks below `replay_from` that this instance, and earlier ones of its number among as many, put
    /// into no bar.
    pub late: Vec<u64>,
}

#[cfg(test)]
impl Checkpoint {
    /// What one of so many instances says of ticks; for tests.
    pub(crate) fn told(instances: u16, instance: u16, replay_from: u64) -> Self {
        Self { instance, instances, replay_from, cascade_from: 0, late: Vec::new() }
    }
}

impl Envelope {
    /// Rows it holds: ticks or bars; 0 for a signal.
    pub fn rows(&self) -> usize {
        match self {
            Self::Ticks(slice) => slice.len(),
            Self::Bars(bars) => bars.len(),
            Self::Signal(_) => 0,
        }
    }
}
