//! `last`: the value of the last tick by (timestamp, sequence, arrival).
//!
//! Words: timestamp, sequence + 1, arrival, bits. A second word of 0 says that there is no value.

use super::{Accumulate, Tick};
use crate::model::{FieldType, Value};
use crate::spec::Aggregation;
use crate::window::natural::Side;

pub(super) struct Last;

impl Accumulate for Last {
    const WORDS: usize = 4;

    fn init(state: &mut [u64]) {
        state.copy_from_slice(&[i64::MIN as u64, 0, 0, 0]);
    }

    #[inline]
    fn update(state: &mut [u64], _side: &mut Side, bits: u64, tick: Tick<'_>) {
        if tick.timestamp() >= state[0] as i64 && tick.place() >= place(state) {
            state.copy_from_slice(&tick.words(bits));
        }
    }

    fn merge(state: &mut [u64], _side: &mut Side, closed: &[u64]) {
        if let Some(other) = closed.first_chunk::<4>()
            && place(other) >= place(state)
        {
            state.copy_from_slice(other);
        }
    }

    fn close(state: &mut [u64], _side: &mut Side, out: &mut Vec<u64>) {
        out.extend_from_slice(state);
    }

    fn value(closed: &[u64], _aggregation: Aggregation, ty: FieldType) -> Option<Value> {
        let [_, sequence, _, bits] = closed.first_chunk()?;
        (*sequence != 0).then(|| ty.value(*bits))
    }
}

/// What the order goes by.
fn place(state: &[u64]) -> (i64, u64, u64) {
    (state[0] as i64, state[1], state[2])
}

#[cfg(test)]
mod tests {
    use crate::spec::AccumulatorKind::Last;
    use crate::window::accumulators::testing::{Sample, Value::Int, check_laws, value_of};

    #[test]
    fn ties_go_by_timestamp_then_sequence_then_arrival() {
        let ticks = [Sample::int(1, 10), Sample::int(2, 10), Sample::int(3, 5)];
        assert_eq!(value_of(Last, &ticks), Some(Int(2)));
        let ticks = [Sample::int(1, 5).sequence(2), Sample::int(2, 5).sequence(1)];
        assert_eq!(value_of(Last, &ticks), Some(Int(1)));
        assert_eq!(value_of(Last, &[Sample::int(9, i64::MIN)]), Some(Int(9)));
    }

    #[test]
    fn merging_is_the_same_in_any_order_and_an_absent_field_counts_for_nothing() {
        check_laws(Last);
    }
}
