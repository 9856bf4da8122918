//! What is remembered of every series, open windows or not: its clock. 56 bytes, and 4 per series number.

use crate::model::{SeriesId, TimeNs};

/// No slot, no entry.
pub(super) const NONE: u32 = u32::MAX;

/// One series' clock and the way to its open windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Series {
    /// The highest event time, or what silence made of it: the watermark is this minus `wait`.
    pub(super) high: TimeNs,
    /// Wall time of the last arrival.
    pub(super) seen: TimeNs,
    /// Start of the window at `slot`.
    pub(super) start: TimeNs,
    /// The lowest event time at which an open window closes.
    pub(super) closes: TimeNs,
    /// While `high` is below this, a tick in the window at `slot` is on time and closes nothing.
    pub(super) limit: TimeNs,
    /// The finest window the last tick went into; only to be used below `limit`.
    pub(super) slot: u32,
    /// The first open window of the series' list, or [`NONE`].
    pub(super) head: u32,
    /// The series' number.
    pub(super) id: SeriesId,
    /// Whether it waits for the end of the slice to have windows closed.
    pub(super) ripe: bool,
}

/// All series seen, by number. Numbers are dense over all instances, so a plain index finds the entry.
#[derive(Debug, Default)]
pub(super) struct Table {
    index: Vec<u32>,
    entries: Vec<Series>,
}

impl Table {
    /// The series `id`, if it was ever seen.
    #[inline]
    pub(super) fn known(&mut self, id: u32) -> Option<&mut Series> {
        // For a number not seen the index is too short or says NONE, which is beyond every entry.
        self.entries.get_mut(*self.index.get(id as usize)? as usize)
    }

    /// Whether the series `id` was ever seen.
    pub(super) fn knows(&self, id: u32) -> bool {
        self.index.get(id as usize).is_some_and(|entry| *entry != NONE)
    }

    /// The entry of series `id`, new where it was never seen.
    pub(super) fn find(&mut self, id: u32) -> u32 {
        match self.index.get(id as usize) {
            Some(entry) if *entry != NONE => *entry,
            _ => self.add(id),
        }
    }

    fn add(&mut self, id: u32) -> u32 {
        if self.index.len() <= id as usize {
            self.index.resize(id as usize + 1, NONE);
        }
        let entry = self.entries.len() as u32;
        self.index[id as usize] = entry;
        self.entries.push(Series {
            high: TimeNs::MIN,
            seen: TimeNs::MIN,
            start: 0,
            closes: TimeNs::MAX,
            limit: TimeNs::MIN,
            slot: NONE,
            head: NONE,
            id: SeriesId(id),
            ripe: false,
        });
        entry
    }

    /// The series at `entry`.
    #[inline]
    pub(super) fn get(&mut self, entry: u32) -> &mut Series {
        &mut self.entries[entry as usize]
    }

    /// The head of the list of open windows of the series at `entry`.
    pub(super) fn head(&self, entry: u32) -> u32 {
        self.entries[entry as usize].head
    }

    /// How many series were seen.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_series_costs_at_most_64_bytes() {
        assert!(size_of::<Series>() + size_of::<u32>() <= 64);
    }

    #[test]
    fn a_series_keeps_its_entry_whatever_its_number() {
        let mut table = Table::default();
        let (high, low) = (table.find(1_000), table.find(3));
        assert_eq!((table.find(1_000), table.find(3), table.len()), (high, low, 2));
        assert_eq!(table.get(low).id, SeriesId(3));
    }
}
