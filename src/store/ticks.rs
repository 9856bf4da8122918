//! The journal's blocks: scans by time and series, and replay in order of arrival.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::open::lock;
use super::{BlockFacts, Kind, Kv, KvError, Store, StoreError, TickScan, keys, value};
use crate::codec::block::{Block, CorruptBlock, MAX_ROWS, decode_series_only};
use crate::codec::block_header::BlockHeader;
use crate::model::{SeriesId, SpecId, TimeNs};

/// Keys read ahead at once.
const AHEAD: usize = 256;

impl Store {
    /// Visits the blocks with ticks in `[scan.from, scan.to)` in order of arrival until `visit` breaks. Blocks
    /// hold other ticks too: only those in the range given beside the block count, which is the scan's less what
    /// has expired. Corrupt blocks are left out and put aside.
    ///
    /// # Errors
    /// The port fails.
    pub fn scan_ticks(
        &self,
        scan: &TickScan,
        visit: &mut dyn FnMut(&Block, Range<TimeNs>) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let store = self.spec(scan.spec);
        let from = scan.from.max(store.cutoff_ticks.load(Relaxed));
        let parts = lock(if scan.side { &store.side } else { &store.ticks }).all();
        let newest_in = |end: TimeNs| end.saturating_add(store.spec.window.max_ahead);
        for part in parts.iter().filter(|part| newest_in(part.end) > from) {
            let mut cursor = Cursor::new(scan.spec, part.space.clone(), 0);
            let wanted = |facts: &BlockFacts| facts.max_time >= from && facts.min_time < scan.to;
            while let Some((_, key)) = cursor.next(&*self.inner.kv, &wanted)? {
                let Some(block) = self.read_block(&part.space, &key, scan.side, scan.series)? else { continue };
                if visit(&block, from..scan.to).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Visits every block of the journal that holds `offset` or later ones, over all specs, in order of offset:
    /// the offset of its first tick, its spec, and the block. Corrupt blocks are left out and put aside.
    ///
    /// # Errors
    /// The port fails.
    pub fn journal_from(&self, offset: u64, visit: &mut dyn FnMut(u64, SpecId, Block)) -> Result<(), StoreError> {
        let kv = &*self.inner.kv;
        let wanted = |facts: &BlockFacts| facts.offset + u64::from(facts.rows) > offset;
        let mut cursors = Vec::new();
        for store in &self.inner.specs {
            let parts = lock(&store.ticks).all();
            let begin = offset.saturating_sub(MAX_ROWS as u64);
            cursors.extend(parts.into_iter().map(|part| Cursor::new(store.spec.id, part.space, begin)));
        }
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

    /// Reads one block; `None` where it is corrupt, gone, or without `series`.
    fn read_block(
        &self,
        space: &str,
        key: &[u8],
        side: bool,
        series: Option<SeriesId>,
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

/// Decodes a block; where a series is asked for, as little as shows that it has none of it.
fn decode_with(bytes: &[u8], series: Option<SeriesId>) -> Result<Option<Block>, CorruptBlock> {
    if let Some(SeriesId(series)) = series {
        let header = BlockHeader::read(bytes)?;
        let in_range = header.min_series <= series && series <= header.max_series;
        if !in_range || !decode_series_only(bytes)?.contains(&series) {
            return Ok(None);
        }
    }
    Block::decode(bytes).map(Some)
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
