//! A profile made into one run: its name, its times, and who sends what.

use serde::{Deserialize, Serialize};

use crate::{
    dimensions::Dimensions,
    pace::Schedule,
    profile::Profile,
    units::{Nanos, Rate, SECOND},
};

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// After this many ticks over all connections.
    Ticks(u64),
    /// After this much time.
    For(Nanos),
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is sent.
    pub profile: Profile,
    /// The run's name: a part of the dimensions of all its series, so that runs do not share any.
    pub run: String,
    /// When the run ends.
    pub limit: Limit,
    /// Wall clock at the beginning.
    pub started: Nanos,
    /// Event time of the first tick.
    pub base: Nanos,
    /// When ticks are due: in event time from `base`, and where paced also in wall time from `started`.
    pub schedule: Schedule,
    /// Whether ticks wait for their time.
    pub paced: bool,
    /// How many ticks over all connections; `None`: until the time is up.
    pub ticks: Option<u64>,
    /// For how long, where `ticks` is `None`.
    pub stop_after: Nanos,
    /// The series' dimensions.
    pub dimensions: Dimensions,
}

/// Sent flat out for a time, event time may run this many ticks per second of sending and still end before now.
const MOST_TICKS_PER_SECOND: u64 = 64_000_000;

/// Events of a run begin at most this long before it: well within the shipped specs' retention of a day.
const LONGEST_PAST: Nanos = 12 * 3600 * SECOND;

impl Plan {
    /// Plans a run of a checked profile that begins at `started`, nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// Flat out, more ticks than `event_rate` can place within the last 12 hours.
    pub fn new(profile: Profile, limit: Limit, started: Nanos) -> Result<Self, String> {
        let (rate, paced, burst) = match profile.rate {
            Rate::PerSecond(rate) => (rate, true, profile.burst),
            Rate::Max => (profile.event_rate.0 as f64, false, None),
        };
        let schedule = Schedule::new(rate, burst);
        let (ticks, stop_after) = match limit {
            Limit::Ticks(ticks) => (Some(ticks), 0),
            Limit::For(span) if paced => (Some(schedule.ticks_within(span)), 0),
            Limit::For(span) => (None, span),
        };
        let most = ticks.unwrap_or_else(|| (stop_after as f64 / 1e9 * MOST_TICKS_PER_SECOND as f64) as u64);
        let past = if paced { 0 } else { schedule.offset(most) };
        if past > LONGEST_PAST {
            return Err(format!(
                "{most} ticks at event_rate {rate} begin {} s ago, at most {} s is allowed: raise event_rate",
                past / SECOND,
                LONGEST_PAST / SECOND
            ));
        }
        let run = run_name(started);
        let dimensions = Dimensions::new(&profile, &run)?;
        Ok(Self { profile, run, limit, started, base: started - past, schedule, paced, ticks, stop_after, dimensions })
    }

    /// How many connections there are.
    pub fn connections(&self) -> u64 {
        self.profile.connections.0
    }

    /// How many ticks connection `connection` sends; `u64::MAX` until the time is up.
    pub fn ticks_of(&self, connection: u64) -> u64 {
        let share = |ticks: u64| ticks / self.connections() + u64::from(connection < ticks % self.connections());
        self.ticks.map_or(u64::MAX, share)
    }

    /// How many series connection `connection` sends to.
    pub fn series_of(&self, connection: u64) -> u64 {
        let all = self.profile.series.0;
        if self.profile.shared_series {
            all
        } else {
            all / self.connections() + u64::from(connection < all % self.connections())
        }
    }

    /// The number, over all connections, of the series that connection `connection` calls `local`.
    #[inline]
    pub fn series(&self, connection: u64, local: u64) -> u32 {
        let global = if self.profile.shared_series { local } else { local * self.connections() + connection };
        global as u32
    }

    /// Place in the run of the tick that connection `connection` sends as its `number`-th.
    #[inline]
    pub fn index(&self, connection: u64, number: u64) -> u64 {
        number * self.connections() + connection
    }

    /// How many ticks a message holds: `batch`, or what comes in `linger` where that is less.
    pub fn message_ticks(&self) -> u64 {
        let batch = self.profile.batch.0;
        match self.profile.rate {
            Rate::Max => batch,
            Rate::PerSecond(rate) => {
                let gathered = rate / self.connections() as f64 * self.profile.linger.0 as f64 / 1e9;
                (gathered as u64).clamp(1, batch)
            }
        }
    }
}

/// `R` and six base-36 digits of the millisecond: distinct for 25 days, longer than raw ticks are kept.
fn run_name(started: Nanos) -> String {
    let mut rest = (started / 1_000_000).unsigned_abs() % 36u64.pow(6);
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(rest % 36) as usize];
        rest /= 36;
    }
    digits.iter().fold(String::from("R"), |name, digit| name + &char::from(*digit).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(overrides: &[&str], limit: Limit) -> Plan {
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        Plan::new(Profile::load("market", &overrides).unwrap(), limit, 1_700_000_000 * SECOND).unwrap()
    }

    #[test]
    fn connections_share_out_all_ticks_and_all_series() {
        let plan = plan(&["connections=3", "series=10"], Limit::Ticks(1_000));
        assert_eq!((0..3).map(|c| plan.ticks_of(c)).sum::<u64>(), 1_000);
        let mut series: Vec<u32> =
            (0..3).flat_map(|c| (0..plan.series_of(c)).map(move |l| (c, l))).map(|(c, l)| plan.series(c, l)).collect();
        series.sort_unstable();
        assert_eq!(series, (0..10).collect::<Vec<u32>>());
    }

    #[test]
    fn flat_out_the_events_end_at_the_beginning_of_the_run() {
        let plan = plan(&["rate=max", "event_rate=1M"], Limit::Ticks(10_000_000));
        assert_eq!(plan.base, plan.started - 10 * SECOND);
    }

    #[test]
    fn a_paced_run_of_a_given_time_has_a_fixed_number_of_ticks() {
        let plan = plan(&["rate=20k", "connections=1", "linger=10ms"], Limit::For(30 * SECOND));
        assert_eq!(plan.ticks, Some(600_000));
        assert_eq!(plan.base, plan.started);
        assert_eq!(plan.message_ticks(), 200);
    }

    #[test]
    fn runs_a_millisecond_apart_have_different_names() {
        assert_ne!(run_name(1_700_000_000_000_000_000), run_name(1_700_000_000_001_000_000));
        assert_eq!(run_name(35_000_000), "R00000z");
    }
}
