//! Who follows the outbox and must not miss anything: a durable cursor, and the count of what became of every bar.
//!
//! A follower is registered before anything is stored, and from then on the outbox keeps for it what it has not settled,
//! within its spool. Every bar meant for it is settled once, under one [`Fate`], so that
//! `bars stored for it = delivered + dropped + quarantined + skipped + outstanding` at any time. Cursor and counts are one record:
//!
//! ```text
//! cursor/<sink>/<spec>             JSON: the outstanding positions, and what became of the others
//! refused/<sink>/<spec>/<number>   JSON: a bar its broker will never take, and why; the last ones are kept
//! ```

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
use super::fate::{Fate, FollowerCounts, GivenUp, Refused, Settled};
use super::{Durability, Kind, Op, Store, StoreError, keys, meta, value};
use crate::model::{DurationNs, SpecId};

/// What the names of all cursors begin with.
pub const CURSOR: &str = "cursor/";
/// What the names of all records of refused bars begin with.
pub const REFUSED: &str = "refused/";
/// How many stretches that were given up are remembered, for what of them is under way: each is a partition of the outbox,
/// of which a sink reads a few ahead.
const GIVEN_UP_KEPT: usize = 64;
/// How many refused bars of one follower are kept for inspection.
const REFUSED_KEPT: u64 = 100;

/// What somebody wants to follow.
#[derive(Debug, Clone)]
pub struct Following {
    /// Who: the stage's name.
    pub sink: String,
    /// The bars of this spec.
    pub spec: SpecId,
    /// Per granularity of the spec: whether its bars are wanted.
    pub granularities: Vec<bool>,
    /// What is kept for it.
    pub spool: Spool,
    /// Whether it begins with the oldest bar there is, the first time, rather than with the next.
    pub from_earliest: bool,
}

/// How much of the outbox is kept for a follower that does not keep up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spool {
    /// At most this many bytes.
    pub bytes: u64,
    /// At most this long.
    pub age: DurationNs,
    /// What happens when that is spent.
    pub when_spent: WhenSpent,
}

/// What happens when a spool is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenSpent {
    /// The oldest partition goes, its bars are counted as dropped.
    DropOldest,
    /// Nothing more is stored until there is room: whoever writes waits.
    Refuse,
}

/// The record of a follower.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FollowerRecord {
    /// What is outstanding.
    pub cursor: Cursor,
    /// What became of the rest.
    #[serde(flatten)]
    pub counts: FollowerCounts,
    /// Refused bars recorded so far; the next one's record is numbered so.
    #[serde(default)]
    pub refused: u64,
}

/// A follower.
pub struct Follower {
    /// What it follows.
    pub following: Following,
    record: String,
    state: Mutex<FollowerRecord>,
    /// What was given up in this run, and why: some of it may be under way.
    given_up: Mutex<VecDeque<(Range<u64>, GivenUp)>>,
    dirty: AtomicBool,
}

impl FollowerRecord {
    /// One that has settled nothing, and knows of nothing.
    pub fn fresh() -> Self {
        Self { cursor: Cursor::starting_at(0), counts: FollowerCounts::default(), refused: 0 }
    }

    /// As the value of `key`.
    pub fn to_frame(&self, key: &[u8]) -> bytes::Bytes {
        // Numbers and strings always have a JSON form.
        value::frame(key, &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a record; `None` where it is damaged.
    pub fn read(key: &[u8], frame: &bytes::Bytes) -> Option<Self> {
        let record: Self = serde_json::from_slice(&value::open(key, frame)?).ok()?;
        record.cursor.is_sound().then_some(record)
    }
}

impl Follower {
    fn lock(&self) -> MutexGuard<'_, FollowerRecord> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is outstanding.
    pub fn cursor(&self) -> Cursor {
        self.lock().cursor.clone()
    }

    /// What became of its bars.
    pub fn counts(&self) -> FollowerCounts {
        self.lock().counts
    }

    /// The first outstanding positions at or above `from`.
    pub fn next_outstanding(&self, from: u64) -> (u64, u64) {
        self.lock().cursor.next(from)
    }

    /// Where nothing below `end`, the outbox's, is outstanding: what was counted as such cannot be read any more.
    pub(super) fn account_for_lost(&self, end: u64) -> u64 {
        let mut state = self.lock();
        let lost = if state.cursor.lowest() >= end { state.counts.outstanding } else { 0 };
        state.counts.count(Fate::Dropped(GivenUp::Unreadable), lost);
        self.dirty.fetch_or(lost > 0, Relaxed);
        lost
    }

    /// Whether bars of this spec and granularity are meant for it.
    pub fn wants(&self, spec: SpecId, granularity: u8) -> bool {
        self.following.spec == spec && self.following.granularities.get(usize::from(granularity)) == Some(&true)
    }

    /// Notes the fate of bars, of each at most once in a run. What is settled already is not counted again; what was given
    /// up while it was under way, and was taken all the same, is no longer counted as given up.
    pub fn settle(&self, settled: &[Settled]) {
        let mut state = self.lock();
        for Settled { from, to, fate } in settled {
            let position = to.saturating_sub(1);
            match fate {
                Some(fate) if state.cursor.contains(position) => state.counts.count(*fate, 1),
                Some(fate @ (Fate::Delivered | Fate::Quarantined)) => {
                    let why = self.why_given_up(position);
                    why.into_iter().for_each(|why| state.counts.correct(why, *fate));
                }
                _ => {}
            }
            state.cursor.settle(*from, *to);
        }
        self.dirty.fetch_or(!settled.is_empty(), Relaxed);
    }

    /// Why the bar at `position` was given up, if it was, and lately.
    fn why_given_up(&self, position: u64) -> Option<GivenUp> {
        let given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.iter().find(|(range, _)| range.contains(&position)).map(|(_, why)| *why)
    }

    fn note_given_up(&self, from: u64, to: u64, why: GivenUp) {
        let mut given_up = self.given_up.lock().unwrap_or_else(PoisonError::into_inner);
        given_up.push_back((from..to, why));
        let surplus = given_up.len().saturating_sub(GIVEN_UP_KEPT);
        given_up.drain(..surplus);
    }

    /// Notes that bars meant for it were stored.
    pub(super) fn expect(&self, bars: u64) {
        self.lock().counts.outstanding += bars;
    }

    /// The lowest outstanding position; `None` where no bar is outstanding.
    pub(super) fn holds_from(&self) -> Option<u64> {
        let state = self.lock();
        (state.counts.outstanding > 0).then(|| state.cursor.lowest())
    }
}

impl Store {
    /// Registers a follower: it goes on where its predecessor of that name ended, and the outbox keeps for it what it has
    /// not settled. Bars are for it from the moment this returns.
    ///
    /// # Errors
    /// The port fails.
    pub fn follow(&self, following: Following) -> Result<Arc<Follower>, StoreError> {
        let record = format!("{CURSOR}{}/{}", following.sink, self.spec(following.spec).spec.name);
        let kept = self.outbox_kept();
        let found = self.inner.kv.get(keys::META, record.as_bytes())?;
        let read = found.as_ref().and_then(|frame| FollowerRecord::read(record.as_bytes(), frame));
        if let Some(frame) = found.as_ref().filter(|_| read.is_none()) {
            tracing::error!(record, "the cursor is damaged: everything kept in the outbox is sent again");
            self.inner.quarantine.take(Kind::Meta, keys::META, record.as_bytes(), frame, None);
        }
        let first = if following.from_earliest || found.is_some() { kept.start } else { kept.end };
        let fresh = FollowerRecord { cursor: Cursor::starting_at(first), ..FollowerRecord::fresh() };
        let mut state = read.unwrap_or(fresh);
        if state.cursor.lowest() < kept.start && !kept.is_empty() {
            state.cursor.settle(0, kept.start);
        }
        let (state, given_up) = (Mutex::new(state), Mutex::default());
        let follower = Arc::new(Follower { following, record, state, given_up, dirty: AtomicBool::new(true) });
        self.adopt(&follower)?;
        self.save_follower(&follower, &[])?;
        Ok(follower)
    }

    /// Makes a follower's cursor and counts durable, where they have changed, together with what was refused.
    ///
    /// # Errors
    /// The port fails; then they are still to be saved.
    pub fn save_follower(&self, follower: &Follower, refused: &[Refused]) -> Result<(), StoreError> {
        if !follower.dirty.swap(false, Relaxed) && refused.is_empty() {
            return Ok(());
        }
        let state = {
            let mut state = follower.lock();
            state.refused += refused.len() as u64;
            state.clone()
        };
        let first = state.refused - refused.len() as u64;
        // Numbers and strings always have a JSON form.
        let mut ops = vec![meta::put(&follower.record, &serde_json::to_vec(&state).unwrap_or_default())];
        let name = follower.record.strip_prefix(CURSOR).unwrap_or(&follower.record);
        ops.extend((0..).zip(refused).map(|(at, refused)| refused_op(name, first + at, refused)));
        self.inner.kv.commit(ops, Durability::Process).inspect_err(|_| follower.dirty.store(true, Relaxed))?;
        Ok(())
    }

    /// Gives up what a follower has outstanding in `[from, to)`.
    ///
    /// # Errors
    /// The port fails.
    pub fn give_up(&self, follower: &Follower, from: u64, to: u64, why: GivenUp) -> Result<u64, StoreError> {
        let named = self.named_for(follower, from, to)?;
        let mut state = follower.lock();
        let bars = named.iter().filter(|position| state.cursor.contains(**position)).count() as u64;
        state.counts.count(Fate::Dropped(why), bars);
        state.cursor.settle(from, to);
        follower.note_given_up(from, to, why);
        follower.dirty.store(true, Relaxed);
        Ok(bars)
    }

    /// The positions in `[from, to)` of bars that are meant for a follower.
    fn named_for(&self, follower: &Follower, from: u64, to: u64) -> Result<Vec<u64>, StoreError> {
        let mut named = Vec::new();
        self.visit_named(from, to, &mut |spec, granularity, position| {
            if follower.wants(spec, granularity) {
                named.push(position);
            }
        })?;
        Ok(named)
    }

    /// Goes on from another cursor of the same follower, where that is further: what it has settled was delivered.
    ///
    /// # Errors
    /// The port fails.
    pub fn overtake(&self, follower: &Follower, further: &Cursor) -> Result<(), StoreError> {
        let named = self.named_for(follower, follower.cursor().lowest(), u64::MAX)?;
        let mut state = follower.lock();
        let is_further = |position: &&u64| state.cursor.contains(**position) && !further.contains(**position);
        let bars = named.iter().filter(is_further).count() as u64;
        state.counts.count(Fate::Delivered, bars);
        state.cursor.intersect(further);
        follower.dirty.store(true, Relaxed);
        Ok(())
    }

    /// Counts what is outstanding anew.
    ///
    /// # Errors
    /// The port fails.
    pub(super) fn count_outstanding(&self, follower: &Follower) -> Result<(), StoreError> {
        let cursor = follower.cursor();
        let named = self.named_for(follower, cursor.lowest(), u64::MAX)?;
        let bars = named.iter().filter(|position| cursor.contains(**position)).count();
        follower.lock().counts.outstanding = bars as u64;
        Ok(())
    }

    /// The bars that were refused for good last, of all followers: the follower's name, and the bar.
    ///
    /// # Errors
    /// The port fails.
    pub fn refused(&self) -> Result<Vec<(String, Refused)>, StoreError> {
        let mut found = Vec::new();
        meta::scan(&*self.inner.kv, REFUSED, &mut |key, frame| {
            let refused = value::open(key, &frame).and_then(|payload| serde_json::from_slice(&payload).ok());
            let name = String::from_utf8_lossy(key);
            let name =
                name.strip_prefix(REFUSED).and_then(|name| name.rsplit_once('/')).map(|(name, _)| name.to_owned());
            found.extend(name.zip(refused));
        })?;
        Ok(found)
    }
}

fn refused_op(name: &str, number: u64, refused: &Refused) -> Op {
    let record = format!("{REFUSED}{name}/{:02}", number % REFUSED_KEPT);
    meta::put(&record, &serde_json::to_vec(refused).unwrap_or_default())
}
