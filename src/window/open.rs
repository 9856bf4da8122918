//! Open windows: heads and states in two flat slabs, by slot; usual ticks touch only states. The windows of one series
//! form a list; a slot's generation tells whether a note about its window is still about this one.

use super::accumulators::{Ops, Placed, ops};
use super::extent::{self, Extent};
use super::natural::Side;
use super::series::{NONE, Table};
use crate::model::{TickBatch, TimeNs};
use crate::spec::Accumulator;

/// No granularity.
pub(super) const NOWHERE: u8 = u8::MAX;

/// What tells an open window from the others of its series: granularity, start, and [`Window::held_from`].
pub(super) type WindowId = (u8, TimeNs, u8);

/// The head of an open window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) start: TimeNs,
    pub(super) late: u64,
    /// The highest event time of its series that closes it; of an amendment, the wall time that does.
    pub(super) due: TimeNs,
    /// Its series' entry, [`NONE`] in a free slot.
    pub(super) entry: u32,
    /// The next window of the series, or the next free slot.
    pub(super) next: u32,
    pub(super) generation: u32,
    pub(super) granularity: u8,
    /// The lowest granularity of whose bars its ticks are in already, [`NOWHERE`] for other than replayed ones.
    pub(super) held_from: u8,
    /// The arrival number of its first tick, of the finest granularity.
    pub(super) arrived: u64,
    /// Late ticks of a window that was closed before.
    pub(super) amendment: bool,
    /// Holds finer bars of an earlier definition of the spec.
    pub(super) redefined: bool,
}

impl Window {
    /// A window without ticks, to be given a series and a due time.
    pub(super) fn empty(start: TimeNs, granularity: u8) -> Self {
        Self {
            start,
            late: 0,
            due: TimeNs::MAX,
            entry: NONE,
            next: NONE,
            generation: 0,
            granularity,
            held_from: NOWHERE,
            arrived: u64::MAX,
            amendment: false,
            redefined: false,
        }
    }

    /// Whether it is this one of its series.
    pub(super) fn is(&self, id: WindowId) -> bool {
        (self.granularity, self.start, self.held_from) == id
    }
}

/// A note about a window, from when it was open: slot and generation.
pub(super) type Note = (u32, u32);

/// Where one accumulator's states lie and what is done with them.
struct Part {
    ops: Ops,
    field: usize,
    at: usize,
}

/// All open windows.
pub(super) struct Open {
    windows: Vec<Window>,
    free: u32,
    live: usize,
    parts: Vec<Part>,
    /// The words of an empty window; as many as each slot has.
    blank: Vec<u64>,
    words: Vec<u64>,
    side: Side,
}

impl Open {
    /// No windows, with room for the states of `accumulators` in each.
    pub(super) fn new(accumulators: &[Accumulator]) -> Self {
        let (mut parts, mut blank) = (Vec::new(), vec![0; extent::WORDS]);
        Extent::EMPTY.write(&mut blank);
        for accumulator in accumulators {
            let (ops, at) = (ops(accumulator), blank.len());
            blank.resize(at + ops.words, 0);
            (ops.init)(&mut blank[at..]);
            parts.push(Part { ops, field: accumulator.field, at });
        }
        let (windows, words) = (Vec::new(), Vec::new());
        Self { windows, free: NONE, live: 0, parts, blank, words, side: Side::default() }
    }

    /// Opens `window`, without ticks, at the front of its series' list (`head`); gives its slot.
    pub(super) fn open(&mut self, window: Window, head: &mut u32) -> u32 {
        let stride = self.blank.len();
        let slot = if self.free == NONE {
            // The ticks' way to their states goes by 32-bit word numbers.
            assert!(self.words.len() + stride <= u32::MAX as usize, "open windows of one spec take more than 32 GiB");
            self.windows.push(window);
            self.words.extend_from_slice(&self.blank);
            self.windows.len() as u32 - 1
        } else {
            let slot = self.free;
            self.words[slot as usize * stride..][..stride].copy_from_slice(&self.blank);
            slot
        };
        let place = &mut self.windows[slot as usize];
        if slot == self.free {
            self.free = place.next;
            *place = Window { generation: place.generation, ..window };
        }
        place.next = std::mem::replace(head, slot);
        self.live += 1;
        slot
    }

    /// Takes the windows for which `ends` holds out of the list that starts at `head`; their slots go to `ended`.
    pub(super) fn unlink(&mut self, head: &mut u32, ended: &mut Vec<u32>, ends: impl Fn(&Window) -> bool) {
        let (mut slot, mut kept) = (*head, NONE);
        while slot != NONE {
            let window = self.windows[slot as usize];
            if ends(&window) {
                ended.push(slot);
                match kept {
                    NONE => *head = window.next,
                    kept => self.windows[kept as usize].next = window.next,
                }
            } else {
                kept = slot;
            }
            slot = window.next;
        }
    }

    /// Lets the slot of a window be used again that is in no list and whose states have been closed.
    pub(super) fn free(&mut self, slot: u32) {
        let window = &mut self.windows[slot as usize];
        window.entry = NONE;
        window.generation = window.generation.wrapping_add(1);
        window.next = std::mem::replace(&mut self.free, slot);
        self.live -= 1;
    }

    /// The starts of all open windows that are not of the finest granularity.
    pub(super) fn starts_of_coarser(&self) -> impl Iterator<Item = TimeNs> + '_ {
        let open = self.windows.iter().filter(|window| window.entry != NONE && window.granularity > 0);
        open.map(|window| window.start)
    }

    /// The slots of the list that starts at `head`.
    pub(super) fn list(&self, head: u32) -> impl Iterator<Item = u32> + '_ {
        let slot = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(slot(head), move |at| slot(self.windows[*at as usize].next))
    }

    /// The window at `slot`.
    pub(super) fn get(&mut self, slot: u32) -> &mut Window {
        &mut self.windows[slot as usize]
    }

    /// The window at `slot`, to be read.
    pub(super) fn peek(&self, slot: u32) -> &Window {
        &self.windows[slot as usize]
    }

    /// A note about the window at `slot`.
    pub(super) fn note(&self, slot: u32) -> Note {
        (slot, self.windows[slot as usize].generation)
    }

    /// The window of `note`, if it is still open.
    pub(super) fn noted(&self, note: Note) -> Option<&Window> {
        self.windows.get(note.0 as usize).filter(|w| w.generation == note.1 && w.entry != NONE)
    }

    /// Adds ticks to the windows they were placed in.
    pub(super) fn update(&mut self, batch: &TickBatch, placed: Placed<'_>) {
        let Self { parts, words, side, .. } = self;
        extent::update(words, placed, &batch.timestamps);
        for part in parts {
            (part.ops.update)(words, part.at, side, placed, batch, &batch.fields[part.field]);
        }
    }

    /// What the window at `slot` has gathered besides its metrics.
    pub(super) fn extent(&self, slot: u32) -> Extent {
        Extent::read(&self.words[slot as usize * self.blank.len()..])
    }

    /// Adds a closed window to the one at `slot`.
    pub(super) fn merge(&mut self, slot: u32, extent: Extent, mut closed: &[u64]) {
        let from = slot as usize * self.blank.len();
        self.extent(slot).merge(extent).write(&mut self.words[from..]);
        for part in &self.parts {
            let (own, rest) = part.ops.split(closed);
            let at = from + part.at;
            (part.ops.merge)(&mut self.words[at..at + part.ops.words], &mut self.side, own);
            closed = rest;
        }
    }

    /// Appends the closed state of `slot` to `out`; true where an integer sum left its type.
    pub(super) fn close(&mut self, slot: u32, out: &mut Vec<u64>) -> bool {
        let from = slot as usize * self.blank.len();
        self.parts.iter().fold(false, |overflowed, part| {
            let (at, start) = (from + part.at, out.len());
            (part.ops.close)(&mut self.words[at..at + part.ops.words], &mut self.side, out);
            overflowed | (part.ops.overflowed)(&out[start..])
        })
    }

    /// Words per window.
    pub(super) fn stride(&self) -> u32 {
        self.blank.len() as u32
    }

    /// How many windows are open.
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.windows.len()
    }

    /// The slots of all open windows, ascending.
    pub(super) fn slots_open(&self) -> Vec<u32> {
        let open = self.windows.iter().zip(0..).filter(|(window, _)| window.entry != NONE);
        open.map(|(_, slot)| slot).collect()
    }

    /// Moves the open windows together and gives the memory of the free slots back. The answer says, by old slot,
    /// where each window now is.
    pub(super) fn compact(&mut self, series: &mut Table) -> Vec<u32> {
        let stride = self.blank.len();
        let mut moved = vec![NONE; self.windows.len()];
        let old = std::mem::take(&mut self.windows);
        let old_words = std::mem::take(&mut self.words);
        self.windows.reserve_exact(self.live);
        self.words.reserve_exact(self.live * stride);
        for (slot, window) in old.iter().enumerate().filter(|(_, window)| window.entry != NONE) {
            moved[slot] = self.windows.len() as u32;
            self.windows.push(*window);
            self.words.extend_from_slice(&old_words[slot * stride..][..stride]);
        }
        let to = |slot: u32| moved.get(slot as usize).copied().unwrap_or(NONE);
        // All heads are found before any is changed: old and new slots look alike.
        let is_head = |(slot, window): (usize, &Window)| {
            (window.entry != NONE && series.get(window.entry).head == slot as u32).then_some(window.entry)
        };
        let entries: Vec<u32> = old.iter().enumerate().filter_map(is_head).collect();
        for entry in entries {
            let entry = series.get(entry);
            (entry.head, entry.slot) = (to(entry.head), to(entry.slot));
        }
        for window in &mut self.windows {
            window.next = to(window.next);
        }
        self.free = NONE;
        moved
    }
}
