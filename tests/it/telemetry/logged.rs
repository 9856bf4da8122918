//! What is logged while a traced batch is handled names the trace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use barline::model::TimeNs;
use barline::model::time::SECOND;
use barline::runtime::sim::simulate;
use barline::runtime::{Act, Chaos, Moment, Placement, Tracer};
use barline::store::Memory;
use barline::telemetry::logs;
use tracing_subscriber::layer::SubscriberExt;

use crate::naive::Tick;
use crate::scripted::{assemble, plan, seams, specs};

const START: TimeNs = 1_750_000_000 * SECOND;

/// Makes the router panic now and then, never twice on the same batch.
#[derive(Default)]
struct Panics(AtomicU32);

impl Chaos for Panics {
    fn act(&self, stage: &str, _instance: u16, moment: Moment) -> Act {
        let at_work = stage == "route" && moment == Moment::After;
        if at_work && self.0.fetch_add(1, Relaxed) % 5 == 2 { Act::Panic } else { Act::Pass }
    }
}

#[test]
fn a_panic_on_a_traced_batch_is_logged_with_its_trace_and_span() {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(logs::Layer), || {
        simulate(START, async |clock| {
            let _listener = logs::listen();
            let seams = seams(Arc::new(Memory::new()), clock, Some(Arc::new(Panics::default())));
            let batch = |i: i64| {
                let tick = |series| Tick { series, time: START + i * SECOND, sequence: 0, price: i, quantity: 1 };
                (Duration::from_millis(100), (0..4).map(tick).collect())
            };
            let mut app = assemble(seams, plan("edge.yaml", &[]), specs(), 4, (0..20).map(batch).collect());
            app.context.tracer = Some(Arc::new(Tracer::new(1.0)));
            let launched = app.launch(Placement::SameThread);
            let tracer = launched.context.tracer.clone().unwrap();
            assert!(launched.wait().await.is_clean());
            let lines = logs::take();
            let panicked: Vec<_> = lines.iter().filter(|line| line.message.contains("panicked")).collect();
            assert!(!panicked.is_empty(), "{lines:?}");
            let spans = tracer.take();
            let is_told = |line: &logs::Line| {
                spans.iter().any(|span| (span.trace, span.id) == line.trace && &*span.stage == "route")
            };
            assert!(panicked.iter().any(|line| is_told(line)), "{panicked:?}");
        });
    });
}
