//! Protobuf by hand: what an encoder needs to write a tick in a few nanoseconds, and what it hands on.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{dimensions::Dimensions, generate::Stream, units::Nanos};

/// Writes the ticks of one connection as messages of one protocol.
pub trait Encode: Send {
    /// Takes the next `count` ticks of `stream` and appends their messages to `frames`.
    fn encode(&mut self, stream: &mut Stream, count: u64, frames: &mut Vec<Frame>);

    /// The id its next batch will have, 0 where batches have none.
    fn next_batch(&self) -> u64;
}

/// One encoded message.
#[derive(Debug)]
pub struct Frame {
    /// A buffer that begins with the message.
    pub buffer: Vec<u8>,
    /// How long the message is.
    pub len: usize,
    /// Ticks in it.
    pub ticks: u64,
    /// The id it carries, on `barline.v1`.
    pub batch: u64,
    /// When it is due, since the run's beginning.
    pub due: Nanos,
    /// Where the ticks it was made of begin.
    pub start: Position,
}

/// A place between two messages of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Ticks before it.
    pub ticks: u64,
    /// The id of the batch after it, on `barline.v1`.
    pub batch: u64,
}

impl Default for Position {
    fn default() -> Self {
        Self { ticks: 0, batch: FIRST_BATCH }
    }
}

/// The id of a connection's first batch.
pub const FIRST_BATCH: u64 = 1;

/// Buffers between their uses, so that a run allocates only at its beginning.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

/// More idle buffers than this are given back to the system.
const MOST_IDLE: usize = 16;

impl Frame {
    /// The message.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Frees what the buffer has beyond the message.
    pub fn shrink(&mut self) {
        self.buffer.truncate(self.len);
        self.buffer.shrink_to_fit();
    }
}

impl Pool {
    /// A buffer of at least `len` bytes, of any content.
    pub fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&self, buffer: Vec<u8>) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(buffer);
        }
    }
}

/// The encoded dimension entries of every series of a connection, back to back, each padded to a multiple of
/// [`STEP`] so that they are copied in steps of fixed size.
#[derive(Debug)]
pub struct DimensionTable {
    bytes: Vec<u8>,
    /// Per series: where its entries begin and how long they are.
    places: Vec<(u32, u32)>,
}

/// Bytes copied at a time.
pub const STEP: usize = 32;

impl DimensionTable {
    /// Encodes the dimensions of `series` series as entries of a `map<string, string>` with the tag byte `tag`.
    pub fn new(dimensions: &Dimensions, series: u64, tag: u8) -> Self {
        let mut table = Self { bytes: Vec::new(), places: Vec::new() };
        for number in 0..series {
            let start = table.bytes.len();
            for (name, value) in dimensions.names().zip(dimensions.values(number)) {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 0x0a, name.as_bytes());
                put_bytes(&mut entry, 0x12, value.as_bytes());
                put_bytes(&mut table.bytes, tag, &entry);
            }
            table.places.push((start as u32, (table.bytes.len() - start) as u32));
            table.bytes.resize(table.bytes.len().next_multiple_of(STEP), 0);
        }
        table
    }

    /// The entries of `series`, padded, and their true length.
    #[inline]
    pub fn get(&self, series: u32) -> (&[u8], usize) {
        let (start, len) = self.places[series as usize];
        let len = len as usize;
        (&self.bytes[start as usize..][..len.next_multiple_of(STEP)], len)
    }

    /// The longest entries, padded.
    pub fn longest(&self) -> usize {
        self.places.iter().map(|(_, len)| (*len as usize).next_multiple_of(STEP)).max().unwrap_or(0)
    }
}

/// How many bytes `value` takes as a varint.
#[inline(always)]
pub fn varint_len(value: u64) -> usize {
    ((70 - (value | 1).leading_zeros()) / 7) as usize
}

/// A number ready to be written as a varint: computed once, its length is added up and its bytes are stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Varint {
    /// The first eight bytes.
    low: u64,
    /// The two that may follow.
    high: u16,
    /// How many bytes count.
    pub len: usize,
}

impl Varint {
    /// `value` as a varint, without a loop. Small and large numbers are told apart, for a field's values are
    /// mostly one or the other and a small one takes half the work.
    #[inline(always)]
    pub fn new(value: u64) -> Self {
        let len = varint_len(value);
        if value < 1 << 28 {
            let more = 0x0080_8080 & ((1u32 << (8 * (len - 1))) - 1);
            return Self { low: u64::from(spread_28(value as u32) | more), high: 0, len };
        }
        const MORE: u64 = 0x8080_8080_8080_8080;
        let more = if len > 8 { MORE } else { MORE & ((1 << (8 * (len - 1))) - 1) };
        let spread = u64::from(spread_28(value as u32)) | u64::from(spread_28((value >> 28) as u32)) << 32;
        let top = (value >> 56) as u16;
        // The 57th to 63rd bit, the sign that another byte follows, and the 64th bit in that byte.
        let high = (top & 0x7f) | (top & 0x80) | ((top & 0x80) << 1);
        Self { low: spread | more, high, len }
    }

    /// Writes it at `out[at..]` and returns the position after it. Ten bytes are overwritten, whatever the length.
    #[inline(always)]
    pub fn put(self, out: &mut [u8], at: usize) -> usize {
        let room = &mut out[at..at + 10];
        room[..8].copy_from_slice(&self.low.to_le_bytes());
        room[8..].copy_from_slice(&self.high.to_le_bytes());
        at + self.len
    }
}

/// Moves the four 7-bit groups of the lower 28 bits into one byte each.
#[inline(always)]
fn spread_28(value: u32) -> u32 {
    let value = (value & 0x0000_3fff) | ((value & 0x0fff_c000) << 2);
    (value & 0x007f_007f) | ((value & 0x3f80_3f80) << 1)
}

/// Appends a varint.
pub fn push_varint(out: &mut Vec<u8>, value: u64) {
    let mut bytes = [0; 10];
    let len = Varint::new(value).put(&mut bytes, 0);
    out.extend_from_slice(&bytes[..len]);
}

/// Appends a length-delimited field behind its one-byte tag.
pub fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_prost_s() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
        for value in edges {
            let mut expected = Vec::new();
            prost::encoding::encode_varint(value, &mut expected);
            let mut ours = Vec::new();
            push_varint(&mut ours, value);
            assert_eq!(ours, expected, "{value}");
            assert_eq!(varint_len(value), expected.len(), "{value}");
        }
    }

    #[test]
    fn a_buffer_comes_back_from_the_pool() {
        let pool = Pool::default();
        let buffer = pool.take(100);
        let address = buffer.as_ptr();
        pool.give(buffer);
        let again = pool.take(50);
        assert_eq!(again.as_ptr(), address);
    }
}
