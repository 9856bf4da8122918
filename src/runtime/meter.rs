//! What can be seen of an instance from outside while it works: atomics, added to once per batch.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::lane::LaneMeter;
use super::phases::{Phases, Spent};
use super::tap::TapPoint;
use super::thread_time::ThreadTime;
use crate::times::Times;

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
    /// What it is doing, and for how long it did what.
    pub phases: Phases,
    /// For a source: the thread it lives on.
    pub thread: ThreadTime,
    /// How long batches waited in the mailbox.
    pub queue: Times,
    /// How long the stage worked on a batch.
    pub handling: Times,
    /// How often the stage was made anew.
    pub restarts: Counter,
    /// Batches given up because they made the stage fail.
    pub poisoned: Counter,
    /// Where somebody may look at its batches: those it takes in, of a source those it sends on.
    pub tap: TapPoint,
    state: AtomicU8,
    last_error: Mutex<Option<String>>,
    /// When the meter was made; what `in_hand` counts from.
    origin: Instant,
    /// When the oldest envelope taken and not settled was put into its lane, in nanoseconds; [`NOTHING`] for none.
    in_hand: AtomicU64,
    /// The age of the oldest envelope in hand whenever that changed, at the most.
    longest: AtomicU64,
    lanes: OnceLock<Vec<Arc<LaneMeter>>>,
}

/// Nothing is in hand.
const NOTHING: u64 = u64::MAX;

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
    /// Giving up its share of the work for another.
    Scaling = 6,
    /// Ready, with no share of the work.
    Standby = 7,
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
            phases: Phases::new(),
            thread: ThreadTime::default(),
            queue: Times::new(),
            handling: Times::new(),
            restarts: Counter::default(),
            poisoned: Counter::default(),
            tap: TapPoint::default(),
            state: AtomicU8::new(InstanceState::Starting as u8),
            last_error: Mutex::new(None),
            origin: Instant::now(),
            in_hand: AtomicU64::new(NOTHING),
            longest: AtomicU64::new(0),
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

    /// The most envelopes that waited in any one lane at once.
    pub fn peak(&self) -> u64 {
        self.lanes().iter().map(|lane| lane.peak()).max().unwrap_or(0)
    }

    /// Notes when the oldest envelope that is taken and not settled was put into its lane.
    pub fn hold(&self, oldest: Option<Instant>) {
        let since = |at: Instant| at.saturating_duration_since(self.origin).as_nanos() as u64;
        self.in_hand.store(oldest.map_or(NOTHING, since), Relaxed);
        let age = oldest.map_or(0, |at| at.elapsed().as_nanos() as u64);
        self.longest.fetch_max(age, Relaxed);
    }

    /// The longest lag there was since this was last asked, however short it lasted.
    pub fn take_longest_lag(&self) -> Duration {
        self.lag().max(Duration::from_nanos(self.longest.swap(0, Relaxed)))
    }

    /// The age of the oldest envelope that waits or is being worked on.
    pub fn lag(&self) -> Duration {
        let in_hand = Some(self.in_hand.load(Relaxed)).filter(|since| *since != NOTHING);
        let in_hand = in_hand.map(|since| self.origin.elapsed().saturating_sub(Duration::from_nanos(since)));
        self.lanes().iter().map(|lane| lane.oldest()).chain(in_hand).max().unwrap_or_default()
    }

    /// The time since the launch, by what it was spent on.
    pub fn spent(&self) -> Spent {
        self.thread.divide(self.phases.spent())
    }

    /// Where in its life the instance is.
    pub fn state(&self) -> InstanceState {
        match self.state.load(Relaxed) {
            0 => InstanceState::Starting,
            1 => InstanceState::Running,
            2 => InstanceState::Draining,
            3 => InstanceState::Completed,
            5 => InstanceState::Retrying,
            6 => InstanceState::Scaling,
            7 => InstanceState::Standby,
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
    /// Whether nothing is wrong with an instance of a topology that runs.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Scaling | Self::Standby)
    }

    /// The state's name in queries.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Draining => "draining",
            Self::Scaling => "scaling",
            Self::Standby => "standby",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}
