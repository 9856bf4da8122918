//! Bytes ⇄ columns: tikr's wire by generated code and by ours, columnar batches, and journal blocks.
//!
//! `cargo bench --bench codec`; throughput is in ticks. Sizes are printed first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use barline::codec::block::{self, Block};
use barline::codec::{Builders, ColumnarDecoder, Interner, Refusal, TikrDecoder};
use barline::model::time::{HOUR, SECOND};
use barline::model::{Column, FieldType, SeriesId, SeriesKey, SpecId, TickBatch, TimeNs};
use barline::spec::{
    Cardinality, CardinalityOverflow, Field, Granularity, LatePolicy, Retention, Spec, Specs, UnknownDimensions,
    WindowRules,
};
use barline_proto::barline::{FieldColumn, IngestBatch, Series};
use barline_proto::tikr::{IngestRequest, TickData};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use fastrand::Rng;
use prost::Message;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: TimeNs = 1_700_000_000 * SECOND;
const TICKS: usize = 1 << 17;
const PER_MESSAGE: usize = 512;
const BLOCK: usize = 8192;

fn main() {
    let wire: usize = messages(1_000, false).iter().map(Vec::len).sum();
    println!("tikr wire: {:.1} bytes per tick", wire as f64 / TICKS as f64);
    for rows in [1, 50, 1_000, BLOCK] {
        let bytes = block::encode(&ticks(rows, 5_000), &spec(), 0, NOW).len();
        println!("block of {rows} market ticks: {bytes} bytes, {:.2} per tick", bytes as f64 / rows as f64);
    }
    divan::main();
}

/// Numbers series in order of appearance.
#[derive(Default)]
struct Numbers(Mutex<HashMap<SeriesKey, u32>>);

impl Interner for Numbers {
    fn intern(&self, _: SpecId, key: &SeriesKey) -> Result<SeriesId, Refusal> {
        let mut numbers = self.0.lock().unwrap();
        let next = numbers.len() as u32;
        Ok(SeriesId(*numbers.entry(key.clone()).or_insert(next)))
    }
}

fn spec() -> Spec {
    let field = |name: &str, ty| Field { name: name.into(), ty };
    Spec {
        id: SpecId(0),
        name: "market_ticks".into(),
        precision: 1,
        dimensions: vec!["symbol".into()],
        unknown_dimensions: UnknownDimensions::Accept,
        fields: vec![field("price", FieldType::Int64), field("quantity", FieldType::Uint64)],
        metrics: Vec::new(),
        accumulators: Vec::new(),
        granularities: vec![Granularity { name: "1s".into(), length: SECOND }],
        window: WindowRules { wait: 0, idle: SECOND, max_ahead: 10 * SECOND, late: LatePolicy::Amend },
        retention: Retention { ticks: HOUR, bars: HOUR },
        cardinality: Cardinality { limit: u32::MAX, overflow: CardinalityOverflow::Reject },
        kafka: None,
    }
}

/// Market ticks of random series, about a microsecond apart, prices walking.
fn ticks(rows: usize, series: u32) -> TickBatch {
    let mut rng = Rng::with_seed(7);
    let mut prices: Vec<i64> = (0..series).map(|_| rng.i64(5_000..55_000)).collect();
    let mut batch = TickBatch::new(SpecId(0), 2);
    let mut time = NOW - SECOND;
    for row in 0..rows {
        let id = rng.u32(..series);
        let price = &mut prices[id as usize];
        *price += rng.i64(-5..=5);
        time += rng.i64(200..1_800);
        batch.series.push(id);
        batch.timestamps.push(time);
        batch.sequences.push(row as u32);
        batch.fields[0].bits.push(*price as u64);
        batch.fields[1].bits.push(rng.u64(1..1_000));
    }
    batch
}

/// [`TICKS`] market ticks as tikr's wire; the fields of a tick in the same order each time, or in any, as Go's
/// maps give them.
fn messages(series: u32, shuffled: bool) -> Vec<Vec<u8>> {
    let batch = ticks(TICKS, series);
    let mut rng = Rng::with_seed(8);
    let mut tick = |row: usize| {
        let dimensions = [("symbol".to_owned(), symbol(batch.series[row]))].into();
        let timestamp_ns = batch.timestamps[row] as u64;
        let mut bytes = TickData { timestamp_ns, dimensions, ..TickData::default() }.encode_to_vec();
        let mut fields =
            ["price", "quantity"].iter().zip(&batch.fields).map(|(n, c)| (*n, c.bits[row] as i64)).collect::<Vec<_>>();
        if shuffled {
            rng.shuffle(&mut fields);
        }
        for (name, value) in fields {
            TickData { fields: [(name.to_owned(), value)].into(), ..TickData::default() }.encode_raw(&mut bytes);
        }
        TickData { sequence: batch.sequences[row], ..TickData::default() }.encode_raw(&mut bytes);
        bytes
    };
    let mut message = |from: usize| {
        let mut bytes = IngestRequest { series: "market_ticks".into(), ticks: Vec::new() }.encode_to_vec();
        for row in from..from + PER_MESSAGE {
            prost::encoding::bytes::encode(2, &tick(row), &mut bytes);
        }
        bytes
    };
    (0..TICKS).step_by(PER_MESSAGE).map(&mut message).collect()
}

fn symbol(series: u32) -> String {
    format!("S{series:05}")
}

#[divan::bench(args = [10, 1_000, 100_000])]
fn tikr_generated(bencher: Bencher<'_, '_>, series: u32) {
    let messages = messages(series, false);
    bencher.counter(ItemsCount::new(TICKS)).bench_local(|| {
        for message in &messages {
            black_box(IngestRequest::decode(message.as_slice()).unwrap());
        }
    });
}

#[divan::bench(args = [10, 1_000, 100_000])]
fn tikr_ours(bencher: Bencher<'_, '_>, series: u32) {
    decode(bencher, &messages(series, false));
}

#[divan::bench(args = [10, 1_000, 100_000])]
fn tikr_ours_fields_shuffled(bencher: Bencher<'_, '_>, series: u32) {
    decode(bencher, &messages(series, true));
}

fn decode(bencher: Bencher<'_, '_>, messages: &[Vec<u8>]) {
    let specs = Arc::new(Specs::new(vec![spec()]));
    let (numbers, mut decoder, mut out) = (Numbers::default(), TikrDecoder::new(specs.clone()), Builders::new(&specs));
    bencher.counter(ItemsCount::new(TICKS)).bench_local(|| {
        for message in messages {
            decoder.decode(message, NOW, &numbers, &mut out).unwrap();
            if out.rows(SpecId(0)) >= BLOCK {
                black_box(out.take(SpecId(0)));
            }
        }
    });
}

#[divan::bench(args = [10, 1_000, 100_000])]
fn columnar(bencher: Bencher<'_, '_>, series: u32) {
    let ticks = ticks(BLOCK, series);
    let column = |name: &str, column: &Column| FieldColumn {
        name: name.into(),
        ints: column.bits.iter().map(|bits| *bits as i64).collect(),
        ..FieldColumn::default()
    };
    let dimensions = |id| Series { dimensions: [("symbol".to_owned(), symbol(id))].into() };
    let mut batch = IngestBatch {
        spec: "market_ticks".into(),
        new_series: (0..series).map(dimensions).collect(),
        ..IngestBatch::default()
    };
    let specs = Arc::new(Specs::new(vec![spec()]));
    let (numbers, mut decoder, mut out) =
        (Numbers::default(), ColumnarDecoder::new(specs.clone()), Builders::new(&specs));
    decoder.decode(&batch, NOW, &numbers, &mut out);
    batch.new_series.clear();
    batch.timestamps = ticks.timestamps.clone();
    batch.series_index = ticks.series.clone();
    batch.sequences = ticks.sequences.clone();
    batch.fields = vec![column("price", &ticks.fields[0]), column("quantity", &ticks.fields[1])];
    let bytes = batch.encode_to_vec();
    bencher.counter(ItemsCount::new(BLOCK)).bench_local(|| {
        let batch = IngestBatch::decode(bytes.as_slice()).unwrap();
        let decoded = decoder.decode(&batch, NOW, &numbers, &mut out);
        assert_eq!(decoded.accepted, BLOCK as u64);
        black_box(out.take(SpecId(0)));
    });
}

#[divan::bench(args = [50, 1_000, BLOCK])]
fn block_encode(bencher: Bencher<'_, '_>, rows: usize) {
    let (batch, spec) = (ticks(rows, 5_000), spec());
    bencher.counter(ItemsCount::new(rows)).bench_local(|| block::encode(black_box(&batch), &spec, 0, NOW));
}

#[divan::bench(args = [50, 1_000, BLOCK])]
fn block_decode(bencher: Bencher<'_, '_>, rows: usize) {
    let bytes = block::encode(&ticks(rows, 5_000), &spec(), 0, NOW);
    bencher.counter(ItemsCount::new(rows)).bench_local(|| Block::decode(black_box(&bytes)).unwrap());
}

#[divan::bench(args = [BLOCK])]
fn block_series_only(bencher: Bencher<'_, '_>, rows: usize) {
    let bytes = block::encode(&ticks(rows, 5_000), &spec(), 0, NOW);
    bencher.counter(ItemsCount::new(rows)).bench_local(|| block::decode_series_only(black_box(&bytes)).unwrap());
}
