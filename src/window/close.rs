//! Windows end: by their series' watermark, by silence, by the shutdown; late ones by their own deadline.
//!
//! Silence is no case of its own: it moves the series' watermark to the end of the window that waited in vain. And a
//! coarser window is only ever fed by the finer windows that close into it.

use super::bounds::{end_of, start_of};
use super::extent::Extent;
use super::open::{NOWHERE, Note, Window};
use super::series::{NONE, Series};
use super::windows::Windows;
use crate::model::{BarBatch, BarFlags, BarHead, TimeNs};

/// Up to where windows end.
#[derive(Clone, Copy)]
enum Until {
    /// The watermark; amendments at this wall time.
    Watermark(TimeNs),
    /// All of them, at this wall time.
    Shutdown(TimeNs),
    /// The coarser ones: the finest are rebuilt from the journal.
    HandOver,
}

impl Windows {
    /// Closes what is due at wall time `now`: windows of silent series, amendments that have waited long enough.
    pub fn close_due(&mut self, now: TimeNs, out: &mut BarBatch) {
        self.close_ripe(now, out);
        while let Some(notes) = self.deadlines.take_due(now) {
            for note in notes {
                if let Some(window) = self.open.noted(note).copied() {
                    self.wake(note, &window, now);
                }
            }
            self.close_ripe(now, out);
        }
        self.tidy();
    }

    /// Closes the windows whose end their series' watermark has passed, and nothing else.
    pub(super) fn close_passed(&mut self, now: TimeNs, out: &mut BarBatch) {
        self.close_ripe(now, out);
        self.tidy();
    }

    fn close_ripe(&mut self, now: TimeNs, out: &mut BarBatch) {
        while let Some(entry) = self.ripe.pop() {
            self.series.get(entry).ripe = false;
            self.close_series(entry, Until::Watermark(now), out);
        }
    }

    /// The deadline filed for an open window has come: its series is ripe, or has been active since.
    fn wake(&mut self, note: Note, window: &Window, now: TimeNs) {
        let series = self.series.get(window.entry);
        let end = end_of(window.start, self.spec.granularities[usize::from(window.granularity)].length);
        let silent = end.max(series.seen).saturating_add(self.spec.window.idle);
        let deadline = if window.amendment { window.due } else { silent };
        if deadline > now {
            return self.deadlines.file(note, deadline);
        }
        if !window.amendment {
            series.high = series.high.max(window.due);
        }
        self.ripen(window.entry);
    }

    /// Closes everything, for a shutdown at wall time `now`. Bars of windows whose end neither the watermark nor `now`
    /// has passed are marked partial.
    pub fn close_all(&mut self, now: TimeNs, out: &mut BarBatch) {
        self.close_until(Until::Shutdown(now), out);
    }

    /// Closes the coarser windows, for whoever rebuilds the finest ones from the journal and goes on with them; their bars
    /// are marked partial.
    pub fn close_coarser(&mut self, out: &mut BarBatch) {
        self.close_until(Until::HandOver, out);
    }

    fn close_until(&mut self, until: Until, out: &mut BarBatch) {
        for slot in self.open.slots_open() {
            let window = self.open.get(slot);
            // A window may have closed with an earlier one of its series.
            if window.entry != NONE {
                let entry = window.entry;
                self.close_series(entry, until, out);
            }
        }
        while let Some(entry) = self.ripe.pop() {
            self.series.get(entry).ripe = false;
        }
        self.tidy();
    }

    /// Adds a stored bar to the open window above it, so that coarser windows survive a restart. To be called for every
    /// stored bar whose coarser bar is not stored yet, before any tick.
    pub fn adopt(&mut self, head: &BarHead, state: &[u64]) {
        let entry = self.series.find(head.series.0);
        let series = self.series.get(entry);
        series.high = series.high.max(head.last);
        series.seen = series.seen.max(head.last);
        self.cascade(entry, (head, state), NOWHERE);
        self.ripen_if_passed(entry);
    }

    /// Closes windows of one series, the finer before the coarser they go into.
    fn close_series(&mut self, entry: u32, until: Until, out: &mut BarBatch) {
        let mut closing = std::mem::take(&mut self.closing);
        let amend = self.is_to_amend(entry, until);
        for granularity in 0..self.spec.granularities.len() as u8 {
            let series = self.series.get(entry);
            let high = series.high;
            closing.clear();
            self.open.unlink(&mut series.head, &mut closing, |window| {
                let ends = match until {
                    Until::Watermark(_) if window.amendment => amend,
                    Until::Watermark(_) => window.due <= high,
                    Until::Shutdown(_) => true,
                    Until::HandOver => granularity > 0,
                };
                ends && window.granularity == granularity
            });
            closing.sort_unstable_by_key(|slot| self.open.peek(*slot).start);
            for slot in &closing {
                self.close_window(*slot, until, out);
            }
        }
        self.closing = closing;
        self.settle(entry);
    }

    /// Whether the amendments of a series are to end. They do so together, and at the latest with a coarser window: what that one
    /// has of the series is then all that had arrived, and its `covers` says so.
    fn is_to_amend(&mut self, entry: u32, until: Until) -> bool {
        let Until::Watermark(now) = until else { return false };
        let series = *self.series.get(entry);
        let mut open = self.open.list(series.head).map(|slot| self.open.peek(slot));
        open.any(|window| match window.amendment {
            true => window.due <= now,
            false => window.granularity > 0 && window.due <= series.high,
        })
    }

    /// Closes one window, out of its list already: its bar goes to `out` and into the window above.
    fn close_window(&mut self, slot: u32, until: Until, out: &mut BarBatch) {
        let (window, extent) = (*self.open.get(slot), self.open.extent(slot));
        let series = *self.series.get(window.entry);
        let mut head = BarHead {
            series: series.id,
            granularity: window.granularity,
            start: window.start,
            first: extent.first,
            last: extent.last,
            ticks: extent.ticks,
            late: window.late,
            covers: self.covers(&window),
            ..BarHead::default()
        };
        let complete_from = self.complete_from.get(usize::from(window.granularity)).copied().unwrap_or(TimeNs::MIN);
        head.flags.set(BarFlags::REDEFINED, window.redefined || window.start < complete_from);
        let open_ended = !window.amendment && series.high < window.due;
        let partial = match until {
            Until::Watermark(_) => false,
            Until::Shutdown(now) => open_ended && end_of(window.start, self.length_of(window.granularity)) > now,
            Until::HandOver => true,
        };
        head.flags.set(BarFlags::OPEN_ENDED, open_ended);
        head.flags.set(BarFlags::PARTIAL, partial);
        let mut words = std::mem::take(&mut self.words);
        words.clear();
        head.flags.set(BarFlags::OVERFLOW, self.open.close(slot, &mut words));
        out.push(head, &words);
        self.open.free(slot);
        if window.granularity == 0 {
            self.open_ticks -= extent.ticks;
        }
        self.cascade(window.entry, (&head, &words), window.held_from);
        self.words = words;
    }

    /// Up to which arrival a window that closes has all ticks there are for it.
    fn covers(&self, window: &Window) -> u64 {
        if window.granularity == 0 {
            return self.kept_out.get(&(window.entry, window.start)).copied().unwrap_or(self.arrived);
        }
        // Of a coarser one those are missing whose finest windows are still open.
        let end = end_of(window.start, self.length_of(window.granularity));
        let open = self.open.list(self.series.head(window.entry)).map(|slot| self.open.peek(slot));
        let inside = open.filter(|open| open.granularity == 0 && (window.start..end).contains(&open.start));
        inside.map(|open| open.arrived).min().unwrap_or(self.arrived)
    }

    /// Adds a closed window to the one above it, opened if need be, unless bars hold it there already.
    fn cascade(&mut self, entry: u32, (head, state): (&BarHead, &[u64]), held_from: u8) {
        let granularity = head.granularity.saturating_add(1);
        let coarser = self.spec.granularities.get(usize::from(granularity));
        let Some(coarser) = coarser.filter(|_| granularity < held_from) else { return };
        let window = (granularity, start_of(head.start, coarser.length), held_from);
        let slot = self.find(entry, window).unwrap_or_else(|| self.open_window(entry, window));
        let window = self.open.get(slot);
        window.late += head.late;
        window.redefined |= head.flags.contains(BarFlags::REDEFINED);
        self.open.merge(slot, Extent { ticks: head.ticks, first: head.first, last: head.last }, state);
    }

    /// After windows of a series closed: finds out anew when the next one does, and what the usual tick is measured by.
    fn settle(&mut self, entry: u32) {
        let Series { slot, start, head, .. } = *self.series.get(entry);
        let regular = || self.open.list(head).map(|slot| self.open.peek(slot)).filter(|window| !window.amendment);
        let closes = regular().map(|window| window.due).min().unwrap_or(TimeNs::MAX);
        // The slot may have closed and now belong to another window, even one of this series.
        let usual =
            slot != NONE && self.find(entry, (0, start, NOWHERE)) == Some(slot) && !self.open.peek(slot).amendment;
        let series = self.series.get(entry);
        series.closes = closes;
        if usual {
            series.limit = if start > TimeNs::MIN { closes } else { TimeNs::MIN };
        } else {
            (series.slot, series.limit) = (NONE, TimeNs::MIN);
        }
    }

    /// Throws away notes about closed windows, and gives memory back when most of it lies idle.
    fn tidy(&mut self) {
        let Self { open, oldest, deadlines, series, .. } = self;
        oldest.drop_closed(|note| open.noted(note).is_some());
        let wasted_slots = open.slots() >= 4096 && open.len() * 8 < open.slots();
        let wasted_notes = oldest.len() + deadlines.len() > 8192 + 8 * open.len();
        if wasted_slots || wasted_notes {
            let is_open = |note| open.noted(note).is_some().then_some(note);
            oldest.update(is_open);
            deadlines.update(is_open);
            let moved = open.compact(series);
            let follow = |(slot, generation): (u32, u32)| Some((*moved.get(slot as usize)?, generation));
            oldest.update(follow);
            deadlines.update(follow);
        }
    }
}
