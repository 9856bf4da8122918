//! The bars in the order in which they were stored, for whoever follows them and may fall behind.
//!
//! An entry names the bars of one commit and their revisions, not their contents: those are the stored bars'. Where a
//! later commit replaces a bar, it keeps the revision it replaces beside its own entry, so that every revision can be
//! shown once, exactly as it was. Entries are cut into partitions by age and size, the oldest of which are dropped.
//!
//! ```text
//! outbox/<first>-<began>        position u64                              → entry
//! superseded/<first>-<began>    bar · window i64 · revision u32 · spec    → bar
//! ```
//! `<first>` is a partition's first position, `<began>` when it was begun; both hexadecimal, the time with the sign bit
//! flipped. Positions ascend, across restarts and losses of power too: each run begins at the clock's nanoseconds.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::keys::{order, unorder};
use super::outbox_bytes::{Entry, Named, superseded_key};
use super::{Kind, Kv, Op, Store, StoreBatch, StoreError, bar_bytes, value};
use crate::model::{BarBatch, BarHead, DurationNs, SpecId, TimeNs};

/// A partition is followed by another when it has this many bytes.
const PART_BYTES: u64 = 16 << 20;
/// A partition is followed by another after this part of the time entries are kept.
const PARTS: i64 = 8;

/// How much of the outbox is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// At least this long, unless the bytes are spent.
    pub time: DurationNs,
    /// At most this many bytes.
    pub bytes: u64,
}

/// What one commit stored, as far as it is still known.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// The bars.
    pub bars: BarBatch,
    /// Per bar, its position.
    pub positions: Vec<u64>,
}

/// A stretch of the outbox.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stretch {
    /// In the order of the commits.
    pub commits: Vec<Commit>,
    /// Where the next stretch begins.
    pub next: u64,
}

/// Why there is nothing to be read from a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboxError {
    /// It is no longer, or was never, in the outbox.
    #[error("position {position} is not kept: positions {oldest} to {end} are; query the bars stored since instead")]
    Outside {
        /// The position asked for.
        position: u64,
        /// The oldest kept.
        oldest: u64,
        /// The end.
        end: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The partitions of the outbox.
#[derive(Default)]
pub(super) struct Outbox(Mutex<State>);

#[derive(Default)]
struct State {
    /// Ascending.
    parts: VecDeque<Part>,
    end: u64,
    /// Whether this run has added anything.
    begun: bool,
}

struct Part {
    first: u64,
    began: TimeNs,
    bytes: u64,
    entries: Arc<str>,
    superseded: Arc<str>,
}

impl Part {
    fn new(first: u64, began: TimeNs, bytes: u64) -> Self {
        let name = |what: &str| format!("{what}/{first:016x}-{:016x}", order(began)).into();
        Self { first, began, bytes, entries: name("outbox"), superseded: name("superseded") }
    }

    fn parse(space: &str) -> Option<(u64, TimeNs)> {
        let (first, began) = space.strip_prefix("outbox/")?.split_once('-')?;
        Some((u64::from_str_radix(first, 16).ok()?, unorder(u64::from_str_radix(began, 16).ok()?)))
    }
}

impl Outbox {
    /// Finds what is there.
    pub fn open(kv: &dyn Kv) -> Result<Self, StoreError> {
        let mut state = State::default();
        for space in kv.spaces("outbox/") {
            let Some((first, began)) = Part::parse(&space) else { continue };
            let part = Part::new(first, began, kv.size(&space));
            state.end = state.end.max(first);
            if let Some(key) = kv.last_key(&space)?
                && let Ok(position) = key.as_ref().try_into().map(u64::from_be_bytes)
            {
                let entry = kv.get(&space, &key)?.and_then(|frame| value::open(&key, &frame));
                let bars = entry.and_then(|entry| Entry::read(&entry)).map_or(1, |entry| entry.bars.len() as u64);
                state.end = state.end.max(position.saturating_add(bars));
            }
            state.parts.push_back(part);
        }
        Ok(Self(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that everything below `end` is committed.
    pub fn advance(&self, end: u64) {
        let mut state = self.lock();
        state.end = state.end.max(end);
    }
}

impl StoreBatch {
    /// Adds the bars of this commit to the outbox, and the revisions they replace; gives their position.
    pub fn put_outbox(&mut self, bars: &BarBatch, replaced: &[(BarHead, Vec<u64>)], now: TimeNs, keep: Keep) -> u64 {
        let store = self.store().clone();
        let spec = store.spec(bars.spec);
        let mut state = store.inner.outbox.lock();
        let before = state.end;
        let position = if state.begun { before } else { before.max(u64::try_from(now).unwrap_or(0)) };
        (state.begun, state.end) = (true, position);
        let is_over = |part: &Part| part.bytes > PART_BYTES.min(keep.bytes / 4) || now - part.began > keep.time / PARTS;
        if state.parts.back().is_none_or(|part| part.first < position && is_over(part)) {
            // Nothing lies between where the last run ended and here, so who is there is not too late.
            state.parts.push_back(Part::new(before, now, 0));
        }
        let Some(part) = state.parts.back_mut() else { return position };
        let key = Bytes::copy_from_slice(&position.to_be_bytes());
        let lengths: Vec<_> = spec.spec.granularities.iter().map(|granularity| granularity.length).collect();
        let entry = value::frame(&key, &Entry::write(&spec.spec.name, &lengths, &bars.heads));
        part.bytes += entry.len() as u64;
        self.put_record(Op::Put { space: part.entries.clone(), key, value: entry });
        for (head, words) in replaced {
            let Some(length) = lengths.get(usize::from(head.granularity)) else { continue };
            let key = superseded_key(head, *length, &spec.spec.name);
            let value = bar_bytes::encode(&key, head, words, spec.layout);
            part.bytes += (key.len() + value.len()) as u64;
            self.put_record(Op::Put { space: part.superseded.clone(), key: key.into(), value });
        }
        self.outbox_end = position + bars.len() as u64;
        position
    }
}

impl Store {
    /// Where the outbox ends: the next bar stored gets this position, or a higher one.
    pub fn outbox_end(&self) -> u64 {
        self.inner.outbox.lock().end
    }

    /// Reads from `position` on, at least one commit and up to about `most` bars; what has expired meanwhile, or cannot
    /// be read, is left out.
    ///
    /// # Errors
    /// The position is not kept, or the store fails.
    pub fn outbox_from(&self, position: u64, most: usize) -> Result<Stretch, OutboxError> {
        let (parts, end) = {
            let state = self.inner.outbox.lock();
            let oldest = state.parts.front().map_or(state.end, |part| part.first);
            if !(oldest..=state.end).contains(&position) {
                return Err(OutboxError::Outside { position, oldest, end: state.end });
            }
            let spaces = state.parts.iter().map(|part| (part.first, part.entries.clone(), part.superseded.clone()));
            (spaces.collect::<Vec<_>>(), state.end)
        };
        let mut stretch = Stretch { commits: Vec::new(), next: position };
        let mut bars = 0;
        for (at, (_, entries, _)) in parts.iter().enumerate() {
            if parts.get(at + 1).is_some_and(|next| next.0 <= position) || bars >= most {
                continue;
            }
            let later: Vec<_> = parts[at..].iter().map(|(_, _, superseded)| superseded.clone()).collect();
            for (first, entry) in self.entries(entries, stretch.next, end, most - bars)? {
                stretch.next = first + entry.bars.len() as u64;
                bars += entry.bars.len();
                stretch.commits.extend(self.resolve(first, &entry, &later)?);
            }
        }
        if bars < most {
            stretch.next = stretch.next.max(end);
        }
        Ok(stretch)
    }

    /// The entries of one partition from `position` on, below `end`.
    fn entries(&self, space: &str, position: u64, end: u64, most: usize) -> Result<Vec<(u64, Entry)>, StoreError> {
        let (mut found, mut bars, mut corrupt) = (Vec::new(), 0, Vec::new());
        let (from, to) = (self.entry_with(space, position)?, end.to_be_bytes());
        self.inner.kv.scan(space, &from, Some(&to), &mut |key, frame| {
            let first = key.try_into().map(u64::from_be_bytes).unwrap_or(0);
            match value::open(key, &frame).and_then(|payload| Entry::read(&payload)) {
                Some(mut entry) => {
                    let before = position.saturating_sub(first).min(entry.bars.len() as u64);
                    entry.bars.drain(..before as usize);
                    bars += entry.bars.len();
                    found.push((first + before, entry));
                }
                None => corrupt.push((key.to_vec(), frame)),
            }
            if bars < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        for (key, frame) in corrupt {
            self.inner.quarantine.take(Kind::Outbox, space, &key, &frame, None);
        }
        Ok(found)
    }

    /// The key of the entry that `position` lies in.
    fn entry_with(&self, space: &str, position: u64) -> Result<Bytes, StoreError> {
        let exact = Bytes::copy_from_slice(&position.to_be_bytes());
        if self.inner.kv.get(space, &exact)?.is_some() {
            return Ok(exact);
        }
        let mut before = exact.clone();
        self.inner.kv.scan_keys(space, &[], Some(&exact), &mut |key| {
            before = Bytes::copy_from_slice(key);
            ControlFlow::Continue(())
        })?;
        Ok(before)
    }

    /// The bars an entry names, as they were then.
    fn resolve(&self, first: u64, entry: &Entry, later: &[Arc<str>]) -> Result<Option<Commit>, StoreError> {
        let Some(store) = self.inner.specs.iter().find(|store| store.spec.name == entry.spec) else { return Ok(None) };
        let mut commit = Commit { bars: BarBatch::new(store.spec.id), positions: Vec::new() };
        commit.bars.position = first;
        for (position, bar) in (first..).zip(&entry.bars) {
            let known = store.spec.granularities.iter().position(|granularity| granularity.length == bar.window);
            let Some(granularity) = known else { continue };
            let found = match self.bar(store.spec.id, granularity as u8, bar.series, bar.start)? {
                Some((head, _)) if head.revision > bar.revision => {
                    self.superseded(store.spec.id, granularity, bar, later)?
                }
                found => found,
            };
            if let Some((head, words)) = found.filter(|(head, _)| head.revision == bar.revision) {
                commit.bars.push(head, &words);
                commit.positions.push(position);
            }
        }
        Ok(Some(commit))
    }

    /// A revision that was replaced, kept by the commit that replaced it.
    fn superseded(
        &self,
        spec: SpecId,
        granularity: usize,
        bar: &Named,
        later: &[Arc<str>],
    ) -> Result<Option<(BarHead, Vec<u64>)>, StoreError> {
        let store = self.spec(spec);
        let head = BarHead { series: bar.series, start: bar.start, revision: bar.revision, ..BarHead::default() };
        let key = superseded_key(&head, bar.window, &store.spec.name);
        for space in later {
            let Some(frame) = self.inner.kv.get(space, &key)? else { continue };
            let mut state = Vec::new();
            let read =
                value::open(&key, &frame).and_then(|payload| bar_bytes::decode(&key[..12], &payload, &mut state));
            let Some((mut head, layout)) = read else { continue };
            let Some(layout) = store.layouts.get(layout) else { continue };
            if *layout != store.spec.accumulators {
                state = (self.inner.convert)(layout, &store.spec.accumulators, &state);
            }
            (head.granularity, head.words_len) = (granularity as u8, state.len() as u32);
            return Ok(Some((head, state)));
        }
        Ok(None)
    }

    /// Drops the oldest partitions that `keep` does not cover.
    ///
    /// # Errors
    /// The port fails.
    pub fn trim_outbox(&self, now: TimeNs, keep: Keep) -> Result<(), StoreError> {
        loop {
            let dropped = {
                let mut state = self.inner.outbox.lock();
                let bytes: u64 = state.parts.iter().map(|part| part.bytes).sum();
                // What comes after a partition was begun is younger than that.
                let is_old = state.parts.get(1).is_some_and(|next| next.began < now.saturating_sub(keep.time));
                if state.parts.len() < 2 || !(is_old || bytes > keep.bytes) {
                    return Ok(());
                }
                state.parts.pop_front()
            };
            for space in dropped.iter().flat_map(|part| [&part.entries, &part.superseded]) {
                self.inner.kv.drop_space(space)?;
            }
        }
    }
}
