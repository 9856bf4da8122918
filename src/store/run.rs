//! A run of the journal: blocks in order of arrival, given back as blocks in order of series.

use std::sync::Arc;

use super::sorted::SortedKey;
use crate::codec::block::{self, Block, Effort, max_rows};
use crate::model::{Column, ExtraField, FieldType, TickBatch, TimeNs};
use crate::spec::{Field, Spec};

/// Bytes of columns after which a run is full.
const RUN_BYTES: usize = 24 << 20;

/// How a partition is cut when it is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSize {
    /// Rows after which a run is full: the more, the fewer places a series lies in, the more a scan of all has to sort.
    pub rows: usize,
    /// Rows of a block: the fewer, the less of its neighbours is read along with a series.
    pub block_rows: usize,
}

impl Default for RunSize {
    fn default() -> Self {
        Self { rows: 1 << 18, block_rows: 2048 }
    }
}

/// Rows of blocks that have the same fields.
#[derive(Default)]
pub(super) struct Run {
    fields: Vec<(String, FieldType)>,
    batch: TickBatch,
    received_at: TimeNs,
    /// Once it is closed: series and row of what is still to be given back, in one number each, descending.
    order: Option<Vec<u64>>,
}

impl Run {
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    pub fn rows(&self) -> usize {
        self.batch.len()
    }

    pub fn is_full(&self, size: RunSize) -> bool {
        self.batch.len() >= size.rows || self.batch.heap_bytes() >= RUN_BYTES
    }

    /// Whether a block has the fields of those before it: they may be written under different definitions of the spec.
    pub fn fits(&self, block: &Block) -> bool {
        self.is_empty() || self.fields == block.header.fields
    }

    pub fn push(&mut self, block: Block) {
        let (before, batch) = (self.batch.len(), &mut self.batch);
        if before == 0 {
            self.fields.clone_from(&block.header.fields);
            batch.fields = vec![Column::default(); self.fields.len()];
        }
        let rows = block.series.len();
        batch.series.extend(block.series);
        batch.timestamps.extend(block.timestamps);
        batch.sequences.extend(block.sequences);
        batch.sequences.resize(before + rows, 0);
        for (to, (_, _, from)) in batch.fields.iter_mut().zip(block.fields) {
            (0..rows).filter(|row| from.is_absent(*row)).for_each(|row| to.set_absent(before + row));
            to.bits.extend(from.bits);
        }
        let moved = |extra: ExtraField| ExtraField { row: extra.row + before as u32, ..extra };
        batch.extras.extend(block.extras.into_iter().map(moved));
        self.received_at = self.received_at.max(block.header.received_at);
    }

    /// Sorts what was gathered: from here on blocks are taken.
    pub fn close(&mut self) {
        // The row in the low half keeps the rows of a series in their order.
        let series = self.batch.series.iter().zip(0u64..);
        let mut order: Vec<u64> = series.map(|(series, row)| u64::from(*series) << 32 | row).collect();
        order.sort_unstable_by(|one, other| other.cmp(one));
        self.order = Some(order);
    }

    pub fn is_closed(&self) -> bool {
        self.order.is_some()
    }

    /// The next block in order of series and, of each series, of arrival; `None` when all have been taken. It is number
    /// `block` of the partition, in run `run`, and its first row gets the arrival number `offset`.
    pub fn take(
        &mut self,
        spec: &Spec,
        size: RunSize,
        run: u32,
        block: u32,
        offset: u64,
    ) -> Option<(SortedKey, Vec<u8>)> {
        let field = |(name, ty): &(String, FieldType)| Field { name: name.clone(), ty: *ty };
        let spec = Spec { fields: self.fields.iter().map(field).collect(), ..spec.clone() };
        let order = self.order.as_mut()?;
        let rows = size.block_rows.clamp(1, max_rows(spec.fields.len())).min(order.len());
        let mut picked = order.split_off(order.len() - rows);
        picked.reverse();
        let batch = self.pick(&picked);
        let times = || batch.timestamps.iter().copied();
        let key = SortedKey {
            run,
            block,
            min_series: *batch.series.first()?,
            max_series: *batch.series.last()?,
            rows: batch.len() as u32,
            min_time: times().min()?,
            max_time: times().max()?,
        };
        Some((key, block::encode_with(Effort::Thorough, &batch, &spec, offset, self.received_at)))
    }

    /// The rows in the low half of each number.
    fn pick(&self, picked: &[u64]) -> TickBatch {
        let (all, mut batch) = (&self.batch, TickBatch::new(self.batch.spec, self.fields.len()));
        let rows = || picked.iter().map(|place| *place as u32 as usize);
        batch.series.extend(rows().map(|row| all.series[row]));
        batch.timestamps.extend(rows().map(|row| all.timestamps[row]));
        batch.sequences.extend(rows().map(|row| all.sequences[row]));
        for (to, from) in batch.fields.iter_mut().zip(&all.fields) {
            to.bits.extend(rows().map(|row| from.bits[row]));
            rows().enumerate().filter(|(_, row)| from.is_absent(*row)).for_each(|(at, _)| to.set_absent(at));
        }
        for (at, row) in rows().enumerate().filter(|_| !all.extras.is_empty()) {
            let first = all.extras.partition_point(|extra| (extra.row as usize) < row);
            let own = all.extras[first..].iter().take_while(|extra| extra.row as usize == row);
            batch.extras.extend(own.map(|extra| ExtraField {
                row: at as u32,
                name: Arc::clone(&extra.name),
                value: extra.value,
            }));
        }
        batch
    }
}
