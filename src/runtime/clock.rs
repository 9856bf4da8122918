//! Time is an argument in the stages and a value here: the clock the shell reads on their behalf.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::TimeNs;

/// A wall clock.
pub trait Clock: Send + Sync {
    /// Now, in nanoseconds since the Unix epoch.
    fn now(&self) -> TimeNs;

    /// How long to sleep from now until `time`; zero when it has passed.
    fn until(&self, time: TimeNs) -> Duration {
        Duration::from_nanos(u64::try_from(time.saturating_sub(self.now())).unwrap_or(0))
    }
}

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> TimeNs {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => TimeNs::try_from(since.as_nanos()).unwrap_or(TimeNs::MAX),
            Err(before) => TimeNs::try_from(before.duration().as_nanos()).map_or(TimeNs::MIN, |ns| -ns),
        }
    }
}

/// A clock that follows tokio's, so that paused time pauses it too.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    origin: tokio::time::Instant,
    starts_at: TimeNs,
}

impl VirtualClock {
    /// A clock that shows `starts_at` now. Must be made inside a tokio runtime.
    pub fn starting_at(starts_at: TimeNs) -> Self {
        Self { origin: tokio::time::Instant::now(), starts_at }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> TimeNs {
        self.starts_at + self.origin.elapsed().as_nanos() as TimeNs
    }
}
