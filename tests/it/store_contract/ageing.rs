//! Retention, budgets, cutoffs, and what a changed spec makes of older data.

use std::ops::ControlFlow;

use barline::model::time::{DAY, HOUR, MINUTE, SECOND};
use barline::model::*;
use barline::spec::*;
use barline::store::*;

use super::kit::*;

#[test]
fn what_has_expired_is_hidden_at_once_and_dropped_by_the_reaper() {
    on_both(|side| {
        let later = NOW + DAY + 3 * HOUR;
        {
            let store = side.store();
            append(&store, A, 0, NOW, &[(1, NOW)]);
            append(&store, A, 1, NOW + HOUR, &[(1, NOW + HOUR)]);
            put_bars(&store, A, [bar(1, NOW, 1), bar(1, NOW + 3 * HOUR, 1)]);
            assert_eq!(store.cutoff(A, NOW + 2 * HOUR + 1), Cutoff { ticks: NOW + 1, bars: NOW - 22 * HOUR + 1 });
            assert_eq!(offsets(&store, all_ticks(A)), [1]);
            assert_eq!(store.reap(NOW + 2 * HOUR + 1, &PLENTY).unwrap(), Reaped::default());
            store.set_now(later);
            assert_eq!(store.cutoff(A, NOW).bars, later - DAY);
            assert_eq!(all_bars(&store, A).len(), 1);
            assert_eq!(store.bar(A, 0, SeriesId(1), NOW).unwrap(), None);
            let reaped = store.reap(later, &PLENTY).unwrap();
            let told: Vec<_> = reaped.dropped.iter().map(|d| (d.family, d.reason, d.blocks, d.ticks)).collect();
            let (ticks, bars, expired) = (Family::Ticks, Family::Bars, DropReason::Expired);
            assert_eq!(told, [(ticks, expired, 1, 1), (ticks, expired, 1, 1), (bars, expired, 0, 0)]);
            let usage = store.usage();
            assert_eq!((usage.specs[0].ticks, usage.specs[0].partitions), (0, 1));
            assert!(usage.specs[0].bars > 0);
        }
        // No offset is given twice, and what was hidden stays so, though the clock went back.
        let store = side.store();
        assert_eq!(store.journal_end(), 2);
        assert_eq!(store.cutoff(A, NOW).bars, later - DAY);
        assert_eq!(all_bars(&store, A).len(), 1);
    });
}

#[test]
fn budgets_hold_while_the_store_is_filled() {
    on_both(|side| {
        let kv = side.open();
        let store = Store::open(kv.clone(), &specs(), keep).unwrap();
        let budget = Budget { ticks: 6 << 20, bars: 4 << 20, on_full: OnFull::Expire };
        store.reap(NOW, &budget).unwrap();
        let (mut offset, mut dropped, mut random) = (0, 0, fastrand::Rng::with_seed(7));
        for round in 0..40 {
            let now = NOW + round * SECOND;
            for _ in 0..4 {
                let (mut facts, _) = ticks(A, offset, now, &[(1, now), (1, now)]);
                facts.rows = 1_000;
                let mut batch = store.batch();
                batch.append(A, facts, (0..256 << 10).map(|_| random.u8(..)).collect::<Vec<_>>().into());
                batch.commit(Durability::Process).unwrap();
                offset += 1_000;
            }
            let mut batch = store.batch();
            for series in 0..1_000 {
                let words: Vec<u64> = (0..64).map(|_| random.u64(..)).collect();
                batch.put_bar(A, &bar(series, now, 1), &words);
            }
            batch.commit(Durability::Process).unwrap();
            let reaped = store.reap(now, &budget).unwrap();
            let over =
                reaped.dropped.iter().filter(|d| d.reason == DropReason::OverBudget && d.family == Family::Ticks);
            dropped += over.map(|d| d.ticks).sum::<u64>();
            let usage = store.usage();
            assert_eq!(reaped.over_budget, 0, "round {round}: {usage:?}");
            assert!(usage.specs[0].ticks <= budget.ticks && usage.specs[0].bars <= budget.bars, "{usage:?}");
        }
        let mut kept = 0;
        let mut oldest = u64::MAX;
        for (first, rows) in kept_blocks(&*kv) {
            kept += u64::from(rows);
            oldest = oldest.min(first);
        }
        // Every tick is kept or was reported dropped, and the newest are those kept.
        assert_eq!(kept + dropped, offset);
        assert_eq!(oldest, dropped);
        assert_eq!(store.journal_end(), offset);
        let bars = all_bars_loosely(&store);
        assert!(bars.contains(&(NOW + 39 * SECOND)) && !bars.contains(&NOW));
    });
}

/// First offsets and rows of the blocks left, read past the typed store: their bytes are no blocks.
fn kept_blocks(kv: &dyn Kv) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    for space in kv.spaces("ticks/a/") {
        kv.scan_keys(&space, &[], None, &mut |key| {
            let facts = keys::parse_block(key).unwrap();
            found.push((facts.offset, facts.rows));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    found
}

fn all_bars_loosely(store: &Store) -> Vec<TimeNs> {
    let mut starts = Vec::new();
    let ask = BarScan { spec: A, granularity: 0, series: Some(SeriesId(0)), from: i64::MIN, to: i64::MAX };
    store
        .scan_bars(&ask, &mut |head, _| {
            starts.push(head.start);
            ControlFlow::Continue(())
        })
        .unwrap();
    starts
}

#[test]
fn another_retention_and_other_granularities_misread_nothing() {
    on_both(|side| {
        put_bars(&side.store(), A, (0..100).map(|n| bar(0, NOW + n * HOUR, 1)));
        let mut changed = spec("a");
        changed.retention.bars = 400 * DAY;
        changed.granularities.insert(0, Granularity { name: "100ms".into(), length: SECOND / 10 });
        let store = Store::open(side.open(), &Specs::new(vec![changed]), keep).unwrap();
        assert_eq!(all_bars(&store, A), []);
        let ask = BarScan { spec: A, granularity: 1, series: None, from: i64::MIN, to: i64::MAX };
        assert_eq!(scan(&store, ask).len(), 100);
        let more = (0..100).map(|n| BarHead { granularity: 1, ..bar(0, NOW + n * HOUR + MINUTE, 2) });
        put_bars(&store, A, more);
        let starts: Vec<_> = scan(&store, ask).iter().map(|bar| bar.start).collect();
        assert_eq!(starts.len(), 200);
        assert!(starts.is_sorted());
    });
}

#[test]
fn data_of_a_spec_that_is_gone_still_ages() {
    on_both(|side| {
        append(&side.store(), B, 0, NOW, &[(0, NOW)]);
        {
            let store = Store::open(side.open(), &Specs::new(vec![spec("a")]), keep).unwrap();
            assert!(store.usage().orphans > 0);
            assert_eq!(store.journal_end(), 1);
            assert_eq!(store.reap(NOW + HOUR, &PLENTY).unwrap().dropped, []);
            let dropped = store.reap(NOW + 3 * HOUR, &PLENTY).unwrap().dropped;
            assert_eq!(dropped.iter().map(|d| (d.spec.as_str(), d.ticks)).collect::<Vec<_>>(), [("b", 1)]);
            assert_eq!(store.usage().orphans, 0);
        }
        assert_eq!(side.store().journal_end(), 1);
    });
}

#[test]
fn reaping_beside_commits_loses_nothing_that_is_young() {
    on_both(|side| {
        let store = side.store();
        let writer = store.clone();
        let thread = std::thread::spawn(move || {
            for n in 0..200u64 {
                let at = NOW + n as i64 * MINUTE;
                append(&writer, A, n, at, &[(0, at)]);
                put_bars(&writer, A, [bar(0, at, 1)]);
            }
        });
        while !thread.is_finished() {
            store.reap(NOW + 2 * HOUR, &PLENTY).unwrap();
        }
        thread.join().unwrap();
        store.reap(NOW + 200 * MINUTE, &PLENTY).unwrap();
        // 80 minutes of ticks have expired, no bar has.
        assert_eq!(offsets(&store, all_ticks(A)), (80..200).collect::<Vec<_>>());
        assert_eq!(all_bars(&store, A).len(), 200);
    });
}
