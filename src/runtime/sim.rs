//! The simulation: a whole topology on one thread under paused time, so that a seed decides everything.
//!
//! Nothing in it may depend on random hash seeds, on other threads or on the real clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;

use super::chaos::{Act, Chaos, Moment};
use super::clock::{Clock, VirtualClock};
use crate::model::TimeNs;

/// The environment variable that replays one seed.
pub const SEED_VARIABLE: &str = "BARLINE_SEED";

/// Runs `body` in an actix system on a paused runtime whose clock begins at `starts_at`; time passes only while
/// everybody waits.
pub fn simulate<T>(starts_at: TimeNs, body: impl AsyncFnOnce(Arc<dyn Clock>) -> T) -> T {
    let system = System::with_tokio_rt(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let built = runtime.enable_time().start_paused(true).build();
        built.unwrap_or_else(|error| panic!("the simulation's runtime cannot be built: {error}"))
    });
    system.block_on(async move { body(Arc::new(VirtualClock::starting_at(starts_at))).await })
}

/// Runs `case` for `count` seeds from `first`, or only for the one in `BARLINE_SEED`; a failing seed is printed with the
/// command that replays it.
pub fn for_seeds(first: u64, count: u64, test: &str, case: impl Fn(u64)) {
    let replay = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    let seeds = replay.map_or(first..first + count, |seed: u64| seed..seed + 1);
    for seed in seeds {
        let guard = NameSeed { seed, test };
        case(seed);
        std::mem::forget(guard);
    }
}

/// Says which seed failed when a case panics.
struct NameSeed<'a> {
    seed: u64,
    test: &'a str,
}

impl Drop for NameSeed<'_> {
    fn drop(&mut self) {
        eprintln!("seed {} failed; replay it with {SEED_VARIABLE}={} cargo test {}", self.seed, self.seed, self.test);
    }
}

/// Stalls and panics drawn from a seed.
pub struct SeededChaos {
    random: Mutex<fastrand::Rng>,
    rates: Rates,
}

/// How often things go wrong, as probabilities per stage call.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// A stall before the call.
    pub stall: f64,
    /// The longest stall.
    pub longest: Duration,
    /// A panic before or after the call.
    pub panic: f64,
}

impl SeededChaos {
    /// Chaos of this seed.
    pub fn new(seed: u64, rates: Rates) -> Self {
        Self { random: Mutex::new(fastrand::Rng::with_seed(seed)), rates }
    }
}

impl Chaos for SeededChaos {
    fn act(&self, _stage: &str, _instance: u16, moment: Moment) -> Act {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let dice = random.f64();
        if dice < self.rates.panic {
            Act::Panic
        } else if moment == Moment::Before && dice < self.rates.panic + self.rates.stall {
            Act::Stall(self.rates.longest.mul_f64(random.f64()))
        } else {
            Act::Pass
        }
    }
}
