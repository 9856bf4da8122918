//! `avg`: the exact sum divided by the count, correctly rounded.
//!
//! The words are those of `sum`, which counts its values already.

use std::marker::PhantomData;

use super::number::Integer;
use super::sum::{FloatSum, FloatTotal, IntSum, total};
use super::{Accumulate, Tick};
use crate::model::{FieldType, Value};
use crate::spec::Aggregation;
use crate::window::exact;
use crate::window::natural::Side;

/// Means of `int64` and `uint64`.
pub(super) struct IntMean<N>(PhantomData<N>);

impl<N: Integer> Accumulate for IntMean<N> {
    const WORDS: usize = IntSum::<N>::WORDS;

    #[inline]
    fn update(state: &mut [u64], side: &mut Side, bits: u64, tick: Tick<'_>) {
        IntSum::<N>::update(state, side, bits, tick);
    }

    fn merge(state: &mut [u64], side: &mut Side, closed: &[u64]) {
        IntSum::<N>::merge(state, side, closed);
    }

    fn close(state: &mut [u64], side: &mut Side, out: &mut Vec<u64>) {
        IntSum::<N>::close(state, side, out);
    }

    fn value(closed: &[u64], _aggregation: Aggregation, _ty: FieldType) -> Option<Value> {
        let count = *closed.first().filter(|count| **count != 0)?;
        let size = limbs(total(closed).unsigned_abs());
        Some(signed(exact::mean(&size, 0, count), total(closed) < 0))
    }
}

/// Means of `float64`; NaN and infinities as in `sum`.
pub(super) struct FloatMean;

impl Accumulate for FloatMean {
    const WORDS: usize = FloatSum::WORDS;

    #[inline]
    fn update(state: &mut [u64], side: &mut Side, bits: u64, tick: Tick<'_>) {
        FloatSum::update(state, side, bits, tick);
    }

    fn merge(state: &mut [u64], side: &mut Side, closed: &[u64]) {
        FloatSum::merge(state, side, closed);
    }

    fn close(state: &mut [u64], side: &mut Side, out: &mut Vec<u64>) {
        FloatSum::close(state, side, out);
    }

    fn closed_len(closed: &[u64]) -> usize {
        FloatSum::closed_len(closed)
    }

    fn value(closed: &[u64], _aggregation: Aggregation, _ty: FieldType) -> Option<Value> {
        let sum = FloatTotal::read(closed)?;
        let mean = || signed(exact::mean(&sum.size, -1074, sum.count), sum.negative);
        Some(sum.special.map_or_else(mean, Value::Float))
    }
}

/// The two limbs of a 128-bit number.
pub(super) fn limbs(number: u128) -> [u64; 2] {
    [number as u64, (number >> 64) as u64]
}

fn signed(size: f64, negative: bool) -> Value {
    Value::Float(if negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use crate::spec::AccumulatorKind::Mean;
    use crate::window::accumulators::testing::{Sample, Value::Float, check_laws, value_of};

    #[test]
    fn the_mean_is_rounded_once() {
        let ints = [Sample::int(-1, 0), Sample::int(-1, 0), Sample::int(1, 0)];
        assert_eq!(value_of(Mean, &ints), Some(Float(-1.0 / 3.0)));
        let large = [Sample::uint(u64::MAX, 0), Sample::uint(u64::MAX, 0)];
        assert_eq!(value_of(Mean, &large), Some(Float(u64::MAX as f64)));
        let largest = [Sample::float(f64::MAX, 0), Sample::float(f64::MAX, 0)];
        assert_eq!(value_of(Mean, &largest), Some(Float(f64::MAX)));
        assert_eq!(value_of(Mean, &[Sample::float(0.1, 0); 3]), Some(Float(0.1)));
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_an_absent_field_counts_for_nothing() {
        check_laws(Mean);
    }
}
