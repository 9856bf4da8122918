//! Fields the spec does not declare, as a section of a block: a table of names, then three columns.

use std::sync::Arc;

use super::block_header::{CorruptBlock, number};
use super::pack::{Effort, pack, unpack};
use super::varint::put_varint;
use super::wire::Reader;
use crate::model::ExtraField;

/// The most extras of one block: more than fit into one message of 16 MiB.
const MAX_EXTRAS: usize = 1 << 23;

/// Appends `extras`. Nothing for none.
pub fn write(extras: &[ExtraField], out: &mut Vec<u8>) {
    if extras.is_empty() {
        return;
    }
    let mut names: Vec<&str> = extras.iter().map(|extra| &*extra.name).collect();
    names.sort_unstable();
    names.dedup();
    put_varint(out, extras.len() as u64);
    put_varint(out, names.len() as u64);
    for name in &names {
        put_varint(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
    }
    let name_of = |extra: &ExtraField| names.partition_point(|name| **name < *extra.name) as u32;
    write_column(&extras.iter().map(|extra| extra.row).collect::<Vec<u32>>(), out);
    write_column(&extras.iter().map(name_of).collect::<Vec<u32>>(), out);
    write_column(&extras.iter().map(|extra| extra.value).collect::<Vec<i64>>(), out);
}

fn write_column<T: super::pack::Word + Default>(values: &[T], out: &mut Vec<u8>) {
    let mut packed = Vec::new();
    pack(values, Effort::Quick, &mut packed);
    put_varint(out, packed.len() as u64);
    out.extend_from_slice(&packed);
}

/// Reads what [`write()`] wrote for a block of `rows` rows.
///
/// # Errors
/// The bytes are not what `write` writes.
pub fn read(bytes: &[u8], rows: usize) -> Result<Vec<ExtraField>, CorruptBlock> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes);
    let count: usize = number(&mut reader)?;
    if count > MAX_EXTRAS {
        return Err(CorruptBlock("it claims more undeclared fields than a block may have"));
    }
    let mut names: Vec<Arc<str>> = Vec::new();
    for _ in 0..number::<usize>(&mut reader)? {
        names.push(reader.string().map_err(|_| CorruptBlock("a field's name cannot be read"))?.into());
    }
    let mut column = || reader.nested().map(|part| part.rest()).map_err(|_| CorruptBlock("it ends early"));
    let (row_bytes, name_bytes, value_bytes) = (column()?, column()?, column()?);
    let owners: Vec<u32> = unpack(row_bytes, count)?;
    if !reader.is_empty() || !owners.is_sorted() || owners.last().is_some_and(|row| *row as usize >= rows) {
        return Err(CorruptBlock("undeclared fields of rows it does not have"));
    }
    let extra = |((row, name), value): ((u32, u32), i64)| {
        let name = names.get(name as usize).ok_or(CorruptBlock("an undeclared field without a name"))?;
        Ok(ExtraField { row, name: name.clone(), value })
    };
    let rest = unpack::<u32>(name_bytes, count)?.into_iter().zip(unpack::<i64>(value_bytes, count)?);
    owners.into_iter().zip(rest).map(|(row, (name, value))| extra(((row, name), value))).collect()
}
