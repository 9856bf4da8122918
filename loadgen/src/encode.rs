//! Ticks as `tikr.v1` messages, written straight into a buffer: no structure, string or allocation per tick.

use std::sync::Arc;

use crate::{
    generate::{Fate, Stream, Tick},
    plan::Plan,
    profile::MAX_FIELDS,
    wire::{DimensionTable, Encode, Frame, Pool, Position, STEP, Varint, put_bytes},
};

/// The spec that ticks of [`Fate::UnknownSeries`] name.
pub const UNKNOWN_SPEC: &str = "loadgen_unknown_spec";

/// Bytes the beginning of a field entry is padded to, so that it is copied in one step of fixed size.
const PREFIX: usize = 16;

/// Writes `tikr.v1.IngestRequest`.
#[derive(Debug)]
pub struct TikrEncoder {
    layout: Layout,
    pool: Pool,
    /// Longest encoding of one message.
    most_bytes: usize,
    known: Message,
    unknown: Message,
}

/// What all ticks have in common.
#[derive(Debug)]
struct Layout {
    dimensions: DimensionTable,
    fields: Vec<FieldPrefix>,
    /// No tick is longer, the padding after its last byte included.
    most_bytes: usize,
}

/// The bytes before a field's value inside its map entry: name, and the tag of the value.
#[derive(Debug)]
struct FieldPrefix {
    padded: Vec<u8>,
    len: usize,
}

/// One message under construction: of one spec, as the wire has it.
#[derive(Debug)]
struct Message {
    head: Vec<u8>,
    buffer: Vec<u8>,
    len: usize,
    ticks: u64,
}

impl TikrEncoder {
    /// An encoder for the series of `plan`, with buffers from `pool`.
    pub fn new(plan: &Arc<Plan>, pool: Pool) -> Self {
        let layout = Layout::new(plan);
        let known = Message::new(&plan.profile.spec);
        let unknown = Message::new(UNKNOWN_SPEC);
        let head = known.head.len().max(unknown.head.len());
        let most_bytes = head + plan.message_ticks() as usize * layout.most_bytes;
        Self { layout, pool, most_bytes, known, unknown }
    }
}

impl Encode for TikrEncoder {
    fn encode(&mut self, stream: &mut Stream, count: u64, frames: &mut Vec<Frame>) {
        let mut values = [Varint::default(); MAX_FIELDS];
        for _ in 0..count {
            let tick = stream.next();
            let message = if tick.fate == Fate::UnknownSeries { &mut self.unknown } else { &mut self.known };
            if message.ticks == 0 {
                message.begin(self.pool.take(self.most_bytes));
            }
            self.layout.write(tick, &mut values, message);
        }
        frames.extend([&mut self.known, &mut self.unknown].into_iter().filter_map(Message::finish));
    }

    fn next_batch(&self) -> u64 {
        0
    }
}

impl Message {
    fn new(spec: &str) -> Self {
        let mut head = Vec::new();
        put_bytes(&mut head, 0x0a, spec.as_bytes());
        Self { head, buffer: Vec::new(), len: 0, ticks: 0 }
    }

    fn begin(&mut self, buffer: Vec<u8>) {
        self.buffer = buffer;
        self.len = self.head.len();
        self.buffer[..self.len].copy_from_slice(&self.head);
    }

    fn finish(&mut self) -> Option<Frame> {
        let ticks = std::mem::take(&mut self.ticks);
        let buffer = std::mem::take(&mut self.buffer);
        (ticks > 0).then_some(Frame { buffer, len: self.len, ticks, batch: 0, due: 0, start: Position::default() })
    }
}

impl Layout {
    fn new(plan: &Plan) -> Self {
        let dimensions = DimensionTable::new(&plan.dimensions, plan.profile.series.0, 0x12);
        let fields: Vec<FieldPrefix> = plan.profile.fields.iter().map(|field| FieldPrefix::new(&field.name)).collect();
        let of_fields: usize = fields.iter().map(|field| field.padded.len() + 12).sum();
        // Tag and length, timestamp, sequence, and the bytes a last varint may scribble over.
        let most_bytes = 6 + 11 + dimensions.longest() + of_fields + 7 + STEP;
        Self { dimensions, fields, most_bytes }
    }

    /// Appends one `TickData`. Lengths come first on the wire, so they are added up before anything is written;
    /// `values` is room for what is computed on the way.
    #[inline]
    fn write(&self, tick: &Tick, values: &mut [Varint; MAX_FIELDS], message: &mut Message) {
        let (dimensions, dimensions_len) = self.dimensions.get(tick.series);
        let timestamp = Varint::new(tick.timestamp as u64);
        let sequence = Varint::new(u64::from(tick.sequence));
        let mut body = 1 + timestamp.len + dimensions_len;
        for (f, field) in self.fields.iter().enumerate().filter(|(f, _)| tick.present >> f & 1 == 1) {
            values[f] = Varint::new(tick.values[f] as u64);
            body += 2 + field.len + values[f].len;
        }
        if tick.sequence > 0 {
            body += 1 + sequence.len;
        }

        let out = &mut message.buffer[message.len..][..self.most_bytes];
        out[0] = 0x12;
        let mut at = Varint::new(body as u64).put(out, 1);
        message.len += at + body;
        out[at] = 0x08;
        at = timestamp.put(out, at + 1);
        copy::<STEP>(out, at, dimensions);
        at += dimensions_len;
        for (f, field) in self.fields.iter().enumerate().filter(|(f, _)| tick.present >> f & 1 == 1) {
            out[at] = 0x1a;
            out[at + 1] = (field.len + values[f].len) as u8;
            copy::<PREFIX>(out, at + 2, &field.padded);
            at = values[f].put(out, at + 2 + field.len);
        }
        if tick.sequence > 0 {
            out[at] = 0x20;
            sequence.put(out, at + 1);
        }
        message.ticks += 1;
    }
}

impl FieldPrefix {
    fn new(name: &str) -> Self {
        let mut padded = Vec::new();
        put_bytes(&mut padded, 0x0a, name.as_bytes());
        padded.push(0x10);
        let len = padded.len();
        padded.resize(len.next_multiple_of(PREFIX), 0);
        Self { padded, len }
    }
}

/// Copies `from`, a multiple of `N` bytes, in steps of `N`: the compiler makes each a plain load and store.
#[inline]
fn copy<const N: usize>(out: &mut [u8], at: usize, from: &[u8]) {
    for (to, from) in out[at..].chunks_exact_mut(N).zip(from.chunks_exact(N)) {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Limit, profile::Profile, units::SECOND};
    use barline_proto::tikr::{IngestRequest, TickData};
    use prost::Message as _;

    fn plan(profile: &str, overrides: &[&str]) -> Arc<Plan> {
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        let profile = Profile::load(profile, &overrides).unwrap();
        Arc::new(Plan::new(profile, Limit::Ticks(1_000), 1_700_000_000 * SECOND).unwrap())
    }

    fn naive(plan: &Plan, tick: &Tick) -> TickData {
        let fields = plan.profile.fields.iter().enumerate().filter(|(f, _)| tick.present >> f & 1 == 1);
        TickData {
            timestamp_ns: tick.timestamp as u64,
            dimensions: plan
                .dimensions
                .names()
                .map(str::to_owned)
                .zip(plan.dimensions.values(tick.series.into()))
                .collect(),
            fields: fields.map(|(f, field)| (field.name.clone(), tick.values[f])).collect(),
            sequence: tick.sequence,
        }
    }

    #[test]
    fn messages_decode_to_the_ticks_of_the_stream_in_prost_s_size() {
        for profile in ["market", "network", "asic", "host"] {
            let plan = plan(profile, &["bad={fraction: 0.2}", "rate=max", "series=40"]);
            let (mut stream, mut again) = (Stream::new(&plan, 0), Stream::new(&plan, 0));
            let mut frames = Vec::new();
            let mut encoder = TikrEncoder::new(&plan, Pool::default());
            encoder.encode(&mut stream, 500, &mut frames);
            encoder.encode(&mut stream, 500, &mut frames);
            let requests: Vec<IngestRequest> =
                frames.iter().map(|f| IngestRequest::decode(f.bytes()).unwrap()).collect();
            // prost leaves a zero value out of its map entry, as no other client does: sizes agree without zeros.
            if profile == "market" {
                let sizes: Vec<usize> = requests.iter().map(IngestRequest::encoded_len).collect();
                assert_eq!(sizes, frames.iter().map(|f| f.len).collect::<Vec<_>>());
            }
            let sent = |spec: &str| -> Vec<TickData> {
                requests.iter().filter(|r| r.series == spec).flat_map(|r| r.ticks.clone()).collect()
            };
            let expected: Vec<Tick> = (0..1_000).map(|_| again.next().clone()).collect();
            let of = |unknown: bool| -> Vec<TickData> {
                expected
                    .iter()
                    .filter(|t| (t.fate == Fate::UnknownSeries) == unknown)
                    .map(|t| naive(&plan, t))
                    .collect()
            };
            assert_eq!(sent(&plan.profile.spec), of(false), "{profile}");
            assert_eq!(sent(UNKNOWN_SPEC), of(true), "{profile}");
        }
    }
}
