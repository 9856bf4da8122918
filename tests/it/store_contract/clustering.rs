//! Sealed partitions of the journal rewritten by series: nothing is lost, nothing is seen twice, whatever happens.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use barline::codec::block::{self, Block};
use barline::model::time::{HOUR, MINUTE, SECOND};
use barline::model::*;
use barline::spec::*;
use barline::store::*;
use barline::tools::verify;
use bytes::Bytes;
use proptest::prelude::*;

use super::kit::*;

mod beside;

/// Small enough that a partition takes several runs, and a run several blocks.
const SIZE: RunSize = RunSize { rows: 60, block_rows: 7 };
/// The start of a partition of five minutes.
const START: TimeNs = NOW + 400 * SECOND;
/// From one batch to the next.
const STEP: TimeNs = 30 * SECOND;
const LATER: TimeNs = START + HOUR;

/// One tick as it is read: time, sequence, fields, undeclared fields.
type Row = (TimeNs, u32, Vec<Option<u64>>, Vec<(String, i64)>);
type BySeries = BTreeMap<u32, Vec<Row>>;

/// A batch of some series with sequences, absences and undeclared fields.
fn batch(random: &mut fastrand::Rng, rows: usize, at: TimeNs) -> TickBatch {
    let mut batch = TickBatch::new(A, 2);
    for row in 0..rows {
        batch.series.push(random.u32(0..24));
        batch.timestamps.push(at - random.i64(0..3) * SECOND);
        batch.sequences.push(random.u32(0..2));
        for column in &mut batch.fields {
            let lacks = random.u8(0..6) == 0;
            column.bits.push(if lacks { 0 } else { random.u64(0..1_000) });
            if lacks {
                column.set_absent(row);
            }
        }
        if random.u8(0..9) == 0 {
            let name = random.choice(["bid", "ask"]).unwrap();
            batch.extras.push(ExtraField { row: row as u32, name: name.into(), value: random.i64(..) });
        }
    }
    batch
}

fn append_batch(store: &Store, batch: &TickBatch, at: TimeNs) {
    let facts = BlockFacts::of(batch, store.journal_end(), at);
    let mut write = store.batch();
    write.append(A, facts, block::encode(batch, specs().get(A), facts.offset, at).into());
    write.commit(Durability::Synced).unwrap();
}

/// A quarter of an hour of ticks, three partitions, all of them in bars.
fn fill(store: &Store, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    for step in 0..30 {
        let rows = random.usize(1..40);
        append_batch(store, &batch(&mut random, rows, START + step * STEP), START + step * STEP);
    }
    all_in_bars(store);
}

/// A filled store, and what is below it.
fn filled(side: &Side, seed: u64) -> (Arc<dyn Kv>, Store) {
    let kv = side.open();
    let store = Store::open(kv.clone(), &specs(), keep).unwrap();
    fill(&store, seed);
    (kv, store)
}

fn all_in_bars(store: &Store) {
    let mut batch = store.batch();
    [0, 1].into_iter().for_each(|instance| batch.put_checkpoint(checkpoint(instance, store.journal_end())));
    batch.commit(Durability::Synced).unwrap();
}

/// What a scan finds, each series in the order of its arrival numbers, which must be that of the scan.
fn rows(store: &Store, scan: TickScan) -> BySeries {
    let (mut found, mut last) = (BySeries::new(), BTreeMap::new());
    store
        .scan_ticks(&scan, &mut |block, range| {
            take(block, &range, scan.series.as_deref(), &mut found, &mut last);
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

fn take(
    block: &Block,
    range: &std::ops::Range<TimeNs>,
    series: Option<&[SeriesId]>,
    found: &mut BySeries,
    last: &mut BTreeMap<u32, u64>,
) {
    for row in 0..block.series.len() {
        let (of, time) = (block.series[row], block.timestamps[row]);
        if !range.contains(&time) || series.is_some_and(|series| !series.contains(&SeriesId(of))) {
            continue;
        }
        let arrival = block.header.offset + row as u64;
        assert!(last.insert(of, arrival).is_none_or(|before| before < arrival), "series {of} out of order");
        let extras = block.extras.iter().filter(|extra| extra.row as usize == row);
        found.entry(of).or_default().push((
            time,
            block.sequences.get(row).copied().unwrap_or(0),
            block.fields.iter().map(|(.., column)| column.get(row)).collect(),
            extras.map(|extra| (extra.name.to_string(), extra.value)).collect(),
        ));
    }
}

/// Rewrites whatever can be rewritten; says how many ticks that were.
fn cluster(store: &Store, now: TimeNs) -> Result<u64, StoreError> {
    let (mut work, mut rows) = (None, 0);
    while let Some(step) = store.cluster(&mut work, now, SIZE)? {
        rows += step.written;
    }
    Ok(rows)
}

fn spaces(kv: &dyn Kv) -> (usize, usize) {
    (kv.spaces("ticks/a/").len(), kv.spaces("sorted/a/").len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every series reads as before, over any range of time, in the process that rewrote it and in the next.
    #[test]
    fn every_series_reads_as_before_it_was_rewritten(
        seed: u64, on_disk: bool, (from, to) in (-5i64..35, -5i64..35),
        only in prop::collection::btree_set((0u32..26).prop_map(SeriesId), 1..5),
    ) {
        let side = if on_disk { Side::Disk(directory()) } else { Side::Memory(Arc::default()) };
        let only: Option<Arc<[SeriesId]>> = Some(only.into_iter().collect());
        let scans = [
            all_ticks(A),
            TickScan { from: START + from * MINUTE, to: START + to * MINUTE, ..all_ticks(A) },
            TickScan { series: only.clone(), ..all_ticks(A) },
            TickScan { series: only, from: START + from * MINUTE, ..all_ticks(A) },
        ];
        let end = {
            let store = side.store();
            fill(&store, seed);
            let before = scans.clone().map(|scan| rows(&store, scan));
            let ticks = before[0].values().map(|rows| rows.len() as u64).sum::<u64>();
            prop_assert_eq!(cluster(&store, LATER).unwrap(), ticks);
            prop_assert_eq!(scans.map(|scan| rows(&store, scan)), before);
            store.journal_end()
        };
        let kv = side.open();
        prop_assert_eq!(spaces(&*kv), (0, 3));
        let store = Store::open(kv, &specs(), keep).unwrap();
        let again = Side::Memory(Arc::default()).store();
        fill(&again, seed);
        prop_assert_eq!(rows(&store, all_ticks(A)), rows(&again, all_ticks(A)));
        // No arrival number is given twice, and what comes now comes after.
        prop_assert_eq!(store.journal_end(), end);
        append_batch(&store, &batch(&mut fastrand::Rng::with_seed(seed), 9, LATER), LATER);
        prop_assert_eq!(rows(&store, all_ticks(A)).values().map(Vec::len).sum::<usize>() as u64, end + 9);
        prop_assert_eq!(replay(&store, 0), [(end, A)]);
    }
}

#[test]
fn the_series_asked_for_are_read_from_few_blocks_and_nothing_else_is_read() {
    on_both(|side| {
        let kv = Arc::new(Hooked::counting(side.open()));
        let store = Store::open(kv.clone(), &specs(), keep).unwrap();
        fill(&store, 3);
        cluster(&store, LATER).unwrap();
        let read = |series: Option<&[u32]>| {
            let series = series.map(|series| series.iter().copied().map(SeriesId).collect());
            kv.take_got();
            let blocks = offsets(&store, TickScan { series, ..all_ticks(A) }).len();
            (blocks, kv.take_got())
        };
        let (all, all_bytes) = read(None);
        let (one, one_bytes) = read(Some(&[5]));
        let (other, other_bytes) = read(Some(&[20]));
        assert!(one > 0 && one * 5 < all && one_bytes * 5 < all_bytes, "{one} of {all} blocks");
        // Two far from each other are what they are one by one, and what lies between is not even fetched.
        assert_eq!(read(Some(&[5, 20])), (one + other, one_bytes + other_bytes));
        assert_eq!(read(Some(&[99])), (0, 0));
        assert_eq!(read(Some(&[5, 99])).0, one);
        assert_eq!(read(Some(&[])), (0, 0));
        let every: Vec<u32> = (0..26).collect();
        assert_eq!(read(Some(&every)), (all, all_bytes));
    });
}

#[test]
fn only_what_is_sealed_and_in_bars_is_rewritten() {
    on_both(|side| {
        let kv = side.open();
        let store = Store::open(kv.clone(), &specs(), keep).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for step in 0..30 {
            append_batch(&store, &batch(&mut random, 10, START + step * STEP), START + step * STEP);
        }
        let told = |checkpoints: &[Checkpoint], now| {
            let mut batch = store.batch();
            checkpoints.iter().for_each(|checkpoint| batch.put_checkpoint(checkpoint.clone()));
            batch.commit(Durability::Process).unwrap();
            cluster(&store, now).unwrap()
        };
        assert_eq!(told(&[], LATER), 0);
        // Of half of the series nothing is known.
        assert_eq!(told(&[checkpoint(0, 300)], LATER), 0);
        assert_eq!(told(&[checkpoint(1, 99)], LATER), 0);
        let parts = kv.spaces("ticks/a/");
        let first = kv.last_key(&parts[0]).unwrap().and_then(|key| keys::parse_block(&key)).unwrap();
        let first = first.offset + u64::from(first.rows);
        assert_eq!(told(&[checkpoint(1, first)], LATER), first);
        let last = ticks_in(&*kv, &parts[2]);
        assert_eq!(told(&[checkpoint(1, 300)], START + 12 * MINUTE), 300 - first - last);
        assert_eq!(spaces(&*kv), (1, 2));
        assert_eq!(cluster(&store, LATER).unwrap(), last);
        assert_eq!(spaces(&*kv), (0, 3));
        assert_eq!(cluster(&store, LATER).unwrap(), 0);
    });
}

/// Ticks of a space of the journal.
fn ticks_in(kv: &dyn Kv, space: &str) -> u64 {
    let mut ticks = 0;
    kv.scan_keys(space, &[], None, &mut |key| {
        ticks += u64::from(keys::parse_block(key).unwrap().rows);
        ControlFlow::Continue(())
    })
    .unwrap();
    ticks
}

#[test]
fn a_failure_or_a_loss_of_power_at_any_commit_leaves_one_or_the_other() {
    let whole = Arc::new(Memory::new());
    let store = Side::Memory(whole.clone()).store();
    fill(&store, 7);
    let expected = rows(&store, all_ticks(A));
    whole.plan(FaultPlan::default());
    cluster(&store, LATER).unwrap();
    let commits = whole.commits();
    assert!(commits > 12, "{commits} commits");
    for number in 1..=commits {
        let memory = Arc::new(Memory::new());
        let side = Side::Memory(memory.clone());
        let store = side.store();
        fill(&store, 7);
        memory.plan(FaultPlan { commits: vec![(number, Fault::Full)], ..FaultPlan::default() });
        assert!(cluster(&store, LATER).unwrap_err().may_pass(), "commit {number}");
        // The same process goes on.
        assert_eq!(rows(&store, all_ticks(A)), expected, "commit {number}");
        drop(store);
        memory.crash();
        memory.plan(FaultPlan::default());
        let store = side.store();
        assert_eq!(rows(&store, all_ticks(A)), expected, "commit {number}");
        let (ticks, sorted) = spaces(&*memory);
        assert_eq!(ticks + sorted, 3, "commit {number}: {ticks} and {sorted}");
        cluster(&store, LATER).unwrap();
        assert_eq!(rows(&store, all_ticks(A)), expected, "commit {number}");
        assert_eq!(spaces(&*memory), (0, 3), "commit {number}");
    }
}

#[test]
fn the_same_process_goes_on_after_a_failed_step() {
    on_both(|side| {
        let store = side.store();
        fill(&store, 11);
        let expected = rows(&store, all_ticks(A));
        let mut work = None;
        for _ in 0..5 {
            store.cluster(&mut work, LATER, SIZE).unwrap();
        }
        // As after an error, or in a stage made anew: what was begun is given up.
        drop(work);
        assert_eq!(rows(&store, all_ticks(A)), expected);
        assert_eq!(cluster(&store, LATER).unwrap(), store.journal_end());
        assert_eq!(rows(&store, all_ticks(A)), expected);
    });
}

#[test]
fn a_scan_that_has_begun_reads_on_while_its_partitions_are_rewritten() {
    on_both(|side| {
        let (kv, store) = filled(side, 5);
        let expected = rows(&store, all_ticks(A));
        let view = store.tick_view(A, false);
        for _ in 0..2 {
            let (mut found, mut last) = (BySeries::new(), BTreeMap::new());
            let visit = &mut |block: &Block, range| {
                take(block, &range, None, &mut found, &mut last);
                cluster(&store, LATER).unwrap();
                ControlFlow::Continue(())
            };
            store.scan_view(&view, &all_ticks(A), visit).unwrap();
            assert_eq!(found, expected);
        }
        // One partition waits for its reader, and the others wait for it.
        assert_eq!(spaces(&*kv), (3, 1));
        drop(view);
        cluster(&store, LATER).unwrap();
        assert_eq!(spaces(&*kv), (0, 3));
        assert_eq!(rows(&store, all_ticks(A)), expected);
    });
}
