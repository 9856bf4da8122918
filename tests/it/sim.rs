//! The whole of `scaled.yaml` simulated: whatever stalls, panics and restarts, the bars are the naive ones and the
//! ledger balances.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use barline::app::Launched;
use barline::codec::Block;
use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{LedgerSnapshot, Reason, TimeNs};
use barline::runtime::sim::{Rates, SeededChaos, for_seeds, simulate};
use barline::runtime::{Built, Chaos, Context, DrainReport, Placement};
use barline::spec::{LatePolicy, Spec, Specs};
use barline::store::{Hooked, Kv, KvError, Memory, Op, TickScan};
use barline::topology::Plan;

use super::naive::{self, Bars, Tick};
use super::scripted::{Script, assemble, cascading_specs, plan, seams, specs};

const START: TimeNs = 1_750_000_000 * SECOND;

/// A random script: a handful of series, disorder, late ticks, equal timestamps, silences.
fn script(random: &mut fastrand::Rng, series: u32) -> Script {
    let mut event_time = START;
    let batches = random.usize(5..40);
    let mut script = Script::new();
    for _ in 0..batches {
        let pause = Duration::from_micros(random.u64(0..200_000));
        event_time += pause.as_nanos() as TimeNs;
        let ticks = (0..random.usize(1..40)).map(|_| Tick {
            series: random.u32(0..series),
            time: event_time - behind(random),
            sequence: random.u32(0..3),
            price: random.i64(-50..50),
            quantity: random.i64(0..1000),
        });
        script.push((pause, ticks.collect()));
    }
    script
}

/// How far a tick's time is behind: usually within `wait`, sometimes late.
fn behind(random: &mut fastrand::Rng) -> TimeNs {
    let most = if random.f32() < 0.1 { 5 * SECOND } else { 150 * MILLISECOND };
    random.i64(0..most)
}

/// Stages to be used instead of a plan's, by name; the context is there once they run.
pub type Stages = fn(&Plan, &Arc<OnceLock<Context>>) -> Vec<(String, Built)>;

/// What a simulated run leaves behind.
#[derive(Debug)]
pub struct Outcome {
    pub ticks: u64,
    /// By granularity.
    pub expected: Vec<Bars>,
    pub stored: Vec<Bars>,
    pub ledger: LedgerSnapshot,
    /// `None` where it came to no end.
    pub report: Option<DrainReport>,
}

fn run(seed: u64, file: &str, rates: Rates) -> Outcome {
    // Only `scaled.yaml` has a router to address several.
    let most = if file == "scaled.yaml" { 5 } else { 2 };
    let instances = |random: &mut fastrand::Rng| random.u32(1..most).to_string();
    run_beside(seed, file, rates, instances, |_| {})
}

/// As [`run`], with `aggregate.instances` as given, and what `beside` starts beside the topology.
pub fn run_beside(
    seed: u64,
    file: &str,
    rates: Rates,
    instances: impl Fn(&mut fastrand::Rng) -> String,
    beside: impl Fn(&Launched),
) -> Outcome {
    run_with(seed, file, rates, instances, |_, _| Vec::new(), beside)
}

/// As [`run_beside`], with stages to be used instead of the topology's.
pub fn run_with(
    seed: u64,
    file: &str,
    rates: Rates,
    instances: impl Fn(&mut fastrand::Rng) -> String,
    stages: Stages,
    beside: impl Fn(&Launched),
) -> Outcome {
    run_over(Arc::new(Memory::new()), seed, file, rates, instances, stages, beside)
}

/// As [`run_with`], over this store.
fn run_over(
    kv: Arc<dyn Kv>,
    seed: u64,
    file: &str,
    rates: Rates,
    instances: impl Fn(&mut fastrand::Rng) -> String,
    stages: Stages,
    beside: impl Fn(&Launched),
) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed);
    let series = random.u32(1..12);
    let script = script(&mut random, series);
    let ticks: Vec<Tick> = script.iter().flat_map(|(_, ticks)| ticks.clone()).collect();
    let plan = plan(file, &[&format!("aggregate.instances={}", instances(&mut random))]);
    simulate(START, async |clock| {
        let chaos: Arc<dyn Chaos> = Arc::new(SeededChaos::new(seed, rates));
        let shared = Arc::new(OnceLock::new());
        let mut seams = seams(kv, clock, Some(chaos));
        seams.sources = stages(&plan, &shared);
        let app = assemble(seams, plan, cascading_specs(), series, script);
        let context = app.context.clone();
        let _ = shared.set(context.clone());
        let launched = app.launch(Placement::SameThread);
        beside(&launched);
        let report = tokio::time::timeout(LONGEST, launched.wait()).await;
        Outcome {
            ticks: ticks.len() as u64,
            expected: [1, 5, 20].map(|seconds| naive::bars(&ticks, seconds * SECOND)).to_vec(),
            stored: [0, 1, 2].map(|level| naive::stored(&context.store, &context.specs, level)).to_vec(),
            ledger: context.ledger.spec(naive::spec_id(&context.specs)).snapshot(),
            report: report.ok(),
        }
    })
}

/// Longer than any run takes by its own clock.
const LONGEST: Duration = Duration::from_secs(3600);

pub const CALM: Rates = Rates { stall: 0.05, longest: Duration::from_millis(50), panic: 0.0 };
pub const ROUGH: Rates = Rates { stall: 0.15, longest: Duration::from_millis(400), panic: 0.03 };

pub fn check(seed: u64, outcome: &Outcome) {
    if let Some(wrong) = complaint(outcome) {
        panic!("seed {seed}: {wrong}");
    }
}

/// The first thing that is wrong with what a run left behind.
pub fn complaint(outcome: &Outcome) -> Option<String> {
    let Some(report) = &outcome.report else { return Some(format!("it came to no end within {LONGEST:?}")) };
    if !report.is_clean() {
        return Some(format!("it did not end in order: {:?}", report.exits));
    }
    for (level, (stored, expected)) in outcome.stored.iter().zip(&outcome.expected).enumerate() {
        let wrong = |key: &&(u32, TimeNs)| stored.get(key) != expected.get(key);
        let wrong: Vec<_> = expected.keys().chain(stored.keys()).filter(wrong).collect();
        if let Some(key) = wrong.first() {
            let shown = (key, stored.get(key), expected.get(key));
            return Some(format!("granularity {level}: {} bars are wrong: {shown:?}", wrong.len()));
        }
    }
    let LedgerSnapshot { accepted, in_bars, open, dropped, .. } = &outcome.ledger;
    let counted = (*accepted, *in_bars, outcome.ledger.in_flight(), *open, dropped.len());
    let balances = counted == (outcome.ticks, outcome.ticks, 0, 0, 0);
    (!balances).then(|| format!("the ledger says of {} ticks: {:?}", outcome.ticks, outcome.ledger))
}

#[test]
fn a_thousand_seeds_of_stalls_panics_and_restarts_leave_exact_bars() {
    for_seeds(1, 1000, "a_thousand_seeds", |seed| check(seed, &run(seed, "scaled.yaml", ROUGH)));
}

/// A store in which every fifth commit fails once `unsure` is set, and is there all the same in half the cases.
fn unsure(seed: u64, unsure: Arc<AtomicBool>) -> Arc<dyn Kv> {
    let random = Mutex::new(fastrand::Rng::with_seed(seed));
    let commit = move |below: &dyn Kv, ops: Vec<Op>, durability| {
        let mut random = random.lock().unwrap();
        let (fails, is_there) = (unsure.load(Relaxed) && random.f32() < 0.2, random.bool());
        if is_there || !fails {
            below.commit(ops, durability)?;
        }
        if fails { Err(KvError::Full { path: "simulated".into() }) } else { Ok(()) }
    };
    Arc::new(Hooked::committing(Arc::new(Memory::new()), Box::new(commit)))
}

#[test]
fn commits_that_fail_and_are_there_all_the_same_count_no_tick_twice() {
    for_seeds(1, 300, "commits_that_fail", |seed| {
        let fails = Arc::new(AtomicBool::new(false));
        let begin = |_: &Launched| fails.store(true, Relaxed);
        let (kv, instances) = (unsure(seed, fails.clone()), |random: &mut fastrand::Rng| random.u32(1..5).to_string());
        check(seed, &run_over(kv, seed, "scaled.yaml", CALM, instances, |_, _| Vec::new(), begin));
    });
}

#[test]
fn without_failures_every_shipped_topology_leaves_exact_bars() {
    for file in ["edge.yaml", "memory.yaml", "scaled.yaml"] {
        for_seeds(1, 20, "without_failures", |seed| check(seed, &run(seed, file, CALM)));
    }
}

/// Runs a script under another policy for late ticks; gives the ledger, and the late ticks kept aside.
fn run_late(seed: u64, policy: LatePolicy, rates: Rates) -> (u64, LedgerSnapshot, u64) {
    run_late_beside(seed, policy, rates, &[], |_| {})
}

/// As [`run_late`], with changes to the topology and what `beside` starts beside it.
pub fn run_late_beside(
    seed: u64,
    policy: LatePolicy,
    rates: Rates,
    overrides: &[&str],
    beside: impl Fn(&Launched),
) -> (u64, LedgerSnapshot, u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let script = script(&mut random, 4);
    let ticks = script.iter().map(|(_, ticks)| ticks.len() as u64).sum();
    let with_policy = |spec: &Arc<Spec>| {
        let mut spec = Spec::clone(spec);
        spec.window.late = policy;
        spec
    };
    let specs = Specs::new(specs().iter().map(with_policy).collect());
    simulate(START, async |clock| {
        let chaos: Arc<dyn Chaos> = Arc::new(SeededChaos::new(seed, rates));
        let seams = seams(Arc::new(Memory::new()), clock, Some(chaos));
        let app = assemble(seams, plan("scaled.yaml", overrides), specs, 4, script);
        let context = app.context.clone();
        let launched = app.launch(Placement::SameThread);
        beside(&launched);
        let report = launched.wait().await;
        assert!(report.is_clean(), "seed {seed}: {:?}", report.exits);
        let spec = naive::spec_id(&context.specs);
        let mut aside = 0;
        let scan = TickScan { spec, series: None, from: TimeNs::MIN, to: TimeNs::MAX, side: true };
        let count = |block: &Block, _| {
            aside += block.series.len() as u64;
            ControlFlow::Continue(())
        };
        context.store.scan_ticks(&scan, &mut { count }).unwrap();
        (ticks, context.ledger.spec(spec).snapshot(), aside)
    })
}

#[test]
fn late_ticks_that_go_into_no_bar_are_counted_and_kept_aside_where_the_spec_says_so() {
    let mut late = 0;
    for seed in 1..200 {
        let rates = if seed < 40 { CALM } else { ROUGH };
        for (policy, reason) in [(LatePolicy::Drop, Reason::Late), (LatePolicy::SideOutput, Reason::SideOutput)] {
            let (ticks, ledger, aside) = run_late(seed, policy, rates);
            let dropped: u64 = ledger.dropped.iter().map(|(_, ticks)| ticks).sum();
            assert!(ledger.dropped.iter().all(|(found, _)| *found == reason), "seed {seed}: {ledger:?}");
            assert_eq!((ledger.accepted, ledger.in_bars + dropped), (ticks, ticks), "seed {seed}: {ledger:?}");
            let expected = if policy == LatePolicy::SideOutput { dropped } else { 0 };
            assert_eq!(aside, expected, "seed {seed}");
            late += dropped;
        }
    }
    assert!(late > 100, "{late} late ticks in all scripts");
}

#[test]
fn a_seed_decides_everything() {
    for seed in 1..20 {
        let (once, again) = (run(seed, "scaled.yaml", ROUGH), run(seed, "scaled.yaml", ROUGH));
        assert_eq!(format!("{:?}", once.ledger), format!("{:?}", again.ledger));
        assert_eq!(once.report.map(|report| report.exits), again.report.map(|report| report.exits));
        assert_eq!(once.stored, again.stored);
    }
}
