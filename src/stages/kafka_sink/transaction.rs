//! Sending exactly once: bars and the position after them become visible together, and the broker's position counts.

use std::collections::BTreeMap;

use super::KafkaSink;
use crate::model::TimeNs;
use crate::model::time::MILLISECOND;
use crate::runtime::{Link, StageError};
use crate::store::Cursor;

/// The most bars of a transaction.
const BARS: usize = 10_000;
/// A transaction is committed after this time, at the latest.
const LASTS: TimeNs = 100 * MILLISECOND;

/// The present transaction.
#[derive(Default)]
pub(super) struct Transaction {
    state: State,
    bars: usize,
    since: TimeNs,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    /// The broker has not told how far the last one came.
    #[default]
    Unknown,
    Open,
    Committing,
}

impl Transaction {
    /// Whether records may be handed over in it.
    pub fn is_open(&self) -> bool {
        self.state == State::Open && self.room() > 0
    }

    /// Whether it has nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.bars == 0
    }

    /// How many more bars it takes.
    pub fn room(&self) -> usize {
        BARS.saturating_sub(self.bars)
    }

    /// So many bars were handed over in it.
    pub fn add(&mut self, bars: usize, now: TimeNs) {
        if self.bars == 0 && bars > 0 {
            self.since = now;
        }
        self.bars += bars;
    }
}

impl KafkaSink {
    /// The broker told its position: whatever is settled there is settled, and the rest is read again.
    pub(super) fn begin(&mut self, position: Option<String>) -> Result<(), StageError> {
        let context = &self.parts.context;
        let told = position.as_deref().map(serde_json::from_str::<BTreeMap<String, Cursor>>);
        let told = match told.transpose() {
            Ok(told) => told.unwrap_or_default(),
            Err(error) => {
                let sink = &self.parts.sink.name;
                tracing::error!(sink, "the position kept at the broker cannot be read, the local one counts: {error}");
                BTreeMap::new()
            }
        };
        for feed in &mut self.feeds {
            let spec = &context.specs.get(feed.follower.following.spec).name;
            if let Some(further) = told.get(spec).filter(|cursor| cursor.is_sound()) {
                context.store.overtake(&feed.follower, further).map_err(super::super::store_failed)?;
            }
            feed.restart(context, false);
        }
        self.transaction = Some(Transaction { state: State::Open, ..Transaction::default() });
        Ok(())
    }

    /// Commits what was handed over, when there is enough of it or it has waited long enough.
    pub(super) fn commit_if_due(&mut self, now: TimeNs) {
        let Some(transaction) = &mut self.transaction else { return };
        let is_due = transaction.room() == 0 || now >= transaction.since + LASTS || self.ends_by.is_some();
        if transaction.state != State::Open || transaction.bars == 0 || !is_due {
            return;
        }
        transaction.state = State::Committing;
        let mut position = BTreeMap::new();
        for feed in &self.feeds {
            let mut cursor = feed.follower.cursor();
            feed.lanes.iter().flat_map(|lane| lane.promised()).for_each(|(from, to)| _ = cursor.settle(from, to));
            position.insert(&self.parts.context.specs.get(feed.follower.following.spec).name, cursor);
        }
        // Names and numbers always have a JSON form.
        self.producer.commit(&serde_json::to_string(&position).unwrap_or_default());
    }

    /// Everything handed over is visible.
    pub(super) fn committed(&mut self) {
        for lane in self.feeds.iter_mut().flat_map(|feed| &mut feed.lanes) {
            lane.committed();
        }
        self.transaction = Some(Transaction { state: State::Open, ..Transaction::default() });
    }

    /// Nothing handed over since the last commit is visible: it is read again once the broker has told its position.
    pub(super) fn aborted(&mut self, reason: &str) {
        tracing::warn!(sink = self.parts.sink.name, "a transaction was aborted, its bars are sent again: {reason}");
        self.parts.sink.seen().last_error = Some(reason.to_owned());
        self.transaction = Some(Transaction::default());
        self.link = Link::Connecting;
    }
}
