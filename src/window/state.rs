//! What the words of a closed bar mean: adding bars up, reading metrics, changing the spec.

use super::accumulators::{integer, ops};
use super::natural::Side;
use crate::model::{BarFlags, BarHead, Value};
use crate::spec::{Accumulator, Spec};

/// Adds the bar (`head`, `state`) to the bar `into` of the same window, or of the finer window to the coarser. The
/// result does not depend on the order of additions. Identity and revision of `into` stay; a bar is partial, or
/// open-ended, only if both are.
pub fn merge(spec: &Spec, into: &mut (BarHead, Vec<u64>), head: &BarHead, state: &[u64]) {
    let (mut left, mut right) = (&into.1[..], state);
    let (mut side, mut open, mut words) = (Side::default(), Vec::new(), Vec::new());
    let mut overflowed = false;
    for accumulator in &spec.accumulators {
        let (ops, at) = (ops(accumulator), words.len());
        open.clear();
        open.resize(ops.words, 0);
        (ops.init)(&mut open);
        for closed in [&mut left, &mut right] {
            let (own, rest) = ops.split(closed);
            (ops.merge)(&mut open, &mut side, own);
            *closed = rest;
        }
        (ops.close)(&mut open, &mut side, &mut words);
        overflowed |= (ops.overflowed)(&words[at..]);
    }
    let sum = &mut into.0;
    if sum.ticks == 0 {
        (sum.first, sum.last, sum.flags) = (head.first, head.last, head.flags);
    }
    sum.first = sum.first.min(head.first);
    sum.last = sum.last.max(head.last);
    sum.ticks += head.ticks;
    sum.late += head.late;
    sum.covers = sum.covers.max(head.covers);
    for flag in [BarFlags::PARTIAL, BarFlags::OPEN_ENDED] {
        sum.flags.set(flag, sum.flags.contains(flag) && head.flags.contains(flag));
    }
    sum.flags.set(BarFlags::OVERFLOW, overflowed);
    sum.flags.set(BarFlags::REDEFINED, (sum.flags.0 | head.flags.0) & BarFlags::REDEFINED.0 != 0);
    into.1 = words;
}

/// The metrics of a bar, in the spec's order; `None` where no tick of the window carried the field. Integers outside
/// their type are clamped.
pub fn metrics(spec: &Spec, head: &BarHead, state: &[u64]) -> Vec<Option<Value>> {
    let parts = split(&spec.accumulators, state);
    let metric = |metric: &crate::spec::Metric| match metric.accumulator {
        None => Some(integer(i128::from(head.ticks), metric.ty)),
        Some(at) => {
            let (accumulator, part) = (spec.accumulators.get(at)?, parts.get(at)?);
            (ops(accumulator).value)(part, metric.aggregation, metric.ty)
        }
    };
    spec.metrics.iter().map(metric).collect()
}

/// Whether an integer sum of the bar lies outside its type.
pub fn overflowed(spec: &Spec, state: &[u64]) -> bool {
    let parts = split(&spec.accumulators, state);
    spec.accumulators.iter().zip(parts).any(|(accumulator, part)| (ops(accumulator).overflowed)(part))
}

/// A bar stored under the accumulators `from` as one of the accumulators `to`: what both have is kept, the rest is
/// empty.
pub fn convert(from: &[Accumulator], to: &[Accumulator], state: &[u64]) -> Vec<u64> {
    let (parts, mut words) = (split(from, state), Vec::new());
    for accumulator in to {
        match from.iter().position(|known| known == accumulator) {
            Some(at) => words.extend_from_slice(parts[at]),
            None => ops(accumulator).close_empty(&mut words),
        }
    }
    words
}

/// Whether `state` is, to its last word, the closed state of these accumulators.
pub fn fits(accumulators: &[Accumulator], state: &[u64]) -> bool {
    let mut rest = state;
    accumulators.iter().all(|accumulator| {
        let len = ops(accumulator).len_of(rest);
        rest.split_at_checked(len).map(|(_, after)| rest = after).is_some()
    }) && rest.is_empty()
}

/// The closed state of each accumulator.
fn split<'s>(accumulators: &[Accumulator], mut state: &'s [u64]) -> Vec<&'s [u64]> {
    let part = |accumulator| {
        let (own, rest) = ops(accumulator).split(state);
        state = rest;
        own
    };
    accumulators.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Aggregation as A, LatePolicy};
    use crate::window::testing::spec;

    /// A closed state of nothing.
    fn empty(spec: &Spec) -> Vec<u64> {
        convert(&[], &spec.accumulators, &[])
    }

    #[test]
    fn a_bar_without_values_shows_no_metric_but_its_count() {
        let spec =
            spec(&[1], LatePolicy::Amend, &[A::First, A::Min, A::Sum, A::Avg, A::Stddev, A::Quantile(0.5), A::Count]);
        let head = BarHead { ticks: 3, ..BarHead::default() };
        let shown = metrics(&spec, &head, &empty(&spec));
        assert_eq!(shown, [None, None, None, None, None, None, Some(Value::Int(0))]);
    }

    #[test]
    fn a_bar_is_partial_only_while_all_of_it_is() {
        let spec = spec(&[1], LatePolicy::Amend, &[A::Sum]);
        let partial = BarHead { ticks: 1, flags: BarFlags::PARTIAL, ..BarHead::default() };
        let whole = BarHead { flags: BarFlags::default(), ..partial };
        let mut bar = (BarHead { revision: 4, ..BarHead::default() }, vec![]);
        for (head, ticks, is_partial) in
            [(partial, 1, true), (partial, 2, true), (whole, 3, false), (partial, 4, false)]
        {
            merge(&spec, &mut bar, &head, &[1, i64::MAX as u64, 0]);
            assert_eq!((bar.0.ticks, bar.0.flags.contains(BarFlags::PARTIAL)), (ticks, is_partial));
            assert_eq!(bar.0.flags.contains(BarFlags::OVERFLOW), ticks > 1);
            assert_eq!(bar.0.flags.contains(BarFlags::OVERFLOW), overflowed(&spec, &bar.1));
        }
        assert_eq!((bar.0.revision, &bar.1[..1]), (4, &[4][..]));
        let redefined = BarHead { flags: BarFlags::REDEFINED, ..whole };
        for head in [redefined, whole] {
            merge(&spec, &mut bar, &head, &[1, 0, 0]);
            assert!(bar.0.flags.contains(BarFlags::REDEFINED), "once of two definitions, always of two");
        }
    }

    #[test]
    fn a_bar_of_an_older_spec_keeps_what_both_specs_have() {
        let old = spec(&[1], LatePolicy::Amend, &[A::Quantile(0.5), A::Max, A::Count]);
        let new = spec(&[1], LatePolicy::Amend, &[A::Count, A::Sum, A::Quantile(0.5)]);
        let stored = [2, 3, 4, 7 << 46 | 1, 9 << 46 | 1, 5, 1, 2];
        let converted = convert(&old.accumulators, &new.accumulators, &stored);
        assert_eq!(converted, [2, 0, 0, 0, 2, 3, 4, 7 << 46 | 1, 9 << 46 | 1]);
        assert_eq!(metrics(&new, &BarHead::default(), &converted)[..2], [Some(Value::Int(2)), None]);
        assert_eq!(convert(&old.accumulators, &old.accumulators, &stored), stored);
    }
}
