//! The ticks a server holds against a record of what it acknowledged.
//!
//! Every acknowledged tick must be there. On `barline.v1` none may be there twice, and a batch that was sent and not
//! acknowledged is there wholly or not at all. On `tikr.v1` a tick may be there once more for every time it was sent
//! again. What was never sent, or had to be refused, may not be there.

use std::{cmp::Ordering, sync::Arc};

use serde::Serialize;

use crate::{
    generate::{Fate, Stream, Tick},
    plan::Plan,
    profile::Protocol,
    record::{Known, Record},
    stored::Key,
    units::Nanos,
    wire::FIRST_BATCH,
};

/// How many problems are told.
const SHOWN: usize = 10;

/// What was found of a run's ticks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// Acknowledged as taken.
    pub acknowledged: u64,
    /// There, each as often as it is.
    pub stored: u64,
    /// There and not acknowledged.
    pub unacknowledged: u64,
    /// Further times of those that are there more than once, where that is allowed.
    pub again: u64,
    /// Problems.
    pub wrong: u64,
    /// The first of them.
    pub problems: Vec<String>,
}

/// A tick that was sent, or may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    key: Key,
    /// Index of its batch.
    batch: u32,
    /// How often it may be there.
    most: u32,
}

/// Ticks that are acknowledged together.
#[derive(Debug, Default)]
struct Batch {
    connection: usize,
    /// Its id, or the number of its first tick where batches have none.
    name: u64,
    acknowledged: bool,
    ticks: u64,
    found: u64,
    /// The first tick of it that is not there.
    missing: Option<Key>,
}

/// An audit under way.
struct Audit<'a> {
    plan: &'a Arc<Plan>,
    atomic: bool,
    expected: Vec<Expected>,
    batches: Vec<Batch>,
    found: Found,
}

/// Holds `stored`, sorted, against `record`.
pub fn audit(record: &Record, stored: &[Key]) -> Found {
    let atomic = record.plan.profile.protocol == Protocol::Barline;
    let found = Found { stored: stored.len() as u64, ..Found::default() };
    let mut audit = Audit { plan: &record.plan, atomic, expected: Vec::new(), batches: Vec::new(), found };
    // No tick is further behind its place in the stream, so none that is stored was made after this place.
    let behind =
        record.plan.profile.late.map_or(0, |l| l.by.0).max(record.plan.profile.disorder.map_or(0, |d| d.up_to.0));
    let horizon = stored.iter().map(|key| key.timestamp).max().unwrap_or(Nanos::MIN).saturating_add(behind);
    for (connection, known) in record.connections.iter().enumerate() {
        audit.regenerate(connection, known, horizon);
    }
    audit.expected.sort_unstable_by_key(|expected| (expected.key, expected.batch));
    audit.compare(stored);
    audit.judge();
    audit.found
}

impl Audit<'_> {
    /// Generates the ticks of a connection again: those acknowledged, and those whose place is not beyond `horizon`.
    fn regenerate(&mut self, connection: usize, known: &Known, horizon: Nanos) {
        let number = connection as u64;
        let mut stream = Stream::new(self.plan, number);
        let (mut at, mut id) = (0, FIRST_BATCH);
        let end = known.sent.unwrap_or(u64::MAX).min(self.plan.ticks_of(number));
        while at < end {
            let acknowledged = if self.atomic { id <= known.batch } else { at < known.ticks };
            let place = self.plan.base + self.plan.schedule.offset(self.plan.index(number, at));
            if !acknowledged && place > horizon {
                return;
            }
            let name = if self.atomic { id } else { at };
            let batch = self.batches.len() as u32;
            self.batches.push(Batch { connection, name, acknowledged, ..Batch::default() });
            let next = (at + self.plan.message_ticks()).min(self.plan.ticks_of(number));
            let mut unknown = 0;
            for tick_number in at..next {
                let tick = stream.next();
                unknown += u64::from(tick.fate == Fate::UnknownSeries);
                self.expect(tick, tick_number, batch, known);
            }
            // Ticks of another spec are a batch of their own behind the others.
            id += u64::from(unknown < next - at) + u64::from(unknown > 0);
            at = next;
        }
    }

    fn expect(&mut self, tick: &Tick, number: u64, batch: u32, known: &Known) {
        if tick.fate != Fate::Accepted {
            return;
        }
        let again = known.again.iter().filter(|span| !self.atomic && span.contains(&number)).count();
        self.expected.push(Expected { key: Key::of(tick), batch, most: 1 + again as u32 });
        let batch = &mut self.batches[batch as usize];
        batch.ticks += 1;
        self.found.acknowledged += u64::from(batch.acknowledged);
    }

    /// Goes through both sorted lists, equal ticks together.
    fn compare(&mut self, stored: &[Key]) {
        let (mut e, mut s) = (0, 0);
        let expected = std::mem::take(&mut self.expected);
        while e < expected.len() || s < stored.len() {
            let key = match (expected.get(e), stored.get(s)) {
                (Some(expected), Some(stored)) => expected.key.min(*stored),
                (Some(expected), None) => expected.key,
                (None, Some(stored)) => *stored,
                (None, None) => return,
            };
            let sent = expected[e..].iter().take_while(|expected| expected.key == key).count();
            let there = stored[s..].iter().take_while(|stored| **stored == key).count();
            self.compare_one(key, &expected[e..e + sent], there as u64);
            e += sent;
            s += there;
        }
    }

    /// A tick that was sent as all of `sent`, and is `there` so often.
    fn compare_one(&mut self, key: Key, sent: &[Expected], there: u64) {
        let mut left = there;
        // Equal ticks cannot be told apart: those acknowledged are taken to be there first.
        for acknowledged in [true, false] {
            for expected in sent {
                let batch = &mut self.batches[expected.batch as usize];
                if batch.acknowledged != acknowledged {
                    continue;
                }
                if left > 0 {
                    left -= 1;
                    batch.found += 1;
                } else {
                    batch.missing.get_or_insert(key);
                }
            }
        }
        let most: u64 = sent.iter().map(|expected| u64::from(expected.most)).sum();
        match (there.cmp(&most), sent.is_empty()) {
            (Ordering::Greater, true) => self.wrong(|audit| format!("a tick that was never sent: {}", audit.text(key))),
            (Ordering::Greater, false) => self.wrong(|audit| {
                format!("a tick that is there {there} times and was sent {most} times: {}", audit.text(key))
            }),
            _ => self.found.again += left,
        }
    }

    /// Says what is wrong with whole batches.
    fn judge(&mut self) {
        for batch in std::mem::take(&mut self.batches) {
            if !batch.acknowledged {
                self.found.unacknowledged += batch.found;
            }
            let Some(missing) = batch.missing else { continue };
            let Batch { connection, name, ticks, found, .. } = batch;
            let what = if self.atomic { "batch" } else { "the message that begins with tick" };
            if batch.acknowledged {
                self.wrong(|audit| {
                    let missing = audit.text(missing);
                    format!(
                        "acknowledged and gone: of the {ticks} ticks of {what} {name} of connection {connection} \
                         {found} are there; the first that is not: {missing}"
                    )
                });
            } else if self.atomic && found > 0 {
                self.wrong(|audit| {
                    let missing = audit.text(missing);
                    format!(
                        "there in part: of the {ticks} ticks of {what} {name} of connection {connection}, which was \
                         not acknowledged, {found} are there; the first that is not: {missing}"
                    )
                });
            }
        }
    }

    fn wrong(&mut self, text: impl FnOnce(&Self) -> String) {
        self.found.wrong += 1;
        if self.found.problems.len() < SHOWN {
            let text = text(self);
            self.found.problems.push(text);
        }
    }

    fn text(&self, key: Key) -> String {
        let pairs = self.plan.dimensions.names().zip(self.plan.dimensions.values(key.series.into()));
        let series: Vec<String> = pairs.map(|(name, value)| format!("{name}={value}")).collect();
        let since = (key.timestamp - self.plan.started) as f64 / 1e9;
        format!(
            "{} timestamp_ns={} ({since:.3} s into the run) sequence={}",
            series.join(" "),
            key.timestamp,
            key.sequence
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Limit, profile::Profile, units::SECOND};

    /// A record of 1 000 ticks of one connection in messages of 100, some of them of another spec.
    fn record(protocol: &str, known: Known) -> Record {
        let overrides = ["rate=max", "batch=100", "connections=1", "series=7", "bad={fraction: 0.1}"];
        let overrides = [&overrides.map(str::to_owned)[..], &[format!("protocol={protocol}")]].concat();
        let profile = Profile::load("market", &overrides).unwrap();
        let plan = Plan::new(profile, Limit::Ticks(1_000), 1_700_000_000 * SECOND).unwrap();
        Record { plan: Arc::new(plan), connections: vec![known] }
    }

    /// The accepted ticks of the record's messages `messages`.
    fn keys(record: &Record, messages: impl IntoIterator<Item = usize>) -> Vec<Key> {
        let mut stream = Stream::new(&record.plan, 0);
        let ticks: Vec<Tick> = (0..1_000).map(|_| stream.next().clone()).collect();
        let accepted = |tick: &&Tick| tick.fate == Fate::Accepted;
        let of = |message: usize| ticks[message * 100..][..100].iter().filter(accepted).map(Key::of);
        let mut keys: Vec<Key> = messages.into_iter().flat_map(of).collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn acknowledged_batches_must_be_there_and_others_wholly_or_not_at_all() {
        // Every message is two batches, since some of its ticks are of another spec.
        let record = record("barline.v1", Known { batch: 10, ..Known::default() });
        let whole = audit(&record, &keys(&record, 0..7));
        assert_eq!((whole.wrong, whole.again), (0, 0), "{whole:?}");
        assert_eq!(whole.stored, whole.acknowledged + whole.unacknowledged);
        assert!(whole.unacknowledged > 100);

        let lost = audit(&record, &keys(&record, [0, 1, 3, 4]));
        assert_eq!(lost.wrong, 1);
        assert!(lost.problems[0].starts_with("acknowledged and gone: of the "), "{lost:?}");
        assert!(lost.problems[0].contains("batch 5 of connection 0 0 are there"), "{lost:?}");

        let mut part = keys(&record, 0..5);
        part.push(keys(&record, [5])[3]);
        part.sort_unstable();
        let part = audit(&record, &part);
        assert!(part.wrong == 1 && part.problems[0].contains("there in part"), "{part:?}");
    }

    #[test]
    fn a_tick_twice_is_wrong_unless_it_was_sent_again_on_a_wire_that_cannot_tell() {
        let known = || Known { batch: 20, ticks: 1_000, again: vec![200..300, 200..250], ..Known::default() };
        let native = record("barline.v1", known());
        let twice = audit(&native, &keys(&native, (0..10).chain([2])));
        assert!(twice.wrong > 50 && twice.problems[0].contains("2 times and was sent 1 times"), "{twice:?}");

        let tikr = record("tikr.v1", known());
        let allowed = audit(&tikr, &keys(&tikr, (0..10).chain([2])));
        assert_eq!((allowed.wrong, allowed.again), (0, keys(&tikr, [2]).len() as u64));
        let too_often = audit(&tikr, &keys(&tikr, (0..10).chain([2, 2])));
        assert!(too_often.wrong > 10 && too_often.problems[0].contains("3 times"), "{too_often:?}");
        let elsewhere = audit(&tikr, &keys(&tikr, (0..10).chain([3])));
        assert!(elsewhere.wrong > 50, "{elsewhere:?}");
    }

    #[test]
    fn what_was_never_sent_may_not_be_there() {
        let record = record("barline.v1", Known { batch: 20, ..Known::default() });
        let mut stored = keys(&record, 0..10);
        stored[17].values ^= 1;
        let found = audit(&record, &stored);
        assert_eq!(found.wrong, 2, "{found:?}");
        assert!(found.problems.iter().any(|p| p.contains("never sent")), "{found:?}");
        assert!(found.problems.iter().any(|p| p.contains("acknowledged and gone")), "{found:?}");
    }
}
