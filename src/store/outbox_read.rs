//! How the outbox is read: entry after entry, each with what is in its bars.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use super::follower::Follower;
use super::open::SpecStore;
use super::outbox::{ENTRY, PartSpaces};
use super::outbox_bytes::{Entry, Laid, Named, read_content};
use super::{Kind, Store, StoreError, value};
use crate::model::{BarBatch, BarHead, SpecId, TimeNs};

/// What one commit stored, or a part of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Commit {
    /// When that was.
    pub stored_at: TimeNs,
    /// The bars.
    pub bars: BarBatch,
    /// Per bar, its position.
    pub positions: Vec<u64>,
    /// Per bar the revision it replaced, where there was one and it was asked for.
    pub previous: Vec<Option<(BarHead, Vec<u64>)>>,
    /// Positions of bars that were asked for and cannot be read, being damaged.
    pub lost: Vec<u64>,
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

/// An entry, and which of its bars are meant.
struct Found {
    first: u64,
    entry: Entry,
    meant: Range<usize>,
}

impl Found {
    /// The position after the last bar that is meant.
    fn next(&self) -> u64 {
        self.first + self.meant.end as u64
    }

    /// The bars that are meant and their positions.
    fn named(&self) -> impl Iterator<Item = (u64, &Named)> {
        (self.first..).zip(&self.entry.bars).take(self.meant.end).skip(self.meant.start)
    }
}

impl Store {
    /// Reads from `position` on about `most` bars: whole entries. What cannot be read is left out.
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
            for found in self.entries(part, stretch.next..end, most - bars)? {
                stretch.next = found.next();
                bars += found.meant.len();
                stretch.commits.extend(self.resolve(part, &found, question)?);
            }
        }
        if bars < most {
            stretch.next = stretch.next.max(end);
        }
        Ok(stretch)
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
            for found in self.entries(part, from.max(part.first)..to, usize::MAX)? {
                let Some(store) = self.spec_named(&found.entry.spec) else { continue };
                for (position, bar) in found.named() {
                    let granularity = granularity_of(store, bar);
                    granularity.into_iter().for_each(|granularity| visit(store.spec.id, granularity, position));
                }
            }
        }
        Ok(())
    }

    /// The entries of one partition with bars in `positions`: whole ones until there are about `most` bars.
    fn entries(&self, part: &PartSpaces, positions: Range<u64>, most: usize) -> Result<Vec<Found>, StoreError> {
        let Range { start, end } = positions;
        let (mut found, mut bars, mut corrupt) = (Vec::new(), 0, Vec::new());
        let (from, to) = (self.entry_with(&part.names, start)?, end.to_be_bytes());
        self.inner.kv.scan(&part.names, &from, Some(&to), &mut |key, frame| {
            let first = key.try_into().map(u64::from_be_bytes).unwrap_or(0);
            match value::open(key, &frame).and_then(|payload| Entry::read(&payload)) {
                Some(entry) => {
                    let at = |position: u64| (position.saturating_sub(first) as usize).min(entry.bars.len());
                    let meant = at(start)..at(end);
                    bars += meant.len();
                    found.extend(Some(Found { first, entry, meant }).filter(|found| !found.meant.is_empty()));
                }
                None => corrupt.push((key.to_vec(), frame)),
            }
            if bars < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        self.inner.quarantine.take_all(Kind::Outbox, &part.names, corrupt);
        Ok(found)
    }

    /// The key of the entry that `position` lies in.
    fn entry_with(&self, space: &str, position: u64) -> Result<Bytes, StoreError> {
        let exact = Bytes::copy_from_slice(&position.to_be_bytes());
        if self.inner.kv.get(space, &exact)?.is_some() {
            return Ok(exact);
        }
        let (mut before, lowest) = (exact.clone(), position.saturating_sub(ENTRY as u64 - 1).to_be_bytes());
        self.inner.kv.scan_keys(space, &lowest, Some(&exact), &mut |key| {
            before = Bytes::copy_from_slice(key);
            ControlFlow::Continue(())
        })?;
        Ok(before)
    }

    /// The bars an entry names, as they were then.
    fn resolve(&self, part: &PartSpaces, found: &Found, question: &Question<'_>) -> Result<Option<Commit>, StoreError> {
        let Some(store) = self.spec_named(&found.entry.spec) else { return Ok(None) };
        let id = store.spec.id;
        if question.follower.is_some_and(|follower| follower.following.spec != id) {
            return Ok(None);
        }
        let contents = self.contents(part, found.first)?;
        let mut rest = contents.as_deref().unwrap_or_default();
        let mut commit = Commit { stored_at: found.entry.stored_at, bars: BarBatch::new(id), ..Commit::default() };
        commit.bars.position = found.first + found.meant.start as u64;
        let (mut state, mut before) = (Vec::new(), Vec::new());
        for (position, bar) in (found.first..found.next()).zip(&found.entry.bars) {
            let content = read_content(&mut rest, bar, &mut state, &mut before);
            // What follows something unreadable is unreadable, too.
            rest = if content.is_some() { rest } else { &[] };
            let wanted = |granularity: &u8| question.follower.is_none_or(|follower| follower.wants(id, *granularity));
            let granularity = granularity_of(store, bar).filter(wanted);
            let Some(granularity) = granularity.filter(|_| position >= commit.bars.position) else { continue };
            let now = content.and_then(|(bar, _)| self.present(store, granularity, bar, &mut state));
            let Some(head) = now else {
                commit.lost.push(position);
                continue;
            };
            commit.bars.push(head, &state);
            commit.positions.push(position);
            if question.previous {
                let replaced = content.and_then(|(_, replaced)| replaced);
                let replaced = replaced.and_then(|bar| self.present(store, granularity, bar, &mut before));
                commit.previous.push(replaced.map(|head| (head, before.clone())));
            }
        }
        Ok(Some(commit))
    }

    /// What is in the bars of the entry at `first`; `None` where that is damaged or missing.
    fn contents(&self, part: &PartSpaces, first: u64) -> Result<Option<Bytes>, StoreError> {
        let key = first.to_be_bytes();
        let Some(frame) = self.inner.kv.get(&part.contents, &key)? else { return Ok(None) };
        let payload = value::open(&key, &frame);
        if payload.is_none() {
            self.inner.quarantine.take(Kind::Outbox, &part.contents, &key, &frame, None);
        }
        Ok(payload)
    }

    /// A bar in the spec's present layout.
    fn present(
        &self,
        store: &SpecStore,
        granularity: u8,
        (mut head, layout): Laid,
        state: &mut Vec<u64>,
    ) -> Option<BarHead> {
        self.restate(store, layout, &mut head, state)?;
        head.granularity = granularity;
        Some(head)
    }

    fn spec_named(&self, name: &str) -> Option<&SpecStore> {
        self.inner.specs.iter().find(|store| store.spec.name == name)
    }
}

/// The granularity of a bar in the present spec, if it still has it.
fn granularity_of(store: &SpecStore, bar: &Named) -> Option<u8> {
    store.spec.granularities.iter().position(|granularity| granularity.length == bar.window).map(|at| at as u8)
}
