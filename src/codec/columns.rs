//! The columns of one `barline.v1.IngestBatch`, checked against each other and matched to the spec's fields.

use std::sync::Arc;

use barline_proto::barline::{FieldColumn, IngestBatch};

use super::admit::{MAX_EXTRAS, Refusal, quote};
use super::columnar::Verdict;
use crate::model::series::MAX_NAME_BYTES;
use crate::model::{Column, ExtraField, FieldType, Reason, TickBatch};
use crate::spec::{Field, Spec};

/// All field columns of one batch.
pub(super) struct Columns<'a> {
    /// Per field of the spec: its column, if the batch has one.
    declared: Vec<(&'a Field, Option<Sent<'a>>)>,
    undeclared: Vec<Sent<'a>>,
}

/// One column as sent.
struct Sent<'a> {
    name: &'a str,
    values: Values<'a>,
    /// Only its `absent` is used.
    absent: Column,
}

/// The values of one column.
#[derive(Clone, Copy)]
enum Values<'a> {
    Ints(&'a [i64]),
    Uints(&'a [u64]),
    Floats(&'a [f64]),
}

impl<'a> Columns<'a> {
    /// The columns of `batch`, all of one length.
    ///
    /// # Errors
    /// The parts of the batch contradict each other.
    pub(super) fn of(batch: &'a IngestBatch, spec: &'a Spec) -> Result<Self, Refusal> {
        let rows = batch.timestamps.len();
        check_len("series_index", batch.series_index.len(), rows, Reason::BadDimensions)?;
        if !batch.sequences.is_empty() {
            check_len("sequences", batch.sequences.len(), rows, Reason::BadField)?;
        }
        let mut declared: Vec<(&Field, Option<Sent<'_>>)> = spec.fields.iter().map(|field| (field, None)).collect();
        let mut undeclared: Vec<Sent<'_>> = Vec::new();
        for column in &batch.fields {
            let sent = Sent::of(column, rows)?;
            let twice = match declared.iter_mut().find(|(field, _)| field.name == sent.name) {
                Some((_, slot)) => slot.replace(sent).is_some(),
                None => {
                    let twice = undeclared.iter().any(|other| other.name == sent.name);
                    undeclared.push(sent);
                    twice
                }
            };
            if twice {
                return Err(bad_field(format!("two columns are named {:?}", quote(&column.name))));
            }
            if undeclared.len() > MAX_EXTRAS {
                return Err(bad_field(format!("more than {MAX_EXTRAS} columns are not declared by {}", spec.name)));
            }
        }
        Ok(Self { declared, undeclared })
    }

    /// Refuses the rows with a value that does not fit its field.
    pub(super) fn judge(&self, verdict: &mut Verdict) {
        for (field, sent) in &self.declared {
            if let Some(sent) = sent {
                sent.judge(field.ty, verdict, |value| {
                    format!("{value} does not fit field {:?}, which is {}", field.name, field.ty.name())
                });
            }
        }
        for sent in &self.undeclared {
            if matches!(sent.values, Values::Ints(_)) {
                continue;
            }
            for row in (0..sent.values.len()).filter(|row| !sent.absent.is_absent(*row)) {
                verdict.refuse(row, Reason::BadField, || {
                    format!("field {:?} is not declared; only integers (`ints`) are kept then", quote(sent.name))
                });
            }
        }
    }

    /// Appends the rows that are taken; `base` is how many rows `out` had before.
    pub(super) fn append(&self, verdict: &Verdict, base: usize, out: &mut TickBatch) {
        let rows = out.len();
        for ((field, sent), column) in self.declared.iter().zip(&mut out.fields) {
            match sent {
                Some(sent) => sent.append(field.ty, verdict, base, column),
                None => {
                    column.bits.resize(rows, 0);
                    (base..rows).for_each(|row| column.set_absent(row));
                }
            }
        }
        let names: Vec<Arc<str>> = self.undeclared.iter().map(|sent| sent.name.into()).collect();
        if names.is_empty() {
            return;
        }
        for (at, row) in verdict.taken().enumerate() {
            for (sent, name) in self.undeclared.iter().zip(&names) {
                if let (Values::Ints(ints), false) = (sent.values, sent.absent.is_absent(row)) {
                    out.extras.push(ExtraField { row: (base + at) as u32, name: name.clone(), value: ints[row] });
                }
            }
        }
    }
}

impl<'a> Sent<'a> {
    fn of(column: &'a FieldColumn, rows: usize) -> Result<Self, Refusal> {
        let name = column.name.as_str();
        if name.len() > MAX_NAME_BYTES {
            return Err(bad_field(format!("a column's name has {} bytes, at most {MAX_NAME_BYTES}", name.len())));
        }
        let values = match (column.ints.as_slice(), column.uints.as_slice(), column.floats.as_slice()) {
            (ints, [], []) => Values::Ints(ints),
            ([], uints, []) => Values::Uints(uints),
            ([], [], floats) => Values::Floats(floats),
            _ => {
                let name = quote(name);
                return Err(bad_field(format!("column {name:?} fills more than one of ints, uints, floats")));
            }
        };
        check_len(name, values.len(), rows, Reason::BadField)?;
        let mut absent = Column::default();
        for &row in &column.absent_rows {
            if row as usize >= rows {
                let name = quote(name);
                return Err(bad_field(format!("column {name:?} lacks row {row}, but the batch has {rows} rows")));
            }
            absent.set_absent(row as usize);
        }
        Ok(Self { name, values, absent })
    }

    /// Refuses the rows whose value has no bits of type `ty`.
    fn judge(&self, ty: FieldType, verdict: &mut Verdict, message: impl Fn(&dyn std::fmt::Display) -> String) {
        if self.always_fits(ty) {
            return;
        }
        let misfit = |row: usize| -> Option<&dyn std::fmt::Display> {
            match self.values {
                Values::Ints(values) if ty.bits_of_int(values[row]).is_none() => Some(&values[row]),
                Values::Uints(values) if ty.bits_of_uint(values[row]).is_none() => Some(&values[row]),
                Values::Floats(values) if ty != FieldType::Float64 => Some(&values[row]),
                _ => None,
            }
        };
        for row in 0..self.values.len() {
            if let (Some(value), false) = (misfit(row), self.absent.is_absent(row)) {
                verdict.refuse(row, Reason::BadField, || message(value));
            }
        }
    }

    /// Whether every value there can be has bits of type `ty`.
    fn always_fits(&self, ty: FieldType) -> bool {
        match self.values {
            Values::Ints(_) => ty != FieldType::Uint64,
            Values::Uints(_) => ty != FieldType::Int64,
            Values::Floats(_) => ty == FieldType::Float64,
        }
    }

    /// Appends the values of the rows that are taken, 0 where absent.
    fn append(&self, ty: FieldType, verdict: &Verdict, base: usize, column: &mut Column) {
        let out = &mut column.bits;
        match self.values {
            Values::Ints(values) => verdict.extend(out, values.iter().map(|v| ty.bits_of_int(*v).unwrap_or(0))),
            Values::Uints(values) => verdict.extend(out, values.iter().map(|v| ty.bits_of_uint(*v).unwrap_or(0))),
            Values::Floats(values) => verdict.extend(out, values.iter().map(|v| v.to_bits())),
        }
        if !self.absent.absent.is_empty() {
            let absent = verdict.taken().enumerate().filter(|(_, row)| self.absent.is_absent(*row));
            for (at, _) in absent {
                column.bits[base + at] = 0;
                column.set_absent(base + at);
            }
        }
    }
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Ints(values) => values.len(),
            Self::Uints(values) => values.len(),
            Self::Floats(values) => values.len(),
        }
    }
}

fn check_len(column: &str, len: usize, rows: usize, reason: Reason) -> Result<(), Refusal> {
    if len == rows {
        return Ok(());
    }
    let column = quote(column);
    Err(Refusal { reason, message: format!("column {column:?} has {len} values, but the batch has {rows} timestamps") })
}

fn bad_field(message: String) -> Refusal {
    Refusal { reason: Reason::BadField, message }
}
