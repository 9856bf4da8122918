//! A block of the journal: one [`TickBatch`] as compressed bytes that describe themselves.
//!
//! The header names the fields and their types as they were, so that a block can be read under any later
//! spec; each column is a section of its own, so that one can be read without the others. Values of absent
//! fields are not stored. The checksum is the store's.

pub use super::block_header::{BlockHeader, CorruptBlock, MAX_ROWS, max_rows};
pub use super::pack::Effort;
use super::pack::{pack, unpack};
use super::{bitmap, extras};
use crate::model::{Column, ExtraField, FieldType, TickBatch, TimeNs};
use crate::spec::Spec;

/// A block read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Its facts.
    pub header: BlockHeader,
    /// Per row: the series.
    pub series: Vec<u32>,
    /// Per row: event time.
    pub timestamps: Vec<TimeNs>,
    /// Per row: the sequence number. Empty when all are 0.
    pub sequences: Vec<u32>,
    /// The fields that were declared when it was written: name, type, column.
    pub fields: Vec<(String, FieldType, Column)>,
    /// Fields that were not, ascending by row.
    pub extras: Vec<ExtraField>,
}

/// Writes `batch`, whose columns are the fields of `spec` and whose row 0 has the arrival number `offset`,
/// received at `received_at`.
///
/// # Panics
/// The batch has more rows than [`max_rows`] allows, which no single message has; cut it before.
pub fn encode(batch: &TickBatch, spec: &Spec, offset: u64, received_at: TimeNs) -> Vec<u8> {
    encode_with(Effort::Quick, batch, spec, offset, received_at)
}

/// As [`encode`], with more time for fewer bytes if so wanted.
///
/// # Panics
/// As [`encode`].
pub fn encode_with(effort: Effort, batch: &TickBatch, spec: &Spec, offset: u64, received_at: TimeNs) -> Vec<u8> {
    let rows = batch.len();
    assert!(rows <= max_rows(spec.fields.len()), "a batch of {rows} rows must be cut before it becomes a block");
    let mut body = Vec::with_capacity(rows * 8);
    let mut lengths = Vec::with_capacity(4 + 2 * spec.fields.len());
    let mut section = |write: &mut dyn FnMut(&mut Vec<u8>)| {
        let start = body.len();
        write(&mut body);
        lengths.push(body.len() - start);
    };
    section(&mut |out| pack(&batch.series, effort, out));
    section(&mut |out| pack(&batch.timestamps, effort, out));
    section(&mut |out| {
        if batch.sequences.iter().any(|s| *s != 0) {
            pack(&batch.sequences, effort, out)
        }
    });
    for (column, field) in batch.fields.iter().zip(&spec.fields) {
        section(&mut |out| write_values(column, field.ty, effort, out));
        section(&mut |out| bitmap::pack(&column.absent, rows, out));
    }
    section(&mut |out| extras::write(&batch.extras, out));
    let mut bytes = BlockHeader::of(batch, spec, offset, received_at).write(&lengths);
    bytes.extend_from_slice(&body);
    bytes
}

/// The series column alone, one number per row.
///
/// # Errors
/// The bytes are no block.
pub fn decode_series_only(bytes: &[u8]) -> Result<Vec<u32>, CorruptBlock> {
    let header = BlockHeader::read(bytes)?;
    unpack(header.series(bytes), header.rows)
}

impl Block {
    /// Reads a whole block.
    ///
    /// # Errors
    /// The bytes are no block.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptBlock> {
        let header = BlockHeader::read(bytes)?;
        let rows = header.rows;
        let mut fields = Vec::with_capacity(header.fields.len());
        for (index, (name, ty)) in header.fields.iter().enumerate() {
            let (values, absent) = header.field(bytes, index);
            let absent = bitmap::unpack(absent, rows)?;
            fields.push((name.clone(), *ty, read_values(values, absent, *ty, rows)?));
        }
        let sequences = match header.sequences(bytes) {
            [] => Vec::new(),
            packed => unpack(packed, rows)?,
        };
        Ok(Self {
            series: unpack(header.series(bytes), rows)?,
            timestamps: unpack(header.timestamps(bytes), rows)?,
            sequences,
            fields,
            extras: extras::read(header.extras(bytes), rows)?,
            header,
        })
    }
}

/// Appends the values of the rows that have the field.
fn write_values(column: &Column, ty: FieldType, effort: Effort, out: &mut Vec<u8>) {
    let present: Vec<u64>;
    let bits = if column.absent.iter().all(|word| *word == 0) {
        &column.bits
    } else {
        let rows = column.bits.iter().enumerate();
        present = rows.filter(|(row, _)| !column.is_absent(*row)).map(|(_, bits)| *bits).collect();
        &present
    };
    match ty {
        FieldType::Int64 => pack(&bits.iter().map(|bits| *bits as i64).collect::<Vec<_>>(), effort, out),
        FieldType::Uint64 => pack(bits, effort, out),
        FieldType::Float64 => pack(&bits.iter().map(|bits| f64::from_bits(*bits)).collect::<Vec<_>>(), effort, out),
    }
}

fn read_values(bytes: &[u8], absent: Vec<u64>, ty: FieldType, rows: usize) -> Result<Column, CorruptBlock> {
    let present = rows - bitmap::count(&absent);
    let bits: Vec<u64> = match ty {
        FieldType::Int64 => unpack::<i64>(bytes, present)?.into_iter().map(|value| value as u64).collect(),
        FieldType::Uint64 => unpack(bytes, present)?,
        FieldType::Float64 => unpack::<f64>(bytes, present)?.into_iter().map(f64::to_bits).collect(),
    };
    if absent.is_empty() {
        return Ok(Column { bits, absent });
    }
    let mut column = Column { bits: Vec::with_capacity(rows), absent };
    let mut values = bits.into_iter();
    for row in 0..rows {
        let value = if column.is_absent(row) { None } else { values.next() };
        column.bits.push(value.unwrap_or(0));
    }
    Ok(column)
}

#[cfg(test)]
pub(super) mod tests {
    use fastrand::Rng;

    use super::*;
    use crate::codec::admit::tests::spec;
    use crate::model::SpecId;

    /// A batch of `rows` market ticks with odd fields added.
    pub(crate) fn batch(rng: &mut Rng, rows: usize) -> TickBatch {
        let mut batch = TickBatch::new(SpecId(0), 3);
        let (absent, extra, numbered) = (rng.u8(..4), rng.u8(..3), rng.bool());
        for row in 0..rows {
            batch.series.push(rng.u32(..5_000));
            batch.timestamps.push(1_700_000_000_000_000_000 + row as i64 * 1_000 + rng.i64(0..900));
            if numbered {
                batch.sequences.push(row as u32);
            }
            let values = [rng.i64(-5..60_000) as u64, rng.u64(..), (rng.i64(-999..9_999) as f64 / 100.0).to_bits()];
            for (column, value) in batch.fields.iter_mut().zip(values) {
                let lacks = absent > 0 && rng.u8(..absent) == 0;
                column.bits.push(if lacks { 0 } else { value });
                if lacks {
                    column.set_absent(row);
                }
            }
            if extra > 0 && rng.u8(..extra) == 0 {
                let name = rng.choice(["bid", "ask", ""]).unwrap_or_default();
                batch.extras.push(ExtraField { row: row as u32, name: name.into(), value: rng.i64(..) });
            }
        }
        batch
    }

    #[test]
    fn every_batch_is_read_as_it_was_written() {
        let spec = spec();
        let mut rng = Rng::with_seed(1);
        for rows in [0, 1, 2, 7, 50, 63, 64, 65, 100, 1_000, 8_192].repeat(6) {
            let batch = batch(&mut rng, rows);
            let bytes = encode(&batch, &spec, 77, -5);
            let block = Block::decode(&bytes).unwrap();
            assert_eq!((block.header.offset, block.header.end_offset()), (77, 77 + rows as u64));
            assert_eq!((block.header.rows, block.header.received_at), (rows, -5));
            assert_eq!(block.header.max_time, batch.timestamps.iter().copied().max().unwrap_or(0));
            assert_eq!(block.header.min_series, batch.series.iter().copied().min().unwrap_or(0));
            assert_eq!(decode_series_only(&bytes).unwrap(), batch.series);
            let mut expected = batch;
            if expected.sequences.iter().all(|sequence| *sequence == 0) {
                expected.sequences.clear();
            }
            assert_eq!(block.into_batch(&spec), expected);
        }
    }

    #[test]
    fn market_ticks_take_less_than_ten_bytes_and_tiny_blocks_stay_tiny() {
        let mut spec = spec();
        spec.fields.truncate(2);
        let mut rng = Rng::with_seed(2);
        let mut ticks = |rows: usize| TickBatch {
            series: (0..rows).map(|_| rng.u32(..5_000)).collect(),
            timestamps: (0..rows as i64).map(|row| 1_700_000_000_000_000_000 + 1_000 * row + row % 7).collect(),
            sequences: (0..rows as u32).collect(),
            fields: [60_000, 1_000].map(|max| column(&mut rng, rows, max)).into(),
            ..TickBatch::new(SpecId(0), 0)
        };
        let many = encode(&ticks(8_192), &spec, 0, 0);
        assert!(many.len() < 8_192 * 10, "{} bytes", many.len());
        assert!(encode(&ticks(1), &spec, 1 << 40, 1_700_000_000_000_000_000).len() < 100);
    }

    fn column(rng: &mut Rng, rows: usize, max: u64) -> Column {
        Column { bits: (0..rows).map(|_| rng.u64(..max)).collect(), absent: Vec::new() }
    }

    #[test]
    fn broken_blocks_are_errors_and_never_panics() {
        let spec = spec();
        let mut rng = Rng::with_seed(3);
        for round in 0..2_000 {
            let rows = rng.usize(..80);
            let mut bytes = encode(&batch(&mut rng, rows), &spec, 0, 0);
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..bytes.len());
                match round % 3 {
                    0 => bytes[at] ^= 1 << rng.u8(..8),
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes[at] = rng.u8(..),
                }
            }
            if let Ok(block) = Block::decode(&bytes) {
                let rows = block.header.rows;
                assert_eq!(block.into_batch(&spec).len(), rows);
            }
        }
    }
}
