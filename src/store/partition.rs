//! Data that ages, cut by time into partitions of one key space each, so that old data is dropped whole.
//!
//! A partition covers `[start, start + length)`, less where the next one begins earlier. Both numbers are in
//! its space's name, so a changed retention only shapes partitions yet to come and misreads none. A partition
//! that has grown past the limit is cut short: what is newer than all in it goes to a new one. That way a
//! size budget holds even where it is filled in minutes.

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
    /// Bytes written, roughly: decides only when to cut it short.
    bytes: u64,
    /// The highest time placed in it by this process.
    newest: TimeNs,
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
}

/// Where to put something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The key space.
    pub space: Arc<str>,
    /// The space that will see little further writing because this one has just been begun.
    pub settled: Option<Arc<str>>,
}

/// The length of partitions for data kept this long: a twelfth, between a second and a day.
pub fn period_of(retention: DurationNs) -> DurationNs {
    (retention / 12).clamp(time::SECOND, time::DAY)
}

impl Partitions {
    /// None yet; new ones will be `period` long.
    pub fn new(family: Family, spec: &str, window: DurationNs, period: DurationNs) -> Self {
        Self { family, spec: spec.into(), window, period: period.max(1), parts: BTreeMap::new() }
    }

    /// Takes in a partition found in the store.
    pub fn adopt(&mut self, name: &PartitionName<'_>, bytes: u64) {
        let space = Arc::from(name.space());
        self.parts.insert(name.start, Part { space, length: name.length, bytes, newest: TimeNs::MIN });
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
    /// full. A clock that steps back a little does not reopen an older one.
    pub fn place_block(&mut self, received_at: TimeNs, bytes: u64, limit: u64) -> Placed {
        let last = self.all().pop();
        let current =
            last.filter(|last| received_at < last.end && received_at >= last.start.saturating_sub(self.period));
        let Some(part) = current else {
            return self.put(self.covering(received_at), received_at, bytes);
        };
        let next = received_at.max(part.start + 1);
        if self.parts[&part.start].bytes > limit && next < part.end {
            return self.begin(next, part.end, received_at, bytes);
        }
        self.put(Some(part), received_at, bytes)
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

    fn view(&self, start: TimeNs, part: &Part) -> Partition {
        let next = self.parts.range(start.saturating_add(1)..).next().map(|(next, _)| *next);
        let end = start.saturating_add(part.length).min(next.unwrap_or(TimeNs::MAX));
        Partition { space: part.space.clone(), start, end, is_last: next.is_none() }
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
        self.parts.insert(start, Part { space: space.clone(), length, bytes, newest: time });
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
    fn another_retention_reads_what_an_earlier_one_wrote() {
        let mut partitions = bars();
        let name = PartitionName { family: Family::Bars, spec: "s", window: 1, start: 0, length: 10 };
        partitions.adopt(&name, 0);
        assert_eq!(partitions.covering(9).map(|p| (p.start, p.end)), Some((0, 10)));
        partitions.place_bar(15, 1, 1 << 20, 9);
        assert_eq!(partitions.covering(15).map(|p| (p.start, p.end)), Some((10, 100)));
        assert_eq!(period_of(7 * time::DAY), 14 * time::HOUR);
        assert_eq!((period_of(3), period_of(i64::MAX)), (time::SECOND, time::DAY));
    }
}
