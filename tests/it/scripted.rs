//! A source that plays a script, and the shipped topologies put together around it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use barline::app::{App, Seams};
use barline::broker::MemoryBroker;
use barline::codec::Interner;
use barline::model::time::SECOND;
use barline::model::{Reason, SeriesId, SeriesKey, SpecId, TickBatch};
use barline::runtime::outlet::Sent;
use barline::runtime::source::Running;
use barline::runtime::{Built, Chaos, Clock, Source, SourceContext, StageError};
use barline::spec::{Granularity, Spec, Specs};
use barline::store::Kv;
use barline::topology::Plan;

use super::naive::Tick;

/// The outside world of a simulation: everything in memory, no sources yet.
pub fn seams(kv: Arc<dyn Kv>, clock: Arc<dyn Clock>, chaos: Option<Arc<dyn Chaos>>) -> Seams {
    Seams { kv, clock, brokers: Arc::new(MemoryBroker::default()), chaos, sources: Vec::new() }
}

/// Batches of ticks, each after a pause.
pub type Script = Vec<(Duration, Vec<Tick>)>;

/// The numbers of a script's batches that were given up at a full mailbox.
pub type Dropped = Arc<Mutex<Vec<usize>>>;

/// Plays its script once and ends.
pub struct Scripted {
    spec: SpecId,
    script: Script,
    ledger: Arc<barline::model::Ledger>,
    dropped: Dropped,
}

impl Source for Scripted {
    fn run(self: Box<Self>, source: SourceContext) -> Running {
        Box::pin(async move {
            let ledger = self.ledger.spec(self.spec);
            for (number, (pause, ticks)) in self.script.into_iter().enumerate() {
                tokio::time::sleep(pause).await;
                ledger.accept(ticks.len() as u64);
                let sent = source.outlet.send(batch(self.spec, &ticks)).await;
                if sent.map_err(|_| StageError::fatal("gone"))? == Sent::Dropped {
                    ledger.drop(Reason::MailboxFull, ticks.len() as u64);
                    self.dropped.lock().unwrap().push(number);
                }
            }
            Ok(())
        })
    }
}

/// Ticks as the columns of `market_ticks`: price, quantity.
pub fn batch(spec: SpecId, ticks: &[Tick]) -> TickBatch {
    let mut batch = TickBatch::new(spec, 2);
    for tick in ticks {
        batch.series.push(tick.series);
        batch.timestamps.push(tick.time);
        batch.sequences.push(tick.sequence);
        batch.fields[0].bits.push(tick.price as u64);
        batch.fields[1].bits.push(tick.quantity as u64);
    }
    batch
}

/// A shipped topology, `overrides` applied as `--set` would.
pub fn plan(file: &str, overrides: &[&str]) -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    barline::cli::run::compile(file, &text, overrides, &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The shipped specs.
pub fn specs() -> Specs {
    barline::spec::load_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("specs")).unwrap()
}

/// The shipped specs, with coarser bars of 5 and 20 seconds of `market_ticks`.
pub fn cascading_specs() -> Specs {
    let coarser = |seconds: i64| Granularity { name: format!("{seconds}s"), length: seconds * SECOND };
    let cascade = |spec: &Arc<Spec>| {
        let mut spec = Spec::clone(spec);
        if spec.name == "market_ticks" {
            spec.granularities.extend([coarser(5), coarser(20)]);
        }
        spec
    };
    Specs::new(specs().iter().map(cascade).collect())
}

/// Puts a shipped topology together with `script` in place of its gRPC source, and `series` interned in order.
pub fn assemble(seams: Seams, plan: Plan, specs: Specs, series: u32, script: Script) -> App {
    assemble_noting(seams, plan, specs, series, script, Dropped::default())
}

/// As [`assemble`]; the batches given up are noted in `dropped`.
pub fn assemble_noting(
    mut seams: Seams,
    plan: Plan,
    specs: Specs,
    series: u32,
    script: Script,
    dropped: Dropped,
) -> App {
    let spec = super::naive::spec_id(&specs);
    let ledger: Arc<Mutex<Option<Arc<barline::model::Ledger>>>> = Arc::default();
    let (shared, script) = (ledger.clone(), Mutex::new(Some(script)));
    let source = move |_| {
        let ledger = shared.lock().unwrap().clone().unwrap();
        let script = script.lock().unwrap().take().unwrap_or_default();
        Ok(Box::new(Scripted { spec, script, ledger, dropped: dropped.clone() }) as Box<dyn Source>)
    };
    seams.sources.push(("ingest".into(), Built::Source(Box::new(source))));
    let app = App::over(seams, plan, specs).unwrap();
    *ledger.lock().unwrap() = Some(app.context.ledger.clone());
    for id in 0..series {
        let key = SeriesKey::new([("symbol", format!("S{id}").as_str())]).unwrap();
        assert_eq!(app.context.catalog.intern(spec, &key).ok(), Some(SeriesId(id)));
    }
    app
}
