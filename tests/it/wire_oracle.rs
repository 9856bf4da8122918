//! Our decoder of tikr's wire takes and refuses what prost's generated one does, and gives the same rows.

#[path = "oracle/generate.rs"]
mod generate;
#[path = "oracle/mod.rs"]
mod oracle;

use std::collections::HashMap;

use barline::codec::{Builders, ColumnarDecoder};
use barline_proto::barline::{FieldColumn, IngestBatch, Series};
use barline_proto::tikr::{IngestRequest, TickData};
use proptest::prelude::*;
use prost::Message;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn odd_and_broken_messages_read_as_prost_reads_them(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let messages: Vec<Vec<u8>> = (0..6).map(|_| generate::message(&mut rng)).collect();
        oracle::compare(messages.iter().map(Vec::as_slice));
    }

    #[test]
    fn arbitrary_bytes_read_as_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        oracle::compare([bytes.as_slice()]);
    }

    #[test]
    fn columnar_batches_of_any_shape_are_counted_to_the_last_row(seed: u64) {
        let specs = oracle::specs();
        let (numbers, mut out) = (oracle::Numbers::default(), Builders::new(&specs));
        let mut decoder = ColumnarDecoder::new(specs.clone());
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut accepted = 0;
        for _ in 0..8 {
            let batch = columnar(&mut rng);
            let decoded = decoder.decode(&batch, oracle::NOW, &numbers, &mut out);
            prop_assert_eq!(decoded.accepted + decoded.rejected.rows(), batch.timestamps.len() as u64);
            accepted += decoded.accepted as usize;
        }
        let rows: usize = specs.iter().map(|spec| oracle::rows(&out.take(spec.id), &numbers).len()).sum();
        prop_assert_eq!(rows, accepted);
    }
}

#[test]
fn too_much_of_anything_is_refused_as_the_rules_say() {
    let many = |n: usize| (0..n).map(|i| format!("name{i}"));
    let dimensions = |map: HashMap<String, String>| TickData { dimensions: map, ..tick() };
    let fields = |map: HashMap<String, i64>| TickData { fields: map, ..tick() };
    let ticks = vec![
        dimensions(many(64).map(|name| (name, String::new())).collect()),
        dimensions(many(65).map(|name| (name, String::new())).collect()),
        dimensions(many(100_000).map(|name| (name, String::new())).collect()),
        dimensions([("symbol".to_owned(), "v".repeat(1 << 20))].into()),
        fields(many(64).map(|name| (name, 1)).collect()),
        fields(many(65).map(|name| (name, 1)).collect()),
        fields(many(100_000).map(|name| (name, 1)).collect()),
        fields([("n".repeat(1 << 20), 1)].into()),
        tick(),
    ];
    let message = IngestRequest { series: "market".into(), ticks }.encode_to_vec();
    // One dimension named 100 000 times is one dimension.
    let mut repeated = IngestRequest { series: "market".into(), ticks: Vec::new() }.encode_to_vec();
    let entry = dimensions([("symbol".to_owned(), "AAPL".to_owned())].into()).encode_to_vec();
    prost::encoding::bytes::encode(2, &entry.repeat(100_000), &mut repeated);
    oracle::compare([message.as_slice(), &repeated, &message]);
}

fn tick() -> TickData {
    TickData { timestamp_ns: oracle::NOW as u64, ..TickData::default() }
}

/// A columnar batch whose parts mostly, but not always, fit together.
fn columnar(rng: &mut fastrand::Rng) -> IngestBatch {
    let rows = rng.usize(..6);
    let len = |rng: &mut fastrand::Rng| if rng.u8(..30) == 0 { rng.usize(..8) } else { rows };
    let column = |rng: &mut fastrand::Rng| {
        let kinds = if rng.u8(..10) == 0 { 5 } else { 3 };
        let kind = rng.u8(..kinds);
        let absent_below = if rng.u8(..20) == 0 { 9 } else { 1 };
        FieldColumn {
            name: rng.choice(["price", "quantity", "load", "bytes", "bid", ""]).unwrap_or_default().into(),
            ints: (0..if matches!(kind, 0 | 3) { len(rng) } else { 0 }).map(|_| rng.i64(-2..9)).collect(),
            uints: (0..if matches!(kind, 1 | 3) { len(rng) } else { 0 }).map(|_| rng.u64(..) >> rng.u8(..64)).collect(),
            floats: (0..if kind == 2 { len(rng) } else { 0 }).map(|_| rng.f64()).collect(),
            absent_rows: (0..rng.usize(..3)).map(|_| rng.u32(..absent_below)).collect(),
        }
    };
    let series = |rng: &mut fastrand::Rng| Series {
        dimensions: [(
            rng.choice(["symbol", "host"]).unwrap_or_default().to_owned(),
            rng.choice(["a", "b", "refused"]).unwrap_or_default().to_owned(),
        )]
        .into(),
    };
    IngestBatch {
        batch_id: 0,
        spec: rng.choice(["market", "market", "strict", "nobody"]).unwrap_or_default().into(),
        new_series: (0..rng.usize(..3)).map(|_| series(rng)).collect(),
        timestamps: (0..rows).map(|_| oracle::NOW / rng.choice([1, 1, 1_000_000]).unwrap_or(1)).collect(),
        series_index: (0..len(rng)).map(|_| rng.u32(..4)).collect(),
        sequences: (0..if rng.bool() { len(rng) } else { 0 }).map(|_| rng.u32(..3)).collect(),
        fields: (0..rng.usize(..3)).map(|_| column(rng)).collect(),
        ..IngestBatch::default()
    }
}
