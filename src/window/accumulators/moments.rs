//! `stddev`: the population standard deviation `sqrt(n Σx² − (Σx)²) / n`, from exact sums.
//!
//! The subtraction is what ruins this formula in floating point; here both sides are exact integers, so nothing
//! cancels, and states merge by adding. Any NaN or infinity makes the result NaN.
//!
//! Words: those of `sum`, then Σx²: three limbs for integers, a natural number in units of 2^-2148 for doubles.

use std::marker::PhantomData;

use super::mean::limbs;
use super::number::Integer;
use super::sum::{FloatSum, FloatTotal, IntSum, parts, total};
use super::{Accumulate, Tick};
use crate::model::{FieldType, Value};
use crate::spec::Aggregation;
use crate::window::exact;
use crate::window::natural::{self, Side};

/// Deviations of `int64` and `uint64`.
pub(super) struct IntMoments<N>(PhantomData<N>);

const INT_SUM: usize = 3;

impl<N: Integer> Accumulate for IntMoments<N> {
    const WORDS: usize = INT_SUM + 3;

    #[inline]
    fn update(state: &mut [u64], side: &mut Side, bits: u64, tick: Tick<'_>) {
        IntSum::<N>::update(&mut state[..INT_SUM], side, bits, tick);
        let size = N::exact(bits).unsigned_abs();
        add_squares(&mut state[INT_SUM..], size * size, 0);
    }

    fn merge(state: &mut [u64], side: &mut Side, closed: &[u64]) {
        if let Some([_, _, _, low, middle, high]) = closed.first_chunk() {
            IntSum::<N>::merge(&mut state[..INT_SUM], side, closed);
            add_squares(&mut state[INT_SUM..], u128::from(*middle) << 64 | u128::from(*low), *high);
        }
    }

    fn close(state: &mut [u64], _side: &mut Side, out: &mut Vec<u64>) {
        out.extend_from_slice(state);
    }

    fn value(closed: &[u64], _aggregation: Aggregation, _ty: FieldType) -> Option<Value> {
        let [count, _, _, squares @ ..] = closed.first_chunk::<6>()?;
        let mut sum = limbs(total(closed).unsigned_abs()).to_vec();
        exact::trim(&mut sum);
        (*count != 0).then(|| Value::Float(exact::deviation(&sum, squares, 0, *count)))
    }
}

/// Adds to a 192-bit number: room for 2^64 squares of 64-bit values.
#[inline]
fn add_squares(state: &mut [u64], low: u128, high: u64) {
    let (sum, carry) = (u128::from(state[1]) << 64 | u128::from(state[0])).overflowing_add(low);
    (state[0], state[1]) = (sum as u64, (sum >> 64) as u64);
    state[2] = state[2].wrapping_add(high).wrapping_add(u64::from(carry));
}

/// Deviations of `float64`.
pub(super) struct FloatMoments;

/// Header and limbs of the sum of squares: 576 bits.
const SQUARES: usize = 10;

impl Accumulate for FloatMoments {
    const WORDS: usize = FloatSum::WORDS + SQUARES;

    #[inline]
    fn update(state: &mut [u64], side: &mut Side, bits: u64, tick: Tick<'_>) {
        FloatSum::update(&mut state[..FloatSum::WORDS], side, bits, tick);
        if let Ok((mantissa, shift)) = parts(bits) {
            let square = u128::from(mantissa) * u128::from(mantissa);
            natural::add::<3>(&mut state[FloatSum::WORDS..], side, square, 2 * shift);
        }
    }

    fn merge(state: &mut [u64], side: &mut Side, closed: &[u64]) {
        let (sum, squares) = closed.split_at(FloatSum::closed_len(closed));
        FloatSum::merge(&mut state[..FloatSum::WORDS], side, sum);
        natural::merge(&mut state[FloatSum::WORDS..], side, squares);
    }

    fn close(state: &mut [u64], side: &mut Side, out: &mut Vec<u64>) {
        FloatSum::close(&mut state[..FloatSum::WORDS], side, out);
        natural::close(&mut state[FloatSum::WORDS..], side, out);
    }

    fn closed_len(closed: &[u64]) -> usize {
        closed.len() - natural::split(&closed[FloatSum::closed_len(closed)..]).2.len()
    }

    fn value(closed: &[u64], _aggregation: Aggregation, _ty: FieldType) -> Option<Value> {
        let sum = FloatTotal::read(closed)?;
        let squares = natural::read(&closed[FloatSum::closed_len(closed)..]).0;
        let deviation = || exact::deviation(&sum.size, &squares, -1074, sum.count);
        Some(Value::Float(sum.special.map_or_else(deviation, |_| f64::NAN)))
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::AccumulatorKind::Moments;
    use crate::window::accumulators::testing::{Sample, Value::Float, check_laws, value_of};

    #[test]
    fn nothing_cancels_however_large_the_mean() {
        let ints = [2, 4, 4, 4, 5, 5, 7, 9].map(|v| Sample::int(v - (1 << 62), 0));
        assert_eq!(value_of(Moments, &ints), Some(Float(2.0)));
        let doubles = [1e15, 1e15 + 2.0].map(|v| Sample::float(v, 0));
        assert_eq!(value_of(Moments, &doubles), Some(Float(1.0)));
        let extremes = [i64::MIN, i64::MAX].map(|v| Sample::int(v, 0));
        assert_eq!(value_of(Moments, &extremes), Some(Float(2f64.powi(63))));
    }

    #[test]
    fn squares_outside_the_doubles_do_no_harm() {
        assert_eq!(value_of(Moments, &[-1e300, 1e300].map(|v| Sample::float(v, 0))), Some(Float(1e300)));
        assert_eq!(value_of(Moments, &[-1e-300, 1e-300].map(|v| Sample::float(v, 0))), Some(Float(1e-300)));
        assert_eq!(value_of(Moments, &[Sample::float(0.1, 0); 7]), Some(Float(0.0)));
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_an_absent_field_counts_for_nothing() {
        check_laws(Moments);
    }
}
