//! How far a follower of the outbox has come: the positions it has not settled.
//!
//! Normally that is one range, from the first unsettled position on, without an end. Where newer bars overtook older ones
//! there are more. Their number is bounded: beyond [`MOST`] the two closest become one, and what lies between them is
//! outstanding once more, so that it may arrive twice but never not at all.

use serde::{Deserialize, Serialize};

/// The most ranges.
pub const MOST: usize = 64;

/// Ascending ranges `[from, to)` of outstanding positions, none empty, none touching the next; the last one is open: its
/// end is `u64::MAX`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor {
    ranges: Vec<(u64, u64)>,
}

impl Cursor {
    /// Everything from `position` on.
    pub fn starting_at(position: u64) -> Self {
        Self { ranges: vec![(position.min(u64::MAX - 1), u64::MAX)] }
    }

    /// Reads what [`Cursor::to_text`] wrote; `None` where that is no cursor.
    pub fn from_text(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        read.is_sound().then_some(read)
    }

    /// As JSON: `[[from, to], …]`.
    pub fn to_text(&self) -> String {
        // Pairs of numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it is what every cursor is.
    pub fn is_sound(&self) -> bool {
        let filled = self.ranges.iter().all(|(from, to)| from < to);
        let apart = self.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
        filled && apart && self.ranges.len() <= MOST && self.ranges.last().is_some_and(|last| last.1 == u64::MAX)
    }

    /// The outstanding ranges.
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// The lowest outstanding position.
    pub fn lowest(&self) -> u64 {
        self.ranges.first().map_or(u64::MAX, |range| range.0)
    }

    /// Whether `position` is outstanding.
    pub fn contains(&self, position: u64) -> bool {
        let at = self.ranges.partition_point(|range| range.1 <= position);
        self.ranges.get(at).is_some_and(|range| range.0 <= position)
    }

    /// The first outstanding positions at or above `from`.
    pub fn next(&self, from: u64) -> (u64, u64) {
        let found = self.ranges.iter().find(|range| range.1 > from);
        found.map_or((from, u64::MAX), |range| (range.0.max(from), range.1))
    }

    /// Settles `[from, to)`, which has an end; what is settled already stays so. True where that was one range too many,
    /// so that settled positions are outstanding again.
    pub fn settle(&mut self, from: u64, to: u64) -> bool {
        let to = to.min(u64::MAX - 1);
        if let Some(first) = self.ranges.first_mut()
            && from <= first.0
            && to < first.1
        {
            // What comes in order, which is nearly all.
            first.0 = first.0.max(to);
            return false;
        }
        let parts = |(start, end): &(u64, u64)| [(*start, (*end).min(from)), ((*start).max(to), *end)];
        self.ranges = match from < to {
            true => self.ranges.iter().flat_map(parts).filter(|(start, end)| start < end).collect(),
            false => return false,
        };
        let is_over = self.ranges.len() > MOST;
        self.join_down_to(MOST);
        is_over
    }

    /// Leaves only what is outstanding in both.
    pub fn intersect(&mut self, other: &Self) {
        let mut before = 0;
        for (from, to) in &other.ranges {
            self.settle(before, *from);
            before = *to;
        }
    }

    /// The same with at most `most` ranges: what lies between those that become one is outstanding once more.
    pub fn coarsened(mut self, most: usize) -> Self {
        self.join_down_to(most.max(1));
        self
    }

    /// Makes one of the two closest ranges until there are no more than `most`.
    fn join_down_to(&mut self, most: usize) {
        while self.ranges.len() > most {
            let gap = |at: &usize| self.ranges[at + 1].0 - self.ranges[*at].1;
            let Some(at) = (0..self.ranges.len() - 1).min_by_key(gap) else { return };
            let (_, to) = self.ranges.remove(at + 1);
            self.ranges[at].1 = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const END: u64 = 400;

    fn outstanding(cursor: &Cursor) -> BTreeSet<u64> {
        (0..END).filter(|position| cursor.contains(*position)).collect()
    }

    proptest! {
        #[test]
        fn whatever_the_order_what_is_settled_is_gone_and_the_rest_is_not(
            settled in prop::collection::vec((0..END, 0..40u64), 0..60),
        ) {
            let (mut cursor, mut model) = (Cursor::starting_at(10), (10..END).collect::<BTreeSet<_>>());
            for (from, len) in settled {
                prop_assert!(!cursor.settle(from, from + len));
                model.retain(|position| !(from..from + len).contains(position));
                prop_assert!(cursor.is_sound(), "{cursor:?}");
                prop_assert_eq!(outstanding(&cursor), model.clone());
                let lowest = model.first().copied().unwrap_or(cursor.lowest());
                prop_assert_eq!(cursor.lowest(), lowest);
            }
            prop_assert_eq!(Cursor::from_text(&cursor.to_text()), Some(cursor));
        }

        #[test]
        fn however_scattered_it_stays_small_and_forgets_nothing(settled in prop::collection::vec(0..END, 0..400)) {
            let (mut cursor, mut model) = (Cursor::starting_at(0), (0..END).collect::<BTreeSet<_>>());
            for position in settled {
                cursor.settle(position, position + 1);
                model.remove(&position);
            }
            prop_assert!(cursor.is_sound(), "{cursor:?}");
            prop_assert!(outstanding(&cursor).is_superset(&model));
            let coarse = cursor.clone().coarsened(3);
            prop_assert!(coarse.is_sound() && coarse.ranges().len() <= 3, "{coarse:?}");
            prop_assert!(outstanding(&coarse).is_superset(&outstanding(&cursor)));
            prop_assert_eq!(coarse.lowest(), cursor.lowest());
        }

        #[test]
        fn of_two_only_what_neither_has_settled_is_left(
            one in prop::collection::vec((0..END, 0..40u64), 0..20),
            other in prop::collection::vec((0..END, 0..40u64), 0..20),
        ) {
            let of = |settled: Vec<(u64, u64)>| {
                let mut cursor = Cursor::starting_at(0);
                settled.into_iter().for_each(|(from, len)| _ = cursor.settle(from, from + len));
                cursor
            };
            let (mut one, other) = (of(one), of(other));
            let expected: BTreeSet<_> = outstanding(&one).intersection(&outstanding(&other)).copied().collect();
            one.intersect(&other);
            prop_assert_eq!(outstanding(&one), expected);
        }

        #[test]
        fn no_text_is_taken_for_a_cursor_that_is_none(text in "[\\[\\]0-9, ]{0,30}") {
            prop_assert!(Cursor::from_text(&text).is_none_or(|cursor| cursor.is_sound()));
        }
    }
}
