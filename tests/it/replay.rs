//! Bars derived again from the journal are the naive ones; what differs is told, and installed as it should be.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use barline::app::Seams;
use barline::model::time::{DAY, MILLISECOND, SECOND};
use barline::model::{SeriesId, TimeNs};
use barline::runtime::sim::{Rates, SeededChaos, for_seeds, simulate};
use barline::runtime::{Chaos, Context, Placement};
use barline::spec::Spec;
use barline::store::{BarScan, Durability, Memory, Op, RunSize};
use barline::tools::replay::{Grounds, HELD_BYTES, Install};
use barline::tools::{Replay, ReplayReport, replay};
use bytes::Bytes;

use super::naive::{self, Tick};
use super::scripted::{Script, assemble, cascading_specs, plan};

const START: TimeNs = 1_750_000_000 * SECOND;
const SERIES: u32 = 6;

/// Batches of ticks in disorder, some of them late, over half a minute.
fn script(random: &mut fastrand::Rng) -> Script {
    let mut time = START;
    let mut batch = |_| {
        let pause = Duration::from_millis(random.u64(0..1500));
        time += pause.as_nanos() as TimeNs;
        let late = random.u8(0..5) == 0;
        let behind = if late { 12 * SECOND } else { 150 * MILLISECOND };
        let ticks = (0..random.usize(1..60)).map(|_| Tick {
            series: random.u32(0..SERIES),
            time: time - random.i64(0..behind),
            sequence: random.u32(0..3),
            price: random.i64(-50..50),
            quantity: random.i64(0..1000),
        });
        (pause, ticks.collect())
    };
    (0..40).map(&mut batch).collect()
}

/// Runs a script to its end and hands over what it leaves.
fn after_a_run(seed: u64, check: impl Fn(&mut fastrand::Rng, &[Tick], &Context)) {
    let mut random = fastrand::Rng::with_seed(seed);
    let script = script(&mut random);
    let ticks: Vec<Tick> = script.iter().flat_map(|(_, ticks)| ticks.clone()).collect();
    simulate(START, async |clock| {
        let seams = Seams {
            kv: Arc::new(Memory::new()),
            clock,
            brokers: Arc::new(barline::broker::MemoryBroker::default()),
            chaos: None,
            sources: Vec::new(),
        };
        let app = assemble(seams, plan("scaled.yaml", &[]), cascading_specs(), SERIES, script);
        let context = app.context.clone();
        assert!(app.launch(Placement::SameThread).wait().await.is_clean(), "seed {seed}");
        check(&mut random, &ticks, &context);
    });
}

fn market(context: &Context) -> Spec {
    Spec::clone(context.specs.by_name("market_ticks").unwrap())
}

fn job(context: &Context) -> Replay {
    let spec = market(context);
    let (from, to) = (TimeNs::MIN, TimeNs::MAX);
    Replay { spec, ticks_of: None, from, to, examples: 1_000, held_bytes: HELD_BYTES, install: None }
}

fn run(context: &Context, job: &Replay) -> ReplayReport {
    let grounds =
        Grounds { specs: &context.specs, catalog: &context.catalog, store: &context.store, now: context.clock.now() };
    replay(grounds, job, &mut |_| ControlFlow::Continue(())).unwrap()
}

/// Every bar of the spec: granularity, series, start.
fn ids(context: &Context) -> Vec<(u8, SeriesId, TimeNs)> {
    let mut found = Vec::new();
    for granularity in 0..3 {
        let spec = naive::spec_id(&context.specs);
        let scan = BarScan { spec, granularity, series: None, from: TimeNs::MIN, to: TimeNs::MAX };
        let visit = &mut |head: &barline::model::BarHead, _: &[u64]| {
            found.push((granularity, head.series, head.start));
            ControlFlow::Continue(())
        };
        context.store.scan_bars(&scan, visit).unwrap();
    }
    found
}

/// Removes a bar as if it had never been stored.
fn remove(context: &Context, (granularity, series, start): (u8, SeriesId, TimeNs)) {
    let window = market(context).granularities[granularity as usize].length;
    let key = Bytes::copy_from_slice(&barline::store::keys::bar(series, start));
    let kv = context.store.kv();
    for space in kv.spaces(&format!("bars/market_ticks/{window:x}/")) {
        kv.commit(vec![Op::Delete { space: space.as_str().into(), key: key.clone() }], Durability::Process).unwrap();
    }
}

/// Stores a bar with another sum of quantities and one tick less.
fn spoil(context: &Context, (granularity, series, start): (u8, SeriesId, TimeNs)) {
    let spec = naive::spec_id(&context.specs);
    let (mut head, mut state) = context.store.bar(spec, granularity, series, start).unwrap().unwrap();
    (head.granularity, head.ticks) = (granularity, head.ticks - 1);
    let last = state.len() - 1;
    state[last] ^= 1;
    let mut batch = context.store.batch();
    batch.put_bar(spec, &head, &state);
    batch.commit(Durability::Process).unwrap();
}

fn assert_naive(seed: u64, ticks: &[Tick], context: &Context) {
    for (granularity, seconds) in [(0, 1), (1, 5), (2, 20)] {
        let stored = naive::stored(&context.store, &context.specs, granularity);
        let expected = naive::bars(ticks, seconds * SECOND);
        let wrong: Vec<_> =
            expected.keys().chain(stored.keys()).filter(|key| stored.get(*key) != expected.get(*key)).collect();
        let first = wrong.first().map(|key| (*key, stored.get(*key), expected.get(*key)));
        assert!(wrong.is_empty(), "seed {seed}, granularity {granularity}: {} wrong: {first:?}", wrong.len());
    }
}

#[test]
fn derived_bars_are_the_stored_ones_however_small_the_slices() {
    for_seeds(1, 30, "derived_bars", |seed| {
        after_a_run(seed, |random, ticks, context| {
            let whole = run(context, &job(context));
            assert!(whole.is_equal(), "seed {seed}: {whole:?}");
            let same: Vec<_> = whole.granularities.iter().map(|counts| counts.same as usize).collect();
            let expected = [1, 5, 20].map(|seconds| naive::bars(ticks, seconds * SECOND).len());
            assert_eq!(same, expected, "seed {seed}: {whole:?}");
            let sliced = run(context, &Replay { held_bytes: random.usize(300..20_000), ..job(context) });
            assert_eq!(ReplayReport { ticks: 0, ..sliced }, ReplayReport { ticks: 0, ..whole }, "seed {seed}");
        });
    });
}

#[test]
fn ticks_rewritten_by_series_give_the_same_bars() {
    for_seeds(1, 15, "ticks_rewritten", |seed| {
        after_a_run(seed, |random, ticks, context| {
            let whole = run(context, &job(context));
            let (mut work, later, size) = (None, START + DAY / 2, RunSize { rows: 200, block_rows: 20 });
            let mut rows = 0;
            while let Some(step) = context.store.cluster(&mut work, later, size).unwrap() {
                rows += step.written as usize;
            }
            assert_eq!(rows, ticks.len(), "seed {seed}");
            let held_bytes = random.usize(300..20_000);
            let again = run(context, &Replay { held_bytes, ..job(context) });
            assert_eq!(ReplayReport { ticks: 0, ..again }, ReplayReport { ticks: 0, ..whole }, "seed {seed}");
            let look = barline::tools::verify::look(&**context.store.kv(), &mut |_| ControlFlow::Continue(())).unwrap();
            let report = look.report();
            assert!(report.is_sound() && report.kinds.iter().any(|kind| kind.kind == "sorted"), "{report:?}");
        });
    });
}

#[test]
fn what_is_missing_or_differs_is_told_and_installed_exactly() {
    for_seeds(1, 30, "what_is_missing", |seed| {
        after_a_run(seed, |random, ticks, context| {
            let mut all = ids(context);
            random.shuffle(&mut all);
            let (gone, spoiled) = (all.pop().unwrap(), all.pop().unwrap());
            let before: Vec<_> = all.iter().map(|id| bar(context, *id)).collect();
            remove(context, gone);
            spoil(context, spoiled);
            let told = run(context, &job(context));
            let sum = |of: fn(&barline::tools::replay::Counts) -> u64| told.granularities.iter().map(of).sum::<u64>();
            assert_eq!((sum(|c| c.new), sum(|c| c.changed), sum(|c| c.missing)), (1, 1, 0), "seed {seed}: {told:?}");
            assert_eq!((sum(|c| c.same), told.installed()), (all.len() as u64, 0), "seed {seed}: {told:?}");
            let install = Replay { install: Some(Install::All), held_bytes: random.usize(300..20_000), ..job(context) };
            assert_eq!(run(context, &install).installed(), 2, "seed {seed}");
            assert_naive(seed, ticks, context);
            assert_eq!(bar(context, gone).0.revision, 0);
            // What was equal has not been touched.
            assert_eq!(all.iter().map(|id| bar(context, *id)).collect::<Vec<_>>(), before);
            assert!(run(context, &job(context)).is_equal(), "seed {seed}");
        });
    });
}

fn bar(context: &Context, (granularity, series, start): (u8, SeriesId, TimeNs)) -> (barline::model::BarHead, Vec<u64>) {
    context.store.bar(naive::spec_id(&context.specs), granularity, series, start).unwrap().unwrap()
}

#[test]
fn windows_that_lie_only_partly_in_the_range_are_left_out() {
    after_a_run(7, |_, ticks, context| {
        let (from, to) = (START + 3 * SECOND / 2, START + 10 * SECOND + 1);
        let told = run(context, &Replay { from, to, ..job(context) });
        assert!(told.is_equal(), "{told:?}");
        let inside = |seconds: i64| {
            let bars = naive::bars(ticks, seconds * SECOND);
            bars.keys().filter(|(_, start)| *start >= from && start + seconds * SECOND <= to).count() as u64
        };
        let same: Vec<_> = told.granularities.iter().map(|counts| counts.same).collect();
        assert_eq!(same, [inside(1), inside(5), inside(20)]);
    });
}

/// How often bars are removed and installed again while a script runs.
const MEDDLING: usize = 12;

#[test]
fn installing_while_the_pipeline_runs_never_loses_a_tick_nor_counts_one_twice() {
    for_seeds(1, 200, "installing_while", |seed| {
        // A finest bar that is lost before its checkpoint is counted anew by a restart, and twice above it: so either bars
        // get lost or stages restart.
        let loses_bars = seed % 2 == 0;
        let panic = if loses_bars { 0.0 } else { 0.03 };
        let rough = Rates { stall: 0.15, longest: Duration::from_millis(400), panic };
        let mut random = fastrand::Rng::with_seed(seed);
        let script = script(&mut random);
        let ticks: Vec<Tick> = script.iter().flat_map(|(_, ticks)| ticks.clone()).collect();
        let instances = format!("aggregate.instances={}", random.u32(1..4));
        simulate(START, async |clock| {
            let chaos: Arc<dyn Chaos> = Arc::new(SeededChaos::new(seed, rough));
            let seams = Seams {
                kv: Arc::new(Memory::new()),
                clock,
                brokers: Arc::new(barline::broker::MemoryBroker::default()),
                chaos: Some(chaos),
                sources: Vec::new(),
            };
            let app = assemble(seams, plan("scaled.yaml", &[&instances]), cascading_specs(), SERIES, script);
            let context = app.context.clone();
            let launched = app.launch(Placement::SameThread);
            for _ in 0..MEDDLING {
                tokio::time::sleep(Duration::from_millis(random.u64(0..4_000))).await;
                if let Some(gone) = random.choice(ids(&context)).filter(|_| loses_bars) {
                    remove(&context, gone);
                }
                run(&context, &Replay { install: Some(Install::All), ..job(&context) });
            }
            assert!(launched.wait().await.is_clean(), "seed {seed}");
            // What was in flight whenever it was looked at.
            run(&context, &Replay { install: Some(Install::All), ..job(&context) });
            assert_naive(seed, &ticks, &context);
        });
    });
}
