//! What is filed about open windows: when wall time may end them, and which arrival opened the oldest.
//!
//! Windows are filed when they open and never taken out: a note whose window has closed is thrown away when its turn
//! comes, or when the notes outnumber the windows too far. No timer per series, no scan of all series.

use std::collections::{BTreeMap, VecDeque};

use super::open::Note;
use crate::model::time::MILLISECOND;
use crate::model::{DurationNs, TimeNs};

/// Deadlines are kept to this precision and never come early.
const BUCKET: DurationNs = 20 * MILLISECOND;

/// Wall-time deadlines in buckets.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    buckets: BTreeMap<i64, Vec<Note>>,
    len: usize,
}

impl Deadlines {
    /// Files `note` for `deadline`.
    pub(super) fn file(&mut self, note: Note, deadline: TimeNs) {
        let bucket = deadline.div_euclid(BUCKET) + i64::from(deadline.rem_euclid(BUCKET) != 0);
        self.buckets.entry(bucket).or_default().push(note);
        self.len += 1;
    }

    /// The end of the first bucket.
    pub(super) fn next(&self) -> Option<TimeNs> {
        self.buckets.keys().next().map(|bucket| bucket.saturating_mul(BUCKET))
    }

    /// Takes the first bucket if `now` has reached its end.
    pub(super) fn take_due(&mut self, now: TimeNs) -> Option<Vec<Note>> {
        self.next().filter(|end| *end <= now)?;
        let (_, notes) = self.buckets.pop_first()?;
        self.len -= notes.len();
        Some(notes)
    }

    /// How many notes are filed.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Replaces every note by what `update` makes of it, or drops it.
    pub(super) fn update(&mut self, mut update: impl FnMut(Note) -> Option<Note>) {
        for notes in self.buckets.values_mut() {
            *notes = notes.drain(..).filter_map(&mut update).collect();
        }
        self.buckets.retain(|_, notes| !notes.is_empty());
        self.len = self.buckets.values().map(Vec::len).sum();
    }
}

/// Finest windows in the order they were opened, each with the arrival number that did.
#[derive(Debug, Default)]
pub(super) struct Oldest {
    queue: VecDeque<(Note, u64)>,
}

impl Oldest {
    /// Files a window that the tick `arrival` opened; arrivals ascend.
    pub(super) fn file(&mut self, note: Note, arrival: u64) {
        self.queue.push_back((note, arrival));
    }

    /// Throws away what is no longer open at the front.
    pub(super) fn drop_closed(&mut self, mut is_open: impl FnMut(Note) -> bool) {
        while self.queue.front().is_some_and(|(note, _)| !is_open(*note)) {
            self.queue.pop_front();
        }
    }

    /// The arrival that opened the first window of the queue.
    pub(super) fn arrival(&self) -> Option<u64> {
        self.queue.front().map(|(_, arrival)| *arrival)
    }

    /// How many notes are filed.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Replaces every note by what `update` makes of it, or drops it.
    pub(super) fn update(&mut self, mut update: impl FnMut(Note) -> Option<Note>) {
        let kept = self.queue.drain(..).filter_map(|(note, arrival)| Some((update(note)?, arrival)));
        self.queue = kept.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_at_most_one_bucket_late() {
        for deadline in [-BUCKET - 1, -BUCKET, -1, 0, 1, BUCKET - 1, BUCKET, BUCKET + 1, TimeNs::MAX, TimeNs::MIN] {
            let mut deadlines = Deadlines::default();
            deadlines.file((1, 0), deadline);
            let next = deadlines.next().unwrap();
            assert!(next >= deadline && next.saturating_sub(deadline) < BUCKET);
            assert_eq!((next > TimeNs::MIN).then(|| deadlines.take_due(next - 1)).flatten(), None);
            assert_eq!(deadlines.take_due(next), Some(vec![(1, 0)]));
            assert_eq!((deadlines.next(), deadlines.len()), (None, 0));
        }
    }

    #[test]
    fn the_oldest_is_the_first_that_is_still_open() {
        let mut oldest = Oldest::default();
        (1..=3).for_each(|slot| oldest.file((slot, 0), u64::from(slot) * 10));
        oldest.drop_closed(|note| note.0 != 1);
        assert_eq!(oldest.arrival(), Some(20));
        oldest.update(|note| (note.0 == 3).then_some((0, 0)));
        assert_eq!((oldest.arrival(), oldest.len()), (Some(30), 1));
    }
}
