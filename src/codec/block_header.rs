//! What a block says about itself: enough to skip it, to find its columns, and to read it under a later spec.

use std::ops::Range;

use super::varint::{put_varint, unzigzag, zigzag};
use super::wire::Reader;
use crate::model::{FieldType, TickBatch, TimeNs};
use crate::spec::Spec;

/// The layout of blocks written today; the first byte of each.
const VERSION: u8 = 1;
/// The most rows of one block: more than ticks fit into one message of 16 MiB.
pub const MAX_ROWS: usize = 1 << 21;
/// The most values of one block, over all its columns: what bounds the memory a few hostile bytes can claim.
const MAX_CELLS: usize = 1 << 27;
/// Sections before those of the fields: series, timestamps, sequences.
const FIXED: usize = 3;

/// Bytes that are no block, and what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("corrupt block: {0}")]
pub struct CorruptBlock(pub &'static str);

/// The facts of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHeader {
    /// The arrival number of row 0.
    pub offset: u64,
    /// How many rows.
    pub rows: usize,
    /// When the block was made, by the clock of the machine.
    pub received_at: TimeNs,
    /// The lowest event time; 0 without rows.
    pub min_time: TimeNs,
    /// The highest event time; 0 without rows.
    pub max_time: TimeNs,
    /// The lowest series number; 0 without rows.
    pub min_series: u32,
    /// The highest series number; 0 without rows.
    pub max_series: u32,
    /// The fields that were declared then, in the order of their columns.
    pub fields: Vec<(String, FieldType)>,
    /// Where in the block each section is: series, timestamps, sequences, then values and absences of each
    /// field, then extras.
    sections: Vec<Range<usize>>,
}

/// The most rows of a block with this many fields; larger batches must be cut.
pub fn max_rows(fields: usize) -> usize {
    MAX_ROWS.min(MAX_CELLS / (fields + FIXED))
}

impl BlockHeader {
    /// The facts of `batch`; its sections are not known yet.
    pub(super) fn of(batch: &TickBatch, spec: &Spec, offset: u64, received_at: TimeNs) -> Self {
        Self {
            offset,
            rows: batch.len(),
            received_at,
            min_time: batch.timestamps.iter().copied().min().unwrap_or(0),
            max_time: batch.timestamps.iter().copied().max().unwrap_or(0),
            min_series: batch.series.iter().copied().min().unwrap_or(0),
            max_series: batch.series.iter().copied().max().unwrap_or(0),
            fields: spec.fields.iter().map(|field| (field.name.clone(), field.ty)).collect(),
            sections: Vec::new(),
        }
    }

    /// The header's bytes, for sections of these lengths.
    pub(super) fn write(&self, lengths: &[usize]) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.rows as u64);
        put_varint(&mut out, self.offset);
        put_varint(&mut out, zigzag(self.received_at));
        put_varint(&mut out, zigzag(self.min_time));
        put_varint(&mut out, self.max_time.wrapping_sub(self.min_time) as u64);
        put_varint(&mut out, self.min_series.into());
        put_varint(&mut out, (self.max_series - self.min_series).into());
        put_varint(&mut out, self.fields.len() as u64);
        for (name, ty) in &self.fields {
            out.push(code_of(*ty));
            put_varint(&mut out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
        }
        for length in lengths {
            put_varint(&mut out, *length as u64);
        }
        out
    }

    /// Reads the header at the front of a block and checks that all its sections are there.
    ///
    /// # Errors
    /// The bytes are no block, or one of a later layout.
    pub fn read(bytes: &[u8]) -> Result<Self, CorruptBlock> {
        let Some((&VERSION, rest)) = bytes.split_first() else {
            return Err(CorruptBlock("it is empty or of an unknown version"));
        };
        let mut reader = Reader::new(rest);
        let mut header = read_facts(&mut reader)?;
        let fields = number::<usize>(&mut reader)?;
        for _ in 0..fields {
            header.fields.push(read_field(&mut reader)?);
        }
        if header.rows > max_rows(header.fields.len()) {
            return Err(CorruptBlock("it claims more rows than a block may have"));
        }
        let lengths = (0..FIXED + 2 * header.fields.len() + 1).map(|_| number::<usize>(&mut reader));
        let lengths = lengths.collect::<Result<Vec<_>, _>>()?;
        let mut end = bytes.len() - reader.rest().len();
        for length in lengths {
            let start = end;
            end = start.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(CorruptBlock("it ends early"))?;
            header.sections.push(start..end);
        }
        if end == bytes.len() { Ok(header) } else { Err(CorruptBlock("it has bytes left over")) }
    }

    /// The first arrival number after the block.
    pub fn end_offset(&self) -> u64 {
        self.offset + self.rows as u64
    }

    pub(super) fn series<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.sections[0].clone()]
    }

    pub(super) fn timestamps<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.sections[1].clone()]
    }

    pub(super) fn sequences<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.sections[2].clone()]
    }

    /// Values and absences of the `index`-th field.
    pub(super) fn field<'a>(&self, block: &'a [u8], index: usize) -> (&'a [u8], &'a [u8]) {
        let at = FIXED + 2 * index;
        (&block[self.sections[at].clone()], &block[self.sections[at + 1].clone()])
    }

    pub(super) fn extras<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.sections[FIXED + 2 * self.fields.len()].clone()]
    }
}

/// Everything before the fields.
fn read_facts(reader: &mut Reader<'_>) -> Result<BlockHeader, CorruptBlock> {
    let rows: usize = number(reader)?;
    let offset: u64 = number(reader)?;
    offset.checked_add(rows as u64).ok_or(CorruptBlock("its offset is out of range"))?;
    let received_at = unzigzag(number(reader)?);
    let min_time = unzigzag(number(reader)?);
    let max_time = min_time.wrapping_add(number::<u64>(reader)? as i64);
    let min_series: u32 = number(reader)?;
    let max_series = min_series.checked_add(number(reader)?).ok_or(CorruptBlock("its series are out of range"))?;
    if max_time < min_time {
        return Err(CorruptBlock("its times are out of range"));
    }
    Ok(BlockHeader {
        offset,
        rows,
        received_at,
        min_time,
        max_time,
        min_series,
        max_series,
        fields: Vec::new(),
        sections: Vec::new(),
    })
}

fn read_field(reader: &mut Reader<'_>) -> Result<(String, FieldType), CorruptBlock> {
    let ty = match number::<u8>(reader)? {
        1 => FieldType::Int64,
        2 => FieldType::Uint64,
        3 => FieldType::Float64,
        _ => return Err(CorruptBlock("a field has an unknown type")),
    };
    let name = reader.string().map_err(|_| CorruptBlock("a field's name cannot be read"))?;
    Ok((name.to_owned(), ty))
}

fn code_of(ty: FieldType) -> u8 {
    match ty {
        FieldType::Int64 => 1,
        FieldType::Uint64 => 2,
        FieldType::Float64 => 3,
    }
}

/// A varint that fits into `T`.
pub(super) fn number<T: TryFrom<u64>>(reader: &mut Reader<'_>) -> Result<T, CorruptBlock> {
    let value = reader.varint().map_err(|_| CorruptBlock("it ends early"))?;
    T::try_from(value).map_err(|_| CorruptBlock("a number is out of range"))
}
