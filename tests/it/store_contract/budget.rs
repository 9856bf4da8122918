//! Budgets between rounds of the reaper: block or expire, what goes first, and that every tick dropped is counted.

use std::sync::Arc;

use barline::model::time::{HOUR, MINUTE, SECOND};
use barline::model::*;
use barline::store::*;

use super::kit::*;

/// Bytes of one block of [`push`], roughly.
const BLOCK: u64 = 32 << 10;
const ROWS: u32 = 1_000;

/// Appends a block of incompressible bytes that says it holds [`ROWS`] ticks.
fn push(store: &Store, spec: SpecId, at: TimeNs) -> Result<(), StoreError> {
    let (mut facts, _) = ticks(spec, store.journal_end(), at, &[(1, at)]);
    facts.rows = ROWS;
    let mut batch = store.batch();
    batch.append(spec, facts, vec![7; BLOCK as usize].into());
    batch.commit(Durability::Process)
}

fn budget(ticks: u64, on_full: OnFull) -> Budget {
    Budget { ticks, bars: 1 << 30, on_full }
}

fn in_bars_below(store: &Store, offset: u64) {
    let mut batch = store.batch();
    [0, 1].into_iter().for_each(|instance| batch.put_checkpoint(checkpoint(instance, offset)));
    batch.commit(Durability::Synced).unwrap();
}

#[test]
fn block_lets_nothing_in_until_something_has_expired() {
    on_both(|side| {
        let store = side.store();
        let budget = budget(2 << 20, OnFull::Block);
        store.set_budget(&budget);
        let error = (0..1_000).find_map(|n| push(&store, A, NOW + n * SECOND).err()).unwrap();
        assert!(matches!(error, StoreError::OverBudget { what: "ticks", .. }), "{error}");
        assert!(error.may_pass());
        assert!(error.to_string().contains("of their budget of 2 MiB and none of them has expired"), "{error}");
        let end = store.journal_end();
        let kept = end / u64::from(ROWS) * BLOCK;
        assert!((1 << 20..=2 << 20).contains(&kept), "{kept} bytes kept");
        // Bars have a budget of their own, and so have checkpoints and series, which are small.
        put_bars(&store, A, [bar(0, NOW, 1)]);
        in_bars_below(&store, end);
        // Nothing is old enough to go.
        assert!(store.is_over_budget());
        assert_eq!(store.reap(NOW + HOUR, &budget).unwrap().dropped, []);
        assert!(push(&store, A, NOW + HOUR).is_err());
        let dropped = store.reap(NOW + 3 * HOUR, &budget).unwrap().dropped;
        assert!(dropped.iter().all(|dropped| dropped.reason == DropReason::Expired), "{dropped:?}");
        assert!(!store.is_over_budget());
        push(&store, A, NOW + 3 * HOUR).unwrap();
        assert_eq!(store.journal_end(), end + u64::from(ROWS));
        assert_eq!(store.expired_totals(A).unwrap().by_age.ticks, end);
    });
}

#[test]
fn block_holds_after_a_restart_and_ends_with_a_larger_budget() {
    on_both(|side| {
        {
            let store = side.store();
            (0..60).for_each(|n| push(&store, A, NOW + n * SECOND).unwrap());
        }
        let store = side.store();
        store.set_budget(&budget(1 << 20, OnFull::Block));
        assert!(push(&store, A, NOW + MINUTE).is_err());
        store.set_budget(&budget(8 << 20, OnFull::Block));
        push(&store, A, NOW + MINUTE).unwrap();
    });
}

#[test]
fn block_holds_bars_to_their_own_budget() {
    on_both(|side| {
        let store = side.store();
        let budget = Budget { ticks: 1 << 30, bars: 1 << 20, on_full: OnFull::Block };
        store.set_budget(&budget);
        let put = |second: i64| {
            let mut batch = store.batch();
            (0..1_000).for_each(|series| batch.put_bar(A, &bar(series, NOW + second * SECOND, 1), &[1, 1]));
            batch.commit(Durability::Process)
        };
        let error = (0..1_000).find_map(|second| put(second).err()).unwrap();
        assert!(matches!(error, StoreError::OverBudget { what: "bars", .. }), "{error}");
        push(&store, A, NOW).unwrap();
        store.reap(NOW + 30 * HOUR, &budget).unwrap();
        put(30 * 3_600).unwrap();
        assert!(store.expired_totals(A).unwrap().by_age.bars >= 1_000);
    });
}

#[test]
fn expire_tells_at_once_that_the_reaper_is_due_and_never_refuses() {
    on_both(|side| {
        let store = side.store();
        let budget = budget(2 << 20, OnFull::Expire);
        store.set_budget(&budget);
        let (mut rounds, mut kept) = (0, 0);
        for n in 0..400 {
            push(&store, A, NOW + n * SECOND).unwrap();
            in_bars_below(&store, store.journal_end());
            if store.is_over_budget() {
                rounds += 1;
                let reaped = store.reap(NOW + n * SECOND, &budget).unwrap();
                assert!(reaped.dropped.iter().all(|dropped| dropped.pending == 0), "{reaped:?}");
            }
            let usage = store.usage();
            kept = usage.specs[0].ticks;
            assert!(kept <= budget.ticks, "{kept} bytes after {n} blocks");
        }
        // Each round makes room for many blocks.
        assert!((1..100).contains(&rounds), "{rounds} rounds");
        let expired = store.expired_totals(A).unwrap();
        assert_eq!(expired.by_age, ExpiredCounts::default());
        assert_eq!(expired.by_budget.ticks + kept / BLOCK * u64::from(ROWS), store.journal_end());
    });
}

#[test]
fn what_is_in_no_bar_yet_goes_last_and_is_told() {
    on_both(|side| {
        let store = side.store();
        // `b` is older, but what is below 40 000, all of `a`, is in bars.
        let offset = |n: u64| n * u64::from(ROWS);
        (0..40).for_each(|n| push(&store, A, NOW + HOUR + n * SECOND).unwrap());
        (0..40).for_each(|n| push(&store, B, NOW + n * SECOND).unwrap());
        in_bars_below(&store, offset(40));
        let reaped = store.reap(NOW + 90 * MINUTE, &budget(2 << 20, OnFull::Expire)).unwrap();
        let told: Vec<_> = reaped.dropped.iter().map(|d| (d.spec.as_str(), d.ticks, d.pending)).collect();
        assert_eq!(told, [("a", offset(40), 0)]);
        let reaped = store.reap(NOW + 90 * MINUTE, &budget(1 << 20, OnFull::Expire)).unwrap();
        let told: Vec<_> = reaped.dropped.iter().map(|d| (d.spec.as_str(), d.ticks, d.pending)).collect();
        assert_eq!(told, [("b", offset(40), offset(40))]);
        assert_eq!(reaped.over_budget, 0);
    });
}

#[test]
fn a_failure_or_a_loss_of_power_while_reaping_counts_every_tick_once() {
    let fill = |store: &Store| {
        (0..30).for_each(|n| push(store, A, NOW + n * MINUTE).unwrap());
        put_bars(store, A, [bar(0, NOW, 1), bar(1, NOW, 1)]);
        in_bars_below(store, store.journal_end());
    };
    let kept = |memory: &Memory| {
        let mut ticks = 0;
        for space in memory.spaces("ticks/a/") {
            let _ = memory.scan_keys(&space, &[], None, &mut |key| {
                ticks += keys::parse_block(key).map_or(0, |facts| u64::from(facts.rows));
                std::ops::ControlFlow::Continue(())
            });
        }
        ticks
    };
    let later = NOW + 2 * HOUR + 30 * MINUTE;
    let mut number = 1;
    loop {
        let memory = Arc::new(Memory::new());
        let side = Side::Memory(memory.clone());
        let store = side.store();
        fill(&store);
        memory.plan(FaultPlan { commits: vec![(number, Fault::Full)], ..FaultPlan::default() });
        let failed = store.reap(later, &PLENTY).is_err();
        drop(store);
        memory.crash();
        memory.plan(FaultPlan::default());
        let store = side.store();
        let expired = store.expired_totals(A).unwrap().by_age.ticks;
        assert_eq!(expired + kept(&memory), 30 * u64::from(ROWS), "commit {number}");
        store.reap(later, &PLENTY).unwrap();
        let expired = store.expired_totals(A).unwrap().by_age.ticks;
        assert_eq!(expired + kept(&memory), 30 * u64::from(ROWS), "commit {number}");
        assert!(expired >= 10 * u64::from(ROWS));
        if !failed {
            break;
        }
        number += 1;
    }
    assert!(number > 5, "{number} commits");
}
