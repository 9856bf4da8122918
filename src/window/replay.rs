//! Replaying the journal after a restart: ticks that stored bars hold already are not counted again.

use super::open::NOWHERE;
use crate::model::{SeriesId, TimeNs};

/// What stored bars hold of the ticks of one finest window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Covered {
    /// Its own bar holds those that arrived before this.
    pub below: u64,
    /// Where its own bar was once lost to damage: the bars above it, the finer first, hold those that arrived before these.
    pub lost: Option<[u64; 3]>,
}

/// Asks for the stored bars of a series and window start.
pub(super) type Lookup = Box<dyn FnMut(SeriesId, TimeNs) -> Covered + Send>;

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
    /// It is in the bar of its window already.
    Covered,
    /// It is to be put into the bar of its window again, whenever it came; from this granularity on bars hold it already.
    Lost(u8),
    /// It is to be taken as any other.
    Fresh,
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

    /// Judges the tick `arrival` of the window at `start`.
    pub(super) fn judge(&mut self, entry: u32, id: SeriesId, start: TimeNs, arrival: u64) -> Judged {
        if arrival >= self.until {
            return Judged::Fresh;
        }
        let entry = entry as usize;
        if self.answers.len() <= entry {
            self.answers.resize(entry + 1, (NO_WINDOW, Covered::default()));
        }
        if self.answers[entry].0 != start {
            self.answers[entry] = (start, (self.lookup)(id, start));
        }
        match self.answers[entry].1 {
            Covered { below, .. } if arrival < below => Judged::Covered,
            Covered { below, lost: Some(above) } => match above.iter().position(|above| arrival < *above) {
                Some(at) => Judged::Lost(at as u8 + 1),
                None if below == 0 => Judged::Lost(NOWHERE),
                None => Judged::Fresh,
            },
            Covered { lost: None, .. } => Judged::Fresh,
        }
    }
}
