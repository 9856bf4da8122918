//! `sum`: exact in every order.
//!
//! Integers, words: count, low and high half of a 128-bit sum. It never wraps: 2^64 values of 64 bits fit. Whether it
//! is outside the field's type is judged by the final sum alone, which then is shown clamped.
//!
//! Doubles, words: count, special values seen, and two exact natural numbers (`natural`) in units of 2^-1074: the sum
//! of the positive values and that of the negative ones, without sign. The result is their difference rounded once.
//! NaN, or infinities of both signs, make it NaN; infinities of one sign make it that infinity.

use std::marker::PhantomData;

use super::number::Integer;
use super::{Accumulate, Tick, integer};
use crate::model::{FieldType, Value};
use crate::spec::Aggregation;
use crate::window::exact;
use crate::window::natural::{self, Side};

/// Sums of `int64` and `uint64`.
pub(super) struct IntSum<N>(PhantomData<N>);

impl<N: Integer> Accumulate for IntSum<N> {
    const WORDS: usize = 3;

    #[inline]
    fn update(state: &mut [u64], _side: &mut Side, bits: u64, _tick: Tick<'_>) {
        state[0] += 1;
        add(state, N::exact(bits));
    }

    fn merge(state: &mut [u64], _side: &mut Side, closed: &[u64]) {
        if let Some([count, _, _]) = closed.first_chunk() {
            state[0] = state[0].saturating_add(*count);
            add(state, total(closed));
        }
    }

    fn close(state: &mut [u64], _side: &mut Side, out: &mut Vec<u64>) {
        out.extend_from_slice(state);
    }

    fn value(closed: &[u64], _aggregation: Aggregation, ty: FieldType) -> Option<Value> {
        (*closed.first()? != 0).then(|| integer(total(closed), ty))
    }

    fn overflowed(closed: &[u64]) -> bool {
        !(N::RANGE.0..=N::RANGE.1).contains(&total(closed))
    }
}

#[inline]
fn add(state: &mut [u64], value: i128) {
    let sum = total(state).wrapping_add(value) as u128;
    (state[1], state[2]) = (sum as u64, (sum >> 64) as u64);
}

/// The sum in an integer state, open or closed.
#[inline]
pub(super) fn total(state: &[u64]) -> i128 {
    match state {
        [_, low, high, ..] => (u128::from(*high) << 64 | u128::from(*low)) as i128,
        _ => 0,
    }
}

/// Sums of `float64`.
pub(super) struct FloatSum;

/// Header and limbs of one natural number: 320 bits, of which the first value leaves at least 64 below and 140 above.
const NATURAL: usize = 6;
const NAN: u64 = 1;
const INFINITE: u64 = 2;
const MINUS_INFINITE: u64 = 4;

impl Accumulate for FloatSum {
    const WORDS: usize = 2 + 2 * NATURAL;

    #[inline]
    fn update(state: &mut [u64], side: &mut Side, bits: u64, _tick: Tick<'_>) {
        state[0] += 1;
        match parts(bits) {
            Ok((mantissa, shift)) => {
                let at = if bits >> 63 == 0 { 2 } else { 2 + NATURAL };
                natural::add::<2>(&mut state[at..at + NATURAL], side, u128::from(mantissa), shift);
            }
            Err(special) => state[1] |= special,
        }
    }

    fn merge(state: &mut [u64], side: &mut Side, closed: &[u64]) {
        let Some(([count, special], rest)) = closed.split_first_chunk() else { return };
        state[0] = state[0].saturating_add(*count);
        state[1] |= special;
        let rest = natural::merge(&mut state[2..2 + NATURAL], side, rest);
        natural::merge(&mut state[2 + NATURAL..2 + 2 * NATURAL], side, rest);
    }

    fn close(state: &mut [u64], side: &mut Side, out: &mut Vec<u64>) {
        out.extend_from_slice(&state[..2]);
        natural::close(&mut state[2..2 + NATURAL], side, out);
        natural::close(&mut state[2 + NATURAL..2 + 2 * NATURAL], side, out);
    }

    fn closed_len(closed: &[u64]) -> usize {
        let naturals = closed.get(2..).unwrap_or_default();
        closed.len() - natural::split(natural::split(naturals).2).2.len()
    }

    fn value(closed: &[u64], _aggregation: Aggregation, _ty: FieldType) -> Option<Value> {
        let sum = FloatTotal::read(closed)?;
        let size = || exact::to_f64(&sum.size, -1074, false);
        Some(Value::Float(sum.special.unwrap_or_else(|| if sum.negative { -size() } else { size() })))
    }
}

/// A double's size as `mantissa * 2^shift` in units of 2^-1074; an error for what is no number of finite size.
#[inline]
pub(super) fn parts(bits: u64) -> Result<(u64, u32), u64> {
    let field = (bits >> 52) as u32 & 0x7ff;
    let fraction = bits & ((1 << 52) - 1);
    match field {
        0 => Ok((fraction, 0)),
        0x7ff if fraction != 0 => Err(NAN),
        0x7ff => Err(if bits >> 63 == 0 { INFINITE } else { MINUS_INFINITE }),
        _ => Ok((fraction | 1 << 52, field - 1)),
    }
}

/// A closed sum of doubles, read.
pub(super) struct FloatTotal {
    /// How many values.
    pub(super) count: u64,
    /// The result where some value was not finite.
    pub(super) special: Option<f64>,
    /// The size of the finite sum in units of 2^-1074.
    pub(super) size: Vec<u64>,
    /// Whether it is below zero.
    pub(super) negative: bool,
}

impl FloatTotal {
    /// Reads a closed state; `None` where there is no value.
    pub(super) fn read(closed: &[u64]) -> Option<Self> {
        let ([count, special], rest) = closed.split_first_chunk().filter(|([count, _], _)| *count != 0)?;
        let special = match *special {
            0 => None,
            INFINITE => Some(f64::INFINITY),
            MINUS_INFINITE => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        };
        let (positive, rest) = natural::read(rest);
        let (size, negative) = exact::difference(&positive, &natural::read(rest).0);
        Some(Self { count: *count, special, size, negative })
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::AccumulatorKind::Sum;
    use crate::window::accumulators::testing::{Sample, Value::*, check_laws, overflows, value_of};

    #[test]
    fn an_overflow_is_judged_by_the_final_sum_and_shown_clamped() {
        let ticks = [Sample::int(i64::MAX, 0), Sample::int(1, 1), Sample::int(-2, 2)];
        assert_eq!((value_of(Sum, &ticks[..2]), overflows(Sum, &ticks[..2])), (Some(Int(i64::MAX)), true));
        assert_eq!((value_of(Sum, &ticks), overflows(Sum, &ticks)), (Some(Int(i64::MAX - 1)), false));
        let ticks = [Sample::uint(u64::MAX, 0), Sample::uint(1, 1)];
        assert_eq!((value_of(Sum, &ticks), overflows(Sum, &ticks)), (Some(Uint(u64::MAX)), true));
    }

    #[test]
    fn doubles_are_summed_without_any_rounding_on_the_way() {
        let sum = |values: &[f64]| {
            let ticks: Vec<Sample> = values.iter().map(|v| Sample::float(*v, 0)).collect();
            match value_of(Sum, &ticks) {
                Some(Float(v)) => v,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(sum(&[1e300, 1.0, -1e300]), 1.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX, -f64::MAX]), f64::MAX);
        assert_eq!(sum(&[5e-324, 1e308, -1e308]), 5e-324);
        assert_eq!(sum(&[0.1; 10]), 1.0);
        assert_eq!(sum(&[-0.0, -0.0]), 0.0);
        assert_eq!(sum(&[f64::MAX, f64::MAX]), f64::INFINITY);
        assert_eq!(sum(&[f64::NEG_INFINITY, f64::MAX]), f64::NEG_INFINITY);
        assert!(sum(&[f64::NEG_INFINITY, f64::INFINITY]).is_nan());
        assert!(sum(&[f64::NAN, 1.0]).is_nan());
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_an_absent_field_counts_for_nothing() {
        check_laws(Sum);
    }
}
