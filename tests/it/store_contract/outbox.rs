//! The outbox: every revision of every bar is shown once, as it was, from any position, after any restart.

use std::collections::BTreeMap;

use barline::model::time::{HOUR, MINUTE, SECOND};
use barline::model::*;
use barline::store::*;
use proptest::prelude::*;

use super::kit::*;

const KEEP: Keep = Keep { time: HOUR, bytes: 1 << 20 };

/// Stores bars as the writer does: in place of earlier ones, whose revisions the outbox keeps.
fn store_bars(store: &Store, bars: &[(u32, i64)], ticks: u64, now: TimeNs) -> Vec<(u64, u32, TimeNs, u32, u64)> {
    let mut batch = store.batch();
    let (mut whole, mut replaced) = (BarBatch::new(A), Vec::new());
    for (series, second) in bars {
        let start = NOW + second * SECOND;
        let before = store.bar(A, 0, SeriesId(*series), start).unwrap();
        let revision = before.as_ref().map_or(0, |(head, _)| head.revision + 1);
        replaced.extend(before);
        whole.push(BarHead { revision, ..bar(*series, start, ticks) }, &[ticks, u64::from(revision)]);
    }
    whole.heads.iter().for_each(|head| batch.put_bar(A, head, whole.state(head)));
    whole.position = batch.put_outbox(&whole, &replaced, now, KEEP);
    batch.commit(Durability::Process).unwrap();
    let shown = |(position, head): (u64, &BarHead)| (position, head.series.0, head.start, head.revision, head.ticks);
    (whole.position..).zip(&whole.heads).map(shown).collect()
}

/// Everything from `position` on, read in stretches of about `most` bars.
fn read(store: &Store, mut position: u64, most: usize) -> Vec<(u64, u32, TimeNs, u32, u64)> {
    let mut found = Vec::new();
    loop {
        let stretch = store.outbox_from(position, most).unwrap();
        for Commit { bars, positions, .. } in &stretch.commits {
            for (head, position) in bars.heads.iter().zip(positions) {
                assert_eq!(bars.state(head), [head.ticks, u64::from(head.revision)]);
                found.push((*position, head.series.0, head.start, head.revision, head.ticks));
            }
        }
        if stretch.next == position {
            return found;
        }
        position = stretch.next;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_revision_is_shown_once_as_it_was(
        commits in prop::collection::vec(
            (prop::collection::btree_set((0..3u32, 0..4i64), 1..8), 1..900u64, any::<bool>()), 1..25),
        most in 1..30usize,
        cut in any::<prop::sample::Index>(),
    ) {
        let side = Side::Memory(Default::default());
        let (mut store, mut expected) = (side.store(), Vec::new());
        for (at, (bars, ticks, restart)) in commits.iter().enumerate() {
            let bars: Vec<_> = bars.iter().copied().collect();
            expected.extend(store_bars(&store, &bars, *ticks, NOW + at as i64 * MINUTE));
            if *restart {
                store = side.store();
            }
        }
        let first = expected[0].0;
        prop_assert_eq!(&read(&store, first, most), &expected);
        // From any bar on, also in the middle of what was stored together.
        let at = cut.index(expected.len());
        prop_assert_eq!(&read(&store, expected[at].0, most)[..], &expected[at..]);
        prop_assert!(read(&store, store.outbox_end(), most).is_empty());
    }
}

#[test]
fn on_both_sides_the_oldest_go_and_positions_never_come_back() {
    on_both(|side| {
        let (mut now, mut shown) = (NOW, BTreeMap::new());
        for _ in 0..4 {
            let store = side.store();
            for second in 0..30 {
                now += 2 * MINUTE;
                for (position, ..) in store_bars(&store, &[(0, second), (1, second)], 5, now) {
                    assert!(shown.last_key_value().is_none_or(|(last, _)| *last < position));
                    shown.insert(position, now);
                }
                store.trim_outbox(now, KEEP).unwrap();
            }
            let position = *shown.first_key_value().unwrap().0;
            match store.outbox_from(position, 10) {
                Ok(_) => assert!(now <= NOW + HOUR + HOUR / 4),
                Err(OutboxError::Outside { oldest, .. }) => {
                    let first = *shown.range(oldest..).next().unwrap().1;
                    assert!(now > NOW + HOUR && first < now - HOUR + HOUR / 4, "kept for less than an hour");
                    shown.retain(|position, _| *position >= oldest);
                    assert_eq!(read(&store, oldest, 7).len(), shown.len());
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(shown.len() < 240, "nothing was dropped");
    });
}

#[test]
fn no_revision_is_lost_to_a_reader_while_amendments_begin_new_partitions() {
    const ROUNDS: i64 = 2_000;
    let store = Side::Memory(Default::default()).store();
    let spool = Spool { bytes: 1 << 30, age: i64::MAX, when_spent: WhenSpent::DropOldest };
    let (sink, granularities) = ("publish".to_owned(), vec![true, false]);
    let follower = store.follow(Following { sink, spec: A, granularities, spool, from_earliest: true }).unwrap();
    let writer = {
        let store = store.clone();
        std::thread::spawn(move || {
            // A revision of one bar after another, each in a partition of its own.
            for round in 0..ROUNDS {
                store_bars(&store, &[(0, round / 4)], 5, NOW + round * HOUR);
            }
        })
    };
    let (mut next, mut seen) = (follower.next_outstanding(0).0, Vec::new());
    while seen.len() < ROUNDS as usize {
        next = next.max(store.outbox_kept().start);
        let stretch = store.outbox_for(&follower, (next, u64::MAX), 10, true).unwrap();
        for commit in &stretch.commits {
            assert!(commit.lost.is_empty(), "{:?} after {} revisions", commit.lost, seen.len());
            for (head, previous) in commit.bars.heads.iter().zip(&commit.previous) {
                assert_eq!(previous.as_ref().map(|(head, _)| head.revision), head.revision.checked_sub(1));
                seen.push((head.start, head.revision));
            }
        }
        next = stretch.next;
    }
    writer.join().unwrap();
    assert!(seen.is_sorted(), "revisions come in order");
}
