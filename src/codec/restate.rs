//! A block as a batch of the spec as it is today, which may have changed since the block was written.

use std::sync::Arc;

use super::block::Block;
use crate::model::{Column, ExtraField, FieldType, TickBatch, Value};
use crate::spec::Spec;

impl Block {
    /// The rows as a batch of `spec`, which may have changed since they were written: a field of the same
    /// name is converted, row by row absent where its value does not fit; integers of a field the spec no
    /// longer declares become extras; extras of a field it now declares become its values.
    pub fn into_batch(self, spec: &Spec) -> TickBatch {
        let rows = self.header.rows;
        let mut columns: Vec<Option<Column>> = spec.fields.iter().map(|_| None).collect();
        let mut extras = Vec::new();
        for extra in self.extras {
            match spec.fields.iter().position(|field| *field.name == *extra.name) {
                Some(at) => {
                    let bits = spec.fields[at].ty.bits_of_int(extra.value);
                    let column = columns[at].get_or_insert_with(|| all_absent(rows));
                    bits.inspect(|bits| set(column, extra.row as usize, *bits));
                }
                None => extras.push(extra),
            }
        }
        let carried = extras.len();
        for (name, ty, column) in self.fields {
            match spec.fields.iter().position(|field| field.name == name) {
                Some(at) => columns[at] = Some(convert(column, ty, spec.fields[at].ty, rows)),
                None => to_extras(&name, ty, &column, rows, &mut extras),
            }
        }
        if extras.len() > carried {
            extras.sort_by_key(|extra| extra.row);
        }
        TickBatch {
            spec: spec.id,
            series: self.series,
            timestamps: self.timestamps,
            sequences: self.sequences,
            fields: columns.into_iter().map(|column| column.unwrap_or_else(|| all_absent(rows))).collect(),
            extras,
            receipt: None,
            origins: Vec::new(),
        }
    }
}

/// A column no row has a value in.
fn all_absent(rows: usize) -> Column {
    let mut column = Column { bits: vec![0; rows], absent: vec![u64::MAX; rows / 64] };
    (rows / 64 * 64..rows).for_each(|row| column.set_absent(row));
    column
}

/// Gives a row that lacked the field a value.
fn set(column: &mut Column, row: usize, bits: u64) {
    column.bits[row] = bits;
    column.absent[row / 64] &= !(1 << (row % 64));
}

/// The column with its values as another type.
fn convert(mut column: Column, from: FieldType, to: FieldType, rows: usize) -> Column {
    if from == to {
        return column;
    }
    for row in 0..rows {
        let Some(bits) = column.get(row) else { continue };
        let converted = match from.value(bits) {
            Value::Int(value) => to.bits_of_int(value),
            Value::Uint(value) => to.bits_of_uint(value),
            Value::Float(_) => None,
        };
        column.bits[row] = converted.unwrap_or(0);
        if converted.is_none() {
            column.set_absent(row);
        }
    }
    column
}

/// The integers of a field that is no longer declared.
fn to_extras(name: &str, ty: FieldType, column: &Column, rows: usize, extras: &mut Vec<ExtraField>) {
    let name: Arc<str> = name.into();
    for row in 0..rows {
        let value = column.get(row).and_then(|bits| match ty.value(bits) {
            Value::Int(value) => Some(value),
            Value::Uint(value) => i64::try_from(value).ok(),
            Value::Float(_) => None,
        });
        extras.extend(value.map(|value| ExtraField { row: row as u32, name: name.clone(), value }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::admit::tests::spec;
    use crate::codec::block::encode;
    use crate::model::SpecId;
    use crate::spec::Field;

    fn fields(fields: &[(&str, FieldType)]) -> Spec {
        let field = |(name, ty): &(&str, FieldType)| Field { name: (*name).into(), ty: *ty };
        Spec { fields: fields.iter().map(field).collect(), ..spec() }
    }

    fn column(bits: &[u64]) -> Column {
        Column { bits: bits.into(), absent: Vec::new() }
    }

    #[test]
    fn a_changed_spec_reads_old_blocks_by_field_name() {
        let then = fields(&[("kept", FieldType::Int64), ("widened", FieldType::Uint64), ("gone", FieldType::Int64)]);
        let now = fields(&[("fresh", FieldType::Uint64), ("widened", FieldType::Int64), ("kept", FieldType::Float64)]);
        let extra = |row, name: &str, value| ExtraField { row, name: name.into(), value };
        let batch = TickBatch {
            series: vec![3, 4],
            timestamps: vec![1, 2],
            fields: vec![column(&[7, (-7i64) as u64]), column(&[u64::MAX, 5]), column(&[1, 2])],
            extras: vec![extra(0, "fresh", -1), extra(1, "fresh", 9), extra(1, "other", 8)],
            ..TickBatch::new(SpecId(0), 0)
        };
        let block = Block::decode(&encode(&batch, &then, 0, 0)).unwrap().into_batch(&now);
        let values = |at: usize| (0..2).map(|row| block.fields[at].get(row)).collect::<Vec<_>>();
        assert_eq!(values(0), [None, Some(9)]);
        assert_eq!(values(1), [None, Some(5)]);
        assert_eq!(values(2), [Some(7f64.to_bits()), Some((-7f64).to_bits())]);
        assert_eq!(block.extras, [extra(0, "gone", 1), extra(1, "other", 8), extra(1, "gone", 2)]);
    }
}
