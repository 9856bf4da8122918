//! The journal's blocks: scans by time and series, and replay in order of arrival.
//!
//! A partition whose blocks were rewritten by series is read from there; no replay needs it any more.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::open::lock;
use super::partition::{Partition, State};
use super::sorted::{SortedWalk, next_from};
use super::{BlockFacts, Kind, Kv, KvError, Store, StoreError, TickScan, keys, value};
use crate::codec::block::{Block, CorruptBlock, MAX_ROWS, decode_series_only};
use crate::codec::block_header::BlockHeader;
use crate::model::{SeriesId, SpecId, TimeNs};

/// Keys read ahead at once.
const AHEAD: usize = 256;

/// The partitions of a journal, or of its late ticks, as they are at one moment. As long as it is held, scans over it
/// find the same blocks with the same arrival numbers, although a partition may be rewritten meanwhile.
pub struct TickView {
    spec: SpecId,
    side: bool,
    parts: Vec<Partition>,
}

impl Store {
    /// The journal of a spec, or its late ticks kept aside, as it is now.
    pub fn tick_view(&self, spec: SpecId, side: bool) -> TickView {
        let store = self.spec(spec);
        TickView { spec, side, parts: lock(if side { &store.side } else { &store.ticks }).all() }
    }

    /// Visits the blocks with ticks in `[scan.from, scan.to)` until `visit` breaks, as they are now.
    ///
    /// # Errors
    /// The port fails.
    pub fn scan_ticks(
        &self,
        scan: &TickScan,
        visit: &mut dyn FnMut(&Block, Range<TimeNs>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.scan_view(&self.tick_view(scan.spec, scan.side), scan, visit)
    }

    /// Visits the blocks with ticks in `[scan.from, scan.to)` until `visit` breaks. The ticks of one series come in
    /// order of arrival, and their arrival numbers (offset and row) ascend; those of several do so only in partitions
    /// that were not rewritten. Blocks hold other ticks too: only those in the range given beside the block count,
    /// which is the scan's less what has expired. Corrupt blocks are left out and put aside.
    ///
    /// # Errors
    /// The port fails.
    pub fn scan_view(
        &self,
        view: &TickView,
        scan: &TickScan,
        visit: &mut dyn FnMut(&Block, Range<TimeNs>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let store = self.spec(view.spec);
        let range = scan.from.max(store.cutoff_ticks.load(Relaxed))..scan.to;
        let newest_in = |end: TimeNs| end.saturating_add(store.spec.window.max_ahead);
        for part in view.parts.iter().filter(|part| newest_in(part.end) > range.start) {
            let mut walk = Walk::over(view.spec, part, scan.series.clone(), &range);
            while let Some(key) = walk.next(&*self.inner.kv, &range)? {
                let Some(block) = self.read_block(&part.space, &key, view.side, scan.series.as_deref())? else {
                    continue;
                };
                if visit(&block, range.clone()).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Visits every block of the journal that holds `offset` or later ones, over all specs, in order of offset:
    /// the offset of its first tick, its spec, and the block. Corrupt blocks are left out and put aside, and so are
    /// partitions rewritten by series: all in them is in stored bars or counted as dropped.
    ///
    /// # Errors
    /// The port fails.
    pub fn journal_from(&self, offset: u64, visit: &mut dyn FnMut(u64, SpecId, Block)) -> Result<(), StoreError> {
        let kv = &*self.inner.kv;
        let wanted = |facts: &BlockFacts| facts.end() > offset;
        let begin = offset.saturating_sub(MAX_ROWS as u64);
        // Held to the end, so that none of them goes meanwhile.
        let views: Vec<_> = self.inner.specs.iter().map(|store| self.tick_view(store.spec.id, false)).collect();
        let parts = views.iter().flat_map(|view| view.parts.iter().map(|part| (view.spec, part)));
        let in_order = parts.filter(|(_, part)| part.state != State::Sorted);
        let mut cursors: Vec<_> = in_order.map(|(spec, part)| Cursor::new(spec, part.space.clone(), begin)).collect();
        let mut heads = BinaryHeap::new();
        for (i, cursor) in cursors.iter_mut().enumerate() {
            heads.extend(cursor.next(kv, &wanted)?.map(|(facts, key)| Reverse((facts.offset, i, key))));
        }
        while let Some(Reverse((at, i, key))) = heads.pop() {
            let cursor = &mut cursors[i];
            if let Some(block) = self.read_block(&cursor.space, &key, false, None)? {
                visit(at, cursor.spec, block);
            }
            heads.extend(cursor.next(kv, &wanted)?.map(|(facts, key)| Reverse((facts.offset, i, key))));
        }
        Ok(())
    }

    /// Reads one block; `None` where it is corrupt, gone, or without any of `series`.
    pub(super) fn read_block(
        &self,
        space: &str,
        key: &[u8],
        side: bool,
        series: Option<&[SeriesId]>,
    ) -> Result<Option<Block>, KvError> {
        let Some(frame) = self.inner.kv.get(space, key)? else { return Ok(None) };
        let block = value::open(key, &frame).map(|bytes| decode_with(&bytes, series));
        match block {
            Some(Ok(block)) => Ok(block),
            Some(Err(_)) | None => {
                let kind = if side { Kind::Side } else { Kind::Block };
                self.inner.quarantine.take(kind, space, key, &frame, None);
                Ok(None)
            }
        }
    }
}

/// The first arrival number after a space of blocks in order of arrival; 0 where it is empty.
pub(super) fn journal_end_of(kv: &dyn Kv, space: &str) -> Result<u64, KvError> {
    let last = kv.last_key(space)?;
    Ok(last.as_deref().and_then(keys::parse_block).map_or(0, |last| last.end()))
}

/// The first arrival number after all blocks in order of arrival, those of specs no longer configured among them.
pub(super) fn journal_end_of_all(kv: &dyn Kv) -> Result<u64, KvError> {
    kv.spaces("ticks/").iter().try_fold(0, |end, space| Ok(journal_end_of(kv, space)?.max(end)))
}

/// Decodes a block; where series are asked for, as little as shows that it has none of them.
fn decode_with(bytes: &[u8], series: Option<&[SeriesId]>) -> Result<Option<Block>, CorruptBlock> {
    if let Some(series) = series {
        let header = BlockHeader::read(bytes)?;
        let in_range = next_from(series, header.min_series).is_some_and(|first| first <= header.max_series);
        let is_asked_for = |id: &u32| series.binary_search(&SeriesId(*id)).is_ok();
        if !in_range || !decode_series_only(bytes)?.iter().any(is_asked_for) {
            return Ok(None);
        }
    }
    Block::decode(bytes).map(Some)
}

/// Walks the keys of a partition, however it is ordered.
enum Walk {
    Arrival(Cursor),
    Sorted(SortedWalk),
}

impl Walk {
    fn over(spec: SpecId, part: &Partition, series: Option<Arc<[SeriesId]>>, times: &Range<TimeNs>) -> Self {
        match part.state {
            State::Sorted => Self::Sorted(SortedWalk::new(part.space.clone(), series, times.clone())),
            State::Open | State::Sealed => Self::Arrival(Cursor::new(spec, part.space.clone(), 0)),
        }
    }

    fn next(&mut self, kv: &dyn Kv, times: &Range<TimeNs>) -> Result<Option<Bytes>, KvError> {
        let wanted = |facts: &BlockFacts| facts.max_time >= times.start && facts.min_time < times.end;
        match self {
            Self::Arrival(cursor) => Ok(cursor.next(kv, &wanted)?.map(|(_, key)| key)),
            Self::Sorted(walk) => walk.next(kv),
        }
    }
}

/// Walks the keys of one space of blocks, a few hundred at a time, so that no scan stays open meanwhile.
pub(super) struct Cursor {
    spec: SpecId,
    space: Arc<str>,
    ahead: VecDeque<(BlockFacts, Bytes)>,
    /// Where to go on reading keys; `None` at the end.
    from: Option<Vec<u8>>,
}

impl Cursor {
    /// Begins at the first block whose offset is at least `offset`.
    pub fn new(spec: SpecId, space: Arc<str>, offset: u64) -> Self {
        Self { spec, space, ahead: VecDeque::new(), from: Some(offset.to_be_bytes().to_vec()) }
    }

    /// The next block that is wanted.
    pub fn next(
        &mut self,
        kv: &dyn Kv,
        wanted: &dyn Fn(&BlockFacts) -> bool,
    ) -> Result<Option<(BlockFacts, Bytes)>, KvError> {
        if self.ahead.is_empty() {
            self.read_ahead(kv, wanted)?;
        }
        Ok(self.ahead.pop_front())
    }

    fn read_ahead(&mut self, kv: &dyn Kv, wanted: &dyn Fn(&BlockFacts) -> bool) -> Result<(), KvError> {
        let Some(from) = self.from.take() else { return Ok(()) };
        kv.scan_keys(&self.space, &from, None, &mut |key| {
            if let Some(facts) = keys::parse_block(key).filter(|facts| wanted(facts)) {
                self.ahead.push_back((facts, Bytes::copy_from_slice(key)));
            }
            if self.ahead.len() < AHEAD {
                return ControlFlow::Continue(());
            }
            // The lowest key above this one.
            self.from = Some([key, &[0]].concat());
            ControlFlow::Break(())
        })
    }
}
