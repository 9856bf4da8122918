//! A tick finds its window, or is late. Judged tick by tick in row order, so that batching changes nothing.

use super::accumulators::piece_of;
use super::bounds::{end_of, start_of};
use super::open::{NOWHERE, Window, WindowId};
use super::replay::Judged;
use super::series::Table;
use super::windows::{Applied, BLOCK, Windows};
use crate::model::{DurationNs, TickBatch, TimeNs};
use crate::spec::LatePolicy;

/// One tick on its way to a window.
struct Arrival {
    row: u32,
    /// Its series' entry.
    entry: u32,
    time: TimeNs,
    /// Its arrival number.
    number: u64,
    now: TimeNs,
}

/// Rows and where the states of their windows begin, filled up to `len`.
pub(super) struct Placing {
    pub(super) rows: [u32; BLOCK],
    pub(super) places: [u32; BLOCK],
    pub(super) len: usize,
}

impl Placing {
    /// Nothing placed.
    pub(super) fn new() -> Self {
        Self { rows: [0; BLOCK], places: [0; BLOCK], len: 0 }
    }

    #[inline]
    fn push(&mut self, row: u32, place: u32) {
        (self.rows[self.len], self.places[self.len]) = (row, place);
        self.len += 1;
    }
}

impl Windows {
    /// Finds the windows of at most [`BLOCK`] ticks; row 0 of the batch arrived as `offset`.
    pub(super) fn place(
        &mut self,
        (batch, offset): (&TickBatch, u64),
        mut rows: &[u32],
        now: TimeNs,
        applied: &mut Applied,
    ) {
        let stride = self.open.stride();
        self.placing.len = 0;
        loop {
            let (table, placing, rules) = (&mut self.series, &mut *self.placing, (self.length, stride, now));
            let usual = match (piece_of(rows, &batch.timestamps), piece_of(rows, &batch.series)) {
                (Some(times), Some(series)) => {
                    place_usual(table, placing, rows, times.iter().copied().zip(series.iter().copied()), rules)
                }
                _ => {
                    let tick = |row: &u32| (batch.timestamps[*row as usize], batch.series[*row as usize]);
                    place_usual(table, placing, rows, rows.iter().map(tick), rules)
                }
            };
            let Some((row, rest)) = rows[usual..].split_first() else { break };
            let (row, time) = (*row, batch.timestamps[*row as usize]);
            let entry = self.series.find(batch.series[row as usize]);
            let tick = Arrival { row, entry, time, number: offset + u64::from(row), now };
            if let Some(slot) = self.place_slowly(&tick, applied) {
                self.placing.push(row, slot * stride);
            }
            rows = rest;
        }
    }

    /// Finds or opens the window of a tick that is not in the window of its predecessor, or may be late, or moves its
    /// series' watermark over a window's end. `None` where it goes into no window.
    #[inline(never)]
    fn place_slowly(&mut self, tick: &Arrival, applied: &mut Applied) -> Option<u32> {
        let start = start_of(tick.time, self.length);
        let due = end_of(start, self.length).saturating_add(self.spec.window.wait);
        let series = self.series.get(tick.entry);
        let (id, late) = (series.id, series.high >= due);
        // In a backfill every tick may open a window, and all of a slice are open at once: no search then.
        let fresh = start > series.high;
        series.high = series.high.max(tick.time);
        series.seen = tick.now;
        let replay = self.replay.as_mut();
        let held_from = match replay.map_or(Judged::Fresh, |replay| replay.judge(tick.entry, id, start, tick.number)) {
            Judged::Covered => {
                applied.skipped += 1;
                self.ripen_if_passed(tick.entry);
                return None;
            }
            Judged::Fresh if late => return self.place_late(tick, start, applied),
            Judged::Fresh => NOWHERE,
            Judged::Lost(held_from) => held_from,
        };
        let window = (0, start, held_from);
        let open = if fresh { None } else { self.find(tick.entry, window) };
        let slot = open.unwrap_or_else(|| {
            let slot = self.open_window(tick.entry, window);
            self.begin(slot, tick.number);
            slot
        });
        self.ripen_if_passed(tick.entry);
        let series = self.series.get(tick.entry);
        // The lowest window may be cut off, so that its length says nothing; and where bars above hold the tick they may
        // not hold the next one.
        let usual = !series.ripe && start > TimeNs::MIN && held_from == NOWHERE;
        (series.start, series.slot) = (start, slot);
        series.limit = if usual { series.closes } else { TimeNs::MIN };
        Some(slot)
    }

    /// A late tick: its window's end lies at or before its series' watermark.
    fn place_late(&mut self, tick: &Arrival, start: TimeNs, applied: &mut Applied) -> Option<u32> {
        match self.spec.window.late {
            LatePolicy::Amend => {}
            LatePolicy::Drop | LatePolicy::SideOutput => {
                applied.late_rows.push(tick.row);
                self.kept_out.entry((tick.entry, start)).or_insert(tick.number);
                self.ripen_if_passed(tick.entry);
                return None;
            }
        }
        let slot = self.find(tick.entry, (0, start, NOWHERE)).unwrap_or_else(|| {
            let due = tick.now.saturating_add(self.spec.window.wait);
            let slot = self.insert(tick.entry, Window { due, amendment: true, ..Window::empty(start, 0) });
            self.deadlines.file(self.open.note(slot), due);
            self.begin(slot, tick.number);
            slot
        });
        self.open.get(slot).late += 1;
        Some(slot)
    }

    /// Notes the first tick of a window of the finest granularity.
    fn begin(&mut self, slot: u32, number: u64) {
        self.open.get(slot).arrived = number;
        self.oldest.file(self.open.note(slot), number);
    }

    /// Marks a series whose watermark has passed the end of an open window.
    pub(super) fn ripen_if_passed(&mut self, entry: u32) {
        let series = self.series.get(entry);
        if series.high >= series.closes {
            self.ripen(entry);
        }
    }

    /// Puts a series on the list of those that have windows closed after the slice.
    pub(super) fn ripen(&mut self, entry: u32) {
        let series = self.series.get(entry);
        if !series.ripe {
            (series.ripe, series.limit) = (true, TimeNs::MIN);
            self.ripe.push(entry);
        }
    }

    /// The slot of a series' open window.
    pub(super) fn find(&self, entry: u32, window: WindowId) -> Option<u32> {
        let head = self.series.head(entry);
        self.open.list(head).find(|slot| self.open.peek(*slot).is(window))
    }

    /// Opens a window that closes by watermark, or by silence, and files the latter.
    pub(super) fn open_window(&mut self, entry: u32, (granularity, start, held_from): WindowId) -> u32 {
        let end = end_of(start, self.length_of(granularity));
        let due = end.saturating_add(self.spec.window.wait);
        let slot = self.insert(entry, Window { due, held_from, ..Window::empty(start, granularity) });
        if granularity > 0 {
            self.cascade_from = self.cascade_from.min(start);
        }
        let series = self.series.get(entry);
        series.closes = series.closes.min(due);
        let silent = end.max(series.seen).saturating_add(self.spec.window.idle);
        self.deadlines.file(self.open.note(slot), silent);
        slot
    }

    fn insert(&mut self, entry: u32, window: Window) -> u32 {
        self.open.open(Window { entry, ..window }, &mut self.series.get(entry).head)
    }

    /// The length of windows of `granularity`.
    pub(super) fn length_of(&self, granularity: u8) -> i64 {
        self.spec.granularities.get(usize::from(granularity)).map_or(self.length, |g| g.length)
    }
}

/// Places usual ticks up to the first that is not: a usual tick is in the window of its predecessor, and nothing
/// closes. No division, no search. Gives how many.
fn place_usual(
    table: &mut Table,
    placing: &mut Placing,
    rows: &[u32],
    ticks: impl Iterator<Item = (TimeNs, u32)>,
    (length, stride, now): (DurationNs, u32, TimeNs),
) -> usize {
    let from = placing.len;
    let targets = placing.rows[from..].iter_mut().zip(&mut placing.places[from..]);
    let mut placed = 0;
    for (((time, series), row), target) in ticks.zip(rows).zip(targets) {
        let Some(series) = table.known(series) else { break };
        let high = series.high.max(time);
        let inside = time >= series.start && (time.wrapping_sub(series.start) as u64) < length as u64;
        if !inside || high >= series.limit {
            break;
        }
        (series.high, series.seen) = (high, now);
        (*target.0, *target.1) = (*row, series.slot * stride);
        placed += 1;
    }
    placing.len += placed;
    placed
}
