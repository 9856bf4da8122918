//! What can be seen of the sinks from outside while they work: how far each has come, its link, how long bars took.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::model::DurationNs;
use crate::store::Follower;

/// The sinks of a process.
#[derive(Default)]
pub struct Sinks(Mutex<Vec<Arc<Sink>>>);

/// One sink.
pub struct Sink {
    /// The stage's name.
    pub name: String,
    /// Per spec it sends bars of, how far it has come.
    pub followers: Vec<(String, Arc<Follower>)>,
    seen: Mutex<Seen>,
}

/// What a sink last told of itself.
#[derive(Clone, Default)]
pub struct Seen {
    /// Its link to the broker.
    pub link: Link,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Records handed over whose end is not known.
    pub in_flight: usize,
    /// How long bars took.
    pub latencies: Latencies,
}

/// A sink's link to its broker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Link {
    /// Nothing is known yet.
    #[default]
    Connecting,
    /// The broker can be reached.
    Up,
    /// It cannot, in words.
    Down(String),
}

/// How long bars took from step to step, in microseconds.
#[derive(Clone)]
pub struct Latencies {
    /// From the end of the window to the commit.
    pub window_to_commit: Histogram<u64>,
    /// From the commit to being handed over to the producer.
    pub commit_to_sent: Histogram<u64>,
    /// From there to the broker's acknowledgement.
    pub sent_to_acked: Histogram<u64>,
    /// From the end of the window to the acknowledgement.
    pub window_to_acked: Histogram<u64>,
}

/// The longest time that is told from a longer one, in microseconds: a day.
const LONGEST: u64 = 86_400_000_000;

impl Default for Latencies {
    fn default() -> Self {
        // The bounds are good ones: low is positive, high is more than twice that.
        let empty = || Histogram::new_with_bounds(1, LONGEST, 2).unwrap_or_else(|_| unreachable!());
        Self { window_to_commit: empty(), commit_to_sent: empty(), sent_to_acked: empty(), window_to_acked: empty() }
    }
}

impl Latencies {
    /// All, by name.
    pub fn all(&self) -> [(&'static str, &Histogram<u64>); 4] {
        [
            ("window_to_commit", &self.window_to_commit),
            ("commit_to_sent", &self.commit_to_sent),
            ("sent_to_acked", &self.sent_to_acked),
            ("window_to_acked", &self.window_to_acked),
        ]
    }
}

/// Notes how long something took; what seems to have taken less than nothing took nothing.
pub fn took(histogram: &mut Histogram<u64>, span: DurationNs) {
    histogram.saturating_record(u64::try_from(span / 1000).unwrap_or(0).max(1));
}

impl Sink {
    /// A sink that has told nothing yet.
    pub fn new(name: String, followers: Vec<(String, Arc<Follower>)>) -> Self {
        Self { name, followers, seen: Mutex::default() }
    }

    /// What it has told of itself, to be read or changed.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sinks {
    /// Adds a sink.
    pub fn add(&self, sink: Arc<Sink>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(sink);
    }

    /// All, in the topology's order.
    pub fn all(&self) -> Vec<Arc<Sink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connecting => f.write_str("connecting"),
            Self::Up => f.write_str("up"),
            Self::Down(reason) => write!(f, "down: {reason}"),
        }
    }
}
