//! How the values of a field are made, one tick after another.

use serde::{Deserialize, Serialize};

/// A rule for the values of one field. All values are integers; a float64 field may divide them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Maker {
    /// Each series wanders from a value of its own, by at most `step` a tick, within [`min`, `max`].
    Walk {
        /// The lowest value.
        min: i64,
        /// The highest value.
        max: i64,
        /// The longest step, up or down.
        step: u32,
    },
    /// Any value in [`min`, `max`], all equally likely.
    Uniform {
        /// The lowest value.
        min: i64,
        /// The highest value.
        max: i64,
    },
    /// 1 to `max`, the value k with a probability proportional to k^-`exponent`.
    Zipf {
        /// The highest value.
        max: u32,
        /// How steep.
        exponent: f64,
    },
    /// Each series counts up from 0, by at most `step` a tick.
    Counter {
        /// The largest increment.
        step: u32,
    },
    /// 0, but with the probability `chance` any value in [1, `max`].
    Spikes {
        /// The probability.
        chance: f64,
        /// The highest value.
        max: u32,
    },
}

/// A [`Maker`] made ready: what is looked up per tick is computed once.
#[derive(Debug, Clone)]
pub enum Values {
    /// See [`Maker::Walk`].
    Walk {
        /// The lowest value.
        min: i64,
        /// The highest value.
        max: i64,
        /// How many different steps there are: 2 × `step` + 1.
        steps: u64,
    },
    /// See [`Maker::Uniform`].
    Uniform {
        /// The lowest value.
        min: i64,
        /// How many different values there are.
        values: u64,
    },
    /// See [`Maker::Zipf`]: equally likely values.
    Table(Vec<u32>),
    /// See [`Maker::Counter`].
    Counter {
        /// How many different increments there are: `step` + 1.
        steps: u64,
    },
    /// See [`Maker::Spikes`].
    Spikes {
        /// The probability, in 1 / 2^32.
        chance: u64,
        /// The highest value.
        max: u64,
    },
}

/// How many equally likely values stand for a Zipf distribution.
const TABLE: usize = 4096;

/// Values stay below this, so that the sums of squares of sixteen million of them fit 128 bits.
const LIMIT: i64 = 1 << 40;

/// So that sixteen million increments stay below [`LIMIT`].
const LARGEST_STEP: u32 = 1 << 16;

impl Maker {
    /// Checks the numbers.
    ///
    /// # Errors
    /// An empty range, a value beyond ±2^40, a step beyond 2^16, a probability out of 0 to 1.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Walk { min, max, .. } | Self::Uniform { min, max } => {
                if min > max {
                    return Err(format!("min {min} is above max {max}"));
                }
                match [min, max].into_iter().find(|v| !(-LIMIT..=LIMIT).contains(*v)) {
                    Some(value) => Err(format!("value {value} is out of -2^40 to 2^40")),
                    None => Ok(()),
                }
            }
            Self::Counter { step } if *step > LARGEST_STEP => Err(format!("step {step} is above {LARGEST_STEP}")),
            Self::Zipf { max: 0, .. } | Self::Spikes { max: 0, .. } => Err("max 0 is below 1".to_owned()),
            Self::Zipf { exponent, .. } if !(0.0..=10.0).contains(exponent) => {
                Err(format!("exponent {exponent} is out of 0 to 10"))
            }
            Self::Spikes { chance, .. } if !(0.0..=1.0).contains(chance) => {
                Err(format!("chance {chance} is out of 0 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// The lowest value it can make.
    pub fn lowest(&self) -> i64 {
        match self {
            Self::Walk { min, .. } | Self::Uniform { min, .. } => *min,
            Self::Zipf { .. } => 1,
            Self::Counter { .. } | Self::Spikes { .. } => 0,
        }
    }

    /// Makes it ready.
    pub fn prepare(&self) -> Values {
        match *self {
            Self::Walk { min, max, step } => Values::Walk { min, max, steps: 2 * u64::from(step) + 1 },
            Self::Uniform { min, max } => Values::Uniform { min, values: (max - min) as u64 + 1 },
            Self::Zipf { max, exponent } => Values::Table(zipf_table(max, exponent)),
            Self::Counter { step } => Values::Counter { steps: u64::from(step) + 1 },
            Self::Spikes { chance, max } => {
                Values::Spikes { chance: (chance * 4_294_967_296.0) as u64, max: u64::from(max) }
            }
        }
    }
}

impl Values {
    /// The state a series starts with.
    pub fn start(&self, random: u64) -> i64 {
        match self {
            Self::Walk { min, max, .. } => min + below(random, (max - min) as u64 + 1) as i64,
            _ => 0,
        }
    }

    /// The next value of a series with this state.
    #[inline]
    pub fn next(&self, state: &mut i64, random: u64) -> i64 {
        match self {
            Self::Walk { min, max, steps } => {
                let step = below(random, *steps) as i64 - (*steps / 2) as i64;
                *state = (*state + step).clamp(*min, *max);
                *state
            }
            Self::Uniform { min, values } => min + below(random, *values) as i64,
            Self::Table(table) => i64::from(table[(random >> 52) as usize % TABLE]),
            Self::Counter { steps } => {
                *state += below(random, *steps) as i64;
                *state
            }
            Self::Spikes { chance, max } if random & 0xffff_ffff < *chance => {
                1 + below(random & !0xffff_ffff, *max) as i64
            }
            Self::Spikes { .. } => 0,
        }
    }
}

/// A number below `bound`, evenly distributed, from 64 random bits.
#[inline]
pub fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// The weights 1/1^s, 1/2^s … 1/n^s, adding up to 1.
pub fn zipf_weights(n: usize, exponent: f64) -> Vec<f64> {
    let mut weights: Vec<f64> = (1..=n).map(|k| (k as f64).powf(-exponent)).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// The inverse of a Zipf distribution at [`TABLE`] evenly spaced probabilities.
fn zipf_table(max: u32, exponent: f64) -> Vec<u32> {
    let weights = zipf_weights(max.min(1 << 20) as usize, exponent);
    let mut table = Vec::with_capacity(TABLE);
    let (mut value, mut reached) = (0, weights[0]);
    for slot in 0..TABLE {
        while reached < (slot as f64 + 0.5) / TABLE as f64 && value + 1 < weights.len() {
            value += 1;
            reached += weights[value];
        }
        table.push(value as u32 + 1);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(maker: &Maker, count: usize) -> Vec<i64> {
        let values = maker.prepare();
        let mut random = fastrand::Rng::with_seed(7);
        let mut state = values.start(random.u64(..));
        (0..count).map(|_| values.next(&mut state, random.u64(..))).collect()
    }

    #[test]
    fn values_stay_in_their_range() {
        let walk = draw(&Maker::Walk { min: -5, max: 5, step: 3 }, 10_000);
        assert!(walk.iter().all(|v| (-5..=5).contains(v)) && walk.contains(&-5) && walk.contains(&5));
        let uniform = draw(&Maker::Uniform { min: 10, max: 12 }, 1_000);
        assert!([10, 11, 12].iter().all(|v| uniform.contains(v)) && uniform.iter().all(|v| (10..=12).contains(v)));
        let counter = draw(&Maker::Counter { step: 2 }, 1_000);
        assert!(counter.is_sorted() && counter[999] > 500);
        let spikes = draw(&Maker::Spikes { chance: 0.1, max: 3 }, 10_000);
        let high = spikes.iter().filter(|v| **v > 0).count();
        assert!((800..1200).contains(&high) && spikes.iter().all(|v| (0..=3).contains(v)));
    }

    #[test]
    fn low_zipf_values_are_the_common_ones() {
        let drawn = draw(&Maker::Zipf { max: 100, exponent: 1.0 }, 10_000);
        let count = |value| drawn.iter().filter(|v| **v == value).count();
        assert!(count(1) > count(2) && count(2) > count(10) && drawn.iter().all(|v| (1..=100).contains(v)));
    }
}
