//! One tick as it is read: nothing of it is in a column before all of it is known to be well-formed.

use super::admit::MAX_EXTRAS;
use super::layout::{Layout, int_entry, string_entry};
use super::wire::{BadWire, MAX_DEPTH, Reader, bytes_key, varint_key};

const TIMESTAMP: u64 = varint_key(1);
const DIMENSIONS: u64 = bytes_key(2);
const FIELDS: u64 = bytes_key(3);
const SEQUENCE: u64 = varint_key(4);
/// The highest field number of a tick.
const LAST: u32 = 4;

/// The parts of one `tikr.v1.TickData`; its buffers are used again for the next.
#[derive(Debug, Default)]
pub struct Draft {
    /// The timestamp as sent.
    pub timestamp: u64,
    /// The sequence number.
    pub sequence: u32,
    /// Per declared field: its value.
    pub values: Vec<Option<i64>>,
    /// Undeclared fields: number in the [`Layout`], value. Each name once.
    pub extras: Vec<(usize, i64)>,
    /// It has more undeclared fields than it may, or one whose name is too long.
    pub too_many: bool,
    /// Where its dimensions stand in the tick, while they stand together.
    dimensions: std::ops::Range<usize>,
    /// The entries of its dimensions one after the other, when something stands between them.
    scattered: Vec<u8>,
}

impl Draft {
    /// Reads the tick `body`.
    ///
    /// # Errors
    /// The tick is malformed; its dimensions are not looked into here, see [`check_dimensions`].
    #[inline]
    pub fn read(&mut self, body: &[u8], layout: &mut Layout) -> Result<(), BadWire> {
        layout.begin_tick();
        self.clear(layout.declared());
        let mut fields = 0;
        let mut reader = Reader::new(body);
        while !reader.is_empty() {
            let start = body.len() - reader.rest().len();
            match reader.varint()? {
                TIMESTAMP => self.timestamp = reader.varint()?,
                DIMENSIONS => {
                    reader.nested()?;
                    self.add_dimension(body, start..body.len() - reader.rest().len());
                }
                FIELDS => {
                    let (name, value) = layout.read(fields, reader.nested()?)?;
                    self.set(name, value);
                    fields += 1;
                }
                SEQUENCE => self.sequence = reader.varint()? as u32,
                other => reader = reader.after_unknown(other, LAST, MAX_DEPTH - 1)?,
            }
        }
        Ok(())
    }

    /// The entries of the dimensions of `body`, the tick just read, as sent, with their keys and lengths.
    #[inline]
    pub fn dimensions<'a>(&'a self, body: &'a [u8]) -> &'a [u8] {
        if self.scattered.is_empty() { &body[self.dimensions.clone()] } else { &self.scattered }
    }

    #[inline]
    fn clear(&mut self, declared: usize) {
        self.timestamp = 0;
        self.sequence = 0;
        if self.values.len() != declared {
            self.values.resize(declared, None);
        }
        self.values.fill(None);
        self.extras.clear();
        self.too_many = false;
        self.dimensions = 0..0;
        self.scattered.clear();
    }

    #[inline]
    fn add_dimension(&mut self, body: &[u8], entry: std::ops::Range<usize>) {
        if self.dimensions.is_empty() {
            self.dimensions = entry;
        } else if self.scattered.is_empty() && self.dimensions.end == entry.start {
            self.dimensions.end = entry.end;
        } else {
            if self.scattered.is_empty() {
                self.scattered.extend_from_slice(&body[self.dimensions.clone()]);
            }
            self.scattered.extend_from_slice(&body[entry]);
        }
    }

    #[inline]
    fn set(&mut self, name: Option<usize>, value: i64) {
        match name {
            Some(index) if index < self.values.len() => self.values[index] = Some(value),
            Some(index) => self.set_extra(index, value),
            None => self.too_many = true,
        }
    }

    fn set_extra(&mut self, index: usize, value: i64) {
        let full = self.extras.len() == MAX_EXTRAS;
        match self.extras.iter_mut().find(|(seen, _)| *seen == index) {
            Some(seen) => seen.1 = value,
            None if full => self.too_many = true,
            None => self.extras.push((index, value)),
        }
    }
}

/// Checks entries of dimensions as [`Draft::dimensions`] gives them.
///
/// # Errors
/// One is malformed.
pub fn check_dimensions(raw: &[u8]) -> Result<(), BadWire> {
    let mut reader = Reader::new(raw);
    while !reader.is_empty() {
        reader.varint()?;
        string_entry(reader.nested()?)?;
    }
    Ok(())
}

/// The dimensions in entries that [`check_dimensions`] has passed.
pub fn dimensions(raw: &[u8]) -> impl Iterator<Item = (&str, &str)> {
    let mut reader = Reader::new(raw);
    std::iter::from_fn(move || {
        reader.varint().ok()?;
        string_entry(reader.nested().ok()?).ok()
    })
}

/// Checks a tick that is not taken anyway.
///
/// # Errors
/// It is malformed.
pub fn check_tick(body: &[u8]) -> Result<(), BadWire> {
    let mut reader = Reader::new(body);
    while !reader.is_empty() {
        match reader.varint()? {
            TIMESTAMP | SEQUENCE => drop(reader.varint()?),
            DIMENSIONS => drop(string_entry(reader.nested()?)?),
            FIELDS => drop(int_entry(reader.nested()?)?),
            other => reader = reader.after_unknown(other, LAST, MAX_DEPTH - 1)?,
        }
    }
    Ok(())
}
