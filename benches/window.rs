//! What a tick costs between the router and the bar, per aggregation and number of series; and what a closed window
//! costs.
//!
//! `update`: random series, event times in order, all in one open window. `rolling`: the same with 1 s windows at a
//! million ticks per second of event time, closing included. `close`: closing alone, per window. `split`: routing.

use std::cell::RefCell;
use std::sync::Arc;

use barline::model::time::{HOUR, MILLISECOND, SECOND};
use barline::model::{BarBatch, FieldType, SpecId, TickBatch, TickSlice};
use barline::routing;
use barline::spec::{
    Accumulator, AccumulatorKind, Aggregation, Cardinality, CardinalityOverflow, Field, Granularity, LatePolicy,
    Metric, Retention, Spec, UnknownDimensions, WindowRules,
};
use barline::window::Windows;
use divan::Bencher;
use divan::counter::ItemsCount;

/// Rows of a batch.
const ROWS: usize = 8192;
const SERIES: [u32; 4] = [10, 1_000, 100_000, 1_000_000];

fn main() {
    divan::main();
}

#[divan::bench(args = SERIES)]
fn update_ohlcv(bencher: Bencher, series: u32) {
    update(bencher, spec(&OHLCV, HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_first(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::First, FieldType::Int64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_last(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Last, FieldType::Int64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_min(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Min, FieldType::Int64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_max(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Max, FieldType::Int64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_sum(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Sum, FieldType::Int64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_sum_float(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Sum, FieldType::Float64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_count(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Count, FieldType::Int64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_avg_float(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Avg, FieldType::Float64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_stddev_float(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Stddev, FieldType::Float64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn update_quantile(bencher: Bencher, series: u32) {
    update(bencher, spec(&[(Aggregation::Quantile(0.99), FieldType::Float64)], HOUR), series);
}

#[divan::bench(args = SERIES)]
fn rolling_ohlcv(bencher: Bencher, series: u32) {
    update(bencher, spec(&OHLCV, SECOND), series);
}

/// A backfill: one series, every tick opens a window and closes another.
#[divan::bench]
fn backfill_ohlcv(bencher: Bencher) {
    update_at(bencher, spec(&OHLCV, SECOND), 1, SECOND);
}

/// A tick per microsecond of event time.
fn update(bencher: Bencher, spec: Arc<Spec>, series: u32) {
    update_at(bencher, spec, series, 1_000);
}

/// Feeds batches of ticks `step` ns apart to windows that have seen every series.
fn update_at(bencher: Bencher, spec: Arc<Spec>, series: u32, step: i64) {
    let source = RefCell::new(Source { step, ..Source::new(&spec, series) });
    let mut windows = Windows::new(spec.clone());
    let mut out = BarBatch::new(spec.id);
    for slice in source.borrow_mut().every_series() {
        windows.apply(&slice, slice.batch.timestamps[0], &mut out);
    }
    bencher.counter(ItemsCount::new(ROWS)).with_inputs(|| source.borrow_mut().next()).bench_local_refs(|slice| {
        out.heads.clear();
        out.words.clear();
        windows.apply(slice, slice.batch.timestamps[0], &mut out)
    });
}

#[divan::bench(args = [1_000, 100_000])]
fn close_ohlcv(bencher: Bencher, series: u32) {
    let spec = spec(&OHLCV, SECOND);
    let open = || {
        let mut windows = Windows::new(spec.clone());
        for slice in Source::new(&spec, series).every_series() {
            windows.apply(&slice, 0, &mut BarBatch::new(spec.id));
        }
        windows
    };
    bencher.counter(ItemsCount::new(series)).with_inputs(open).bench_local_refs(|windows| {
        let mut out = BarBatch::new(SpecId(0));
        windows.close_all(HOUR, &mut out);
        out.len()
    });
}

#[divan::bench(args = [2, 4])]
fn split(bencher: Bencher, instances: u16) {
    let mut source = Source::new(&spec(&OHLCV, SECOND), 100_000);
    let batch = source.next().batch;
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| routing::split(&batch, instances));
}

/// Ticks of random series with ascending event times.
struct Source {
    random: Random,
    series: u32,
    fields: usize,
    time: i64,
    step: i64,
    offset: u64,
}

impl Source {
    fn new(spec: &Spec, series: u32) -> Self {
        Self { random: Random(7), series, fields: spec.fields.len(), time: 0, step: 1_000, offset: 0 }
    }

    fn next(&mut self) -> TickSlice {
        let series = (0..ROWS).map(|_| (self.random.next() % u64::from(self.series)) as u32).collect();
        self.slice(series)
    }

    /// One tick of each series.
    fn every_series(&mut self) -> Vec<TickSlice> {
        let all: Vec<u32> = (0..self.series).collect();
        let time = self.time;
        let slices = all.chunks(ROWS).map(|series| {
            self.time = time;
            self.slice(series.to_vec())
        });
        slices.collect()
    }

    fn slice(&mut self, series: Vec<u32>) -> TickSlice {
        let mut batch = TickBatch::new(SpecId(0), self.fields);
        batch.timestamps = (0..series.len() as i64).map(|row| self.time + row * self.step).collect();
        for column in &mut batch.fields {
            // Readable as an integer and as a double between 1 and 2.
            let bits = |_| 0x3ff0 << 48 | self.random.next() & 0xffff_ffff_ffff;
            column.bits = (0..series.len()).map(bits).collect();
        }
        batch.series = series;
        let slice = TickSlice::whole(Arc::new(batch), self.offset);
        self.time += self.step * slice.len() as i64;
        self.offset = slice.end_offset();
        slice
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Price four times, quantity; the tick count comes with the bar.
const OHLCV: [(Aggregation, FieldType); 5] = [
    (Aggregation::First, FieldType::Int64),
    (Aggregation::Max, FieldType::Int64),
    (Aggregation::Min, FieldType::Int64),
    (Aggregation::Last, FieldType::Int64),
    (Aggregation::Sum, FieldType::Uint64),
];

/// A spec with one field per type and these metrics.
fn spec(metrics: &[(Aggregation, FieldType)], length: i64) -> Arc<Spec> {
    let mut fields: Vec<Field> = Vec::new();
    let accumulators: Vec<Accumulator> = metrics
        .iter()
        .map(|(aggregation, ty)| {
            let known = fields.iter().position(|field| field.ty == *ty);
            let field = known.unwrap_or(fields.len());
            if known.is_none() {
                fields.push(Field { name: ty.name().to_owned(), ty: *ty });
            }
            Accumulator { kind: AccumulatorKind::of(*aggregation), field, ty: *ty }
        })
        .collect();
    let metric = |(at, (aggregation, ty)): (usize, &(Aggregation, FieldType))| Metric {
        name: format!("m{at}"),
        aggregation: *aggregation,
        accumulator: Some(at),
        ty: *ty,
        unit: None,
        description: None,
    };
    Arc::new(Spec {
        id: SpecId(0),
        name: "bench".to_owned(),
        precision: 1,
        dimensions: vec![],
        unknown_dimensions: UnknownDimensions::Accept,
        metrics: metrics.iter().enumerate().map(metric).collect(),
        fields,
        accumulators,
        granularities: vec![Granularity { name: "w".to_owned(), length }],
        window: WindowRules { wait: 200 * MILLISECOND, idle: SECOND, max_ahead: 10 * SECOND, late: LatePolicy::Amend },
        retention: Retention { ticks: HOUR, bars: HOUR },
        cardinality: Cardinality { limit: 1_000_000, overflow: CardinalityOverflow::Reject },
        kafka: None,
    })
}
