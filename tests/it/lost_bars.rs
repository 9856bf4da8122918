//! Bars lost to damage while the journal still replays their ticks: they are made again, and no coarser bar counts a tick of
//! theirs twice.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{LedgerSnapshot, TimeNs};
use barline::runtime::Placement;
use barline::runtime::sim::{for_seeds, simulate};
use barline::spec::{LatePolicy, Spec, Specs};
use barline::store::keys::PartitionName;
use barline::store::{Crash, Durability, Faults, Kv, Op, Order, SimDisk, TickScan};
use bytes::Bytes;

use super::naive::{self, Bars, Tick};
use super::scripted::{Script, assemble, cascading_specs, plan, seams};

const START: TimeNs = 1_750_000_000 * SECOND;
const SERIES: u32 = 5;

/// The shipped specs with coarser bars and a policy; only the watermark closes windows.
fn specs(late: LatePolicy) -> Specs {
    let with_policy = |spec: &Arc<Spec>| {
        let mut spec = Spec::clone(spec);
        (spec.window.late, spec.window.idle) = (late, i64::MAX / 4);
        spec
    };
    Specs::new(cascading_specs().iter().map(with_policy).collect())
}

/// Half a minute of ticks, numbered by their quantity. The first is the only one of series 0: its window stays open, so that
/// every restart replays all there is.
fn script(random: &mut fastrand::Rng, late: LatePolicy) -> Script {
    let (mut time, mut number) = (START, 0);
    let mut script = Script::new();
    for batch in 0..250 {
        let pause = Duration::from_micros(random.u64(0..250_000));
        time += pause.as_nanos() as TimeNs;
        let mut tick = |series| {
            number += 1;
            let is_late = late == LatePolicy::Amend && random.u8(0..20) == 0;
            let behind = random.i64(0..if is_late { 8 * SECOND } else { 150 * MILLISECOND });
            Tick { series, time: time - behind, sequence: 0, price: random.i64(-50..50), quantity: number }
        };
        let ticks = match batch {
            0 => vec![tick(0)],
            _ => (0..6).map(|at| tick(1 + at % (SERIES - 1))).collect(),
        };
        script.push((pause, ticks));
    }
    script
}

/// One life over `disk`, killed after `length` if there is one; gives the numbers of the ticks in the journal, the bars by
/// granularity, and the ledger.
fn live(
    disk: &Arc<SimDisk>,
    now: TimeNs,
    specs: &Specs,
    script: Script,
    length: Option<Duration>,
) -> (BTreeSet<i64>, Vec<Bars>, LedgerSnapshot) {
    simulate(now, async |clock| {
        let plan = plan("scaled.yaml", &["aggregate.instances=1"]);
        let mount = disk.mount(Faults::default());
        let app = assemble(seams(mount, clock, None), plan, specs.clone(), SERIES, script);
        let context = app.context.clone();
        let mut waiting = std::pin::pin!(app.launch(Placement::SameThread).wait());
        match length {
            None => assert!(waiting.await.is_clean()),
            Some(length) => tokio::select! {
                biased;
                report = &mut waiting => panic!("ended before it was killed: {:?}", report.exits),
                () = tokio::time::sleep(length) => {}
            },
        }
        let mut found = BTreeSet::new();
        let spec = naive::spec_id(&context.specs);
        let scan = TickScan { spec, series: None, from: TimeNs::MIN, to: TimeNs::MAX, side: false };
        let visit = &mut |block: &barline::codec::Block, _: std::ops::Range<TimeNs>| {
            let batch = block.clone().into_batch(context.specs.get(spec));
            found.extend(batch.fields[1].bits.iter().map(|bits| *bits as i64));
            ControlFlow::Continue(())
        };
        context.store.scan_ticks(&scan, visit).unwrap();
        let stored = [0, 1, 2].map(|level| naive::stored(&context.store, &context.specs, level)).to_vec();
        let ledger = context.ledger.spec(spec).snapshot();
        if length.is_some() {
            disk.crash(Crash::Process);
        }
        (found, stored, ledger)
    })
}

/// Flips a bit in some of the bars of one second; says in how many.
fn damage(disk: &Arc<SimDisk>, random: &mut fastrand::Rng) -> usize {
    let kv = disk.mount(Faults::default());
    let mut ops = Vec::new();
    for space in kv.spaces("bars/market_ticks/") {
        if PartitionName::parse(&space).is_none_or(|name| name.window != SECOND) {
            continue;
        }
        let random = Mutex::new(&mut *random);
        kv.scan(&space, &[], None, &mut |key, value| {
            let mut random = random.lock().unwrap();
            if random.bool() {
                let mut value = value.to_vec();
                let at = random.usize(0..value.len());
                value[at] ^= 1 << random.u8(0..8);
                let (space, key) = (space.as_str().into(), Bytes::copy_from_slice(key));
                ops.push(Op::Put { space, key, value: value.into() });
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    let damaged = ops.len();
    kv.commit(ops, Durability::Synced).unwrap();
    damaged
}

fn check(seed: u64, late: LatePolicy) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let (specs, script, disk) = (specs(late), script(&mut random, late), SimDisk::new(seed, Order::Log));
    let ticks: Vec<Tick> = script.iter().flat_map(|(_, ticks)| ticks.clone()).collect();
    let (mut left, mut now, mut damaged) = (script, START, 0);
    for _ in 0..random.usize(2..4) {
        let length = left.iter().map(|(pause, _)| *pause).sum::<Duration>().mul_f64(random.f64() * 0.8);
        let (found, ..) = live(&disk, now, &specs, left.clone(), Some(length));
        left.retain(|(_, ticks)| !found.contains(&ticks[0].quantity));
        now += length.as_nanos() as TimeNs;
        damaged += damage(&disk, &mut random);
    }
    let (found, stored, ledger) = live(&disk, now, &specs, left, None);
    assert_eq!(found.len(), ticks.len(), "seed {seed}");
    for (stored, seconds) in stored.iter().zip([1, 5, 20]) {
        let expected = naive::bars(&ticks, seconds * SECOND);
        let differs = |key: &&(u32, TimeNs)| stored.get(key) != expected.get(key);
        let wrong: Vec<_> = expected.keys().chain(stored.keys()).filter(differs).collect();
        let shown = wrong.first().map(|key| (key, stored.get(key), expected.get(key)));
        assert!(wrong.is_empty(), "seed {seed}: {} bars of {seconds} s are wrong: {shown:?}", wrong.len());
    }
    let counted = (ledger.accepted, ledger.in_bars, ledger.open, ledger.dropped.len());
    assert_eq!(counted, (ticks.len() as u64, ticks.len() as u64, 0, 0), "seed {seed}: {ledger:?}");
    damaged
}

#[test]
fn bars_that_are_lost_and_replayed_are_in_every_coarser_bar_once() {
    let damaged = Mutex::new(0);
    for_seeds(1, 60, "bars_that_are_lost", |seed| *damaged.lock().unwrap() += check(seed, LatePolicy::Amend));
    for_seeds(1, 30, "bars_that_are_lost", |seed| *damaged.lock().unwrap() += check(seed, LatePolicy::Drop));
    assert!(*damaged.lock().unwrap() > 0);
}
