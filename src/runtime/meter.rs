//! What can be seen of an instance from outside while it works: atomics, added to once per batch.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::lane::LaneMeter;

/// Counters of one instance of one stage.
#[derive(Debug)]
pub struct Meter {
    /// The stage's name in the topology.
    pub stage: String,
    /// The instance, from 0.
    pub instance: u16,
    /// Batches taken in.
    pub batches_in: Counter,
    /// Rows taken in: ticks or bars.
    pub rows_in: Counter,
    /// Batches sent on.
    pub batches_out: Counter,
    /// Rows sent on.
    pub rows_out: Counter,
    /// Nanoseconds spent in the stage.
    pub busy_ns: Counter,
    /// Nanoseconds spent waiting for room downstream.
    pub backpressured_ns: Counter,
    /// How often the stage was made anew.
    pub restarts: Counter,
    /// Batches given up because they made the stage fail.
    pub poisoned: Counter,
    state: AtomicU8,
    last_error: Mutex<Option<String>>,
    lanes: OnceLock<Vec<Arc<LaneMeter>>>,
}

/// A relaxed atomic counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Where in its life an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum InstanceState {
    /// Being made, or restoring its checkpoint.
    Starting = 0,
    /// At work.
    Running = 1,
    /// Repeating a call that failed for a reason that may pass.
    Retrying = 5,
    /// Its input has ended; giving away what is left.
    Draining = 2,
    /// Ended in order.
    Completed = 3,
    /// Ended by a failure.
    Failed = 4,
}

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds a duration in nanoseconds.
    pub fn add_time(&self, time: Duration) {
        self.add(time.as_nanos() as u64);
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Meter {
    /// A meter for one instance.
    pub fn new(stage: &str, instance: u16) -> Arc<Self> {
        Arc::new(Self {
            stage: stage.to_owned(),
            instance,
            batches_in: Counter::default(),
            rows_in: Counter::default(),
            batches_out: Counter::default(),
            rows_out: Counter::default(),
            busy_ns: Counter::default(),
            backpressured_ns: Counter::default(),
            restarts: Counter::default(),
            poisoned: Counter::default(),
            state: AtomicU8::new(InstanceState::Starting as u8),
            last_error: Mutex::new(None),
            lanes: OnceLock::new(),
        })
    }

    /// Says which lanes lead into the instance; once.
    pub fn watch(&self, lanes: Vec<Arc<LaneMeter>>) {
        let _ = self.lanes.set(lanes);
    }

    /// The lanes into the instance.
    pub fn lanes(&self) -> &[Arc<LaneMeter>] {
        self.lanes.get().map_or(&[], Vec::as_slice)
    }

    /// Envelopes waiting in the mailbox.
    pub fn depth(&self) -> u64 {
        self.lanes().iter().map(|lane| lane.depth()).sum()
    }

    /// The most envelopes the mailbox holds.
    pub fn capacity(&self) -> u64 {
        self.lanes().iter().map(|lane| lane.capacity()).sum()
    }

    /// Where in its life the instance is.
    pub fn state(&self) -> InstanceState {
        match self.state.load(Relaxed) {
            0 => InstanceState::Starting,
            1 => InstanceState::Running,
            2 => InstanceState::Draining,
            3 => InstanceState::Completed,
            5 => InstanceState::Retrying,
            _ => InstanceState::Failed,
        }
    }

    /// Notes where in its life the instance is.
    pub fn set_state(&self, state: InstanceState) {
        self.state.store(state as u8, Relaxed);
    }

    /// The last failure, if any.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a failure.
    pub fn set_last_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl InstanceState {
    /// The state's name in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Draining => "draining",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}
