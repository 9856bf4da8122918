//! Time is an argument in the stages and a value here: the clock the shell reads on their behalf.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::model::TimeNs;
use crate::model::time::MILLISECOND;

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

/// A clock that never goes back: where the one it follows is set back it runs on at half its speed from where it was,
/// until it is caught up with. What waits for a time is so never held up by an hour.
#[derive(Debug)]
pub struct Steady<C> {
    follows: C,
    /// A reading and when it was taken.
    last: Mutex<(Instant, TimeNs)>,
}

impl<C: Clock> Steady<C> {
    /// A clock that follows `clock`.
    pub fn new(clock: C) -> Self {
        let last = Mutex::new((Instant::now(), clock.now()));
        Self { follows: clock, last }
    }
}

impl<C: Clock> Clock for Steady<C> {
    fn now(&self) -> TimeNs {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (instant, told) = (Instant::now(), self.follows.now());
        let passed = instant.saturating_duration_since(last.0).as_nanos() as TimeNs;
        // The two clocks differ by what lies between reading one and the other; that is no step.
        let set_back = told < last.1.saturating_add(passed) - NO_STEP;
        let now = if set_back { last.1.saturating_add(passed / 2) } else { told.max(last.1) };
        *last = (instant, now);
        now
    }
}

/// A clock that lags by no more than this was not set back, but runs a little slower or was read a little earlier.
const NO_STEP: TimeNs = 100 * MILLISECOND;

/// A clock that follows tokio's, so that paused time pauses it too.
#[derive(Debug, Clone, Copy)]
pub struct VirtualClock {
    origin: Instant,
    starts_at: TimeNs,
}

impl VirtualClock {
    /// A clock that shows `starts_at` now. Must be made inside a tokio runtime.
    pub fn starting_at(starts_at: TimeNs) -> Self {
        Self { origin: Instant::now(), starts_at }
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> TimeNs {
        self.starts_at + self.origin.elapsed().as_nanos() as TimeNs
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    use super::*;
    use crate::model::time::{HOUR, SECOND};

    #[derive(Default)]
    struct Hand(AtomicI64);

    impl Clock for &Hand {
        fn now(&self) -> TimeNs {
            self.0.load(Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_set_back_runs_on_slowly_and_follows_again_when_caught_up_with() {
        let hand = Hand::default();
        let steady = Steady::new(&hand);
        hand.0.store(2 * HOUR, Relaxed);
        assert_eq!(steady.now(), 2 * HOUR);
        hand.0.store(HOUR, Relaxed);
        assert_eq!(steady.now(), 2 * HOUR);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(steady.now(), 2 * HOUR + 5 * SECOND / 2);
        assert_eq!(steady.until(2 * HOUR + 3 * SECOND), Duration::from_millis(500));
        hand.0.store(3 * HOUR, Relaxed);
        assert_eq!(steady.now(), 3 * HOUR);
        hand.0.store(3 * HOUR - MILLISECOND, Relaxed);
        assert_eq!(steady.now(), 3 * HOUR);
    }
}
