//! A sealed partition of the journal, as it arrived and rewritten by series: bytes per tick, the speed of rewriting, and
//! what one series' ticks cost to read, through the query that serves them.
//!
//! `cargo bench --bench cluster` builds a minute; `-- --minutes 60` the hour of 72 M ticks that the figures are about.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use barline::app::{App, Seams};
use barline::codec::admit::Interner;
use barline::codec::block;
use barline::model::time::{HOUR, MINUTE, SECOND};
use barline::model::{Checkpoint, SeriesKey, SpecId, TickBatch, TimeNs};
use barline::runtime::{Context, SystemClock};
use barline::serve::read::{TickQuery, select, ticks};
use barline::spec::load_texts;
use barline::stages::ROWS;
use barline::store::{BlockFacts, Budget, Durability, Fjall, Hooked, Kv, OnFull, RunSize, Store};
use barline::topology::{Machine, compile};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPEC: SpecId = SpecId(0);
const SERIES: u32 = 10_000;
const PER_SECOND: u64 = 20_000;
/// The beginning of an hour.
const START: TimeNs = 1_699_999_200 * SECOND;
const TOPOLOGY: &str =
    "{http: off, budget: {memory: 2GiB}, stages: {host: {kind: host_metrics}, roll: {kind: aggregator, from: host}}}";

fn main() {
    let given: Vec<String> = std::env::args().collect();
    let after =
        |flag: &str| given.iter().skip_while(|found| *found != flag).nth(1).and_then(|found| found.parse().ok());
    let minutes = after("--minutes").unwrap_or(1) as i64;
    let rows = after("--rows").unwrap_or(2_000);
    let size = RunSize {
        rows: after("--run").map_or(RunSize::default().rows, |log| 1 << log),
        block_rows: after("--block").unwrap_or(RunSize::default().block_rows),
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kv = Arc::new(Hooked::counting(Arc::new(Fjall::open(dir.path(), 64 << 20).unwrap())));
    let context = context(kv.clone());
    let store = &context.store;
    store.set_budget(&Budget { ticks: 50 << 30, bars: 5 << 30, on_full: OnFull::Expire });
    for series in 0..SERIES {
        context.catalog.intern(SPEC, &key(series)).unwrap();
    }
    let count = fill(store, &context, minutes * MINUTE, rows);
    println!("{count} ticks of {SERIES} series in {minutes} min, blocks of {rows} rows");
    let before = settled(store, &*kv, "ticks/");
    println!("as they arrived: {:.2} bytes per tick", before as f64 / count as f64);
    report_queries(&context, &kv, before, minutes, if minutes > 5 { 1 } else { 5 });

    let since = Instant::now();
    let mut work = None;
    while store.cluster(&mut work, START + 10 * HOUR, size).unwrap().is_some() {}
    let seconds = since.elapsed().as_secs_f64();
    let after = settled(store, &*kv, "sorted/");
    println!("rewritten at {:.2} M ticks/s, {size:?}", count as f64 / seconds / 1e6);
    println!("by series: {:.2} bytes per tick", after as f64 / count as f64);
    report_queries(&context, &kv, after, minutes, 41);
}

fn context(kv: Arc<dyn Kv>) -> Context {
    let file = |name: &str| (name.to_owned(), std::fs::read_to_string(format!("specs/{name}")).unwrap());
    let specs = load_texts(["market_ticks.yaml", "host_metrics.yaml"].map(file)).unwrap();
    assert_eq!(specs.get(SPEC).name, "market_ticks");
    let kinds = ROWS.iter().map(|row| &row.kind);
    let plan = compile(
        "bench.yaml",
        TOPOLOGY,
        kinds,
        barline::telemetry::kafka::parse,
        &[],
        Machine { memory_bytes: 8 << 30 },
    )
    .unwrap();
    let seams = Seams {
        kv,
        clock: Arc::new(SystemClock),
        brokers: Arc::new(barline::broker::MemoryBroker::default()),
        chaos: None,
        sources: Vec::new(),
    };
    App::over(seams, plan, specs).unwrap().context
}

fn key(series: u32) -> SeriesKey {
    SeriesKey::new([("symbol", format!("S{series:05}").as_str())]).unwrap()
}

/// Prices walk by single cents, quantities are small or in round lots, ticks arrive at random.
fn fill(store: &Store, context: &Context, span: i64, rows: usize) -> u64 {
    let (mut random, spec) = (fastrand::Rng::with_seed(1), context.specs.get(SPEC));
    let mut prices: Vec<i64> = (0..SERIES).map(|_| random.i64(500..60_000)).collect();
    let (mut time, mut count, mut batch) = (START as f64 * 1e-9, 0u64, TickBatch::new(SPEC, spec.fields.len()));
    let begin = time;
    let end = span as f64 * 1e-9;
    while time - begin < end {
        let series = random.u32(0..SERIES);
        let price = &mut prices[series as usize];
        *price += random.choice([-2, -1, -1, 0, 0, 0, 0, 1, 1, 2]).unwrap();
        let quantity = if random.bool() { 100 * random.u64(1..6) } else { random.u64(1..100) };
        batch.series.push(series);
        // Seconds as a double are exact to a quarter of a microsecond: the rest is chance, as it is on a wire.
        batch.timestamps.push(START + ((time - begin) * 1e9) as i64 + random.i64(0..250));
        batch.sequences.push((count % (1 << 14)) as u32);
        let bits = |name: &str| if name == "price" { *price as u64 } else { quantity };
        for (column, field) in batch.fields.iter_mut().zip(&spec.fields) {
            column.bits.push(bits(&field.name));
        }
        count += 1;
        time += -random.f64().max(1e-12).ln() / PER_SECOND as f64;
        if batch.len() == rows {
            append(store, context, &mut batch);
        }
    }
    append(store, context, &mut batch);
    let (instance, instances, replay_from) = (0, 1, store.journal_end());
    let mut commit = store.batch();
    commit.put_checkpoint(Checkpoint { instance, instances, replay_from, cascade_from: TimeNs::MAX, late: vec![0, 0] });
    commit.commit(Durability::Synced).unwrap();
    count
}

fn append(store: &Store, context: &Context, batch: &mut TickBatch) {
    let Some(at) = batch.timestamps.last().copied() else { return };
    let spec = context.specs.get(SPEC);
    let facts = BlockFacts::of(batch, store.journal_end(), at);
    let mut commit = store.batch();
    commit.append(SPEC, facts, block::encode(batch, spec, facts.offset, at).into());
    commit.commit(Durability::Process).unwrap();
    *batch = TickBatch::new(SPEC, spec.fields.len());
}

/// The bytes of these spaces once everything is on disk.
fn settled(store: &Store, kv: &dyn Kv, family: &str) -> u64 {
    let spaces = kv.spaces(family);
    spaces.iter().for_each(|space| kv.settle(space));
    store.batch().commit(Durability::Synced).unwrap();
    let size = || spaces.iter().map(|space| kv.size(space)).sum::<u64>();
    let mut sizes = VecDeque::from([0, 1]);
    while sizes[0] != sizes[1] {
        std::thread::sleep(std::time::Duration::from_millis(500));
        sizes.pop_front();
        sizes.push_back(size());
    }
    sizes[1]
}

fn report_queries(context: &Context, kv: &Hooked, bytes: u64, minutes: i64, queries: u32) {
    let mut random = fastrand::Rng::with_seed(2);
    let (mut times, mut read, mut found) = (Vec::new(), 0, 0);
    for _ in 0..queries {
        let query = TickQuery {
            spec: context.specs.get(SPEC).clone(),
            series: select::Series::One(key(random.u32(..SERIES))),
            from: START,
            to: START + minutes * MINUTE,
            limit: u64::MAX,
            late: false,
        };
        kv.take_got();
        let since = Instant::now();
        let visit = &mut |_: barline::serve::read::TickRow<'_>| {
            found += 1;
            ControlFlow::Continue(())
        };
        ticks::ticks(context, &query, &|| false, visit).unwrap();
        times.push(since.elapsed());
        read += kv.take_got();
    }
    times.sort_unstable();
    println!(
        "  one series: {} ticks, median {:.1} ms, highest {:.1} ms, {:.3} % of the bytes read",
        found / u64::from(queries),
        times[times.len() / 2].as_secs_f64() * 1e3,
        times[times.len() - 1].as_secs_f64() * 1e3,
        read as f64 / f64::from(queries) / bytes as f64 * 100.0,
    );
}
