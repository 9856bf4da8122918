//! `count` of a field: how many ticks carry it. (`count` without a field is the bar's tick count.)
//!
//! One word. Unlike every other metric it is never absent: no tick is a count of 0.

use super::{Accumulate, Tick, integer};
use crate::model::{FieldType, Value};
use crate::spec::Aggregation;
use crate::window::natural::Side;

pub(super) struct Count;

impl Accumulate for Count {
    const WORDS: usize = 1;

    #[inline]
    fn update(state: &mut [u64], _side: &mut Side, _bits: u64, _tick: Tick<'_>) {
        state[0] += 1;
    }

    fn merge(state: &mut [u64], _side: &mut Side, closed: &[u64]) {
        if let Some(count) = closed.first() {
            state[0] = state[0].saturating_add(*count);
        }
    }

    fn close(state: &mut [u64], _side: &mut Side, out: &mut Vec<u64>) {
        out.extend_from_slice(state);
    }

    fn value(closed: &[u64], _aggregation: Aggregation, ty: FieldType) -> Option<Value> {
        closed.first().map(|count| integer(i128::from(*count), ty))
    }
}

#[cfg(test)]
mod tests {
    use crate::spec::AccumulatorKind::Count;
    use crate::window::accumulators::testing::{Sample, Value::Int, check_laws, value_of};

    #[test]
    fn only_ticks_that_carry_the_field_are_counted() {
        assert_eq!(value_of(Count, &[Sample::int(0, 0), Sample::int(0, 0), Sample::absent(1)]), Some(Int(2)));
        assert_eq!(value_of(Count, &[]), Some(Int(0)));
    }

    #[test]
    fn merging_is_the_same_in_any_order() {
        check_laws(Count);
    }
}
