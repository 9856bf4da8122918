//! The whole pipeline in process: a source of ready batches → journal → router → aggregators → writer, as the shipped
//! edge topology has it, each instance on its thread; on fjall (every commit synced) and in memory.
//!
//! Market ticks of random series, in order, 200 ns of event time apart: each series has two windows. The series are
//! known and stored before the clock starts; it stops when the last bar is stored. What is missing is the wire.
//!
//! `cargo bench --bench pipeline`; throughput is in ticks. Where the time of three runs goes is printed first.

use std::sync::{Arc, Mutex};

use actix::SystemRunner;
use barline::app::{App, Launched, Seams};
use barline::codec::Interner;
use barline::model::time::SECOND;
use barline::model::{SeriesKey, SpecId, TickBatch};
use barline::runtime::source::Running;
use barline::runtime::{Built, Clock, Context, Meter, Placement, Source, SourceContext, StageError, SystemClock};
use barline::store::{Durability, Fjall, Kv, Memory};
use barline::topology::Plan;
use divan::Bencher;
use divan::counter::ItemsCount;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Rows of a batch.
const ROWS: usize = 8_192;
const BATCHES: usize = 1_024;
const TICKS: usize = ROWS * BATCHES;
/// Nanoseconds of event time between two ticks.
const STEP: i64 = 200;
const SERIES: [u32; 3] = [10, 5_000, 100_000];

fn main() {
    for (aggregators, series) in [(1, 5_000), (2, 5_000), (1, 100_000)] {
        where_the_time_goes(aggregators, series);
    }
    divan::main();
}

/// Where a run keeps its bytes.
#[derive(Clone, Copy)]
enum Place {
    Disk,
    Memory,
}

/// A pipeline put together and not yet launched.
struct Ready {
    app: App,
    /// Goes with the run's data.
    dir: Option<TempDir>,
}

/// A source of batches made beforehand.
struct Prepared(Vec<TickBatch>);

impl Source for Prepared {
    fn run(self: Box<Self>, context: SourceContext) -> Running {
        Box::pin(async move {
            for batch in self.0 {
                context.outlet.send(batch).await.map_err(|_| StageError::fatal("the journal is gone"))?;
            }
            Ok(())
        })
    }
}

#[divan::bench(args = SERIES, consts = [1, 2], sample_count = 5, sample_size = 1)]
fn fjall<const AGGREGATORS: usize>(bencher: Bencher, series: u32) {
    pipeline(bencher, Place::Disk, AGGREGATORS, series);
}

#[divan::bench(args = SERIES, consts = [1, 2], sample_count = 5, sample_size = 1)]
fn memory<const AGGREGATORS: usize>(bencher: Bencher, series: u32) {
    pipeline(bencher, Place::Memory, AGGREGATORS, series);
}

fn pipeline(bencher: Bencher, place: Place, aggregators: usize, series: u32) {
    let system = actix::System::new();
    bencher
        .counter(ItemsCount::new(TICKS))
        .with_inputs(|| ready(&system, place, aggregators, series))
        .bench_local_values(|ready| run(&system, ready));
}

/// Puts a pipeline together: ticks made, series interned and stored.
fn ready(system: &SystemRunner, place: Place, aggregators: usize, series: u32) -> Ready {
    let plan = plan(aggregators);
    let specs = barline::spec::load_dir(&plan.specs_dir).unwrap_or_else(|problems| panic!("{problems:?}"));
    let spec = specs.by_name("market_ticks").unwrap().id;
    let (kv, dir): (Arc<dyn Kv>, _) = match place {
        Place::Memory => (Arc::new(Memory::new()), None),
        Place::Disk => {
            let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
            (Arc::new(Fjall::open(dir.path(), plan.cache_bytes).unwrap()), Some(dir))
        }
    };
    let batches = Mutex::new(Some(batches(spec, series)));
    let source = move |_| {
        let batches = batches.lock().unwrap().take().unwrap_or_default();
        Ok(Box::new(Prepared(batches)) as Box<dyn Source>)
    };
    let sources = vec![("ingest".to_owned(), Built::Source(Box::new(source)))];
    let seams = Seams {
        kv,
        clock: Arc::new(SystemClock),
        brokers: Arc::new(barline::broker::MemoryBroker::default()),
        chaos: None,
        sources,
    };
    let app = system.block_on(async { App::over(seams, plan, specs) }).unwrap();
    know_series(&app.context, spec, series);
    Ready { app, dir }
}

/// The shipped edge topology with this many aggregators.
fn plan(aggregators: usize) -> Plan {
    let root = env!("CARGO_MANIFEST_DIR");
    let text = std::fs::read_to_string(format!("{root}/topologies/edge.yaml")).unwrap();
    let (instances, specs) = (format!("aggregate.instances={aggregators}"), format!("specs={root}/specs"));
    barline::cli::run::compile("edge.yaml", &text, &[&instances, &specs], &[]).unwrap_or_else(|e| panic!("{e}"))
}

/// Interns and stores the series, as they are after the first commit; and counts what the source is going to send.
fn know_series(context: &Context, spec: SpecId, series: u32) {
    for id in 0..series {
        let key = SeriesKey::new([("symbol", format!("S{id:05}").as_str())]).unwrap();
        context.catalog.intern(spec, &key).unwrap();
    }
    let mut batch = context.store.batch();
    let new = context.add_new_series(&mut batch).unwrap();
    batch.commit(Durability::Synced).unwrap();
    context.mark_persisted(&new);
    context.ledger.spec(spec).accept(TICKS as u64);
}

/// Random series, prices walking, event times from the present second on.
fn batches(spec: SpecId, series: u32) -> Vec<TickBatch> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut prices = vec![17_500_i64; series as usize];
    let mut time = SystemClock.now() / SECOND * SECOND;
    let mut next = |_| {
        let mut batch = TickBatch::new(spec, 2);
        for row in 0..ROWS {
            let id = random.u32(..series);
            let price = &mut prices[id as usize];
            *price += random.i64(-5..=5);
            batch.series.push(id);
            batch.timestamps.push(time);
            batch.sequences.push(row as u32);
            batch.fields[0].bits.push(*price as u64);
            batch.fields[1].bits.push(random.u64(1..1_000));
            time += STEP;
        }
        batch
    };
    (0..BATCHES).map(&mut next).collect()
}

/// From the first batch to the last bar. What is returned is cleared away after the clock has stopped.
fn run(system: &SystemRunner, ready: Ready) -> (Context, Vec<Arc<Meter>>, Option<TempDir>) {
    let Ready { app, dir } = ready;
    let context = app.context.clone();
    let meters = system.block_on(async {
        let launched: Launched = app.launch(Placement::OwnArbiter);
        let meters = launched.running.meters().to_vec();
        let report = launched.wait().await;
        assert!(report.is_clean(), "{:?}", report.exits);
        meters
    });
    let spec = context.specs.by_name("market_ticks").unwrap().id;
    assert_eq!(context.ledger.spec(spec).snapshot().in_bars, TICKS as u64);
    (context, meters, dir)
}

/// One run on disk, by instance: the time in its calls and the time it waited for room, per tick. With more threads
/// than cores a call's time has waiting for a core in it; the CPU time of the whole process has not.
fn where_the_time_goes(aggregators: usize, series: u32) {
    let system = actix::System::new();
    let ready = ready(&system, Place::Disk, aggregators, series);
    let (since, cpu) = (std::time::Instant::now(), cpu_seconds());
    let (_context, meters, _dir) = run(&system, ready);
    let per_tick = |seconds: f64| seconds * 1e9 / TICKS as f64;
    let (wall, cpu) = (per_tick(since.elapsed().as_secs_f64()), per_tick(cpu_seconds() - cpu));
    println!(
        "{TICKS} ticks, {series} series, {aggregators} aggregators, fjall: {wall:.1} ns, {cpu:.1} ns CPU per tick"
    );
    for meter in meters {
        let [busy, waited] = [&meter.busy_ns, &meter.backpressured_ns].map(|ns| per_tick(ns.get() as f64 / 1e9));
        println!("  {:<9} {} busy {busy:6.1} ns, backpressured {waited:6.1} ns", meter.stage, meter.instance);
    }
}

/// CPU time of this process, user and system; Linux counts it in hundredths of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
