//! Stored bars: point reads and scans.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::kv::MISSES;
use super::open::{SpecStore, lock};
use super::{BarScan, Kind, Store, StoreError, bar_bytes, keys, value};
use crate::model::{BarFlags, BarHead, SeriesId, SpecId, TimeNs};

impl Store {
    /// One bar, in the spec's present layout; `None` where there is none or it has expired.
    ///
    /// # Errors
    /// The spec has no such granularity, or the port fails.
    pub fn bar(
        &self,
        spec: SpecId,
        granularity: u8,
        series: SeriesId,
        start: TimeNs,
    ) -> Result<Option<(BarHead, Vec<u64>)>, StoreError> {
        let store = self.spec(spec);
        let bars = &store.bars[store.granularity(granularity)?];
        let Some(part) = lock(&bars.parts).covering(start) else { return Ok(None) };
        let key = keys::bar(series, start);
        if start < store.cutoff_bars.load(Relaxed) {
            return Ok(None);
        }
        let Some(frame) = self.inner.kv.get(&part.space, &key)? else { return Ok(None) };
        let mut state = Vec::new();
        match self.read(store, granularity, &key, &frame, &mut state) {
            Some(head) => Ok(Some((head, state))),
            None => {
                self.inner.quarantine.take(Kind::Bar, &part.space, &key, &frame, None);
                Ok(None)
            }
        }
    }

    /// Whether a bar was there once and is put aside as corrupt.
    ///
    /// # Errors
    /// The spec has no such granularity, or the port fails.
    pub fn is_lost(&self, spec: SpecId, granularity: u8, series: SeriesId, start: TimeNs) -> Result<bool, StoreError> {
        let store = self.spec(spec);
        let bars = &store.bars[store.granularity(granularity)?];
        let Some(part) = lock(&bars.parts).covering(start) else { return Ok(false) };
        Ok(self.inner.quarantine.has(Kind::Bar, &part.space, &keys::bar(series, start))?)
    }

    /// Visits bars until `visit` breaks: partition by partition in order of time, in each by series, and of each
    /// series in order of time. Corrupt ones are left out and put aside.
    ///
    /// # Errors
    /// The spec has no such granularity, or the port fails.
    pub fn scan_bars(
        &self,
        scan: &BarScan,
        visit: &mut dyn FnMut(&BarHead, &[u64]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let store = self.spec(scan.spec);
        let bars = &store.bars[store.granularity(scan.granularity)?];
        let scan = BarScan { from: scan.from.max(store.cutoff_bars.load(Relaxed)), ..*scan };
        let parts = lock(&bars.parts).all();
        for part in parts.iter().filter(|part| part.end > scan.from && part.start < scan.to) {
            if self.scan_partition(store, &scan, &part.space, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits the bars of one series, the newest first, until `visit` breaks. Corrupt ones are left out and put aside.
    ///
    /// # Errors
    /// The spec has no such granularity, or the port fails.
    pub fn newest_bars(
        &self,
        spec: SpecId,
        granularity: u8,
        series: SeriesId,
        visit: &mut dyn FnMut(&BarHead) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let store = self.spec(spec);
        let bars = &store.bars[store.granularity(granularity)?];
        let cutoff = store.cutoff_bars.load(Relaxed);
        let (from, to) = (keys::bar(series, cutoff), keys::bar(series, TimeNs::MAX));
        let parts = lock(&bars.parts).all();
        let (mut state, mut flow) = (Vec::new(), ControlFlow::Continue(()));
        for part in parts.iter().rev().take_while(|part| part.end > cutoff) {
            let mut corrupt = Vec::new();
            self.inner.kv.scan_back(&part.space, &from, &to, &mut |key, frame| {
                match self.read(store, granularity, key, &frame, &mut state) {
                    Some(head) => flow = visit(&head),
                    None => corrupt.push((key.to_vec(), frame)),
                }
                flow
            })?;
            self.inner.quarantine.take_all(Kind::Bar, &part.space, corrupt);
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The highest window start ever stored; above it no bar can be there.
    pub fn newest_start(&self, spec: SpecId, granularity: u8) -> Option<TimeNs> {
        let newest = self.spec(spec).bars.get(granularity as usize)?.newest.load(Relaxed);
        (newest > TimeNs::MIN).then_some(newest)
    }

    fn scan_partition(
        &self,
        store: &SpecStore,
        scan: &BarScan,
        space: &str,
        visit: &mut dyn FnMut(&BarHead, &[u64]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut from = keys::bar(scan.series.unwrap_or(SeriesId(0)), scan.from);
        let to = scan.series.map(|series| keys::bar(series, scan.to));
        let (mut corrupt, mut state, mut flow) = (Vec::new(), Vec::new(), ControlFlow::Continue(()));
        loop {
            let (mut seek, mut misses) = (None, 0);
            self.inner.kv.scan(space, &from, to.as_ref().map(|to| to.as_slice()), &mut |key, frame| {
                let outside = keys::parse_bar(key).and_then(|(series, start)| next_inside(scan, series, start));
                if let Some(next) = outside {
                    misses += 1;
                    seek = next.filter(|_| misses > MISSES);
                    return if misses > MISSES || next.is_none() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    };
                }
                misses = 0;
                match self.read(store, scan.granularity, key, &frame, &mut state) {
                    Some(head) => flow = visit(&head, &state),
                    None => corrupt.push((key.to_vec(), frame)),
                }
                flow
            })?;
            match seek {
                Some(next) => from = next,
                None => break,
            }
        }
        self.inner.quarantine.take_all(Kind::Bar, space, corrupt);
        Ok(flow)
    }

    /// Reads a stored bar into the spec's present layout; `None` where it is corrupt.
    fn read(
        &self,
        store: &SpecStore,
        granularity: u8,
        key: &[u8],
        frame: &Bytes,
        state: &mut Vec<u64>,
    ) -> Option<BarHead> {
        let payload = value::open(key, frame)?;
        let (mut head, layout) = bar_bytes::decode(key, &payload, state)?;
        self.restate(store, layout, &mut head, state)?;
        head.granularity = granularity;
        Some(head)
    }

    /// Brings a bar read in one of its spec's layouts into the present one, and says of a bar that lacks a part of that
    /// that it does.
    pub(super) fn restate(
        &self,
        store: &SpecStore,
        layout: usize,
        head: &mut BarHead,
        state: &mut Vec<u64>,
    ) -> Option<()> {
        if layout != store.layout {
            *state = (self.inner.convert)(store.layouts.get(layout)?, &store.spec.accumulators, state);
            let lacking = head.flags.contains(BarFlags::REDEFINED) || store.lacking[layout];
            head.flags.set(BarFlags::REDEFINED, lacking);
        }
        head.words_len = state.len() as u32;
        Some(())
    }
}

impl SpecStore {
    /// Checks the number of a granularity and gives it as index.
    pub(super) fn granularity(&self, granularity: u8) -> Result<usize, StoreError> {
        let known = (granularity as usize) < self.bars.len();
        let error = || StoreError::NoGranularity { spec: self.spec.name.clone(), granularity };
        known.then_some(granularity as usize).ok_or_else(error)
    }
}

/// For a bar outside the range: the lowest key that may follow inside, if any. `None` for a bar inside.
fn next_inside(scan: &BarScan, series: SeriesId, start: TimeNs) -> Option<Option<[u8; 12]>> {
    if start < scan.from {
        return Some(Some(keys::bar(series, scan.from)));
    }
    let after = start >= scan.to && scan.to != TimeNs::MAX;
    after.then(|| series.0.checked_add(1).map(|next| keys::bar(SeriesId(next), scan.from)))
}
