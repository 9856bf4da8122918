//! A histogram as OpenTelemetry's exponential histograms have it: eight buckets to every doubling, so that every value is
//! known to a tenth. Bounds at powers of two are bounds of buckets, so that coarser histograms of it are exact.

use serde::{Deserialize, Serialize};

use crate::times::Recording;

/// OpenTelemetry's `scale`: 2³ buckets to every doubling.
pub const SCALE: i32 = 3;
/// Buckets to every doubling.
const PER_DOUBLING: f64 = 8.0;

/// How often which value occurred, in seconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Distribution {
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The number of the first bucket; bucket `i` is above 2^(i/8) and up to 2^((i+1)/8).
    pub offset: i32,
    /// How many values each bucket has, from the first on.
    pub buckets: Vec<u64>,
}

impl Distribution {
    /// What has been recorded.
    pub fn of(recording: &Recording) -> Self {
        let bucket = |nanoseconds: u64| ((nanoseconds as f64 / 1e9).log2() * PER_DOUBLING).ceil() as i32 - 1;
        let mut found = Self { count: recording.count, sum: recording.seconds, ..Self::default() };
        found.offset = recording.spans.first().map_or(0, |(first, _)| bucket(*first));
        for (nanoseconds, count) in &recording.spans {
            // Spans ascend.
            let index = usize::try_from(bucket(*nanoseconds) - found.offset).unwrap_or(0);
            found.buckets.resize(found.buckets.len().max(index + 1), 0);
            found.buckets[index] += count;
        }
        found
    }

    /// How many values are at most 2^`power`.
    pub fn up_to(&self, power: i32) -> u64 {
        let below = i64::from(power) * 8 - i64::from(self.offset);
        let below = usize::try_from(below).unwrap_or(0).min(self.buckets.len());
        self.buckets[..below].iter().sum()
    }

    /// The value that this share of the values does not exceed, to a tenth; `None` where there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (share.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(((f64::from(self.offset) + bucket as f64 + 0.5) / PER_DOUBLING).exp2())
    }

    /// This and what an earlier histogram of the same values holds.
    pub fn plus(&self, before: &Self) -> Self {
        if before.buckets.is_empty() || self.buckets.is_empty() {
            let kept = if self.buckets.is_empty() { before } else { self };
            return Self { count: self.count + before.count, sum: self.sum + before.sum, ..kept.clone() };
        }
        let offset = self.offset.min(before.offset);
        let mut both =
            Self { count: self.count + before.count, sum: self.sum + before.sum, offset, buckets: Vec::new() };
        for part in [self, before] {
            let from = usize::try_from(part.offset - offset).unwrap_or(0);
            both.buckets.resize(both.buckets.len().max(from + part.buckets.len()), 0);
            both.buckets[from..].iter_mut().zip(&part.buckets).for_each(|(sum, count)| *sum += count);
        }
        both
    }

    /// What was added since `before`, an earlier state of the same histogram.
    pub fn since(&self, before: &Self) -> Self {
        let mut added = self.clone();
        added.count = self.count.saturating_sub(before.count);
        added.sum = (self.sum - before.sum).max(0.0);
        for (index, count) in before.buckets.iter().enumerate() {
            let at = i64::from(before.offset) + index as i64 - i64::from(self.offset);
            if let Some(bucket) = usize::try_from(at).ok().and_then(|at| added.buckets.get_mut(at)) {
                *bucket = bucket.saturating_sub(*count);
            }
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::times::Times;

    #[test]
    fn quantiles_are_right_to_a_tenth_and_powers_of_two_are_bounds() {
        let times = Times::new();
        (1..=1000).for_each(|i| times.record(Duration::from_micros(i * 100)));
        let found = Distribution::of(&times.read());
        for (share, value) in [(0.5, 0.05), (0.99, 0.099), (0.001, 0.0001)] {
            let quantile = found.quantile(share).unwrap();
            assert!((quantile / value - 1.0).abs() < 0.1, "{share}: {quantile} for {value}");
        }
        assert_eq!((found.count, found.up_to(0), found.up_to(-20)), (1000, 1000, 0));
        // 62.5 ms, to the two digits that are kept.
        assert!(found.up_to(-4).abs_diff(625) <= 7, "{}", found.up_to(-4));
        assert_eq!(Distribution::default().quantile(0.5), None);
    }

    #[test]
    fn two_histograms_add_up_bucket_by_bucket() {
        let of = |spans: &[u64]| {
            let times = Times::new();
            spans.iter().for_each(|millis| times.record(Duration::from_millis(*millis)));
            Distribution::of(&times.read())
        };
        let (early, late) = (of(&[1, 50, 50]), of(&[1000]));
        for both in [late.plus(&early), early.plus(&late)] {
            assert_eq!(both, of(&[1, 50, 50, 1000]));
            assert_eq!(both.since(&early), Distribution { offset: early.offset, ..both.since(&early) });
            assert_eq!((both.since(&early).count, both.up_to(-4)), (1, 3));
        }
        assert_eq!(late.plus(&Distribution::default()), late);
        assert_eq!(Distribution::default().plus(&late), late);
    }

    #[test]
    fn what_was_added_since_leaves_out_what_was_there() {
        let times = Times::new();
        times.record(Duration::from_secs(1));
        let before = Distribution::of(&times.read());
        times.record(Duration::from_millis(1));
        let added = Distribution::of(&times.read()).since(&before);
        assert_eq!((added.count, added.up_to(-9), added.buckets.iter().sum::<u64>()), (1, 1, 1));
    }
}
