//! A stage that stands still, seen from outside in virtual time, where every figure can be exact.

use std::sync::Arc;
use std::time::Duration;

use barline::app::Seams;
use barline::model::TimeNs;
use barline::model::time::SECOND;
use barline::runtime::sim::simulate;
use barline::runtime::{Act, Chaos, Moment, Placement};
use barline::store::Memory;
use barline::telemetry::{Snapshot, table};

use crate::naive::Tick;
use crate::scripted::{Script, assemble, plan, specs};

const START: TimeNs = 1_750_000_000 * SECOND;

/// Stalls the writer's first call for so long.
struct StalledWriter(Duration);

impl Chaos for StalledWriter {
    fn act(&self, stage: &str, _instance: u16, moment: Moment) -> Act {
        if stage == "write" && moment == Moment::Before { Act::Stall(self.0) } else { Act::Pass }
    }
}

/// A tick of each of four series every 100 ms, so that every batch closes windows of another second.
fn script() -> Script {
    let batch = |i: i64| {
        let tick = |series| Tick { series, time: START + i * SECOND, sequence: 0, price: i, quantity: 1 };
        (Duration::from_millis(100), (0..4).map(tick).collect())
    };
    (0..100).map(batch).collect()
}

#[test]
fn lag_grows_by_a_second_per_second_and_the_stages_before_are_backpressured() {
    simulate(START, async |clock| {
        let chaos: Option<Arc<dyn Chaos>> = Some(Arc::new(StalledWriter(Duration::from_secs(60))));
        let seams = Seams {
            kv: Arc::new(Memory::new()),
            clock,
            chaos,
            brokers: Arc::new(barline::broker::MemoryBroker::default()),
            sources: Vec::new(),
        };
        let small = ["journal", "route", "aggregate", "write"].map(|stage| format!("{stage}.mailbox.capacity=2"));
        let mut changes: Vec<&str> = small.iter().map(String::as_str).collect();
        changes.push("aggregate.instances=1");
        let launched = assemble(seams, plan("edge.yaml", &changes), specs(), 4, script()).launch(Placement::SameThread);
        tokio::time::sleep(Duration::from_secs(20)).await;
        let before = launched.observed.snapshot();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = launched.observed.snapshot();

        let grown = |stage: &str| {
            let lag = |snapshot: &Snapshot| snapshot.get(&table::LAG, &[("stage", stage), ("instance", "0")]).unwrap();
            lag(&after) - lag(&before)
        };
        for stage in ["write", "aggregate", "route"] {
            assert!((grown(stage) - 10.0).abs() < 1e-6, "{stage}: {}", grown(stage));
        }
        let phase = |stage: &str, phase: &str| {
            let of = [("stage", stage), ("instance", "0"), ("phase", phase)];
            let spent = |snapshot: &Snapshot| snapshot.get(&table::TIME, &of).unwrap();
            spent(&after) - spent(&before)
        };
        assert!((phase("write", "busy") - 10.0).abs() < 1e-6);
        for stage in ["aggregate", "route"] {
            assert!((phase(stage, "backpressured") - 10.0).abs() < 1e-6, "{stage}");
        }
        assert!((phase("reap", "idle") - 10.0).abs() < 1e-6);
        assert!(launched.wait().await.is_clean());
    });
}
