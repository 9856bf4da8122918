//! Which series the next tick belongs to.

use fastrand::Rng;

use crate::values::{below, zipf_weights};

/// How the next series is chosen.
#[derive(Debug)]
pub enum Pick {
    /// One after the other.
    InTurn {
        /// The next one.
        next: usize,
        /// How many there are.
        series: usize,
    },
    /// Vose's alias method: per slot the probability in 1 / 2^32 to keep it, and the other choice.
    Alias(Vec<(u64, u32)>),
}

impl Pick {
    /// Among `series` series, the k-th with a probability proportional to k^-`skew`; one after the other where
    /// that is 0.
    pub fn new(series: u64, skew: f64) -> Self {
        let series = series as usize;
        if skew == 0.0 {
            return Self::InTurn { next: 0, series };
        }
        let mut scaled: Vec<f64> = zipf_weights(series, skew).iter().map(|w| w * series as f64).collect();
        let mut slots: Vec<(u64, u32)> = (0..series).map(|i| (u64::MAX, i as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..series).partition(|i| scaled[*i] < 1.0);
        while let (Some(high), Some(low)) = (large.last().copied(), small.pop()) {
            slots[low] = ((scaled[low] * 4_294_967_296.0) as u64, high as u32);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Self::Alias(slots)
    }

    /// The next series, below the number of series.
    #[inline]
    pub fn next(&mut self, rng: &mut Rng) -> usize {
        match self {
            Self::InTurn { next, series } => {
                let chosen = *next;
                *next = if chosen + 1 == *series { 0 } else { chosen + 1 };
                chosen
            }
            Self::Alias(slots) => {
                let random = rng.u64(..);
                let slot = below(random, slots.len() as u64) as usize;
                let (keep, other) = slots[slot];
                if random & 0xffff_ffff < keep { slot } else { other as usize }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(series: u64, skew: f64) -> Vec<usize> {
        let (mut pick, mut rng) = (Pick::new(series, skew), Rng::with_seed(1));
        let mut counts = vec![0; series as usize];
        (0..20_000).for_each(|_| counts[pick.next(&mut rng)] += 1);
        counts
    }

    #[test]
    fn skew_favours_the_first_series_and_reaches_all() {
        let counts = counts(20, 1.0);
        let share: f64 = 1.0 / (1..=20).map(|k| 1.0 / f64::from(k)).sum::<f64>();
        assert!((counts[0] as f64 / 20_000.0 - share).abs() < 0.02, "{counts:?}");
        assert!(counts[0] > 3 * counts[5] && counts.iter().all(|count| *count > 50), "{counts:?}");
    }

    #[test]
    fn without_skew_every_series_has_its_turn() {
        assert_eq!(counts(20, 0.0), [1_000; 20]);
    }
}
