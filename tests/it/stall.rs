//! A stalled last stage: everything before it waits, nothing grows, and when it goes on everything arrives.

use std::sync::Arc;
use std::time::Duration;

use barline::app::Seams;
use barline::model::TimeNs;
use barline::model::time::{MILLISECOND, SECOND};
use barline::runtime::sim::simulate;
use barline::runtime::{Act, Chaos, Moment, Placement};
use barline::store::Memory;

use super::naive::{self, Tick};
use super::scripted::{Script, assemble, plan, specs};

const START: TimeNs = 1_750_000_000 * SECOND;
const STALL: Duration = Duration::from_secs(60);

/// Stalls the writer's every call.
struct StalledWriter;

impl Chaos for StalledWriter {
    fn act(&self, stage: &str, _instance: u16, moment: Moment) -> Act {
        if stage == "write" && moment == Moment::Before { Act::Stall(STALL) } else { Act::Pass }
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
        let chaos: Option<Arc<dyn Chaos>> = Some(Arc::new(StalledWriter));
        let seams = Seams { kv: Arc::new(Memory::new()), clock: clock.clone(), chaos, sources: Vec::new() };
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
        for _ in 0..40 {
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
