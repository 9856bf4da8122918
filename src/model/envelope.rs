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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// The bars before this one cover the journal up to here.
    Checkpoint(Checkpoint),
    /// Nothing follows: the sender has ended in order.
    End,
}

/// From where one aggregator instance can rebuild its open windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The aggregator instance.
    pub instance: u16,
    /// How many instances there were.
    pub instances: u16,
    /// Ticks of this instance's series that arrived before this offset are in bars already.
    pub replay_from: u64,
    /// Coarser windows that start before this are not open; the others are added up from stored finer bars.
    pub cascade_from: TimeNs,
}

impl Checkpoint {
    /// The checkpoint of an instance that is no more and whose series others have taken over.
    pub fn retired(instance: u16) -> Self {
        Self { instance, instances: 0, replay_from: u64::MAX, cascade_from: TimeNs::MAX }
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
