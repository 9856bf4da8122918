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
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::follower::{Follower, Following, GivenUp, WhenSpent};
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
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Commit {
    /// When that was, where it was noted.
    pub stored_at: Option<TimeNs>,
    /// The bars.
    pub bars: BarBatch,
    /// Per bar, its position.
    pub positions: Vec<u64>,
    /// Per bar the revision it replaced, where there was one and it was asked for.
    pub previous: Vec<Option<(BarHead, Vec<u64>)>>,
    /// Positions of bars that were asked for and cannot be read any more: they have expired, or are damaged.
    pub lost: Vec<u64>,
}

/// What is to be read.
struct Question<'a> {
    position: u64,
    to: u64,
    most: usize,
    /// Only the bars of this follower, every one of which is to be accounted for.
    follower: Option<&'a Follower>,
    /// Whether the revisions they replaced are wanted, too.
    previous: bool,
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
    followers: Vec<Arc<Follower>>,
}

struct Part {
    first: u64,
    began: TimeNs,
    bytes: u64,
    entries: Arc<str>,
    superseded: Arc<str>,
}

/// Where a partition is.
struct PartNames {
    first: u64,
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

    /// Notes that everything below `end` is committed: of a spec so many bars, by granularity.
    pub fn advance(&self, end: u64, added: Option<(SpecId, Vec<u64>)>) {
        let mut state = self.lock();
        state.end = state.end.max(end);
        let Some((spec, added)) = added else { return };
        for follower in &state.followers {
            let wanted = (0..).zip(&added).filter(|(granularity, _)| follower.wants(spec, *granularity));
            follower.expect(wanted.map(|(_, bars)| bars).sum());
        }
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
        if let Err(error) = state.refuse_if_spent(now) {
            self.error = Some(error);
            return before;
        }
        let cut = state.cut(keep);
        let is_over = |part: &Part| part.bytes > cut.bytes || now - part.began > cut.time;
        if state.parts.back().is_none_or(|part| part.first < position && is_over(part)) {
            // Nothing lies between where the last run ended and here, so who is there is not too late.
            state.parts.push_back(Part::new(before, now, 0));
        }
        let Some(part) = state.parts.back_mut() else { return position };
        let key = Bytes::copy_from_slice(&position.to_be_bytes());
        let lengths: Vec<_> = spec.spec.granularities.iter().map(|granularity| granularity.length).collect();
        let entry = value::frame(&key, &Entry::write(&spec.spec.name, &lengths, &bars.heads, now));
        part.bytes += entry.len() as u64;
        self.put_record(Op::Put { space: part.entries.clone(), key, value: entry });
        for (head, words) in replaced {
            let Some(length) = lengths.get(usize::from(head.granularity)) else { continue };
            let key = superseded_key(head, *length, &spec.spec.name);
            let value = bar_bytes::encode(&key, head, words, spec.layout);
            part.bytes += (key.len() + value.len()) as u64;
            self.put_record(Op::Put { space: part.superseded.clone(), key: key.into(), value });
        }
        let mut added = vec![0; lengths.len()];
        for head in &bars.heads {
            added.get_mut(usize::from(head.granularity)).into_iter().for_each(|bars: &mut u64| *bars += 1);
        }
        self.outbox_added = Some((bars.spec, added));
        self.outbox_end = position + bars.len() as u64;
        position
    }
}

impl Store {
    /// Where the outbox ends: the next bar stored gets this position, or a higher one.
    pub fn outbox_end(&self) -> u64 {
        self.inner.outbox.lock().end
    }

    /// The positions that are kept.
    pub fn outbox_kept(&self) -> Range<u64> {
        self.inner.outbox.lock().kept()
    }

    /// Reads about `most` bars from `position` on; what has expired meanwhile, or cannot be read, is left out.
    ///
    /// # Errors
    /// The position is not kept, or the store fails.
    pub fn outbox_from(&self, position: u64, most: usize) -> Result<Stretch, OutboxError> {
        self.read_outbox(&Question { position, to: u64::MAX, most, follower: None, previous: false })
    }

    /// Reads of about `most` bars in `[position, to)` those that are meant for `follower`; with `previous` the revisions
    /// they replaced, too. What cannot be read is told.
    ///
    /// # Errors
    /// The position is not kept, or the store fails.
    pub fn outbox_for(
        &self,
        follower: &Follower,
        (position, to): (u64, u64),
        most: usize,
        previous: bool,
    ) -> Result<Stretch, OutboxError> {
        self.read_outbox(&Question { position, to, most, follower: Some(follower), previous })
    }

    fn read_outbox(&self, question: &Question<'_>) -> Result<Stretch, OutboxError> {
        let Question { position, most, .. } = *question;
        let (parts, kept) = self.outbox_parts();
        if !(kept.start..=kept.end).contains(&position) {
            return Err(OutboxError::Outside { position, oldest: kept.start, end: kept.end });
        }
        let end = kept.end.min(question.to);
        let mut stretch = Stretch { commits: Vec::new(), next: position };
        let mut bars = 0;
        for (at, part) in parts.iter().enumerate() {
            if parts.get(at + 1).is_some_and(|next| next.first <= position) || part.first >= end || bars >= most {
                continue;
            }
            let later: Vec<_> = parts[at..].iter().map(|part| part.superseded.clone()).collect();
            for (first, entry) in self.entries(&part.entries, stretch.next, end, most - bars)? {
                stretch.next = first + entry.bars.len() as u64;
                bars += entry.bars.len();
                stretch.commits.extend(self.resolve(first, &entry, &later, question)?);
            }
        }
        if bars < most {
            stretch.next = stretch.next.max(end);
        }
        Ok(stretch)
    }

    /// The partitions there are, and the positions that are kept.
    fn outbox_parts(&self) -> (Vec<PartNames>, Range<u64>) {
        let state = self.inner.outbox.lock();
        let names = |part: &Part| PartNames {
            first: part.first,
            entries: part.entries.clone(),
            superseded: part.superseded.clone(),
        };
        (state.parts.iter().map(names).collect(), state.kept())
    }

    /// Visits the bars named in `[from, to)`, without reading them: spec, granularity, position.
    ///
    /// # Errors
    /// The port fails.
    pub(super) fn visit_named(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(SpecId, u8, u64),
    ) -> Result<(), StoreError> {
        let (parts, kept) = self.outbox_parts();
        let (from, to) = (from.max(kept.start), to.min(kept.end));
        for (at, part) in parts.iter().enumerate() {
            if from >= to || part.first >= to || parts.get(at + 1).is_some_and(|next| next.first <= from) {
                continue;
            }
            for (first, entry) in self.entries(&part.entries, from.max(part.first), to, usize::MAX)? {
                let spec = self.inner.specs.iter().find(|store| store.spec.name == entry.spec);
                let Some(spec) = spec.map(|store| &store.spec) else { continue };
                for (position, bar) in (first..).zip(&entry.bars) {
                    let granularity = spec.granularities.iter().position(|known| known.length == bar.window);
                    granularity.into_iter().for_each(|granularity| visit(spec.id, granularity as u8, position));
                }
            }
        }
        Ok(())
    }

    /// The entries of one partition from `position` on, below `end`, cut to `most` bars.
    fn entries(&self, space: &str, position: u64, end: u64, most: usize) -> Result<Vec<(u64, Entry)>, StoreError> {
        let (mut found, mut bars, mut corrupt) = (Vec::new(), 0, Vec::new());
        let (from, to) = (self.entry_with(space, position)?, end.to_be_bytes());
        self.inner.kv.scan(space, &from, Some(&to), &mut |key, frame| {
            let first = key.try_into().map(u64::from_be_bytes).unwrap_or(0);
            match value::open(key, &frame).and_then(|payload| Entry::read(&payload)) {
                Some(mut entry) => {
                    let before = position.saturating_sub(first).min(entry.bars.len() as u64);
                    entry.bars.truncate(usize::try_from(end - first).unwrap_or(usize::MAX));
                    entry.bars.drain(..(before as usize).min(entry.bars.len()));
                    entry.bars.truncate(most - bars);
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
    fn resolve(
        &self,
        first: u64,
        entry: &Entry,
        later: &[Arc<str>],
        question: &Question<'_>,
    ) -> Result<Option<Commit>, StoreError> {
        let Some(store) = self.inner.specs.iter().find(|store| store.spec.name == entry.spec) else { return Ok(None) };
        let id = store.spec.id;
        if question.follower.is_some_and(|follower| follower.following.spec != id) {
            return Ok(None);
        }
        let mut commit = Commit {
            stored_at: entry.stored_at,
            bars: BarBatch { position: first, ..BarBatch::new(id) },
            ..Commit::default()
        };
        for (position, bar) in (first..).zip(&entry.bars) {
            let known = store.spec.granularities.iter().position(|granularity| granularity.length == bar.window);
            let wanted =
                |granularity: &usize| question.follower.is_none_or(|whose| whose.wants(id, *granularity as u8));
            let Some(granularity) = known.filter(wanted) else { continue };
            let found = match self.bar(id, granularity as u8, bar.series, bar.start)? {
                Some((head, _)) if head.revision > bar.revision => self.superseded(id, granularity, bar, later)?,
                found => found,
            };
            let Some((head, words)) = found.filter(|(head, _)| head.revision == bar.revision) else {
                commit.lost.push(position);
                continue;
            };
            commit.bars.push(head, &words);
            commit.positions.push(position);
            if question.previous {
                let before = bar.revision.checked_sub(1).map(|revision| Named { revision, ..*bar });
                let before = before.map(|bar| self.superseded(id, granularity, &bar, later)).transpose()?;
                commit.previous.push(before.flatten());
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
        // A partition may have been begun since these were listed, and have what was replaced since.
        let listed_now = std::iter::once_with(|| self.outbox_parts().0).flatten().map(|part| part.superseded);
        for space in later.iter().cloned().chain(listed_now.filter(|space| !later.contains(space))) {
            let Some(frame) = self.inner.kv.get(&space, &key)? else { continue };
            let mut state = Vec::new();
            let read =
                value::open(&key, &frame).and_then(|payload| bar_bytes::decode(&key[..12], &payload, &mut state));
            let Some((mut head, layout)) = read else { continue };
            if self.restate(store, layout, &mut head, &mut state).is_none() {
                continue;
            }
            head.granularity = granularity as u8;
            return Ok(Some((head, state)));
        }
        Ok(None)
    }

    /// Has followers whose spool is spent give up their oldest bars, which are counted, and drops the oldest partitions that
    /// neither `keep` covers nor a follower holds.
    ///
    /// # Errors
    /// The port fails.
    pub fn trim_outbox(&self, now: TimeNs, keep: Keep) -> Result<(), StoreError> {
        // A guard in the condition of a loop would be held throughout its body.
        let overspent = || self.inner.outbox.lock().overspent(now);
        while let Some(Overspent { follower, from, to, why }) = overspent() {
            let bars = self.give_up(&follower, from, to, why)?;
            // It is counted before it is gone.
            self.save_follower(&follower, &[])?;
            let sink = &follower.following.sink;
            tracing::error!(sink, bars, ?why, "the spool is spent: the oldest bars in it are dropped");
        }
        let oldest_is_to_go = || self.inner.outbox.lock().oldest_is_to_go(now, keep);
        while oldest_is_to_go() {
            let dropped = self.inner.outbox.lock().parts.pop_front();
            for space in dropped.iter().flat_map(|part| [&part.entries, &part.superseded]) {
                self.inner.kv.drop_space(space)?;
            }
        }
        Ok(())
    }

    /// Takes a follower in, and counts what is outstanding for it.
    pub(super) fn adopt(&self, follower: &Arc<Follower>) -> Result<(), StoreError> {
        self.inner.outbox.lock().followers.push(follower.clone());
        self.count_outstanding(follower)
    }

    /// Where a follower has settled everything there is, bars still counted as outstanding were in entries that are damaged
    /// or gone: they are counted as unreadable.
    pub fn account_for_lost(&self, follower: &Follower) {
        let state = self.inner.outbox.lock();
        let bars = follower.account_for_lost(state.end);
        if bars > 0 {
            tracing::error!(sink = follower.following.sink, bars, "bars of damaged outbox entries are given up");
        }
    }

    /// The bytes of the outbox that a follower holds, and when the oldest of them was begun.
    pub fn held_by(&self, follower: &Follower) -> (u64, Option<TimeNs>) {
        self.inner.outbox.lock().held_by(follower)
    }
}

/// A follower that is to give up what it has outstanding in `[from, to)`, and why.
struct Overspent {
    follower: Arc<Follower>,
    from: u64,
    to: u64,
    why: GivenUp,
}

impl State {
    fn kept(&self) -> Range<u64> {
        self.parts.front().map_or(self.end, |part| part.first)..self.end
    }

    /// When a partition is followed by another: soon enough that every budget is a few of them.
    fn cut(&self, keep: Keep) -> Keep {
        let spools = || self.followers.iter().map(|follower| follower.following.spool);
        let bytes = spools().map(|spool| spool.bytes).fold(keep.bytes, u64::min) / 4;
        let time = spools().map(|spool| spool.age).fold(keep.time, DurationNs::min) / PARTS;
        Keep { time, bytes: bytes.min(PART_BYTES) }
    }

    /// The partition in which `position` lies.
    fn part_of(&self, position: u64) -> usize {
        self.parts.partition_point(|part| part.first <= position).saturating_sub(1)
    }

    /// What a follower holds: everything from the partition on in which its oldest bar lies.
    fn held_by(&self, follower: &Follower) -> (u64, Option<TimeNs>) {
        let Some(from) = follower.holds_from() else { return (0, None) };
        let at = self.part_of(from);
        let bytes = self.parts.range(at..).map(|part| part.bytes).sum();
        (bytes, self.parts.get(at).map(|part| part.began))
    }

    /// Why nothing may be stored, if a spool that is not to be dropped from is spent.
    fn refuse_if_spent(&self, now: TimeNs) -> Result<(), StoreError> {
        let refuses = |follower: &&Arc<Follower>| follower.following.spool.when_spent == WhenSpent::Refuse;
        for follower in self.followers.iter().filter(refuses) {
            let (Following { sink, spool, .. }, (used, since)) = (&follower.following, self.held_by(follower));
            let age = since.map_or(0, |since| now - since);
            if used > spool.bytes || age > spool.age {
                return Err(StoreError::SpoolSpent {
                    sink: sink.clone(),
                    used,
                    budget: spool.bytes,
                    age,
                    most: spool.age,
                });
            }
        }
        Ok(())
    }

    /// A follower that holds more than its spool, and is to give up what it has in the oldest partition it holds. The last
    /// partition is still being filled, and stays.
    fn overspent(&self, now: TimeNs) -> Option<Overspent> {
        let drops = |follower: &&Arc<Follower>| follower.following.spool.when_spent == WhenSpent::DropOldest;
        self.followers.iter().filter(drops).find_map(|follower| {
            let from = follower.holds_from()?;
            let next = self.parts.get(self.part_of(from) + 1)?;
            let spool = follower.following.spool;
            // What comes after a partition was begun is younger than that.
            let why = match (self.held_by(follower).0 > spool.bytes, next.began < now.saturating_sub(spool.age)) {
                (true, _) => GivenUp::SpoolFull,
                (_, true) => GivenUp::SpoolExpired,
                _ => return None,
            };
            Some(Overspent { follower: follower.clone(), from, to: next.first, why })
        })
    }

    /// Whether the oldest partition is neither covered by `keep` nor held by a follower.
    fn oldest_is_to_go(&self, now: TimeNs, keep: Keep) -> bool {
        let Some(next) = self.parts.get(1) else { return false };
        let bytes = self.parts.iter().map(|part| part.bytes).sum::<u64>();
        let is_over = bytes > keep.bytes || next.began < now.saturating_sub(keep.time);
        let holds = |follower: &Arc<Follower>| follower.holds_from().is_some_and(|from| from < next.first);
        is_over && !self.followers.iter().any(holds)
    }
}
