//! The open windows of one spec on one aggregator instance: ticks in, closed windows out.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::accumulators::Placed;
use super::deadlines::{Deadlines, Oldest};
use super::open::Open;
use super::place::Placing;
use super::replay::{Lookup, Replay};
use super::series::Table;
use crate::model::{BarBatch, DurationNs, Rows, SeriesId, TickBatch, TickSlice, TimeNs};
use crate::spec::Spec;

/// Rows that go through placing and updating together, so that their windows stay in the cache between the two.
pub(super) const BLOCK: usize = 512;

/// Open windows of one spec on one aggregator instance.
///
/// What goes out are increments: per granularity every tick is in exactly one emitted window, and the emitted windows
/// of one (series, granularity, start) add up by [`merge`](super::state::merge).
pub struct Windows {
    pub(super) spec: Arc<Spec>,
    /// Length of the finest windows.
    pub(super) length: DurationNs,
    pub(super) series: Table,
    pub(super) open: Open,
    pub(super) deadlines: Deadlines,
    pub(super) oldest: Oldest,
    pub(super) replay: Option<Replay>,
    /// Entries of series whose watermark has passed the end of an open window.
    pub(super) ripe: Vec<u32>,
    /// The arrival number after the last tick seen.
    pub(super) arrived: u64,
    /// Ticks in open windows of the finest granularity.
    pub(super) open_ticks: u64,
    /// No open coarser window starts before this.
    pub(super) cascade_from: TimeNs,
    /// Of the slice being applied: by series entry and window start, the arrival number of the first late tick that was
    /// kept out of a window still open. What comes after it is in no bar.
    pub(super) kept_out: HashMap<(u32, TimeNs), u64, FixedState>,
    /// Per granularity: windows that start before this may lack ticks from before the spec had it.
    pub(super) complete_from: Vec<TimeNs>,
    /// Scratch: the ticks of one block that have a window.
    pub(super) placing: Box<Placing>,
    /// Scratch: windows about to close, and the closed state of one.
    pub(super) closing: Vec<u32>,
    pub(super) words: Vec<u64>,
}

/// What became of the ticks of a slice that went into no window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Rows of late ticks that went into no window, under `late: drop` and `late: side_output`, ascending.
    pub late_rows: Vec<u32>,
    /// Replayed ticks that stored bars hold already.
    pub skipped: u64,
}

impl Windows {
    /// No windows.
    pub fn new(spec: Arc<Spec>) -> Self {
        Self {
            length: spec.granularities.first().map_or(crate::model::time::SECOND, |finest| finest.length),
            open: Open::new(&spec.accumulators),
            spec,
            series: Table::default(),
            deadlines: Deadlines::default(),
            oldest: Oldest::default(),
            replay: None,
            ripe: Vec::new(),
            arrived: 0,
            open_ticks: 0,
            cascade_from: TimeNs::MAX,
            kept_out: HashMap::default(),
            complete_from: Vec::new(),
            placing: Box::new(Placing::new()),
            closing: Vec::new(),
            words: Vec::new(),
        }
    }

    /// Takes in ticks at wall time `now`, then closes the windows whose end their series' watermark has passed, and
    /// what is due by wall time. Closed windows go to `out`, a batch of this spec.
    pub fn apply(&mut self, slice: &TickSlice, now: TimeNs, out: &mut BarBatch) -> Applied {
        let (batch, mut applied) = (&*slice.batch, Applied::default());
        self.replay = self.replay.take().filter(|replay| replay.includes(slice.offset));
        // Without a journal nobody numbers the ticks: then they count in the order they come here.
        let offset = slice.offset.max(self.arrived);
        match &slice.rows {
            Rows::All => {
                let (rows, mut block) = (batch.len() as u32, [0; BLOCK]);
                for from in (0..rows).step_by(BLOCK) {
                    let len = BLOCK.min((rows - from) as usize);
                    (from..).zip(&mut block[..len]).for_each(|(row, place)| *place = row);
                    self.apply_block((batch, offset), &block[..len], now, &mut applied);
                }
            }
            Rows::Picked(rows) => {
                for rows in rows.chunks(BLOCK) {
                    self.apply_block((batch, offset), rows, now, &mut applied);
                }
            }
        }
        self.arrived = offset + batch.len() as u64;
        if self.replay.is_some() {
            // These ticks came when nobody was silent yet.
            self.close_passed(now, out);
        } else {
            self.close_due(now, out);
        }
        self.kept_out.clear();
        applied
    }

    fn apply_block(&mut self, batch: (&TickBatch, u64), rows: &[u32], now: TimeNs, applied: &mut Applied) {
        self.place(batch, rows, now, applied);
        let Placing { rows, places, len } = &*self.placing;
        self.open_ticks += *len as u64;
        self.open.update(batch.0, Placed { rows: &rows[..*len], places: &places[..*len], offset: batch.1 });
    }

    /// The series of these ticks that have not been seen yet, ascending.
    pub fn strangers(&self, slice: &TickSlice) -> Vec<SeriesId> {
        let series = &slice.batch.series;
        let unseen = |id: &u32| !self.series.knows(*id);
        let mut strangers: Vec<u32> = match &slice.rows {
            Rows::All => series.iter().copied().filter(unseen).collect(),
            Rows::Picked(rows) => rows.iter().map(|row| series[*row as usize]).filter(unseen).collect(),
        };
        strangers.sort_unstable();
        strangers.dedup();
        strangers.into_iter().map(SeriesId).collect()
    }

    /// Whether a series has been seen.
    pub fn knows(&self, series: SeriesId) -> bool {
        self.series.knows(series.0)
    }

    /// Sets the clock of a series forward to an event time it is known to have reached. To be called before any of its ticks.
    pub fn wind(&mut self, series: SeriesId, high: TimeNs) {
        let entry = self.series.find(series.0);
        let series = self.series.get(entry);
        series.high = series.high.max(high);
    }

    /// For a replay after a restart: until the arrival `until`, skips ticks that a stored bar covers. `lookup` tells of the
    /// stored bars of a series and (finest) window start.
    pub fn set_covered(&mut self, lookup: Lookup, until: u64) {
        self.replay = Some(Replay::new(lookup, until));
    }

    /// Says that the replay is over: all ticks that arrived before `until` have been applied, if they were of these series.
    pub fn end_replay(&mut self, until: u64) {
        self.arrived = self.arrived.max(until);
        self.replay = None;
    }

    /// Windows that start before these times, one per granularity, may lack ticks from before the spec had that granularity:
    /// their bars say so.
    pub fn set_complete_from(&mut self, times: Vec<TimeNs>) {
        self.complete_from = times;
    }

    /// The wall time at which [`close_due`](Self::close_due) next has something to look at.
    pub fn next_deadline(&self) -> Option<TimeNs> {
        self.deadlines.next()
    }

    /// Ticks in open windows of the finest granularity.
    pub fn open_ticks(&self) -> u64 {
        self.open_ticks
    }

    /// How many windows are open, of all granularities.
    pub fn open_windows(&self) -> usize {
        self.open.len()
    }

    /// How many series have been seen.
    pub fn series(&self) -> usize {
        self.series.len()
    }

    /// A time before which no open coarser window starts: those are added up from stored finer bars if this process dies
    /// now. It only falls, until it is [measured](Self::measure_cascade) anew.
    pub fn cascade_from(&self) -> TimeNs {
        self.cascade_from
    }

    /// Raises [`cascade_from`](Self::cascade_from) to the start of the oldest open coarser window. Looks at every window.
    pub fn measure_cascade(&mut self) {
        if self.cascade_from < TimeNs::MAX {
            self.cascade_from = self.open.starts_of_coarser().min().unwrap_or(TimeNs::MAX);
        }
    }

    /// The lowest arrival number in an open window of the finest granularity: from here on the journal must be replayed
    /// if this process dies now. `None` when no such window is open.
    pub fn replay_from(&self) -> Option<u64> {
        self.oldest.arrival()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::{MILLISECOND, SECOND};
    use crate::model::{BarFlags, BarHead, SpecId, Value};
    use crate::spec::{Aggregation, LatePolicy};
    use crate::window::state;
    use crate::window::testing::spec;

    /// Ticks (series, time) with values 1, 2, 3 …, the first of which arrived as `offset`.
    fn ticks(rows: &[(u32, i64)], offset: u64) -> TickSlice {
        let mut batch = TickBatch::new(SpecId(0), 1);
        batch.series = rows.iter().map(|row| row.0).collect();
        batch.timestamps = rows.iter().map(|row| row.1).collect();
        batch.fields[0].bits = (1..=rows.len() as u64).collect();
        TickSlice::whole(Arc::new(batch), offset)
    }

    fn closed(run: impl FnOnce(&mut BarBatch)) -> Vec<BarHead> {
        let mut out = BarBatch::default();
        run(&mut out);
        out.heads
    }

    const ONE: &[i64] = &[SECOND];

    #[test]
    fn the_last_bar_of_a_silent_series_appears_in_time() {
        let mut windows = Windows::new(spec(ONE, LatePolicy::Amend, &[Aggregation::Sum]));
        let arrived = SECOND - 100 * MILLISECOND;
        assert!(closed(|out| drop(windows.apply(&ticks(&[(0, 1)], 0), arrived, out))).is_empty());
        assert!(closed(|out| windows.close_due(2 * SECOND - 1, out)).is_empty());
        let deadline = windows.next_deadline().unwrap();
        assert!((2 * SECOND..2 * SECOND + 100 * MILLISECOND).contains(&deadline));
        assert_eq!(closed(|out| windows.close_due(deadline, out)).len(), 1);
        assert_eq!((windows.next_deadline(), windows.replay_from()), (None, None));
        // The series' clock has been moved on: what comes for that window now is late.
        windows.apply(&ticks(&[(0, 2)], 1), deadline, &mut BarBatch::default());
        let amended = closed(|out| windows.close_all(deadline, out));
        assert_eq!((amended[0].ticks, amended[0].late), (1, 1));
    }

    #[test]
    fn a_series_that_still_sends_is_not_silent() {
        let mut windows = Windows::new(spec(ONE, LatePolicy::Amend, &[Aggregation::Sum]));
        for step in 0..10 {
            let now = SECOND + step * 500 * MILLISECOND;
            assert!(closed(|out| drop(windows.apply(&ticks(&[(0, step)], 0), now, out))).is_empty());
        }
        assert_eq!(closed(|out| windows.close_due(10 * SECOND, out))[0].ticks, 10);
    }

    #[test]
    fn late_ticks_are_gathered_before_they_amend_every_granularity_above() {
        let mut windows = Windows::new(spec(&[SECOND, 5 * SECOND], LatePolicy::Amend, &[Aggregation::Sum]));
        let first = closed(|out| drop(windows.apply(&ticks(&[(0, 0), (0, 6 * SECOND)], 0), 0, out)));
        assert_eq!(first.iter().map(|head| (head.granularity, head.ticks)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
        assert!(first.iter().all(|head| head.covers == 2));
        for (offset, now) in [(2, 10), (3, 100 * MILLISECOND)] {
            assert!(closed(|out| drop(windows.apply(&ticks(&[(0, 1)], offset), now, out))).is_empty());
        }
        assert_eq!(windows.replay_from(), Some(1));
        let amended = closed(|out| windows.close_due(10 + 200 * MILLISECOND + 20 * MILLISECOND, out));
        let facts: Vec<_> = amended.iter().map(|h| (h.granularity, h.start, h.ticks, h.late, h.covers)).collect();
        assert_eq!(facts, [(0, 0, 2, 2, 4), (1, 0, 2, 2, 4)]);
    }

    #[test]
    fn a_shutdown_marks_windows_that_had_not_ended() {
        let mut windows = Windows::new(spec(&[SECOND, 5 * SECOND], LatePolicy::Amend, &[Aggregation::Sum]));
        windows.apply(&ticks(&[(0, SECOND), (1, 3 * SECOND)], 0), 0, &mut BarBatch::default());
        let heads = closed(|out| windows.close_all(2 * SECOND, out));
        let partial = |h: &BarHead| (h.series.0, h.granularity, h.flags.contains(BarFlags::PARTIAL));
        let mut facts: Vec<_> = heads.iter().map(partial).collect();
        facts.sort_unstable();
        assert_eq!(facts, [(0, 0, false), (0, 1, true), (1, 0, true), (1, 1, true)]);
    }

    #[test]
    fn memory_comes_back_after_a_burst_and_what_is_open_stays_open() {
        let mut windows = Windows::new(spec(ONE, LatePolicy::Amend, &[Aggregation::Sum, Aggregation::Quantile(0.5)]));
        let burst: Vec<(u32, i64)> = (0..20_000).map(|series| (series, 0)).collect();
        windows.apply(&ticks(&burst, 0), 0, &mut BarBatch::default());
        windows.apply(&ticks(&[(19_999, 1), (7, 1)], 20_000), 3 * SECOND / 2, &mut BarBatch::default());
        assert_eq!(closed(|out| windows.close_due(21 * SECOND / 10, out)).len(), 19_998);
        assert_eq!((windows.open.slots(), windows.open_windows(), windows.replay_from()), (2, 2, Some(7)));
        windows.apply(&ticks(&[(7, 2), (8, 0)], 20_002), 21 * SECOND / 10, &mut BarBatch::default());
        let mut rest = closed(|out| windows.close_due(9 * SECOND, out));
        rest.sort_unstable_by_key(|head| head.series);
        let facts: Vec<_> = rest.iter().map(|h| (h.series.0, h.ticks, h.late)).collect();
        assert_eq!(facts, [(7, 3, 0), (8, 1, 1), (19_999, 2, 0)]);
    }

    #[test]
    fn the_ends_of_time_are_times_like_any_other() {
        let mut windows = Windows::new(spec(&[SECOND, 5 * SECOND], LatePolicy::Amend, &[Aggregation::Sum]));
        let ends = [(0, i64::MIN), (0, i64::MIN + 2 * SECOND), (0, i64::MAX), (0, i64::MAX), (0, i64::MIN), (0, 0)];
        let mut heads = closed(|out| drop(windows.apply(&ticks(&ends, 0), 0, out)));
        heads.extend(closed(|out| windows.close_due(i64::MAX, out)));
        heads.extend(closed(|out| windows.close_all(i64::MAX, out)));
        for granularity in 0..2 {
            let of = heads.iter().filter(|head| head.granularity == granularity);
            assert_eq!(of.map(|head| head.ticks).sum::<u64>(), 6);
        }
        assert_eq!(windows.open_ticks(), 0);
    }

    #[test]
    fn handed_over_are_the_finest_windows_and_coarser_bars_are_partial() {
        let mut windows = Windows::new(spec(&[SECOND, 5 * SECOND], LatePolicy::Amend, &[Aggregation::Sum]));
        let mut heads = closed(|out| drop(windows.apply(&ticks(&[(0, 0), (0, 2 * SECOND)], 0), 2 * SECOND, out)));
        heads.extend(closed(|out| windows.close_coarser(out)));
        let facts: Vec<_> =
            heads.iter().map(|h| (h.granularity, h.ticks, h.flags.contains(BarFlags::PARTIAL))).collect();
        assert_eq!(facts, [(0, 1, false), (1, 1, true)]);
        windows.measure_cascade();
        assert_eq!((windows.open_ticks(), windows.replay_from(), windows.cascade_from()), (1, Some(1), TimeNs::MAX));
    }

    #[test]
    fn windows_from_before_the_spec_had_them_say_so_and_so_do_those_above_them() {
        let mut windows = Windows::new(spec(&[SECOND, 5 * SECOND], LatePolicy::Amend, &[Aggregation::Sum]));
        windows.set_complete_from(vec![SECOND, TimeNs::MIN]);
        let mut heads = closed(|out| drop(windows.apply(&ticks(&[(0, 0), (0, 6 * SECOND)], 0), 6 * SECOND, out)));
        heads.extend(closed(|out| windows.close_all(7 * SECOND, out)));
        let facts: Vec<_> =
            heads.iter().map(|h| (h.granularity, h.start, h.flags.contains(BarFlags::REDEFINED))).collect();
        assert_eq!(facts, [(0, 0, true), (1, 0, true), (0, 6 * SECOND, false), (1, 5 * SECOND, false)]);
    }

    #[test]
    fn without_a_journal_ties_go_by_the_order_of_batches() {
        let spec = spec(ONE, LatePolicy::Amend, &[Aggregation::Last]);
        let (mut windows, mut out) = (Windows::new(spec.clone()), BarBatch::default());
        windows.apply(&ticks(&[(1, 0), (0, 5)], 0), 0, &mut out);
        windows.apply(&ticks(&[(0, 5)], 0), 0, &mut out);
        windows.close_all(0, &mut out);
        let head = out.heads.iter().find(|head| head.series.0 == 0).unwrap();
        assert_eq!(state::metrics(&spec, head, out.state(head)), [Some(Value::Int(1))]);
        assert_eq!((head.ticks, head.covers), (2, 3));
    }
}
