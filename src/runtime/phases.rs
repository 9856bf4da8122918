//! Where the time of an instance goes: it is always in exactly one phase, so its idle, busy and backpressured time add up
//! to the time it has lived, also while one of them lasts.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, Ordering::Relaxed, fence};
use std::time::Duration;

use tokio::time::Instant;

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its stage works, or waits for a device or for a retry.
    Busy = 0,
    /// It waits for input.
    Idle = 1,
    /// It waits for room downstream, in a mailbox or a spool.
    Backpressured = 2,
}

/// How long an instance has been in each phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// In its stage.
    pub busy: Duration,
    /// Waiting for input.
    pub idle: Duration,
    /// Waiting for room downstream.
    pub backpressured: Duration,
}

/// Written by the instance alone, read by anyone: a reader that meets a change looks again, so that what it reads never
/// goes back.
#[derive(Debug)]
pub struct Phases {
    origin: Instant,
    /// Odd while a change is being written.
    version: AtomicU64,
    phase: AtomicU8,
    /// When the phase began, in nanoseconds since the origin.
    since: AtomicU64,
    spent: [AtomicU64; 3],
}

impl Phases {
    /// Busy from now on.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            version: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Busy as u8),
            since: AtomicU64::new(0),
            spent: Default::default(),
        }
    }

    /// Goes into `phase`.
    pub fn enter(&self, phase: Phase) {
        let version = self.version.load(Relaxed);
        self.version.store(version + 1, Relaxed);
        // The clock is read only when every reader can see that a change is on its way: one that still takes the phase
        // for the present one has read an earlier time.
        fence(Ordering::SeqCst);
        let now = self.now();
        if let Some(spent) = self.spent.get(usize::from(self.phase.load(Relaxed))) {
            spent.fetch_add(now.saturating_sub(self.since.load(Relaxed)), Relaxed);
        }
        self.since.store(now, Relaxed);
        self.phase.store(phase as u8, Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    /// The time spent in each phase until now.
    pub fn spent(&self) -> Spent {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let mut spent = self.spent.each_ref().map(|spent| spent.load(Relaxed));
            let (phase, since) = (self.phase.load(Relaxed), self.since.load(Relaxed));
            let now = self.now();
            fence(Ordering::SeqCst);
            if version.is_multiple_of(2) && version == self.version.load(Relaxed) {
                if let Some(spent) = spent.get_mut(usize::from(phase)) {
                    *spent += now.saturating_sub(since);
                }
                let [busy, idle, backpressured] = spent.map(Duration::from_nanos);
                return Spent { busy, idle, backpressured };
            }
            std::hint::spin_loop();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Default for Phases {
    fn default() -> Self {
        Self::new()
    }
}

impl Spent {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.busy + self.idle + self.backpressured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_phases_add_up_to_the_life_also_in_the_middle_of_one() {
        let phases = Phases::new();
        for (phase, seconds) in [(Phase::Idle, 1), (Phase::Busy, 2), (Phase::Backpressured, 4), (Phase::Busy, 8)] {
            phases.enter(phase);
            tokio::time::advance(Duration::from_secs(seconds)).await;
        }
        let [busy, idle, backpressured] = [10, 1, 4].map(Duration::from_secs);
        assert_eq!(phases.spent(), Spent { busy, idle, backpressured });
    }

    #[test]
    fn what_is_read_from_outside_never_goes_back() {
        let phases = Phases::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..200_000).for_each(|i| phases.enter([Phase::Busy, Phase::Idle][i % 2])));
            let mut before = Spent::default();
            for _ in 0..50_000 {
                let now = phases.spent();
                assert!(now.busy >= before.busy && now.idle >= before.idle, "{before:?} then {now:?}");
                before = now;
            }
        });
    }
}
