//! Replaying the journal after a restart: ticks that stored bars hold already are not counted again.

use crate::model::{SeriesId, TimeNs};

/// What a stored bar says about the ticks of its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// The bar holds the window's ticks that arrived before this.
    pub below: u64,
    /// Whether the window had closed; not so where a shutdown stored it early.
    pub closed: bool,
}

/// Asks for the stored bar of a series and window start; `None` where there is none.
pub(super) type Lookup = Box<dyn FnMut(SeriesId, TimeNs) -> Option<Covered> + Send>;

/// A replay under way.
pub(super) struct Replay {
    lookup: Lookup,
    until: u64,
    /// By series entry: the last answer and the window it was about, so that a window costs one question.
    answers: Vec<(TimeNs, Covered)>,
}

/// Where a replayed tick stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is in a stored bar already.
    Covered,
    /// It is in none, but its window had closed before it came.
    Closed,
    /// It is to be taken as any other.
    Fresh,
}

/// No window starts here, as windows have a length.
const NO_WINDOW: TimeNs = TimeNs::MAX;
const NO_BAR: Covered = Covered { below: 0, closed: false };

impl Replay {
    /// A replay of the arrivals below `until`.
    pub(super) fn new(lookup: Lookup, until: u64) -> Self {
        Self { lookup, until, answers: Vec::new() }
    }

    /// Whether a batch that begins at `arrival` is still part of it.
    pub(super) fn includes(&self, arrival: u64) -> bool {
        arrival < self.until
    }

    /// Judges the tick `arrival` of the window at `start`.
    pub(super) fn judge(&mut self, entry: u32, id: SeriesId, start: TimeNs, arrival: u64) -> Judged {
        if arrival >= self.until {
            return Judged::Fresh;
        }
        let entry = entry as usize;
        if self.answers.len() <= entry {
            self.answers.resize(entry + 1, (NO_WINDOW, NO_BAR));
        }
        if self.answers[entry].0 != start {
            self.answers[entry] = (start, (self.lookup)(id, start).unwrap_or(NO_BAR));
        }
        match self.answers[entry].1 {
            covered if arrival < covered.below => Judged::Covered,
            Covered { closed: true, .. } => Judged::Closed,
            Covered { closed: false, .. } => Judged::Fresh,
        }
    }
}
