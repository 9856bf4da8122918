//! What is worth keeping of the bars that pass: the newest finest bar of each of a bounded number of series.

use foldhash::{HashMap, HashMapExt};

use crate::model::time::MINUTE;
use crate::model::{BarBatch, BarHead, SeriesId, SpecId, TimeNs};

/// The most series kept per spec: more than any terminal has lines.
pub const MOST_SERIES: usize = 512;
/// When there are more, a series this far behind the newest bar of its spec makes room.
const STALE: TimeNs = MINUTE;

/// The newest finest bars, by spec and series.
#[derive(Debug, Default)]
pub struct Board {
    specs: Vec<Newest>,
}

#[derive(Debug, Default)]
struct Newest {
    bars: HashMap<SeriesId, Kept>,
    start: Option<TimeNs>,
}

/// One bar with its accumulators' state.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The bar.
    pub head: BarHead,
    /// Its state, as `window::state::metrics` takes it.
    pub state: Vec<u64>,
}

/// Bars that went by, of all granularities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Stored for the first time.
    pub bars: u64,
    /// Stored again with a higher revision.
    pub amendments: u64,
    /// Batches that went by too fast to be looked at: the other two are then too low.
    pub missed_batches: u64,
}

impl Tally {
    /// What went by then and here.
    pub fn plus(&self, more: &Self) -> Self {
        Self {
            bars: self.bars + more.bars,
            amendments: self.amendments + more.amendments,
            missed_batches: self.missed_batches + more.missed_batches,
        }
    }
}

impl Board {
    /// An empty board for spec numbers below `specs`.
    pub fn new(specs: usize) -> Self {
        let newest = || Newest { bars: HashMap::new(), start: None };
        Self { specs: (0..specs).map(|_| newest()).collect() }
    }

    /// Keeps what is newer than what is kept.
    pub fn take(&mut self, bars: &BarBatch) {
        let Some(newest) = self.specs.get_mut(bars.spec.0 as usize) else { return };
        for head in bars.heads.iter().filter(|head| head.granularity == 0) {
            newest.start = newest.start.max(Some(head.start));
            if let Some(kept) = newest.bars.get_mut(&head.series) {
                if (kept.head.start, kept.head.revision) <= (head.start, head.revision) {
                    kept.head = *head;
                    kept.state.clear();
                    kept.state.extend_from_slice(bars.state(head));
                }
            } else if newest.bars.len() < MOST_SERIES {
                newest.bars.insert(head.series, Kept { head: *head, state: bars.state(head).to_vec() });
            }
        }
    }

    /// The bars kept of `spec`, in no order. Where there is no room for further series the silent ones are forgotten
    /// first.
    pub fn newest(&mut self, spec: SpecId) -> impl Iterator<Item = &Kept> {
        let newest = self.specs.get_mut(spec.0 as usize);
        newest.into_iter().flat_map(|newest| {
            if newest.bars.len() >= MOST_SERIES {
                let oldest = newest.start.map_or(TimeNs::MIN, |start| start.saturating_sub(STALE));
                newest.bars.retain(|_, kept| kept.head.start >= oldest);
            }
            newest.bars.values()
        })
    }
}

impl Tally {
    /// Counts the bars of a batch.
    pub fn count(&mut self, bars: &BarBatch) {
        let amendments = bars.heads.iter().filter(|head| head.revision > 0).count() as u64;
        self.amendments += amendments;
        self.bars += bars.len() as u64 - amendments;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::SECOND;

    fn batch(bars: &[(u32, TimeNs, u32)]) -> BarBatch {
        let mut batch = BarBatch::new(SpecId(0));
        for (series, start, revision) in bars {
            let head = BarHead { series: SeriesId(*series), start: *start, revision: *revision, ..BarHead::default() };
            batch.push(head, &[*start as u64]);
        }
        batch
    }

    #[test]
    fn of_each_series_the_newest_finest_bar_is_kept() {
        let mut board = Board::new(1);
        let mut bars = batch(&[(1, 5, 0), (1, 4, 3), (2, 1, 0), (1, 5, 1)]);
        bars.push(BarHead { series: SeriesId(1), start: 9, granularity: 1, ..BarHead::default() }, &[]);
        board.take(&bars);
        let mut kept: Vec<_> = board.newest(SpecId(0)).map(|k| (k.head.series.0, k.head.revision, &k.state)).collect();
        kept.sort_unstable();
        assert_eq!(kept, [(1, 1, &vec![5]), (2, 0, &vec![1])]);
    }

    #[test]
    fn a_million_series_cost_no_more_than_the_first_few() {
        let mut board = Board::new(1);
        let all: Vec<_> = (0..1_000_000).map(|series| (series, 0, 0)).collect();
        board.take(&batch(&all));
        assert_eq!(board.newest(SpecId(0)).count(), MOST_SERIES);
    }

    #[test]
    fn silent_series_make_room_for_others() {
        let mut board = Board::new(1);
        let old: Vec<_> = (0..600).map(|series| (series, 0, 0)).collect();
        board.take(&batch(&old));
        board.take(&batch(&[(1, 61 * SECOND, 0), (700, 61 * SECOND, 0)]));
        assert_eq!(board.newest(SpecId(0)).count(), 1);
        board.take(&batch(&[(700, 61 * SECOND, 0)]));
        assert_eq!(board.newest(SpecId(0)).count(), 2);
    }

    #[test]
    fn amendments_are_counted_apart() {
        let mut tally = Tally::default();
        tally.count(&batch(&[(1, 0, 0), (1, 0, 1), (2, 0, 0)]));
        assert_eq!((tally.bars, tally.amendments), (2, 1));
    }
}
