//! Ticks as `barline.v1` batches: columns of fixed-width numbers behind a dictionary of series.

use std::sync::Arc;

use crate::{
    encode::UNKNOWN_SPEC,
    feed::Start,
    generate::{Fate, Stream, Tick},
    plan::Plan,
    profile::FieldType,
    wire::{DimensionTable, Encode, Frame, Pool, Position, push_varint, put_bytes},
};

/// Writes `barline.v1.IngestBatch`.
#[derive(Debug)]
pub struct ColumnarEncoder {
    plan: Arc<Plan>,
    dimensions: DimensionTable,
    pool: Pool,
    producer: String,
    next_batch: u64,
    /// Batches up to this one need no sending any more.
    acknowledged: u64,
    known: Batch,
    unknown: Batch,
}

/// One batch under construction, and the stream's dictionary of its spec.
#[derive(Debug)]
struct Batch {
    spec: String,
    /// Per series: its place in the dictionary plus 1, or 0.
    dictionary: Vec<u32>,
    named: u32,
    new_series: Vec<u8>,
    timestamps: Vec<u64>,
    indices: Vec<u32>,
    sequences: Vec<u32>,
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Default)]
struct Column {
    bits: Vec<u64>,
    absent: Vec<u32>,
}

impl ColumnarEncoder {
    /// An encoder for the series of `plan`, with buffers from `pool`, of the batches of `producer` from `start` on.
    pub fn new(plan: &Arc<Plan>, pool: Pool, producer: &str, start: Start) -> Self {
        let series = plan.profile.series.0;
        Self {
            plan: plan.clone(),
            dimensions: DimensionTable::new(&plan.dimensions, series, 0x0a),
            pool,
            producer: producer.to_owned(),
            next_batch: start.at.batch,
            acknowledged: start.acknowledged,
            known: Batch::new(&plan.profile.spec, plan),
            unknown: Batch::new(UNKNOWN_SPEC, plan),
        }
    }
}

impl Encode for ColumnarEncoder {
    fn encode(&mut self, stream: &mut Stream, count: u64, frames: &mut Vec<Frame>) {
        for _ in 0..count {
            let tick = stream.next();
            let batch = if tick.fate == Fate::UnknownSeries { &mut self.unknown } else { &mut self.known };
            batch.push(tick, &self.plan, &self.dimensions);
        }
        for batch in [&mut self.known, &mut self.unknown] {
            if batch.timestamps.is_empty() {
                continue;
            }
            let frame = batch.finish(self.next_batch, &self.producer, &self.plan, self.pool.take(0));
            if self.next_batch > self.acknowledged {
                frames.push(frame);
            } else {
                // The series it named are not in this stream's dictionary.
                batch.dictionary.fill(0);
                batch.named = 0;
            }
            self.next_batch += 1;
        }
    }

    fn next_batch(&self) -> u64 {
        self.next_batch
    }
}

impl Batch {
    fn new(spec: &str, plan: &Plan) -> Self {
        Self {
            spec: spec.to_owned(),
            dictionary: vec![0; plan.profile.series.0 as usize],
            named: 0,
            new_series: Vec::new(),
            timestamps: Vec::new(),
            indices: Vec::new(),
            sequences: Vec::new(),
            columns: vec![Column::default(); plan.profile.fields.len()],
        }
    }

    #[inline]
    fn push(&mut self, tick: &Tick, plan: &Plan, dimensions: &DimensionTable) {
        let place = &mut self.dictionary[tick.series as usize];
        if *place == 0 {
            self.named += 1;
            *place = self.named;
            let (entries, len) = dimensions.get(tick.series);
            put_bytes(&mut self.new_series, 0x1a, &entries[..len]);
        }
        let row = self.timestamps.len() as u32;
        self.timestamps.push(tick.timestamp as u64);
        self.indices.push(*place - 1);
        self.sequences.push(tick.sequence);
        for (f, column) in self.columns.iter_mut().enumerate() {
            if tick.present >> f & 1 == 1 {
                column.bits.push(bits(plan, f, tick.values[f]));
            } else {
                column.bits.push(0);
                column.absent.push(row);
            }
        }
    }

    /// Writes the batch into `buffer` and empties it.
    fn finish(&mut self, batch: u64, producer: &str, plan: &Plan, mut buffer: Vec<u8>) -> Frame {
        buffer.clear();
        buffer.push(0x08);
        push_varint(&mut buffer, batch);
        put_bytes(&mut buffer, 0x12, self.spec.as_bytes());
        put_bytes(&mut buffer, 0x42, producer.as_bytes());
        buffer.append(&mut self.new_series);
        put_packed(&mut buffer, 0x22, &self.timestamps, u64::to_le_bytes);
        put_packed(&mut buffer, 0x2a, &self.indices, u32::to_le_bytes);
        put_packed(&mut buffer, 0x32, &self.sequences, u32::to_le_bytes);
        for (column, field) in self.columns.iter_mut().zip(&plan.profile.fields) {
            column.put(&mut buffer, &field.name, field.ty);
            column.bits.clear();
            column.absent.clear();
        }
        let ticks = self.timestamps.len() as u64;
        self.timestamps.clear();
        self.indices.clear();
        self.sequences.clear();
        Frame { len: buffer.len(), buffer, ticks, batch, due: 0, start: Position::default() }
    }
}

impl Column {
    /// Appends the column as a `FieldColumn`; a field no row carries is left out.
    fn put(&self, out: &mut Vec<u8>, name: &str, ty: FieldType) {
        if self.absent.len() == self.bits.len() {
            return;
        }
        let tag = match ty {
            FieldType::Int64 => 0x12,
            FieldType::Uint64 => 0x1a,
            FieldType::Float64 => 0x22,
        };
        let mut absent = Vec::new();
        self.absent.iter().for_each(|row| push_varint(&mut absent, u64::from(*row)));
        let mut head = Vec::new();
        put_bytes(&mut head, 0x0a, name.as_bytes());
        if !absent.is_empty() {
            put_bytes(&mut head, 0x2a, &absent);
        }
        head.push(tag);
        push_varint(&mut head, self.bits.len() as u64 * 8);
        out.push(0x3a);
        push_varint(out, (head.len() + self.bits.len() * 8) as u64);
        out.extend_from_slice(&head);
        put_fixed(out, &self.bits, u64::to_le_bytes);
    }
}

/// A value as the 64 bits of its field's type.
#[inline]
fn bits(plan: &Plan, field: usize, value: i64) -> u64 {
    let declared = &plan.profile.fields[field];
    match declared.ty {
        FieldType::Float64 => (value as f64 / declared.divisor).to_bits(),
        FieldType::Int64 | FieldType::Uint64 => value as u64,
    }
}

/// Appends a packed field of fixed-width numbers.
fn put_packed<T: Copy, const N: usize>(out: &mut Vec<u8>, tag: u8, values: &[T], bytes: fn(T) -> [u8; N]) {
    out.push(tag);
    push_varint(out, (values.len() * N) as u64);
    put_fixed(out, values, bytes);
}

/// Appends fixed-width numbers, in a loop the compiler turns into copies of whole vectors.
fn put_fixed<T: Copy, const N: usize>(out: &mut Vec<u8>, values: &[T], bytes: fn(T) -> [u8; N]) {
    let at = out.len();
    out.resize(at + values.len() * N, 0);
    for (to, value) in out[at..].chunks_exact_mut(N).zip(values) {
        to.copy_from_slice(&bytes(*value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Limit, profile::Profile, units::SECOND};
    use barline_proto::barline::{FieldColumn, IngestBatch};
    use prost::Message as _;
    use std::collections::HashMap;

    fn plan(profile: &str) -> Arc<Plan> {
        let overrides = ["bad={fraction: 0.2}", "rate=max", "series=40", "protocol=barline.v1"];
        let profile = Profile::load(profile, &overrides.map(str::to_owned)).unwrap();
        Arc::new(Plan::new(profile, Limit::Ticks(1_000), 1_700_000_000 * SECOND).unwrap())
    }

    /// The bits of row `row` of field `field`; `None` where it is absent.
    fn value(columns: &[FieldColumn], plan: &Plan, field: usize, row: usize) -> Option<u64> {
        let declared = &plan.profile.fields[field];
        let column = columns.iter().find(|c| c.name == declared.name)?;
        if column.absent_rows.contains(&(row as u32)) {
            return None;
        }
        Some(match declared.ty {
            FieldType::Int64 => column.ints[row] as u64,
            FieldType::Uint64 => column.uints[row],
            FieldType::Float64 => column.floats[row].to_bits(),
        })
    }

    #[test]
    fn batches_decode_to_the_ticks_of_the_stream() {
        for profile in ["market", "network", "asic", "host"] {
            let plan = plan(profile);
            let (mut stream, mut again) = (Stream::new(&plan, 0), Stream::new(&plan, 0));
            let mut encoder = ColumnarEncoder::new(&plan, Pool::default(), "me-0", Start::default());
            let mut dictionaries: HashMap<String, Vec<HashMap<String, String>>> = HashMap::new();
            for round in 0..3 {
                let mut frames = Vec::new();
                encoder.encode(&mut stream, 300, &mut frames);
                let expected: Vec<Tick> = (0..300).map(|_| again.next().clone()).collect();
                for (unknown, frame) in [false, true].into_iter().zip(&frames) {
                    let batch = IngestBatch::decode(frame.bytes()).unwrap();
                    assert_eq!((batch.batch_id, batch.producer_id.as_str()), (frame.batch, "me-0"), "round {round}");
                    let dictionary = dictionaries.entry(batch.spec.clone()).or_default();
                    dictionary.extend(batch.new_series.iter().map(|s| s.dimensions.clone()));
                    let expected: Vec<&Tick> =
                        expected.iter().filter(|t| (t.fate == Fate::UnknownSeries) == unknown).collect();
                    assert_eq!(batch.timestamps.len(), expected.len());
                    for (row, tick) in expected.into_iter().enumerate() {
                        let names = plan.dimensions.names().map(str::to_owned);
                        let dimensions = names.zip(plan.dimensions.values(tick.series.into())).collect();
                        assert_eq!(dictionary[batch.series_index[row] as usize], dimensions);
                        assert_eq!((batch.timestamps[row], batch.sequences[row]), (tick.timestamp, tick.sequence));
                        for f in 0..plan.profile.fields.len() {
                            let sent = (tick.present >> f & 1 == 1).then(|| bits(&plan, f, tick.values[f]));
                            assert_eq!(value(&batch.fields, &plan, f, row), sent, "{profile} row {row} field {f}");
                        }
                    }
                }
            }
        }
    }
}
