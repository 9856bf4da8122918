//! The journal clustered by series: keys and walks.
//!
//! A partition is rewritten in runs. Within a run the blocks ascend by series, and a series that fills several blocks
//! keeps its order of arrival over them; a later run holds what arrived later. So each series is a seek per run and the
//! few blocks that it shares with its neighbours.
//!
//! ```text
//! run u32 · max series u32 · block u32 · min series u32 · rows u32 · min i64 · max i64
//! ```
//! Numbers are big endian, times with the sign bit flipped.

use std::collections::VecDeque;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::keys::{order, unorder};
use super::kv::MISSES;
use super::{Kv, KvError};
use crate::model::{SeriesId, TimeNs};

/// Keys read ahead at once.
const AHEAD: usize = 256;

/// What the key of a block says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortedKey {
    /// Its run.
    pub run: u32,
    /// Its place in the partition.
    pub block: u32,
    /// Its lowest series number.
    pub min_series: u32,
    /// Its highest series number.
    pub max_series: u32,
    /// Ticks in it.
    pub rows: u32,
    /// Its lowest event time.
    pub min_time: TimeNs,
    /// Its highest event time.
    pub max_time: TimeNs,
}

impl SortedKey {
    /// The key's bytes.
    pub fn bytes(&self) -> [u8; 36] {
        let numbers = [self.run, self.max_series, self.block, self.min_series, self.rows];
        let mut key = [0; 36];
        for (place, number) in key.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
        }
        key[20..28].copy_from_slice(&order(self.min_time).to_be_bytes());
        key[28..].copy_from_slice(&order(self.max_time).to_be_bytes());
        key
    }

    /// Reads a key.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let key: &[u8; 36] = key.try_into().ok()?;
        let (numbers, _) = key.as_chunks::<4>();
        let [run, max_series, block, min_series, rows] = std::array::from_fn(|at| u32::from_be_bytes(numbers[at]));
        let [min_time, max_time] = [20, 28].map(|at| {
            let mut bits = [0; 8];
            bits.copy_from_slice(&key[at..at + 8]);
            unorder(u64::from_be_bytes(bits))
        });
        Some(Self { run, block, min_series, max_series, rows, min_time, max_time })
    }

    /// Where the first block of a run begins that may hold `series`.
    fn seek(run: u32, series: u32) -> Vec<u8> {
        [run.to_be_bytes(), series.to_be_bytes()].concat()
    }
}

/// The first of `series`, which ascend, that is `number` or above it.
pub(super) fn next_from(series: &[SeriesId], number: u32) -> Option<u32> {
    series.get(series.partition_point(|series| series.0 < number)).map(|series| series.0)
}

/// Walks the keys of one such space, a few hundred at a time, so that no scan stays open meanwhile.
pub(super) struct SortedWalk {
    space: Arc<str>,
    /// Ascending; `None` for all.
    series: Option<Arc<[SeriesId]>>,
    times: Range<TimeNs>,
    ahead: VecDeque<Bytes>,
    /// Where to go on reading keys; `None` at the end.
    from: Option<Vec<u8>>,
}

impl SortedWalk {
    /// The blocks that may hold ticks of one of `series`, which ascend, in `times`.
    pub fn new(space: Arc<str>, series: Option<Arc<[SeriesId]>>, times: Range<TimeNs>) -> Self {
        let from = match series.as_deref() {
            None => Some(Vec::new()),
            Some(series) => series.first().map(|first| SortedKey::seek(0, first.0)),
        };
        Self { space, series, times, ahead: VecDeque::new(), from }
    }

    /// The key of the next block.
    pub fn next(&mut self, kv: &dyn Kv) -> Result<Option<Bytes>, KvError> {
        while self.ahead.is_empty() && self.from.is_some() {
            self.read_ahead(kv)?;
        }
        Ok(self.ahead.pop_front())
    }

    fn read_ahead(&mut self, kv: &dyn Kv) -> Result<(), KvError> {
        let Some(from) = self.from.take() else { return Ok(()) };
        let mut misses = 0;
        kv.scan_keys(&self.space, &from, None, &mut |bytes| {
            let Some(key) = SortedKey::parse(bytes) else { return ControlFlow::Continue(()) };
            if let Some(next) = self.series.as_deref().and_then(|series| next_instead_of(series, &key)) {
                misses += 1;
                if misses <= MISSES && next.is_some() {
                    return ControlFlow::Continue(());
                }
                self.from = next;
                return ControlFlow::Break(());
            }
            misses = 0;
            if key.max_time >= self.times.start && key.min_time < self.times.end {
                self.ahead.push_back(Bytes::copy_from_slice(bytes));
            }
            if self.ahead.len() < AHEAD {
                return ControlFlow::Continue(());
            }
            // The lowest key above this one.
            self.from = Some([bytes, &[0]].concat());
            ControlFlow::Break(())
        })
    }
}

/// For a block without any of `series`: where one with some of them may follow, if anywhere. `None` for a block that may have
/// some.
fn next_instead_of(series: &[SeriesId], key: &SortedKey) -> Option<Option<Vec<u8>>> {
    match next_from(series, key.min_series) {
        Some(next) if next <= key.max_series => None,
        Some(next) => Some(Some(SortedKey::seek(key.run, next))),
        // Past them all in this run: on to the run that follows.
        None => Some(key.run.checked_add(1).zip(series.first()).map(|(run, first)| SortedKey::seek(run, first.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_by_run_and_series_and_read_back() {
        let key = |run, max_series, block| SortedKey {
            run,
            block,
            min_series: 1,
            max_series,
            rows: 9,
            min_time: -4,
            max_time: i64::MAX,
        };
        let ascending = [key(0, 3, 0), key(0, 3, 1), key(0, 256, 2), key(1, 2, 3), key(256, 0, 4)];
        assert!(ascending.windows(2).all(|pair| pair[0].bytes() < pair[1].bytes()));
        assert!(ascending.iter().all(|key| SortedKey::parse(&key.bytes()) == Some(*key)));
        assert!(SortedKey::seek(0, 3)[..] <= key(0, 3, 0).bytes()[..]);
        assert_eq!(SortedKey::parse(b"short"), None);
    }
}
