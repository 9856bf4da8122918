//! A stalled last stage: everything before it waits, nothing grows, and when it goes on everything arrives; or, where the
//! topology says `drop_newest`, what does not fit is given up and counted.

use std::sync::Arc;
use std::time::Duration;

use barline::app::Seams;
use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{Reason, TimeNs};
use barline::runtime::sim::simulate;
use barline::runtime::{Act, Chaos, Moment, Placement};
use barline::store::Memory;

use super::naive::{self, Tick};
use super::scripted::{Dropped, Script, assemble, assemble_noting, plan, specs};

const START: TimeNs = 1_750_000_000 * SECOND;

/// Stalls the writer's every call for so long.
struct StalledWriter(Duration);

impl Chaos for StalledWriter {
    fn act(&self, stage: &str, _instance: u16, moment: Moment) -> Act {
        if stage == "write" && moment == Moment::Before { Act::Stall(self.0) } else { Act::Pass }
    }
}

/// A tick of each of four series every 100 ms, so that every batch closes windows of another second.
fn script(batches: i64) -> Script {
    let batch = |i: i64| {
        let tick = |series| Tick { series, time: START + i * SECOND, sequence: 0, price: i, quantity: 1 };
        (Duration::from_nanos(100 * MILLISECOND as u64), (0..4).map(tick).collect())
    };
    (0..batches).map(batch).collect()
}

#[test]
fn a_stalled_writer_stops_the_source_and_loses_nothing() {
    let script = script(200);
    let ticks: Vec<Tick> = script.iter().flat_map(|(_, ticks)| ticks.clone()).collect();
    simulate(START, async |clock| {
        let chaos: Option<Arc<dyn Chaos>> = Some(Arc::new(StalledWriter(Duration::from_secs(60))));
        let seams = Seams {
            kv: Arc::new(Memory::new()),
            clock: clock.clone(),
            brokers: Arc::new(barline::broker::MemoryBroker::default()),
            chaos,
            sources: Vec::new(),
        };
        let small = ["journal", "route", "aggregate", "write"].map(|stage| format!("{stage}.mailbox.capacity=2"));
        let small: Vec<&str> = small.iter().map(String::as_str).collect();
        let app = assemble(seams, plan("edge.yaml", &small), specs(), 4, script);
        let context = app.context.clone();
        let ledger = || context.ledger.spec(naive::spec_id(&context.specs)).snapshot();
        let launched = app.launch(Placement::SameThread);
        let meters = launched.running.meters().to_vec();

        // Long after the script would have ended without the stall, the source is still held up.
        tokio::time::sleep(Duration::from_secs(50)).await;
        let held = ledger().accepted;
        assert!(held < ticks.len() as u64, "the source was not held up: {held} ticks accepted");
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for meter in &meters {
                assert!(meter.depth() <= meter.capacity(), "{}: {} waiting", meter.stage, meter.depth());
            }
        }
        let waited = meters.iter().filter(|meter| meter.backpressured_ns.get() > 0).count();
        assert!(waited >= 2, "only {waited} instances noticed the backpressure");

        let report = launched.wait().await;
        assert!(report.is_clean(), "{:?}", report.exits);
        assert_eq!(naive::stored(&context.store, &context.specs, 0), naive::bars(&ticks, SECOND));
        assert_eq!((ledger().accepted, ledger().in_flight()), (ticks.len() as u64, 0));
    });
}

#[test]
fn a_source_that_drops_the_newest_never_waits_and_counts_every_tick() {
    let batches = script(200);
    let all: Vec<Vec<Tick>> = batches.iter().map(|(_, ticks)| ticks.clone()).collect();
    simulate(START, async |clock| {
        let chaos: Option<Arc<dyn Chaos>> = Some(Arc::new(StalledWriter(Duration::from_millis(900))));
        let seams = Seams {
            kv: Arc::new(Memory::new()),
            clock,
            brokers: Arc::new(barline::broker::MemoryBroker::default()),
            chaos,
            sources: Vec::new(),
        };
        let mut changes = ["journal", "aggregate", "write"].map(|stage| format!("{stage}.mailbox.capacity=1")).to_vec();
        changes.push("journal.mailbox.when_full=drop_newest".to_owned());
        let changes: Vec<&str> = changes.iter().map(String::as_str).collect();
        let dropped = Dropped::default();
        let app = assemble_noting(seams, plan("memory.yaml", &changes), specs(), 4, batches, dropped.clone());
        let context = app.context.clone();
        let launched = app.launch(Placement::SameThread);
        let ledger = || context.ledger.spec(naive::spec_id(&context.specs)).snapshot();

        // The script takes 20 s: whoever had to wait once would not be through with it now.
        tokio::time::sleep(Duration::from_millis(20_050)).await;
        assert_eq!(ledger().accepted, all.iter().flatten().count() as u64, "the source waited");
        let report = launched.wait().await;
        assert!(report.is_clean(), "{:?}", report.exits);

        let dropped = dropped.lock().unwrap();
        assert!((1..all.len()).contains(&dropped.len()), "{} of {} batches dropped", dropped.len(), all.len());
        let kept = all.iter().enumerate().filter(|(number, _)| !dropped.contains(number));
        let kept: Vec<Tick> = kept.flat_map(|(_, ticks)| ticks.clone()).collect();
        assert_eq!(naive::stored(&context.store, &context.specs, 0), naive::bars(&kept, SECOND));

        let lost = dropped.iter().map(|number| all[*number].len() as u64).sum::<u64>();
        let ledger = ledger();
        assert_eq!(ledger.dropped, [(Reason::MailboxFull, lost)]);
        assert_eq!((ledger.accepted, ledger.in_bars), (kept.len() as u64 + lost, kept.len() as u64));
        assert_eq!((ledger.open, ledger.in_flight()), (0, 0));
    });
}
