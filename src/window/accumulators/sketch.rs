//! `p50` … `p99.9`: a DDSketch with 1 % relative accuracy.
//!
//! The mapping from values to bins is that of the `sketches-ddsketch` crate. The bins are kept here, because its
//! sketches carry a float sum (which depends on the order) and cannot be taken apart exactly: one word per bin,
//! number in the upper 18 bits, count in the lower 46, ascending by number. NaN is ignored; infinities have bins of
//! their own.
//!
//! The value that stands for a bin may lie outside of everything that was seen: a `p95` above the `max` beside it. So
//! the lowest and the highest value are kept exactly, as ranks, and bound what is shown. Words when closed: how many
//! bins; where there are any, the lowest rank, the highest rank, the bins.
//!
//! A sketch keeps the [`MAX_BINS`] highest bins it has seen; what lies below is counted in the lowest of them. Which
//! bins these are depends only on the values: a bin among the highest of all is among the highest of every part.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::sync::LazyLock;

use sketches_ddsketch::Config;

use super::number::Number;
use super::{Accumulate, Tick};
use crate::model::{FieldType, Value};
use crate::spec::Aggregation;
use crate::window::natural::Side;

/// The most bins: with 1 % accuracy they span 17 decimal orders of magnitude without a gap.
const MAX_BINS: usize = 2048;
const COUNT_BITS: u32 = 46;
/// Words before the bins: their number or handle, the lowest rank, the highest rank.
const HEAD: usize = 3;
/// Added to a bin's number, so that negative ones sort below.
const BIAS: i32 = 1 << 17;
/// Added to the crate's keys (-37 219 to 35 488), so that all are positive and zero is free.
const SHIFT: i32 = 40_000;
const INFINITE: i32 = 100_000;

static MAPPING: LazyLock<Config> = LazyLock::new(|| Config::new(0.01, MAX_BINS as u32, f64::MIN_POSITIVE));

pub(super) struct Sketch<N>(PhantomData<N>);

impl<N: Number> Accumulate for Sketch<N> {
    /// The handle of its bins, the lowest and the highest rank.
    const WORDS: usize = HEAD;

    fn init(state: &mut [u64]) {
        state[1] = u64::MAX;
    }

    #[inline]
    fn update(state: &mut [u64], side: &mut Side, bits: u64, _tick: Tick<'_>) {
        if let Some(bin) = bin_of(N::float(bits)) {
            let rank = N::rank(bits);
            widen(state, rank, rank);
            count(bins(state, side), bin, 1);
        }
    }

    fn merge(state: &mut [u64], side: &mut Side, closed: &[u64]) {
        let Some(([_, lowest, highest], words)) = closed[..Self::closed_len(closed)].split_first_chunk() else {
            return;
        };
        widen(state, *lowest, *highest);
        for word in words {
            count(bins(state, side), number(*word), word & ((1 << COUNT_BITS) - 1));
        }
    }

    fn close(state: &mut [u64], side: &mut Side, out: &mut Vec<u64>) {
        let handle = state[0] as u32;
        if handle == 0 {
            return out.push(0);
        }
        let bins = side.get(handle);
        out.extend_from_slice(&[bins.len() as u64, state[1], state[2]]);
        out.extend_from_slice(bins);
        side.release(handle);
    }

    fn closed_len(closed: &[u64]) -> usize {
        let bins = closed.first().map_or(0, |bins| (*bins).min(MAX_BINS as u64) as usize);
        (if bins == 0 { 1 } else { HEAD + bins }).min(closed.len())
    }

    fn value(closed: &[u64], aggregation: Aggregation, _ty: FieldType) -> Option<Value> {
        let Aggregation::Quantile(rank) = aggregation else { return None };
        let ([_, lowest, highest], bins) = closed.get(..Self::closed_len(closed))?.split_first_chunk()?;
        let total: u64 = bins.iter().map(|word| word & ((1 << COUNT_BITS) - 1)).sum();
        let mut left = (rank * total.checked_sub(1)? as f64) as u64;
        let found = bins.iter().find(|word| {
            let here = **word & ((1 << COUNT_BITS) - 1);
            let inside = left < here;
            left = left.saturating_sub(here);
            inside
        });
        let shown = value_of(number(*found.or(bins.last())?));
        // Damaged words may hold anything; unlike `clamp`, this cannot panic.
        let bound = |rank: &u64| N::float(N::unrank(*rank));
        Some(Value::Float(shown.min(bound(highest)).max(bound(lowest))))
    }
}

/// Takes in the ranks of a lowest and a highest value.
#[inline]
fn widen(state: &mut [u64], lowest: u64, highest: u64) {
    state[1] = state[1].min(lowest);
    state[2] = state[2].max(highest);
}

/// The open sketch of `state`.
fn bins<'s>(state: &mut [u64], side: &'s mut Side) -> &'s mut Vec<u64> {
    if state[0] == 0 {
        state[0] = u64::from(side.allocate());
    }
    side.get(state[0] as u32)
}

/// Adds `n` to a bin of a sketch.
fn count(bins: &mut Vec<u64>, bin: i32, n: u64) {
    match bins.binary_search_by(|word| number(*word).cmp(&bin)) {
        Ok(at) => add(&mut bins[at], n),
        Err(0) if bins.len() >= MAX_BINS => add(&mut bins[0], n),
        Err(at) => {
            bins.insert(at, (((bin + BIAS) as u64) << COUNT_BITS) | n);
            if bins.len() > MAX_BINS {
                let lowest = bins.remove(0);
                add(&mut bins[0], lowest & ((1 << COUNT_BITS) - 1));
            }
        }
    }
}

/// Adds to a bin's count, which stops at 7e13 instead of running into the number.
fn add(word: &mut u64, n: u64) {
    let room = ((1 << COUNT_BITS) - 1) - (*word & ((1 << COUNT_BITS) - 1));
    *word += n.min(room);
}

fn number(word: u64) -> i32 {
    (word >> COUNT_BITS) as i32 - BIAS
}

/// The bin of a value: of the same order as the values; `None` for NaN.
#[inline]
fn bin_of(value: f64) -> Option<i32> {
    let size = value.abs();
    let bin = if size == 0.0 {
        0
    } else if size < f64::INFINITY {
        MAPPING.key(size) + SHIFT
    } else {
        INFINITE
    };
    (!value.is_nan()).then_some(if value < 0.0 { -bin } else { bin })
}

/// The value that stands for a bin: within 1 % of every value in it.
fn value_of(bin: i32) -> f64 {
    let size = match bin.abs().cmp(&0) {
        Ordering::Equal => return 0.0,
        _ if bin.abs() == INFINITE => f64::INFINITY,
        _ => MAPPING.value(bin.abs() - SHIFT).min(f64::MAX),
    };
    if bin < 0 { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::{MAX_BINS, bin_of, value_of as bin_value};
    use crate::spec::AccumulatorKind::Sketch;
    use crate::window::accumulators::testing::{Sample, Value::Float, check_laws, closed, merged, quantile};

    #[test]
    fn every_bin_stands_for_its_values_within_one_percent() {
        let mut value = 1e-300;
        while value < 1e300 {
            for signed in [value, -value] {
                let shown = bin_value(bin_of(signed).unwrap());
                assert!((shown / signed - 1.0).abs() <= 0.010_000_1, "{signed} is shown as {shown}");
            }
            value *= 1.000_37e1;
        }
        for edge in [f64::MAX, f64::MIN_POSITIVE, 5e-324, f64::INFINITY, 0.0] {
            assert!(bin_of(edge).unwrap().abs() <= 100_000);
            assert!(bin_value(bin_of(edge).unwrap()) >= 0.0);
        }
        assert_eq!(bin_of(f64::NAN), None);
    }

    #[test]
    fn quantiles_are_within_one_percent_of_the_value_at_their_rank() {
        let ticks: Vec<Sample> = (-500..=500).map(|v| Sample::int(v, 0)).collect();
        for (rank, truth) in [(0.01, -490.0), (0.25, -250.0), (0.5, 0.0), (0.75, 250.0), (0.999, 499.0)] {
            let Some(Float(shown)) = quantile(rank, &ticks) else { panic!() };
            assert!((shown - truth).abs() <= 0.01 * f64::abs(truth), "p{rank}: {shown} for {truth}");
        }
        assert_eq!(quantile(0.5, &[Sample::float(f64::NAN, 0)]), None);
        assert_eq!(quantile(0.5, &[Sample::float(f64::INFINITY, 0)]), Some(Float(f64::INFINITY)));
    }

    #[test]
    fn no_quantile_lies_outside_what_was_seen() {
        // What stands for the bin of 100 is 100.5.
        assert_eq!(quantile(0.95, &[Sample::float(100.0, 0); 9]), Some(Float(100.0)));
        assert_eq!(quantile(0.5, &[Sample::int(-7, 0)]), Some(Float(-7.0)));
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..200 {
            let values: Vec<f64> = (0..random.usize(1..6)).map(|_| (random.f64() - 0.5) * 1e3).collect();
            let ticks: Vec<Sample> = values.iter().map(|value| Sample::float(*value, 0)).collect();
            let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
            let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            for rank in [0.001, 0.5, 0.999] {
                let Some(Float(shown)) = quantile(rank, &ticks) else { panic!() };
                assert!((lowest..=highest).contains(&shown), "p{rank} of {values:?}: {shown}");
            }
        }
    }

    #[test]
    fn more_bins_than_fit_fold_the_same_way_in_any_order() {
        let ticks: Vec<Sample> = (0..6_000).map(|i| Sample::float(1.03f64.powi(i - 3_000), 0)).collect();
        let back: Vec<Sample> = ticks.iter().rev().copied().collect();
        let whole = closed(Sketch, &ticks);
        assert_eq!(whole.len(), 3 + MAX_BINS);
        assert_eq!(whole, closed(Sketch, &back));
        let parts: Vec<Vec<u64>> = ticks.chunks(700).map(|part| closed(Sketch, part)).collect();
        assert_eq!(whole, merged(Sketch, ticks[0].ty, parts.iter().rev()));
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_an_absent_field_counts_for_nothing() {
        check_laws(Sketch);
    }
}
