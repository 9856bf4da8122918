//! The bars in the order in which they were stored, for whoever follows them and may fall behind.
//!
//! An entry names the bars of one commit, or of a part of it, and their revisions. Beside it is what is in them, and in the
//! revisions they replaced, so that whoever follows reads in a row what was stored in a row, and sees every revision exactly
//! as it was. Entries are cut into partitions by age and size, the oldest of which are dropped. How they are read is in
//! `outbox_read`.
//!
//! ```text
//! outbox/<first>-<began>      position u64   → names
//! contents/<first>-<began>    position u64   → what is in them
//! ```
//! `<first>` is a partition's first position, `<began>` when it was begun; both hexadecimal, the time with the sign bit
//! flipped. Positions ascend, across restarts and losses of power too: each run begins at the clock's nanoseconds.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::fate::GivenUp;
use super::follower::{Follower, Following, WhenSpent};
use super::keys::{order, unorder};
use super::outbox_bytes::{Entry, write_content};
use super::{Kv, Op, Store, StoreBatch, StoreError, value};
use crate::model::time::{MILLISECOND, SECOND};
use crate::model::{BarBatch, BarHead, DurationNs, SeriesId, SpecId, TimeNs};

/// A partition is followed by another when it has this many bytes.
const PART_BYTES: u64 = 32 << 20;
/// A partition is followed by another after this part of the time entries are kept.
const PARTS: i64 = 8;
/// When bars were stored is noted this often, and this often of a partition that is full.
const MARK: u64 = 50 * MILLISECOND as u64;
const OLD_MARK: u64 = SECOND as u64;
/// The most bars in an entry.
pub(super) const ENTRY: usize = 1024;

/// How much of the outbox is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// At least this long, unless the bytes are spent.
    pub time: DurationNs,
    /// At most this many bytes.
    pub bytes: u64,
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
    /// When what is from a position on was stored; ascending, of this run only.
    marks: Vec<(u64, TimeNs)>,
    names: Arc<str>,
    contents: Arc<str>,
}

/// Where a partition is.
pub(super) struct PartSpaces {
    /// Its first position.
    pub first: u64,
    pub names: Arc<str>,
    pub contents: Arc<str>,
}

impl Part {
    fn new(first: u64, began: TimeNs, bytes: u64) -> Self {
        let name = |what: &str| format!("{what}/{first:016x}-{:016x}", order(began)).into();
        Self { first, began, bytes, marks: Vec::new(), names: name("outbox"), contents: name("contents") }
    }

    /// Notes that what is from `position` on is stored now; the clock may have been set back.
    fn mark(&mut self, position: u64, now: TimeNs) {
        if self.marks.last().is_none_or(|(_, at)| now.abs_diff(*at) >= MARK) {
            self.marks.push((position, now));
        }
    }

    /// Keeps fewer marks: nothing more is added.
    fn close(&mut self) {
        let mut last = TimeNs::MIN;
        self.marks.retain(|(_, at)| {
            let keeps = at.abs_diff(last) >= OLD_MARK;
            last = if keeps { *at } else { last };
            keeps
        });
        self.marks.shrink_to_fit();
    }

    /// When the bar at `position` was stored, at the earliest.
    fn stored_at(&self, position: u64) -> TimeNs {
        let after = self.marks.partition_point(|(from, _)| *from <= position);
        after.checked_sub(1).map_or(self.began, |at| self.marks[at].1)
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
            let mut part = Part::new(first, began, 0);
            part.bytes = kv.size(&part.names) + kv.size(&part.contents);
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
    /// Adds the bars of this commit to the outbox, and the revisions they replace; gives the first one's position.
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
            state.parts.back_mut().into_iter().for_each(Part::close);
            state.parts.push_back(Part::new(before, now, 0));
        }
        let Some(part) = state.parts.back_mut() else { return position };
        part.mark(position, now);
        let replaced: HashMap<_, _> = replaced.iter().map(|bar| (identity(&bar.0), bar)).collect();
        let lengths: Vec<_> = spec.spec.granularities.iter().map(|granularity| granularity.length).collect();
        for (position, heads) in (position..).step_by(ENTRY).zip(bars.heads.chunks(ENTRY)) {
            let key = Bytes::copy_from_slice(&position.to_be_bytes());
            let names = value::frame(&key, &Entry::write(&spec.spec.name, &lengths, heads, now));
            let mut contents = value::begin(heads.len() * 96);
            for head in heads {
                let replaced = replaced.get(&identity(head)).copied();
                write_content(&mut contents, (head, bars.state(head)), replaced, spec.layout);
            }
            let contents = value::seal(contents, &key);
            part.bytes += (names.len() + contents.len()) as u64;
            self.put_record(Op::Put { space: part.names.clone(), key: key.clone(), value: names });
            self.put_record(Op::Put { space: part.contents.clone(), key, value: contents });
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

fn identity(head: &BarHead) -> (u8, SeriesId, TimeNs) {
    (head.granularity, head.series, head.start)
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

    /// The partitions there are, and the positions that are kept.
    pub(super) fn outbox_parts(&self) -> (Vec<PartSpaces>, Range<u64>) {
        let state = self.inner.outbox.lock();
        let spaces =
            |part: &Part| PartSpaces { first: part.first, names: part.names.clone(), contents: part.contents.clone() };
        (state.parts.iter().map(spaces).collect(), state.kept())
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
            for space in dropped.iter().flat_map(|part| [&part.names, &part.contents]) {
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

    /// The bytes of the outbox that a follower holds, and when the oldest bar that it has outstanding was stored. Of what
    /// an earlier run stored, it is when that bar's partition was begun.
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

    /// What a follower holds: everything from the partition on in which its oldest bar lies; and since when it has that bar.
    fn held_by(&self, follower: &Follower) -> (u64, Option<TimeNs>) {
        let Some(from) = follower.holds_from() else { return (0, None) };
        let at = self.part_of(from);
        let bytes = self.parts.range(at..).map(|part| part.bytes).sum();
        (bytes, self.parts.get(at).map(|part| part.stored_at(from)))
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
