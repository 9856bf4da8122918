//! The store on disk and the catalog: what an append, a bar, a read and a series cost.
//!
//! `cargo bench --bench store`; the bytes per series are printed first.

use std::ops::ControlFlow;
use std::sync::Arc;

use barline::catalog::Catalog;
use barline::codec::admit::Interner;
use barline::model::time::{DAY, SECOND};
use barline::model::{BarHead, FieldType, SeriesId, SeriesKey, SpecId};
use barline::spec::{
    Accumulator, AccumulatorKind, Cardinality, CardinalityOverflow, Field, Granularity, LatePolicy, Retention, Spec,
    Specs, UnknownDimensions, WindowRules,
};
use barline::store::{BarScan, BlockFacts, Durability, Fjall, Kv, Memory, Store};
use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPEC: SpecId = SpecId(0);
const NOW: i64 = 1_700_000_000 * SECOND;
const SERIES: u32 = 1_000;
const BARS: u32 = 100_000;

fn main() {
    println!("catalog: {} bytes per series at 1 M series with keys of 40 bytes", bytes_per_series(1_000_000));
    let (bytes, ohlcv) = bytes_per_bar();
    println!("bars: {bytes} bytes per OHLCV bar of {} state bytes", ohlcv * 8);
    divan::main();
}

fn specs() -> Specs {
    let field = |name: &str| Field { name: name.into(), ty: FieldType::Int64 };
    Specs::new(vec![Spec {
        id: SPEC,
        name: "market_ticks".into(),
        precision: 1,
        dimensions: vec!["symbol".into()],
        unknown_dimensions: UnknownDimensions::Accept,
        fields: vec![field("price"), field("quantity")],
        metrics: Vec::new(),
        accumulators: vec![Accumulator { kind: AccumulatorKind::Max, field: 0, ty: FieldType::Int64 }],
        granularities: vec![Granularity { name: "1s".into(), length: SECOND }],
        window: WindowRules { wait: 0, idle: SECOND, max_ahead: 10 * SECOND, late: LatePolicy::Amend },
        retention: Retention { ticks: DAY, bars: 7 * DAY },
        cardinality: Cardinality { limit: 10_000_000, overflow: CardinalityOverflow::Reject },
        kafka: None,
    }])
}

/// A store in a directory of its own, which goes when it is dropped.
struct Disk {
    store: Store,
    _dir: tempfile::TempDir,
}

fn disk() -> Disk {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let kv: Arc<dyn Kv> = Arc::new(Fjall::open(dir.path(), 64 << 20).unwrap());
    Disk { store: open(kv), _dir: dir }
}

fn open(kv: Arc<dyn Kv>) -> Store {
    Store::open(kv, &specs(), |_, _, state| state.to_vec()).unwrap()
}

/// A state as OHLCV has it: first and last with place, extremes, a 128-bit sum, a count.
fn ohlcv(start: i64, n: u64) -> [u64; 14] {
    let (price, from) = (17_500 + n % 100, start as u64);
    let (first, last) = (from + n * 977, from + 900_000_000 + n);
    [price, first, n, n * 7, price + 9, last, n + 90, n * 7 + 90, price + 20, price - 20, n * 450, 0, 90, 90]
}

fn put_bars(store: &Store, bars: std::ops::Range<u32>) {
    let mut batch = store.batch();
    for n in bars {
        let (series, start) = (SeriesId(n % SERIES), NOW + i64::from(n / SERIES) * SECOND);
        let (first, last) = (start + 977, start + 900_000_977);
        let covers = u64::from(n) * 7 + 91;
        let head = BarHead { series, start, first, last, ticks: 90, covers, ..BarHead::default() };
        batch.put_bar(SPEC, &head, &ohlcv(start, u64::from(n)));
    }
    batch.commit(Durability::Process).unwrap();
}

fn filled() -> Disk {
    let disk = disk();
    (0..BARS).step_by(SERIES as usize).for_each(|from| put_bars(&disk.store, from..from + SERIES));
    disk
}

fn bytes_per_bar() -> (u64, usize) {
    let memory = Arc::new(Memory::new());
    let store = open(memory);
    put_bars(&store, 0..BARS);
    (store.usage().specs[0].bars / u64::from(BARS), ohlcv(0, 0).len())
}

fn key(n: u32) -> SeriesKey {
    SeriesKey::new([("symbol", format!("S{n:08}").as_str()), ("exchange", "NASDAQ-XNAS")]).unwrap()
}

fn bytes_per_series(series: u32) -> usize {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
    };
    let before = resident();
    let catalog = Catalog::new(&specs());
    (0..series).for_each(|n| _ = catalog.intern(SPEC, &key(n)));
    let used = resident() - before;
    black_box(&catalog);
    used / series as usize
}

#[divan::bench(args = [4 << 10, 64 << 10])]
fn append_block(bencher: Bencher, bytes: usize) {
    append(bencher, bytes, Durability::Process);
}

#[divan::bench(args = [4 << 10, 64 << 10])]
fn append_block_synced(bencher: Bencher, bytes: usize) {
    append(bencher, bytes, Durability::Synced);
}

fn append(bencher: Bencher, bytes: usize, durability: Durability) {
    let disk = disk();
    let mut random = fastrand::Rng::with_seed(1);
    let block: Bytes = (0..bytes).map(|_| random.u8(..)).collect::<Vec<_>>().into();
    let mut offset = 0;
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let facts = BlockFacts { offset, rows: 8_192, min_time: NOW, max_time: NOW, received_at: NOW };
        offset += 8_192;
        let mut batch = disk.store.batch();
        batch.append(SPEC, facts, block.clone());
        batch.commit(durability).unwrap();
    });
}

#[divan::bench(sample_count = 10)]
fn write_100k_bars(bencher: Bencher) {
    bencher.counter(ItemsCount::new(BARS)).with_inputs(disk).bench_local_values(|disk| {
        (0..BARS).step_by(SERIES as usize).for_each(|from| put_bars(&disk.store, from..from + SERIES));
        disk
    });
}

#[divan::bench]
fn point_get(bencher: Bencher) {
    let disk = filled();
    let mut random = fastrand::Rng::with_seed(1);
    bencher.bench_local(|| {
        let (series, second) = (SeriesId(random.u32(..SERIES)), random.i64(0..i64::from(BARS / SERIES)));
        assert!(disk.store.bar(SPEC, 0, series, NOW + second * SECOND).unwrap().is_some());
    });
}

#[divan::bench(sample_count = 10)]
fn scan_100k_bars(bencher: Bencher) {
    let disk = filled();
    let all = BarScan { spec: SPEC, granularity: 0, series: None, from: i64::MIN, to: i64::MAX };
    bencher.counter(ItemsCount::new(BARS)).bench_local(|| assert_eq!(count(&disk.store, &all), BARS as usize));
}

/// The newest second of every series, out of a hundred: the scan seeks from series to series.
#[divan::bench(sample_count = 10)]
fn scan_newest_of_1k_series(bencher: Bencher) {
    let disk = filled();
    let from = NOW + i64::from(BARS / SERIES - 1) * SECOND;
    let newest = BarScan { spec: SPEC, granularity: 0, series: None, from, to: i64::MAX };
    bencher.counter(ItemsCount::new(SERIES)).bench_local(|| assert_eq!(count(&disk.store, &newest), SERIES as usize));
}

fn count(store: &Store, scan: &BarScan) -> usize {
    let mut bars = 0;
    store
        .scan_bars(scan, &mut |head, _| {
            black_box(head);
            bars += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    bars
}

#[divan::bench(threads = [1, 2])]
fn intern_known(bencher: Bencher) {
    let catalog = Catalog::new(&specs());
    let keys: Vec<_> = (0..100_000).map(key).collect();
    keys.iter().for_each(|key| _ = catalog.intern(SPEC, key));
    bencher.with_inputs(|| fastrand::usize(..keys.len())).bench_values(|n| catalog.intern(SPEC, &keys[n]));
}

#[divan::bench(sample_count = 10)]
fn intern_100k_new(bencher: Bencher) {
    let keys: Vec<_> = (0..100_000).map(key).collect();
    bencher.counter(ItemsCount::new(keys.len())).with_inputs(|| Catalog::new(&specs())).bench_local_values(|catalog| {
        keys.iter().for_each(|key| _ = catalog.intern(SPEC, key));
        catalog
    });
}

#[divan::bench(sample_count = 10)]
fn query_1_of_100k_series(bencher: Bencher) {
    use barline::catalog::Match;
    let catalog = Catalog::new(&specs());
    (0..100_000).for_each(|n| _ = catalog.intern(SPEC, &key(n)));
    let pattern = Match::subset([("symbol", "S00077777")]);
    bencher.counter(ItemsCount::new(100_000u32)).bench_local(|| {
        let mut found = 0;
        catalog.matching(SPEC, &pattern, &mut |_, _| {
            found += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(found, 1);
    });
}
