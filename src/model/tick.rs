//! Ticks as columns: one batch holds the ticks of one spec, one vector per column, row i in each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::{Origin, SeriesId, SpecId, TimeNs};

/// Ticks of one spec, in order of arrival. All columns have the same length.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TickBatch {
    /// The spec the ticks belong to; its fields give the order and types of `fields`.
    pub spec: SpecId,
    /// Per row: the series.
    pub series: Vec<u32>,
    /// Per row: event time.
    pub timestamps: Vec<TimeNs>,
    /// Per row: the producer's sequence number. Empty when all are 0.
    pub sequences: Vec<u32>,
    /// One column per field of the spec, in the spec's order.
    pub fields: Vec<Column>,
    /// Fields ticks carried that the spec does not declare, ascending by row; kept for queries of raw ticks.
    pub extras: Vec<ExtraField>,
    /// The batches of producers that are in it, where they said who they are.
    pub origins: Vec<Origin>,
    /// Tells the source when the batch is as durable as the topology makes it.
    pub receipt: Option<Receipt>,
}

/// One field's values, as raw 64-bit words of the field's type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Column {
    /// Per row; 0 where absent.
    pub bits: Vec<u64>,
    /// Per row: bit `i % 64` of word `i / 64` is set where row i lacks the field. Empty, or shorter than
    /// the rows need, when none further is absent.
    pub absent: Vec<u64>,
}

/// A field the spec does not declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraField {
    /// The row it belongs to.
    pub row: u32,
    /// Its name as sent.
    pub name: Arc<str>,
    /// Its value.
    pub value: i64,
}

/// A batch's way back to its source, which hears exactly once what became of it.
#[derive(Clone)]
pub struct Receipt(Arc<Untold>);

/// What a source hears of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is as durable as the topology makes it.
    Durable,
    /// Nobody holds it any more and nobody made it durable.
    Lost,
}

/// Tells the source on the first occasion; being dropped is the last.
struct Untold {
    tell: Box<dyn Fn(Fate) + Send + Sync>,
    told: AtomicBool,
}

/// Some rows of a shared batch: what the router hands each aggregator, without copying a column.
#[derive(Debug, Clone)]
pub struct TickSlice {
    /// The whole batch.
    pub batch: Arc<TickBatch>,
    /// Which of its rows.
    pub rows: Rows,
    /// The arrival number of the batch's row 0; row i arrived as `offset + i`. The journal's offset from the
    /// `journal` stage on, 0 before it. (It stands here and not in the batch because the batch is shared and
    /// immutable by the time the journal numbers it.)
    pub offset: u64,
}

/// A selection of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// Every row.
    All,
    /// These rows, ascending.
    Picked(Vec<u32>),
}

impl TickBatch {
    /// An empty batch of `spec` with `fields` columns.
    pub fn new(spec: SpecId, fields: usize) -> Self {
        Self { spec, fields: vec![Column::default(); fields], ..Self::default() }
    }

    /// How many ticks.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The series of row `row`.
    pub fn series_at(&self, row: usize) -> SeriesId {
        SeriesId(self.series[row])
    }

    /// The sequence number of row `row`.
    pub fn sequence_at(&self, row: usize) -> u32 {
        self.sequences.get(row).copied().unwrap_or(0)
    }

    /// Roughly the bytes it occupies.
    pub fn heap_bytes(&self) -> usize {
        self.len() * (12 + self.fields.len() * 8) + self.sequences.len() * 4 + self.extras.len() * 64
    }
}

impl Column {
    /// The raw bits of row `row`; `None` where the field is absent.
    pub fn get(&self, row: usize) -> Option<u64> {
        (!self.is_absent(row)).then(|| self.bits[row])
    }

    /// Whether row `row` lacks the field.
    pub fn is_absent(&self, row: usize) -> bool {
        self.absent.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Marks row `row` as lacking the field.
    pub fn set_absent(&mut self, row: usize) {
        if self.absent.len() <= row / 64 {
            self.absent.resize(row / 64 + 1, 0);
        }
        self.absent[row / 64] |= 1 << (row % 64);
    }
}

impl TickSlice {
    /// All rows of `batch`, the first of which arrived as `offset`.
    pub fn whole(batch: Arc<TickBatch>, offset: u64) -> Self {
        Self { batch, rows: Rows::All, offset }
    }

    /// The first arrival number after the whole batch.
    pub fn end_offset(&self) -> u64 {
        self.offset + self.batch.len() as u64
    }

    /// A batch of its own of the picked rows.
    pub fn to_batch(&self) -> TickBatch {
        let batch = &self.batch;
        let mut picked = TickBatch::new(batch.spec, batch.fields.len());
        for row in self.rows() {
            let at = picked.len();
            picked.series.push(batch.series[row]);
            picked.timestamps.push(batch.timestamps[row]);
            picked.sequences.push(batch.sequence_at(row));
            for (to, from) in picked.fields.iter_mut().zip(&batch.fields) {
                to.bits.push(from.bits[row]);
                if from.is_absent(row) {
                    to.set_absent(at);
                }
            }
            let extras = batch.extras.iter().filter(|extra| extra.row as usize == row);
            picked.extras.extend(extras.map(|extra| ExtraField { row: at as u32, ..extra.clone() }));
        }
        picked
    }

    /// How many rows are picked.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::All => self.batch.len(),
            Rows::Picked(rows) => rows.len(),
        }
    }

    /// Whether no row is picked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The picked rows, ascending.
    pub fn rows(&self) -> impl Iterator<Item = usize> + '_ {
        let (all, picked): (_, &[u32]) = match &self.rows {
            Rows::All => (0..self.batch.len(), &[]),
            Rows::Picked(rows) => (0..0, rows),
        };
        all.chain(picked.iter().map(|row| *row as usize))
    }
}

impl Receipt {
    /// A receipt that calls `tell` once.
    pub fn new(tell: impl Fn(Fate) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Untold { tell: Box::new(tell), told: AtomicBool::new(false) }))
    }

    /// Says that the batch is durable.
    pub fn acknowledge(&self) {
        self.0.tell(Fate::Durable);
    }
}

impl Untold {
    fn tell(&self, fate: Fate) {
        if !self.told.swap(true, Relaxed) {
            (self.tell)(fate);
        }
    }
}

impl Drop for Untold {
    fn drop(&mut self) {
        self.tell(Fate::Lost);
    }
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipt")
    }
}
