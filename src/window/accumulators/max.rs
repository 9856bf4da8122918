//! `max`: the highest value; doubles by IEEE 754 total order (+0 above -0), NaN only where there is nothing else.
//!
//! Words: the rank of the value, 1 where there is one.

use std::marker::PhantomData;

use super::number::Number;
use super::{Accumulate, Tick};
use crate::model::{FieldType, Value};
use crate::spec::Aggregation;
use crate::window::natural::Side;

pub(super) struct Max<N>(PhantomData<N>);

impl<N: Number> Accumulate for Max<N> {
    const WORDS: usize = 2;

    #[inline]
    fn update(state: &mut [u64], _side: &mut Side, bits: u64, _tick: Tick<'_>) {
        // As the lowest rank, a NaN gives way to any number.
        let rank = if N::is_nan(bits) { 0 } else { N::rank(bits) };
        state[0] = state[0].max(rank);
        state[1] = 1;
    }

    fn merge(state: &mut [u64], _side: &mut Side, closed: &[u64]) {
        if let Some([rank, seen]) = closed.first_chunk() {
            state[0] = state[0].max(*rank);
            state[1] |= seen;
        }
    }

    fn close(state: &mut [u64], _side: &mut Side, out: &mut Vec<u64>) {
        out.extend_from_slice(state);
    }

    fn value(closed: &[u64], _aggregation: Aggregation, ty: FieldType) -> Option<Value> {
        let [rank, seen] = closed.first_chunk()?;
        let bits = N::unrank(*rank);
        let bits = if N::is_nan(bits) { f64::NAN.to_bits() } else { bits };
        (*seen != 0).then(|| ty.value(bits))
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::AccumulatorKind::Max;
    use crate::window::accumulators::testing::{Sample, Value::*, check_laws, value_of};

    #[test]
    fn the_highest_value_of_each_type_wins() {
        assert_eq!(value_of(Max, &[Sample::int(3, 0), Sample::int(i64::MIN, 1)]), Some(Int(3)));
        assert_eq!(value_of(Max, &[Sample::int(i64::MIN, 0)]), Some(Int(i64::MIN)));
        assert_eq!(value_of(Max, &[Sample::uint(0, 0)]), Some(Uint(0)));
        assert_eq!(value_of(Max, &[Sample::float(0.0, 0), Sample::float(-0.0, 1)]), Some(Float(0.0)));
    }

    #[test]
    fn nan_is_the_result_only_where_there_is_nothing_else() {
        for nan in [f64::NAN, -f64::NAN] {
            let ticks = [Sample::float(nan, 0), Sample::float(f64::NEG_INFINITY, 1)];
            assert_eq!(value_of(Max, &ticks), Some(Float(f64::NEG_INFINITY)));
            assert!(matches!(value_of(Max, &ticks[..1]), Some(Float(v)) if v.is_nan()));
        }
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_an_absent_field_counts_for_nothing() {
        check_laws(Max);
    }
}
