//! Where taken ticks go: one batch under construction per spec.

use crate::model::{Column, SeriesId, SpecId, TickBatch, TimeNs};
use crate::spec::Specs;

/// The most rows a fresh batch makes room for ahead of time.
const MAX_AHEAD: usize = 16 * 1024;

/// One [`TickBatch`] under construction per spec.
#[derive(Debug)]
pub struct Builders {
    batches: Vec<TickBatch>,
}

impl Builders {
    /// An empty batch for each of `specs`.
    pub fn new(specs: &Specs) -> Self {
        Self { batches: specs.iter().map(|spec| TickBatch::new(spec.id, spec.fields.len())).collect() }
    }

    /// The batch of `spec`, one of the specs it was made for.
    pub fn batch(&mut self, spec: SpecId) -> &mut TickBatch {
        &mut self.batches[spec.0 as usize]
    }

    /// How many rows the batch of `spec` has.
    pub fn rows(&self, spec: SpecId) -> usize {
        self.batches[spec.0 as usize].len()
    }

    /// The specs whose batch has rows, ascending.
    pub fn non_empty(&self) -> impl Iterator<Item = SpecId> {
        self.batches.iter().filter(|batch| !batch.is_empty()).map(|batch| batch.spec)
    }

    /// Takes the batch of `spec` and leaves an empty one with room for about as many rows, since batches of
    /// one stream resemble each other.
    pub fn take(&mut self, spec: SpecId) -> TickBatch {
        let batch = &mut self.batches[spec.0 as usize];
        let rows = batch.len().min(MAX_AHEAD);
        let column = || Column { bits: Vec::with_capacity(rows), absent: Vec::new() };
        let fresh = TickBatch {
            series: Vec::with_capacity(rows),
            timestamps: Vec::with_capacity(rows),
            sequences: Vec::with_capacity(if batch.sequences.is_empty() { 0 } else { rows }),
            fields: batch.fields.iter().map(|_| column()).collect(),
            ..TickBatch::new(spec, 0)
        };
        std::mem::replace(batch, fresh)
    }
}

/// Appends what every row has. The caller appends to each column and to the extras.
#[inline]
pub(super) fn push_row(batch: &mut TickBatch, series: SeriesId, time: TimeNs, sequence: u32) {
    if sequence != 0 || !batch.sequences.is_empty() {
        if batch.sequences.is_empty() {
            batch.sequences.resize(batch.series.len(), 0);
        }
        batch.sequences.push(sequence);
    }
    batch.series.push(series.0);
    batch.timestamps.push(time);
}

/// How long a batch was, to return to when a message turns out to be malformed halfway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    rows: usize,
    sequences: usize,
    extras: usize,
}

impl Mark {
    /// The present end of `batch`.
    pub(super) fn of(batch: &TickBatch) -> Self {
        Self { rows: batch.len(), sequences: batch.sequences.len(), extras: batch.extras.len() }
    }

    /// Removes every row appended since.
    pub(super) fn restore(self, batch: &mut TickBatch) {
        batch.series.truncate(self.rows);
        batch.timestamps.truncate(self.rows);
        batch.sequences.truncate(self.sequences);
        batch.extras.truncate(self.extras);
        for column in &mut batch.fields {
            column.bits.truncate(self.rows);
            column.absent.truncate(self.rows.div_ceil(64));
            if let (Some(last), 1..) = (column.absent.get_mut(self.rows / 64), self.rows % 64) {
                *last &= (1 << (self.rows % 64)) - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(batch: &mut TickBatch, sequence: u32, present: bool) {
        let row = batch.len();
        push_row(batch, SeriesId(1), 5, sequence);
        batch.fields[0].bits.push(7);
        if !present {
            batch.fields[0].set_absent(row);
        }
    }

    #[test]
    fn a_restored_batch_equals_the_batch_at_its_mark() {
        for rows in [0, 1, 63, 64, 65, 128] {
            let mut batch = TickBatch::new(SpecId(0), 1);
            (0..rows).for_each(|row| push(&mut batch, 0, row % 2 == 0));
            let (before, mark) = (batch.clone(), Mark::of(&batch));
            (0..70).for_each(|row| push(&mut batch, row, false));
            mark.restore(&mut batch);
            let absent = |b: &TickBatch| (0..200).map(|row| b.fields[0].is_absent(row)).collect::<Vec<_>>();
            assert_eq!(absent(&batch), absent(&before));
            assert_eq!((&batch.series, &batch.sequences), (&before.series, &before.sequences));
            assert_eq!(batch.fields[0].bits, before.fields[0].bits);
        }
    }

    #[test]
    fn sequences_stay_empty_until_one_is_not_zero() {
        let mut batch = TickBatch::new(SpecId(0), 1);
        push(&mut batch, 0, true);
        assert!(batch.sequences.is_empty());
        push(&mut batch, 9, true);
        push(&mut batch, 0, true);
        assert_eq!(batch.sequences, [0, 9, 0]);
    }
}
