//! Data that ages, cut by time into partitions of one key space each, so that old data is dropped whole.
//!
//! A partition covers `[start, start + length)`, less where the next one begins earlier. Both numbers are in
//! its space's name, so a changed retention only shapes partitions yet to come and misreads none. A partition
//! that has grown past the limit is cut short: what is newer than all in it goes to a new one. That way a
//! size budget holds even where it is filled in minutes.
//!
//! A partition of the journal may be sealed: it takes no more, and its blocks may then be rewritten by series into
//! another space, which takes the place of the first. Readers hold on to the partitions they have begun to read, so
//! that a space that was replaced is dropped only when nobody reads it any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::PartitionName;
use super::types::Family;
use crate::model::{DurationNs, TimeNs, time};

/// The partitions of one spec's journal, side output, or bars of one granularity.
#[derive(Debug)]
pub struct Partitions {
    /// What they hold.
    pub family: Family,
    /// The spec's name.
    pub spec: String,
    /// The window length of bars, 0 for ticks.
    pub window: DurationNs,
    /// The length of a new partition.
    period: DurationNs,
    parts: BTreeMap<TimeNs, Part>,
}

#[derive(Debug)]
struct Part {
    space: Arc<str>,
    length: DurationNs,
    /// Bytes written.
    bytes: u64,
    /// The highest time placed in it by this process.
    newest: TimeNs,
    state: State,
    /// Cloned by every view of it.
    pin: Arc<()>,
}

/// What may happen to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It may be written.
    Open,
    /// Nothing is added any more.
    Sealed,
    /// Sealed, and its blocks are clustered by series.
    Sorted,
}

/// One partition as its readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its key space.
    pub space: Arc<str>,
    /// Where it begins.
    pub start: TimeNs,
    /// Where it ends, exclusive.
    pub end: TimeNs,
    /// No other of its family begins later.
    pub is_last: bool,
    /// What may happen to it.
    pub state: State,
    /// Bytes written to it, roughly.
    pub bytes: u64,
    pin: Arc<()>,
}

/// Where to put something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The key space.
    pub space: Arc<str>,
    /// The space that will see little further writing because this one has just been begun.
    pub settled: Option<Arc<str>>,
}

impl Partition {
    /// Whether nobody else looks at it, once it has been taken out of its family.
    pub fn is_unread(&self) -> bool {
        Arc::strong_count(&self.pin) == 1
    }
}

/// The length of partitions for data kept this long, between a second and a day: a twelfth of it for bars, for ticks a
/// 24th, because they are rewritten by series only when a partition is over.
pub fn period_of(family: Family, retention: DurationNs) -> DurationNs {
    let parts = if family.is_bars() { 12 } else { 24 };
    (retention / parts).clamp(time::SECOND, time::DAY)
}

impl Partitions {
    /// None yet; new ones will be `period` long.
    pub fn new(family: Family, spec: &str, window: DurationNs, period: DurationNs) -> Self {
        Self { family, spec: spec.into(), window, period: period.max(1), parts: BTreeMap::new() }
    }

    /// Takes in a partition found in the store.
    pub fn adopt(&mut self, name: &PartitionName<'_>, bytes: u64) {
        let state = if name.family == Family::Sorted { State::Sorted } else { State::Open };
        let (space, newest, pin) = (Arc::from(name.space()), TimeNs::MIN, Arc::default());
        self.parts.insert(name.start, Part { space, length: name.length, bytes, newest, state, pin });
    }

    /// Where a bar whose window starts at `start` belongs. `newest` is the highest start stored so far.
    pub fn place_bar(&mut self, start: TimeNs, bytes: u64, limit: u64, newest: TimeNs) -> Placed {
        let target = self.covering(start);
        if let Some(part) = target.as_ref().filter(|part| part.is_last)
            && self.parts[&part.start].bytes > limit
            && start > self.parts[&part.start].newest.max(newest)
        {
            return self.begin(start, part.end, start, bytes);
        }
        self.put(target, start, bytes)
    }

    /// Where a block that arrived at `received_at` belongs: the newest partition until its time is over or it is
    /// full. A clock that steps back a little does not reopen an older one; what would go into a sealed one goes into
    /// the newest instead.
    pub fn place_block(&mut self, received_at: TimeNs, bytes: u64, limit: u64) -> Placed {
        let last = self.parts.last_key_value().map(|(start, part)| self.view(*start, part));
        let is_current =
            |last: &Partition| received_at < last.end && received_at >= last.start.saturating_sub(self.period);
        let mut target = last.clone().filter(is_current).or_else(|| self.covering(received_at));
        if target.as_ref().is_some_and(|target| target.state != State::Open) {
            target = last;
        }
        if let Some(sealed) = target.as_ref().filter(|target| target.state != State::Open) {
            return self.begin(sealed.end, sealed.end.saturating_add(self.period), received_at, bytes);
        }
        if let Some(part) = target.as_ref().filter(|target| target.is_last) {
            let next = received_at.max(part.start + 1);
            if part.bytes > limit && next < part.end {
                return self.begin(next, part.end, received_at, bytes);
            }
        }
        self.put(target, received_at, bytes)
    }

    /// The partition that holds what is of this time.
    pub fn covering(&self, time: TimeNs) -> Option<Partition> {
        let (start, part) = self.parts.range(..=time).next_back()?;
        Some(self.view(*start, part)).filter(|part| time < part.end)
    }

    /// All, ascending.
    pub fn all(&self) -> Vec<Partition> {
        self.parts.iter().map(|(start, part)| self.view(*start, part)).collect()
    }

    /// Forgets a partition that was dropped.
    pub fn remove(&mut self, start: TimeNs) {
        self.parts.remove(&start);
    }

    /// Lets nothing more into the partition that begins at `start`.
    pub fn seal(&mut self, start: TimeNs) {
        if let Some(part) = self.parts.get_mut(&start).filter(|part| part.state == State::Open) {
            part.state = State::Sealed;
        }
    }

    /// Puts `space`, which holds the same blocks clustered by series, in the place of the one `part` has.
    pub fn replace(&mut self, part: &Partition, space: Arc<str>, bytes: u64) -> bool {
        let Some(present) = self.parts.get_mut(&part.start).filter(|present| present.space == part.space) else {
            return false;
        };
        *present = Part {
            space,
            bytes,
            state: State::Sorted,
            pin: Arc::default(),
            length: present.length,
            newest: present.newest,
        };
        true
    }

    fn view(&self, start: TimeNs, part: &Part) -> Partition {
        let next = self.parts.range(start.saturating_add(1)..).next().map(|(next, _)| *next);
        let end = start.saturating_add(part.length).min(next.unwrap_or(TimeNs::MAX));
        let (space, pin) = (part.space.clone(), part.pin.clone());
        Partition { space, start, end, is_last: next.is_none(), state: part.state, bytes: part.bytes, pin }
    }

    /// Notes a write into `target`, or into a new partition around `time`.
    fn put(&mut self, target: Option<Partition>, time: TimeNs, bytes: u64) -> Placed {
        if let Some(part) = target.and_then(|target| self.parts.get_mut(&target.start)) {
            part.bytes += bytes;
            part.newest = part.newest.max(time);
            return Placed { space: part.space.clone(), settled: None };
        }
        let aligned = time.div_euclid(self.period).saturating_mul(self.period);
        let before = self.parts.range(..=time).next_back().map(|(start, part)| self.view(*start, part).end);
        let after = self.parts.range(time..).next().map_or(TimeNs::MAX, |(next, _)| *next);
        let end = aligned.saturating_add(self.period).min(after);
        self.begin(aligned.max(before.unwrap_or(TimeNs::MIN)), end, time, bytes)
    }

    /// Begins the partition `[start, end)` with a first write.
    fn begin(&mut self, start: TimeNs, end: TimeNs, time: TimeNs, bytes: u64) -> Placed {
        let length = end.saturating_sub(start).max(1);
        let name = PartitionName { family: self.family, spec: &self.spec, window: self.window, start, length };
        let space: Arc<str> = name.space().into();
        let settled =
            self.parts.last_key_value().filter(|(last, _)| **last < start).map(|(_, part)| part.space.clone());
        let (state, pin) = (State::Open, Arc::default());
        self.parts.insert(start, Part { space: space.clone(), length, bytes, newest: time, state, pin });
        Placed { space, settled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bars() -> Partitions {
        Partitions::new(Family::Bars, "s", 1, 100)
    }

    proptest! {
        /// The partition a bar was put into is the one it is looked for in, whatever comes after.
        #[test]
        fn a_bar_stays_where_it_is_looked_for(
            writes in prop::collection::vec((-500i64..500, 0u64..40), 1..80),
            limit in 1u64..200,
        ) {
            let mut partitions = bars();
            let mut newest = TimeNs::MIN;
            let mut placed = BTreeMap::new();
            for (start, bytes) in writes {
                let space = partitions.place_bar(start, bytes, limit, newest).space;
                newest = newest.max(start);
                if let Some(before) = placed.insert(start, space.clone()) {
                    prop_assert_eq!(before, space);
                }
            }
            for (start, space) in placed {
                prop_assert_eq!(partitions.covering(start).map(|part| part.space), Some(space));
            }
            let all = partitions.all();
            prop_assert!(all.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }

    #[test]
    fn a_full_partition_is_cut_even_while_the_clock_stands_still() {
        let mut journal = Partitions::new(Family::Ticks, "s", 0, 100);
        let spaces: Vec<_> = (0..6).map(|_| journal.place_block(1_000, 60, 100)).collect();
        assert_eq!(spaces[0].space, spaces[1].space);
        assert_ne!(spaces[1].space, spaces[2].space);
        assert_eq!(spaces[2].settled, Some(spaces[1].space.clone()));
        assert_eq!(spaces[2].space, spaces[3].space);
        assert_ne!(spaces[3].space, spaces[4].space);
        assert_eq!(journal.all().len(), 3);
        assert_eq!(journal.place_block(2_000, 1, 100).settled, Some(spaces[5].space.clone()));
    }

    #[test]
    fn nothing_more_goes_into_a_sealed_partition_whatever_the_clock_does() {
        let mut journal = Partitions::new(Family::Ticks, "s", 0, 100);
        let [old, new] = [1_000, 1_150].map(|at| journal.place_block(at, 1, 100).space);
        journal.seal(1_000);
        assert_eq!(journal.place_block(1_050, 1, 100).space, new);
        assert_eq!(journal.place_block(1_160, 1, 100).space, new);
        journal.seal(1_100);
        let next = journal.place_block(1_170, 1, 100).space;
        assert!(next != old && next != new);
        assert_eq!(journal.place_block(1_010, 1, 100).space, next);
        let all = journal.all();
        assert_eq!(
            all.iter().map(|part| (part.start, part.end)).collect::<Vec<_>>(),
            [(1_000, 1_100), (1_100, 1_200), (1_200, 1_300)]
        );
    }

    #[test]
    fn a_partition_is_replaced_once_and_told_when_nobody_reads_it() {
        let mut journal = Partitions::new(Family::Ticks, "s", 0, 100);
        journal.place_block(1_000, 9, 100);
        let (reader, own) = (journal.all().remove(0), journal.all().remove(0));
        assert!(journal.replace(&own, "sorted".into(), 5));
        assert!(!journal.replace(&own, "again".into(), 5));
        let now = journal.all().remove(0);
        assert_eq!((&*now.space, now.state, now.bytes, now.end), ("sorted", State::Sorted, 5, 1_100));
        assert!(!own.is_unread());
        drop(reader);
        assert!(own.is_unread());
    }

    #[test]
    fn another_retention_reads_what_an_earlier_one_wrote() {
        let mut partitions = bars();
        let name = PartitionName { family: Family::Bars, spec: "s", window: 1, start: 0, length: 10 };
        partitions.adopt(&name, 0);
        assert_eq!(partitions.covering(9).map(|p| (p.start, p.end)), Some((0, 10)));
        partitions.place_bar(15, 1, 1 << 20, 9);
        assert_eq!(partitions.covering(15).map(|p| (p.start, p.end)), Some((10, 100)));
        assert_eq!(period_of(Family::Bars, 7 * time::DAY), 14 * time::HOUR);
        assert_eq!(period_of(Family::Ticks, time::DAY), time::HOUR);
        assert_eq!([3, i64::MAX].map(|keep| period_of(Family::Side, keep)), [time::SECOND, time::DAY]);
    }
}
