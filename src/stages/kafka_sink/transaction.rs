//! Sending exactly once: bars and the position after them become visible together, and the broker's position counts.

use std::collections::BTreeMap;

use super::KafkaSink;
use crate::model::TimeNs;
use crate::model::time::MILLISECOND;
use crate::runtime::{Link, StageError};
use crate::store::{Cursor, cursor};

/// The most bars of a transaction.
const BARS: usize = 10_000;
/// A transaction is committed after this time, at the latest.
const LASTS: TimeNs = 100 * MILLISECOND;
/// The most bytes of a position: Kafka takes no more with an offset (`offset.metadata.max.bytes`).
const POSITION_BYTES: usize = 4096;

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

    /// Whether the broker has to tell how far the last one came before anything can be sent. A link that comes back does not
    /// end a transaction.
    pub fn is_unknown(&self) -> bool {
        self.state == State::Unknown
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
        let mut cursors = BTreeMap::new();
        for feed in &self.feeds {
            let mut cursor = feed.follower.cursor();
            feed.lanes.iter().flat_map(|lane| lane.promised()).for_each(|(from, to)| _ = cursor.settle(from, to));
            cursors.insert(&*self.parts.context.specs.get(feed.follower.following.spec).name, cursor);
        }
        self.producer.commit(&position(cursors));
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

/// The position after these cursors. Where it would have too many bytes it tells of each cursor fewer ranges: what is
/// settled between them was so before the sink sent in transactions, and the cursor kept here still knows.
fn position(mut cursors: BTreeMap<&str, Cursor>) -> String {
    let mut most = cursor::MOST;
    loop {
        // Names and numbers always have a JSON form.
        let text = serde_json::to_string(&cursors).unwrap_or_default();
        if text.len() <= POSITION_BYTES || most == 1 {
            return text;
        }
        most /= 2;
        cursors = cursors.into_iter().map(|(spec, cursor)| (spec, cursor.coarsened(most))).collect();
    }
}

/// What is wrong, what is allowed and the remedy, where the positions of these specs are more than a broker takes.
pub(super) fn check(specs: &[&str]) -> Result<(), String> {
    let bytes = position(specs.iter().map(|spec| (*spec, Cursor::starting_at(u64::MAX - 1))).collect()).len();
    if bytes <= POSITION_BYTES {
        return Ok(());
    }
    Err(format!(
        "the positions of {} specs take {bytes} bytes, which `exactly_once` sends with every transaction\n{POSITION_BYTES} \
         bytes, about as many as 55 specs take\ndivide the specs among several sinks with `specs`",
        specs.len()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cursor with so many ranges, in nanoseconds as they are.
    fn scattered(ranges: u64) -> Cursor {
        let first = 1_795_871_579_000_000_000;
        let mut cursor = Cursor::starting_at(first);
        (1..ranges).for_each(|at| _ = cursor.settle(first + at * 1_000, first + at * 1_000 + 500));
        cursor
    }

    #[test]
    fn however_many_ranges_there_are_a_position_fits_and_settles_nothing_that_is_not() {
        let names: Vec<_> = (0..20).map(|number| format!("a_spec_with_some_name_{number}")).collect();
        for ranges in [1, 2, 7, 64] {
            let cursors: BTreeMap<_, _> = names.iter().map(|name| (name.as_str(), scattered(ranges))).collect();
            let text = position(cursors.clone());
            assert!(text.len() <= POSITION_BYTES, "{} bytes", text.len());
            let told: BTreeMap<String, Cursor> = serde_json::from_str(&text).unwrap();
            assert_eq!(told.len(), names.len());
            for (name, told) in told {
                let before = &cursors[&*name];
                assert!(told.is_sound() && told.lowest() == before.lowest());
                assert!(before.ranges().iter().all(|(from, to)| told.contains(*from) && told.contains(*to - 1)));
            }
        }
        let one = position([("a", scattered(64))].into());
        assert_eq!(
            one,
            serde_json::to_string(&BTreeMap::from([("a", scattered(64))])).unwrap(),
            "nothing is told in vain"
        );
    }

    #[test]
    fn more_specs_than_a_position_can_tell_of_are_refused_with_the_remedy() {
        let names: Vec<_> = (0..100).map(|number| format!("network_flows_{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(check(&names[..50]), Ok(()));
        let why = check(&names).unwrap_err();
        assert!(why.contains("100 specs") && why.contains("several sinks"), "{why}");
    }
}
