//! Replaying the journal after a restart: ticks that stored bars hold already are not counted again.

use crate::model::{SeriesId, TimeNs};

/// Asks for the stored bar of a series and window start: it holds the window's ticks that arrived before the answer.
/// `None` where there is none.
pub(super) type Lookup = Box<dyn FnMut(SeriesId, TimeNs) -> Option<u64> + Send>;

/// A replay under way.
pub(super) struct Replay {
    lookup: Lookup,
    until: u64,
    /// By series entry: the last answer and the window it was about, so that a window costs one question.
    answers: Vec<(TimeNs, u64)>,
}

/// No window starts here, as windows have a length.
const NO_WINDOW: TimeNs = TimeNs::MAX;

impl Replay {
    /// A replay of the arrivals below `until`.
    pub(super) fn new(lookup: Lookup, until: u64) -> Self {
        Self { lookup, until, answers: Vec::new() }
    }

    /// Whether a batch that begins at `arrival` is still part of it.
    pub(super) fn includes(&self, arrival: u64) -> bool {
        arrival < self.until
    }

    /// Whether the tick `arrival` of the window at `start` is in a stored bar already.
    pub(super) fn is_covered(&mut self, entry: u32, id: SeriesId, start: TimeNs, arrival: u64) -> bool {
        if arrival >= self.until {
            return false;
        }
        let entry = entry as usize;
        if self.answers.len() <= entry {
            self.answers.resize(entry + 1, (NO_WINDOW, 0));
        }
        if self.answers[entry].0 != start {
            self.answers[entry] = (start, (self.lookup)(id, start).unwrap_or(0));
        }
        arrival < self.answers[entry].1
    }
}
