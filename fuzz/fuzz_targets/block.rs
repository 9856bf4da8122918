//! Any bytes as a journal block: an error or rows, never a panic, and what was read can be written again.
#![no_main]

use std::collections::HashSet;

use barline::codec::block::{self, Block, BlockHeader};
use barline::model::FieldType;
use barline::spec::{Field, Spec};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/it/oracle/spec.rs"]
mod spec;
use spec::spec;

/// The most values worth the fuzzer's memory; a block may claim more.
const MAX_CELLS: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Ok(header) = BlockHeader::read(data) else { return };
    let names: HashSet<&String> = header.fields.iter().map(|(name, _)| name).collect();
    if header.rows * (names.len() + 3) > MAX_CELLS || names.len() < header.fields.len() {
        return;
    }
    let _ = block::decode_series_only(data);
    let Ok(read) = Block::decode(data) else { return };
    let fields = read.fields.iter().map(|(name, ty, _)| Field { name: name.clone(), ty: *ty }).collect();
    let same = Spec { fields, ..spec("same", &[], &[]) };
    let other = spec("other", &[], &[("price", FieldType::Float64), ("quantity", FieldType::Int64)]);
    assert_eq!(read.clone().into_batch(&other).len(), read.header.rows);
    let (offset, received_at) = (read.header.offset, read.header.received_at);
    let batch = read.into_batch(&same);
    let bytes = block::encode(&batch, &same, offset, received_at);
    let mut again = Block::decode(&bytes).map(|block| block.into_batch(&same));
    // Absent rows and missing sequences have more than one spelling; bits of doubles are compared as bits.
    if let Ok(again) = &mut again {
        assert_eq!(
            (&again.series, &again.timestamps, &again.extras),
            (&batch.series, &batch.timestamps, &batch.extras)
        );
        for (ours, theirs) in again.fields.iter().zip(&batch.fields) {
            assert!((0..batch.len()).all(|row| ours.get(row) == theirs.get(row)));
        }
    }
    assert!(again.is_ok());
});
