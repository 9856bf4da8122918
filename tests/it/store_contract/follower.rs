//! Followers of the outbox: they go on where they ended, and what they have not settled is kept, dropped and counted, or
//! holds up the writer, as their spool says.

use barline::model::time::{HOUR, MINUTE, SECOND};
use barline::model::*;
use barline::store::Fate;
use barline::store::*;

use super::kit::*;

const KEEP: Keep = Keep { time: MINUTE, bytes: 1 << 20 };

fn following(when_spent: WhenSpent, age: i64) -> Following {
    let spool = Spool { bytes: 1 << 20, age, when_spent };
    Following { sink: "publish".into(), spec: A, granularities: vec![true], spool, from_earliest: true }
}

/// Stores a bar as the writer does.
fn store_bar(store: &Store, second: i64, now: TimeNs) -> Result<u64, StoreError> {
    let mut bars = BarBatch::new(A);
    bars.push(bar(0, NOW + second * SECOND, 3), &[3, 1]);
    let mut batch = store.batch();
    bars.heads.iter().for_each(|head| batch.put_bar(A, head, bars.state(head)));
    let position = batch.put_outbox(&bars, &[], now, KEEP);
    batch.commit(Durability::Process)?;
    store.trim_outbox(now, KEEP)?;
    Ok(position)
}

fn settle(follower: &Follower, position: u64) {
    follower.settle(&[Settled { from: 0, to: position + 1, fate: Some(Fate::Delivered) }]);
}

#[test]
fn on_both_sides_a_follower_goes_on_where_it_ended() {
    on_both(|side| {
        let store = side.store();
        let follower = store.follow(following(WhenSpent::DropOldest, HOUR)).unwrap();
        let positions: Vec<u64> = (0..5).map(|second| store_bar(&store, second, NOW).unwrap()).collect();
        settle(&follower, positions[1]);
        // The same one again is not counted again.
        settle(&follower, positions[1]);
        store.save_follower(&follower, &[]).unwrap();
        drop((store, follower));
        let store = side.store();
        let follower = store.follow(following(WhenSpent::DropOldest, HOUR)).unwrap();
        let FollowerCounts { delivered, outstanding, .. } = follower.counts();
        assert_eq!((delivered, outstanding, follower.cursor().lowest()), (1, 3, positions[1] + 1));
        let stretch = store.outbox_for(&follower, follower.next_outstanding(0), 100, true).unwrap();
        let read: Vec<u64> = stretch.commits.iter().flat_map(|commit| commit.positions.clone()).collect();
        assert_eq!(read, positions[2..]);
        assert!(stretch.commits.iter().all(|commit| commit.stored_at == NOW && commit.lost.is_empty()));
    });
}

#[test]
fn on_both_sides_what_waits_is_as_old_as_its_oldest_bar_and_after_a_restart_as_its_partition() {
    on_both(|side| {
        let store = side.store();
        let follower = store.follow(following(WhenSpent::DropOldest, HOUR)).unwrap();
        let since = |store: &Store, follower: &Follower| store.held_by(follower).1;
        assert_eq!(since(&store, &follower), None);
        let stored: Vec<TimeNs> = (0..40).map(|at| NOW + at * SECOND).collect();
        let positions: Vec<u64> = (0..).zip(&stored).map(|(at, now)| store_bar(&store, at, *now).unwrap()).collect();
        for (position, next) in positions.iter().zip(&stored[1..]) {
            settle(&follower, *position);
            assert_eq!(since(&store, &follower), Some(*next));
        }
        store.save_follower(&follower, &[]).unwrap();
        drop((store, follower));
        let store = side.store();
        let follower = store.follow(following(WhenSpent::DropOldest, HOUR)).unwrap();
        // The newest partition was begun within an eighth of what is kept.
        let since = since(&store, &follower).unwrap();
        assert!((stored[39] - KEEP.time / 8 - SECOND..=stored[39]).contains(&since), "{}", stored[39] - since);
    });
}

#[test]
fn a_clock_set_back_is_noticed_in_the_age_of_what_waits() {
    let store = Side::Memory(Default::default()).store();
    let follower = store.follow(following(WhenSpent::DropOldest, HOUR)).unwrap();
    let times = [NOW, NOW - MINUTE, NOW - MINUTE + SECOND];
    let positions = times.map(|now| store_bar(&store, 0, now).unwrap());
    for (position, since) in positions.iter().zip(&times[1..]) {
        settle(&follower, *position);
        assert_eq!(store.held_by(&follower).1, Some(*since));
    }
}

#[test]
fn a_spent_spool_drops_the_oldest_and_counts_them() {
    let store = Side::Memory(Default::default()).store();
    let follower = store.follow(following(WhenSpent::DropOldest, 10 * MINUTE)).unwrap();
    for minute in 0..60 {
        store_bar(&store, minute, NOW + minute * MINUTE).unwrap();
        let counts = follower.counts();
        assert_eq!(counts.named(), minute as u64 + 1, "{counts:?}");
        assert!(counts.outstanding >= (minute as u64 + 1).min(10), "{counts:?}");
    }
    let counts = follower.counts();
    assert!(counts.spool_expired > 40 && counts.outstanding < 20, "{counts:?}");
    assert_eq!(counts.dropped(), counts.spool_expired);
}

#[test]
fn what_was_given_up_under_way_and_arrives_all_the_same_counts_as_delivered() {
    let store = Side::Memory(Default::default()).store();
    let follower = store.follow(following(WhenSpent::DropOldest, 10 * MINUTE)).unwrap();
    let positions: Vec<u64> = (0..30).map(|at| store_bar(&store, at, NOW + at * MINUTE).unwrap()).collect();
    let before = follower.counts();
    assert!(before.spool_expired > 2 && before.delivered == 0, "{before:?}");
    let tell = |position: u64, fate| follower.settle(&[Settled { from: position, to: position + 1, fate: Some(fate) }]);
    tell(positions[0], Fate::Delivered);
    tell(positions[1], Fate::Quarantined);
    tell(positions[2], Fate::Dropped(GivenUp::Unreachable));
    let expected = FollowerCounts { delivered: 1, quarantined: 1, spool_expired: before.spool_expired - 2, ..before };
    assert_eq!(follower.counts(), expected);
}

#[test]
fn a_spool_that_is_not_to_be_dropped_from_holds_up_the_writer_until_there_is_room() {
    let store = Side::Memory(Default::default()).store();
    let follower = store.follow(following(WhenSpent::Refuse, 10 * MINUTE)).unwrap();
    let first = store_bar(&store, 0, NOW).unwrap();
    store_bar(&store, 1, NOW + 9 * MINUTE).unwrap();
    let error = store_bar(&store, 2, NOW + 11 * MINUTE).unwrap_err();
    assert!(error.may_pass() && error.to_string().contains("\"publish\""), "{error}");
    assert_eq!((follower.counts().named(), follower.counts().dropped()), (2, 0));
    settle(&follower, first);
    store_bar(&store, 2, NOW + 11 * MINUTE).unwrap();
}

#[test]
fn a_follower_keeps_what_nobody_else_would() {
    let store = Side::Memory(Default::default()).store();
    let follower = store.follow(following(WhenSpent::DropOldest, HOUR)).unwrap();
    let positions: Vec<u64> = (0..30).map(|at| store_bar(&store, at, NOW + at * MINUTE).unwrap()).collect();
    assert!(store.outbox_kept().contains(&positions[0]));
    positions[..29].iter().for_each(|position| settle(&follower, *position));
    store_bar(&store, 31, NOW + 31 * MINUTE).unwrap();
    assert!(!store.outbox_kept().contains(&positions[0]), "what is settled goes");
    assert_eq!(follower.counts().outstanding, 2);
}

#[test]
fn each_follower_holds_what_its_own_spool_takes_and_no_other_loses_by_it() {
    let plenty = Keep { time: HOUR, bytes: 64 << 20 };
    let store = Side::Memory(Default::default()).store();
    let small = store.follow(following(WhenSpent::DropOldest, HOUR)).unwrap();
    let spool = Spool { bytes: 32 << 20, ..small.following.spool };
    let large = store.follow(Following { sink: "other".into(), spool, ..small.following.clone() }).unwrap();
    let mut stored = 0;
    for second in 0..400 {
        let mut bars = BarBatch::new(A);
        (0..1_500).for_each(|series| bars.push(bar(series, NOW + second * SECOND, 3), &[3, 1]));
        let mut batch = store.batch();
        batch.put_outbox(&bars, &[], NOW, plenty);
        batch.commit(Durability::Process).unwrap();
        store.trim_outbox(NOW, plenty).unwrap();
        stored += bars.len() as u64;
        // A partition beyond the budget is given up when the next one is begun.
        assert!(store.held_by(&small).0 <= (1 << 20) + (1 << 18), "{} bytes are held", store.held_by(&small).0);
    }
    let counts = small.counts();
    assert_eq!(counts.named(), stored);
    assert_eq!(counts.dropped(), counts.spool_full);
    assert!(store.held_by(&small).0 >= 512 << 10 && counts.spool_full > 0, "{counts:?}");
    assert_eq!((large.counts().outstanding, large.counts().dropped()), (stored, 0));
    assert!(store.held_by(&large).0 > 2 << 20, "the test has too little to say anything");
    let oldest = store.outbox_for(&large, large.next_outstanding(0), 10, false).unwrap();
    assert!(!oldest.commits[0].lost.is_empty() || !oldest.commits[0].positions.is_empty(), "its oldest is kept");
}
