//! When each tick is due. Open loop: the schedule is fixed before the run, and a slow server does not move it.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    profile::Burst,
    units::{Nanos, SECOND},
};

/// The place of every tick of a run in time, counted from the run's beginning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Ticks of one period: those of its burst first. The whole run where there are no bursts.
    period_ticks: u64,
    period: Nanos,
    burst_ticks: u64,
    burst: Nanos,
    burst_interval: f64,
    interval: f64,
}

/// Bursts fill this part of their period.
const BURST_SHARE: f64 = 0.1;

impl Schedule {
    /// `rate` ticks per second, in the first tenth of every burst period `factor` times as many.
    pub fn new(rate: f64, burst: Option<Burst>) -> Self {
        let steady = 1e9 / rate;
        let Some(burst) = burst else {
            return Self {
                period_ticks: u64::MAX,
                period: 0,
                burst_ticks: 0,
                burst: 0,
                burst_interval: steady,
                interval: steady,
            };
        };
        let period = burst.every.0;
        let length = period as f64 * BURST_SHARE;
        let burst_ticks = (rate * burst.factor * length / 1e9).round().max(1.0);
        let rest_ticks = (rate * (period as f64 - length) / 1e9).round();
        Self {
            period_ticks: burst_ticks as u64 + rest_ticks as u64,
            period,
            burst_ticks: burst_ticks as u64,
            burst: length as Nanos,
            burst_interval: length / burst_ticks,
            interval: (period as f64 - length) / rest_ticks.max(1.0),
        }
    }

    /// When tick number `index` of the run is due, in nanoseconds since its beginning. Never falls.
    #[inline]
    pub fn offset(&self, index: u64) -> Nanos {
        if self.period == 0 {
            return (index as f64 * self.interval) as Nanos;
        }
        let (period, within) = (index / self.period_ticks, index % self.period_ticks);
        let inside = match within.checked_sub(self.burst_ticks) {
            None => (within as f64 * self.burst_interval) as Nanos,
            Some(after) => self.burst + (after as f64 * self.interval) as Nanos,
        };
        period as Nanos * self.period + inside
    }

    /// How many ticks are due before `span` has passed.
    pub fn ticks_within(&self, span: Nanos) -> u64 {
        let (mut low, mut high) = (0, span.max(1) as u64);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.offset(middle) < span { low = middle + 1 } else { high = middle }
        }
        low
    }
}

/// The run's clock: waits for what is due.
#[derive(Debug, Clone, Copy)]
pub struct Pacer {
    start: Instant,
}

impl Pacer {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Nanoseconds since the beginning.
    pub fn elapsed(&self) -> Nanos {
        self.start.elapsed().as_nanos() as Nanos
    }

    /// Blocks until `due`; returns at once where that is past.
    pub fn wait(&self, due: Nanos) {
        let early = due - self.elapsed();
        if early > 0 {
            thread::sleep(Duration::from_nanos(early as u64));
        }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.elapsed() as f64 / SECOND as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    #[test]
    fn a_steady_schedule_spaces_ticks_evenly() {
        let schedule = Schedule::new(20_000.0, None);
        assert_eq!(schedule.offset(0), 0);
        assert_eq!(schedule.offset(20_000), SECOND);
        assert_eq!(schedule.ticks_within(SECOND), 20_000);
        assert_eq!(schedule.ticks_within(30 * SECOND), 600_000);
    }

    #[test]
    fn a_burst_sends_its_factor_in_the_first_tenth_of_its_period() {
        let burst = Burst { every: Span(10 * SECOND), factor: 5.0 };
        let schedule = Schedule::new(1000.0, Some(burst));
        assert_eq!(schedule.ticks_within(SECOND), 5_000);
        assert_eq!(schedule.ticks_within(10 * SECOND), 14_000);
        assert_eq!(schedule.offset(14_000), 10 * SECOND);
        assert_eq!(schedule.ticks_within(11 * SECOND), 19_000);
    }

    #[test]
    fn the_schedule_never_falls() {
        for rate in [0.7, 3.0, 999.0, 1e6] {
            let schedule = Schedule::new(rate, Some(Burst { every: Span(100_000_000), factor: 7.5 }));
            let offsets: Vec<Nanos> = (0..5_000).map(|i| schedule.offset(i)).collect();
            assert!(offsets.is_sorted(), "rate {rate}");
        }
    }
}
