//! The field names a client sends, and in which order it sent them last.
//!
//! Ticks of one client look alike: the k-th field of a tick almost always has the name the k-th field of the
//! tick before had. So the usual field costs one comparison of raw bytes, and only a surprise is looked up.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::admit::MAX_EXTRAS;
use super::varint::put_varint;
use super::wire::{BadWire, MAX_DEPTH, Prefix, Reader, bytes_key, varint_key};
use crate::model::series::MAX_NAME_BYTES;
use crate::spec::Spec;

const KEY: u64 = bytes_key(1);
const INT_VALUE: u64 = varint_key(2);
const STRING_VALUE: u64 = bytes_key(2);

/// How many undeclared names are remembered between ticks.
const MAX_NAMES: usize = 1024;
/// How many names an unexpected one is compared with before it is parsed and looked up.
const MAX_COMPARED: usize = 8;
/// How many fields of a tick are predicted.
const MAX_EXPECTED: usize = 256;

/// The field names of one spec on one stream: first the declared ones in the spec's order, then others seen.
#[derive(Debug)]
pub struct Layout {
    names: Vec<Name>,
    by_name: HashMap<Arc<str>, usize, RandomState>,
    declared: usize,
    /// Per position in a tick: the name last seen there.
    expected: Vec<usize>,
}

/// One field name.
#[derive(Debug)]
struct Name {
    text: Arc<str>,
    /// A map entry up to where the value begins: key field, length, name, value field.
    prefix: Prefix,
}

impl Layout {
    /// The declared fields of `spec`.
    pub fn new(spec: &Spec) -> Self {
        let declared = spec.fields.len();
        let mut layout = Self { names: Vec::new(), by_name: HashMap::default(), declared, expected: Vec::new() };
        for field in &spec.fields {
            layout.remember(&field.name);
        }
        layout
    }

    /// How many names are declared fields; those come first.
    #[inline]
    pub fn declared(&self) -> usize {
        self.declared
    }

    /// The name with this number.
    pub fn name(&self, index: usize) -> &Arc<str> {
        &self.names[index].text
    }

    /// Forgets undeclared names when there are too many. Only between ticks: numbers given out become void.
    #[inline]
    pub fn begin_tick(&mut self) {
        if self.names.len() > self.declared + MAX_NAMES {
            for name in self.names.drain(self.declared..) {
                self.by_name.remove(&name.text);
            }
            self.expected.clear();
        }
    }

    /// Reads one entry of a tick's `fields` map, the `position`-th of its tick: the number of its name and its
    /// value; no number for a name that is too long or one too many.
    ///
    /// # Errors
    /// The entry is malformed.
    #[inline]
    pub fn read(&mut self, position: usize, entry: Reader<'_>) -> Result<(Option<usize>, i64), BadWire> {
        if let Some(&index) = self.expected.get(position)
            && let Some(value) = self.names.get(index).and_then(|name| name.value(entry))
        {
            return Ok((Some(index), value));
        }
        self.read_unexpected(position, entry)
    }

    /// As [`Layout::read`], for a name that was not expected here or an entry in an unusual shape.
    #[inline(never)]
    fn read_unexpected(&mut self, position: usize, entry: Reader<'_>) -> Result<(Option<usize>, i64), BadWire> {
        // Some clients send the fields of each tick in another order: comparing with a few is still cheap.
        let usual = self.names.iter().take(MAX_COMPARED).enumerate();
        if let Some((index, value)) = usual.filter_map(|(index, name)| Some((index, name.value(entry)?))).next() {
            self.expect(position, index);
            return Ok((Some(index), value));
        }
        let (name, value) = int_entry(entry)?;
        if name.len() > MAX_NAME_BYTES {
            return Ok((None, value));
        }
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            // That many new names in one tick are more than it may carry.
            None if self.names.len() > self.declared + MAX_NAMES + MAX_EXTRAS => return Ok((None, value)),
            None => self.remember(name),
        };
        self.expect(position, index);
        Ok((Some(index), value))
    }

    /// Remembers which name stood at a position.
    fn expect(&mut self, position: usize, index: usize) {
        match self.expected.get_mut(position) {
            Some(expected) => *expected = index,
            None if position < MAX_EXPECTED => self.expected.resize(position + 1, index),
            None => {}
        }
    }

    /// Numbers a name that has none yet.
    fn remember(&mut self, name: &str) -> usize {
        let mut prefix = vec![0x0a];
        put_varint(&mut prefix, name.len() as u64);
        prefix.extend_from_slice(name.as_bytes());
        prefix.push(0x10);
        let text: Arc<str> = name.into();
        self.by_name.insert(text.clone(), self.names.len());
        self.names.push(Name { text, prefix: Prefix::new(&prefix) });
        self.names.len() - 1
    }
}

impl Name {
    /// The value of an entry of this name in the usual shape.
    #[inline]
    fn value(&self, mut entry: Reader<'_>) -> Option<i64> {
        if !entry.eat_prefix(&self.prefix) {
            return None;
        }
        let value = entry.varint().ok()?;
        entry.is_empty().then_some(value as i64)
    }
}

/// One entry of a `map<string, int64>`: what is missing is empty or 0, of what is repeated the last counts.
///
/// # Errors
/// The entry is malformed.
pub fn int_entry(mut reader: Reader<'_>) -> Result<(&str, i64), BadWire> {
    let (mut name, mut value) = ("", 0);
    while !reader.is_empty() {
        match reader.varint()? {
            KEY => name = reader.string()?,
            INT_VALUE => value = reader.varint()? as i64,
            other => reader = reader.after_unknown(other, 2, MAX_DEPTH - 2)?,
        }
    }
    Ok((name, value))
}

/// One entry of a `map<string, string>`: what is missing is empty, of what is repeated the last counts.
///
/// # Errors
/// The entry is malformed.
pub fn string_entry(mut reader: Reader<'_>) -> Result<(&str, &str), BadWire> {
    let (mut name, mut value) = ("", "");
    while !reader.is_empty() {
        match reader.varint()? {
            KEY => name = reader.string()?,
            STRING_VALUE => value = reader.string()?,
            other => reader = reader.after_unknown(other, 2, MAX_DEPTH - 2)?,
        }
    }
    Ok((name, value))
}
