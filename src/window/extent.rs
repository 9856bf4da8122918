//! What every window gathers, whatever its metrics: how many ticks, and the lowest and highest event time.
//!
//! Three words at the front of its states: the tick that updates the one finds the others in the cache.

use super::accumulators::{Placed, piece_of};
use crate::model::TimeNs;

/// How many words it takes.
pub(super) const WORDS: usize = 3;

/// Ticks, first and last event time of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) ticks: u64,
    pub(super) first: TimeNs,
    pub(super) last: TimeNs,
}

impl Extent {
    /// No tick.
    pub(super) const EMPTY: Self = Self { ticks: 0, first: TimeNs::MAX, last: TimeNs::MIN };

    /// Reads what [`Extent::write`] wrote.
    pub(super) fn read(words: &[u64]) -> Self {
        match words {
            [ticks, first, last, ..] => Self { ticks: *ticks, first: *first as i64, last: *last as i64 },
            _ => Self::EMPTY,
        }
    }

    /// Writes it to the first words of a window's states.
    pub(super) fn write(self, words: &mut [u64]) {
        words[..WORDS].copy_from_slice(&[self.ticks, self.first as u64, self.last as u64]);
    }

    /// Both.
    #[inline]
    pub(super) fn merge(self, other: Self) -> Self {
        Self { ticks: self.ticks + other.ticks, first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Adds ticks to the extents of their windows.
pub(super) fn update(words: &mut [u64], placed: Placed<'_>, times: &[TimeNs]) {
    let mut add = |place: u32, time: TimeNs| {
        let words = &mut words[place as usize..place as usize + WORDS];
        Extent::read(words).merge(Extent { ticks: 1, first: time, last: time }).write(words);
    };
    if let Some(times) = piece_of(placed.rows, times) {
        placed.places.iter().zip(times).for_each(|(place, time)| add(*place, *time));
    } else {
        placed.places.iter().zip(placed.rows).for_each(|(place, row)| add(*place, times[*row as usize]));
    }
}
