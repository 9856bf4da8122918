//! The ticks of one connection: a pure function of (profile, seed, run, connection, number).
//!
//! Nothing that is sent is stored. To verify, the same stream is generated again.

use std::sync::Arc;

use fastrand::Rng;

use crate::{
    pick::Pick,
    plan::Plan,
    profile::MAX_FIELDS,
    units::{Nanos, SECOND},
    values::{Values, below},
};

/// Sequence numbers are below this: at most two bytes on the wire, and still distinct for ticks of the same time.
pub const SEQUENCES: u64 = 1 << 14;

/// One tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// The series' number, over all connections.
    pub series: u32,
    /// Event time, nanoseconds since the Unix epoch.
    pub timestamp: Nanos,
    /// Orders ticks of the same time.
    pub sequence: u32,
    /// What must become of it.
    pub fate: Fate,
    /// Bit f is set where field f is there.
    pub present: u32,
    /// The values of the fields that are there.
    pub values: [i64; MAX_FIELDS],
}

/// What a correct server does with a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is accepted.
    Accepted,
    /// It is rejected as `unknown_series`: it names another spec.
    UnknownSeries,
    /// It is rejected as `ahead`: a day in the future.
    Ahead,
    /// It is rejected as `expired`: ten years old.
    Expired,
}

/// The ticks of one connection, in the order they are sent.
#[derive(Debug)]
pub struct Stream {
    plan: Arc<Plan>,
    connection: u64,
    sent: u64,
    rng: Rng,
    pick: Pick,
    mix: Mix,
    fields: Vec<FieldStream>,
    /// Per own series: which fields it carries.
    carried: Vec<u16>,
    /// Per own series and field: what the field's values are made from.
    state: Vec<i64>,
    bad: u64,
    tick: Tick,
}

#[derive(Debug)]
struct FieldStream {
    values: Values,
    /// The probability, in 1 / 2^32, that a tick lacks the field.
    absent: u64,
}

/// Running sums, in 1 / 2^32, of the shares of ticks that are treated specially.
#[derive(Debug)]
struct Mix {
    bad: u64,
    late: u64,
    disorder: u64,
    duplicate: u64,
    late_by: Nanos,
    disorder_up_to: u64,
}

impl Stream {
    /// The ticks of connection `connection`, from the first.
    pub fn new(plan: &Arc<Plan>, connection: u64) -> Self {
        let profile = &plan.profile;
        let mut rng = Rng::with_seed(profile.seed ^ (connection + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let share = |fraction: f64| (fraction * 4_294_967_296.0) as u64;
        let fields: Vec<FieldStream> = profile
            .fields
            .iter()
            .map(|field| FieldStream { values: field.values.prepare(), absent: share(field.absent) })
            .collect();
        let own = plan.series_of(connection);
        let carried = (0..own).map(|local| carried(plan, plan.series(connection, local))).collect();
        let state = (0..own).flat_map(|_| &fields).map(|field| field.values.start(rng.u64(..))).collect();
        Self {
            pick: Pick::new(own, profile.skew),
            mix: Mix::new(plan),
            plan: plan.clone(),
            connection,
            sent: 0,
            rng,
            fields,
            carried,
            state,
            bad: 0,
            tick: Tick {
                series: 0,
                timestamp: 0,
                sequence: 0,
                fate: Fate::Accepted,
                present: 0,
                values: [0; MAX_FIELDS],
            },
        }
    }

    /// The next tick.
    #[inline]
    pub fn next(&mut self) -> &Tick {
        let index = self.plan.index(self.connection, self.sent);
        let special = if self.mix.duplicate > 0 { self.rng.u64(..) >> 32 } else { u64::MAX };
        self.sent += 1;
        if special < self.mix.duplicate
            && special >= self.mix.disorder
            && self.sent > 1
            && self.tick.fate == Fate::Accepted
        {
            return &self.tick;
        }
        let local = self.pick.next(&mut self.rng);
        self.tick.series = self.plan.series(self.connection, local as u64);
        self.tick.timestamp = self.plan.base + self.plan.schedule.offset(index);
        self.tick.sequence = (index % SEQUENCES) as u32;
        self.tick.fate = Fate::Accepted;
        self.fill(local);
        if special < self.mix.disorder {
            self.treat(special);
        }
        &self.tick
    }

    /// Makes the values.
    #[inline]
    fn fill(&mut self, local: usize) {
        self.tick.present = 0;
        let carried = self.carried[local];
        let state = &mut self.state[local * self.fields.len()..][..self.fields.len()];
        for (f, ((field, state), value)) in self.fields.iter().zip(state).zip(&mut self.tick.values).enumerate() {
            if carried >> f & 1 == 0 || (field.absent > 0 && self.rng.u64(..) >> 32 < field.absent) {
                continue;
            }
            *value = field.values.next(state, self.rng.u64(..));
            self.tick.present |= 1 << f;
        }
    }

    /// Makes the tick bad, late, or a little older than its place.
    fn treat(&mut self, special: u64) {
        let tick = &mut self.tick;
        if special < self.mix.bad {
            self.bad += 1;
            (tick.fate, tick.timestamp) = match self.bad % 3 {
                0 => (Fate::UnknownSeries, tick.timestamp),
                1 => (Fate::Ahead, self.plan.started + 86_400 * SECOND),
                _ => (Fate::Expired, self.plan.started - 3_650 * 86_400 * SECOND),
            };
        } else if special < self.mix.late {
            tick.timestamp -= self.mix.late_by;
        } else {
            tick.timestamp -= below(self.rng.u64(..), self.mix.disorder_up_to) as Nanos;
        }
    }
}

impl Mix {
    fn new(plan: &Plan) -> Self {
        let profile = &plan.profile;
        let mut sum = 0.0;
        let mut below = |fraction: Option<f64>| {
            sum += fraction.unwrap_or_default();
            (sum * 4_294_967_296.0) as u64
        };
        Self {
            bad: below(profile.bad.map(|b| b.fraction)),
            late: below(profile.late.map(|l| l.fraction)),
            disorder: below(profile.disorder.map(|d| d.fraction)),
            duplicate: below(profile.duplicates.map(|d| d.fraction)),
            late_by: profile.late.map_or(0, |l| l.by.0),
            disorder_up_to: profile.disorder.map_or(0, |d| d.up_to.0 as u64),
        }
    }
}

/// One bit per field that `series` carries.
fn carried(plan: &Plan, series: u32) -> u16 {
    let fields = plan.profile.fields.iter().enumerate();
    let fits = |when| plan.dimensions.fit(u64::from(series), when);
    fields.filter(|(_, field)| field.when.is_empty() || fits(&field.when)).map(|(f, _)| 1 << f).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Limit, profile::Profile};

    const ODD: [&str; 6] = [
        "series=50",
        "skew=1",
        "disorder={fraction: 0.2, up_to: 50ms}",
        "late={fraction: 0.1, by: 5s}",
        "duplicates={fraction: 0.1}",
        "bad={fraction: 0.1}",
    ];

    fn plan(profile: &str, overrides: &[&str]) -> Arc<Plan> {
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        let profile = Profile::load(profile, &overrides).unwrap();
        Arc::new(Plan::new(profile, Limit::Ticks(10_000), 1_700_000_000 * SECOND).unwrap())
    }

    fn ticks(plan: &Arc<Plan>, connection: u64, count: usize) -> Vec<Tick> {
        let mut stream = Stream::new(plan, connection);
        (0..count).map(|_| stream.next().clone()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_ticks_and_another_one_others() {
        for profile in ["market", "network", "asic", "host"] {
            let first = ticks(&plan(profile, &ODD), 1, 5_000);
            assert_eq!(first, ticks(&plan(profile, &ODD), 1, 5_000), "{profile}");
            let reseeded = plan(profile, &[&ODD[..], &["seed=2"]].concat());
            assert_ne!(first, ticks(&reseeded, 1, 5_000), "{profile}");
        }
    }

    #[test]
    fn every_share_is_about_what_was_asked_for() {
        let plan = plan("market", &ODD);
        let ticks = ticks(&plan, 0, 20_000);
        let place = |i: usize| plan.base + plan.schedule.offset(plan.index(0, i as u64));
        let near = |count: usize, share: f64| (count as f64 / 20_000.0 - share).abs() < 0.02;
        assert!(near(ticks.iter().filter(|t| t.fate != Fate::Accepted).count(), 0.1));
        let lag = |(i, tick): (usize, &Tick)| place(i) - tick.timestamp;
        assert!(near(ticks.iter().enumerate().filter(|x| (4 * SECOND..6 * SECOND).contains(&lag(*x))).count(), 0.1));
        assert!(near(ticks.windows(2).filter(|pair| pair[0] == pair[1]).count(), 0.1));
    }

    #[test]
    fn ticks_of_one_series_never_share_time_and_sequence() {
        let plan = plan("market", &["series=1", "connections=4", "shared_series=true", "rate=max", "event_rate=1G"]);
        let mut places: Vec<(Nanos, u32)> =
            (0..4).flat_map(|c| ticks(&plan, c, 5_000)).map(|t| (t.timestamp, t.sequence)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), 20_000);
    }

    #[test]
    fn a_field_appears_only_where_its_dimensions_allow_it() {
        let plan = plan("host", &["series=16", "connections=1"]);
        let usage = plan.profile.fields.iter().position(|f| f.name == "usage").unwrap();
        for tick in ticks(&plan, 0, 200) {
            let allowed = plan.dimensions.fit(u64::from(tick.series), &plan.profile.fields[usage].when);
            assert_eq!(tick.present >> usage & 1 == 1, allowed);
        }
    }
}
