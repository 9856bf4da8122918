//! Protobuf primitives over a byte slice: what prost's generated code does, without building messages.
//!
//! prost bounds nested fields by the whole message and checks the inner length afterwards; reading from a
//! slice that is cut first accepts and refuses exactly the same bytes.

use super::varint::long_varint;

/// How deep prost lets messages and groups nest.
pub const MAX_DEPTH: u32 = 100;

/// What is wrong with bytes that are no protobuf. One byte, since it is part of every result of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadWire {
    /// A varint that does not end in time.
    #[error("a varint is truncated or exceeds 64 bits")]
    Varint,
    /// Field number 0, one that is too large, or a wire type there is not.
    #[error("a field's key is out of range")]
    Key,
    /// A known field that is encoded as something else.
    #[error("a known field has the wrong wire type")]
    WireType,
    /// A value longer than what is left.
    #[error("a length exceeds what follows")]
    Length,
    /// A string in no valid encoding.
    #[error("a string is not UTF-8")]
    Utf8,
    /// An end without a beginning, or another group's end.
    #[error("a group ends that never began")]
    Group,
    /// Groups in groups beyond [`MAX_DEPTH`].
    #[error("groups nest too deep")]
    Depth,
}

/// How a field's value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WireType {
    Varint,
    Fixed64,
    Bytes,
    StartGroup,
    EndGroup,
    Fixed32,
}

/// The key of field `tag` when it is a varint.
pub const fn varint_key(tag: u64) -> u64 {
    tag << 3
}

/// The key of field `tag` when it is length-delimited.
pub const fn bytes_key(tag: u64) -> u64 {
    tag << 3 | 2
}

/// Reads from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes` from their beginning.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes `prefix` if what has not been read begins with it.
    #[inline]
    pub fn eat_prefix(&mut self, prefix: &Prefix) -> bool {
        let same = prefix.begins(self.rest);
        if same {
            self.rest = &self.rest[prefix.bytes.len()..];
        }
        same
    }

    /// A varint of at most ten bytes and 64 bits.
    ///
    /// # Errors
    /// Truncated, longer, or wider.
    #[inline(always)]
    pub fn varint(&mut self) -> Result<u64, BadWire> {
        match self.rest {
            [byte, rest @ ..] if *byte < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => {
                // The call takes and gives plain values: a reader whose address were taken could not live in
                // registers, and each step would wait for the memory of the one before.
                let (value, len) = long_varint(self.rest);
                self.rest = self.rest.get(len..).filter(|_| len > 0).ok_or(BadWire::Varint)?;
                Ok(value)
            }
        }
    }

    /// A field's number and wire type.
    ///
    /// # Errors
    /// No valid key.
    fn key(&mut self) -> Result<(u32, WireType), BadWire> {
        split_key(self.varint()?)
    }

    /// What follows a field whose key is none of those its message knows; fields numbered 1 to `known` are
    /// known, so theirs must have the wrong wire type. `depth` is how deep groups may nest here.
    ///
    /// # Errors
    /// Malformed, truncated, nested too deep, or a known field.
    #[cold]
    pub fn after_unknown(mut self, key: u64, known: u32, depth: u32) -> Result<Self, BadWire> {
        let (tag, wire_type) = split_key(key)?;
        if tag <= known {
            return Err(BadWire::WireType);
        }
        self.skip(tag, wire_type, depth)?;
        Ok(self)
    }

    /// Length-delimited bytes, to be read on their own.
    ///
    /// # Errors
    /// The length is malformed, or more than there is.
    #[inline]
    pub fn nested(&mut self) -> Result<Self, BadWire> {
        let len = self.varint()?;
        self.take(len).map(Self::new)
    }

    /// A length-delimited string.
    ///
    /// # Errors
    /// As [`Reader::nested`], or no UTF-8.
    #[inline]
    pub fn string(&mut self) -> Result<&'a str, BadWire> {
        std::str::from_utf8(self.nested()?.rest).map_err(|_| BadWire::Utf8)
    }

    /// The next `len` bytes.
    #[inline]
    fn take(&mut self, len: u64) -> Result<&'a [u8], BadWire> {
        if len > self.rest.len() as u64 {
            return Err(BadWire::Length);
        }
        let (taken, rest) = self.rest.split_at(len as usize);
        self.rest = rest;
        Ok(taken)
    }

    /// Skips the value of an unknown field; `depth` is how deep groups may still nest, as prost counts it.
    fn skip(&mut self, tag: u32, wire_type: WireType, depth: u32) -> Result<(), BadWire> {
        let inner = depth.checked_sub(1).ok_or(BadWire::Depth)?;
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.take(8).map(drop),
            WireType::Fixed32 => self.take(4).map(drop),
            WireType::Bytes => self.nested().map(drop),
            WireType::EndGroup => Err(BadWire::Group),
            WireType::StartGroup => loop {
                match self.key()? {
                    (end, WireType::EndGroup) if end == tag => return Ok(()),
                    (other, wire_type) => self.skip(other, wire_type, inner)?,
                }
            },
        }
    }
}

/// Takes a key apart.
fn split_key(key: u64) -> Result<(u32, WireType), BadWire> {
    let key = u32::try_from(key).map_err(|_| BadWire::Key)?;
    let wire_type = match key & 7 {
        0 => WireType::Varint,
        1 => WireType::Fixed64,
        2 => WireType::Bytes,
        3 => WireType::StartGroup,
        4 => WireType::EndGroup,
        5 => WireType::Fixed32,
        _ => return Err(BadWire::Key),
    };
    if key < 8 { Err(BadWire::Key) } else { Ok((key >> 3, wire_type)) }
}

/// Bytes to compare with: those of 8 to 16, as most field names make, as two words that may overlap.
#[derive(Debug, Clone)]
pub struct Prefix {
    bytes: Box<[u8]>,
    first: u64,
    last: u64,
}

impl Prefix {
    /// Prepares `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        let word = |chunk: Option<&[u8; 8]>| chunk.map_or(0, |chunk| u64::from_le_bytes(*chunk));
        Self { bytes: bytes.into(), first: word(bytes.first_chunk()), last: word(bytes.last_chunk()) }
    }

    #[inline]
    fn begins(&self, bytes: &[u8]) -> bool {
        match (bytes.get(..self.bytes.len()), self.bytes.len()) {
            (Some(head), 8..=16) => {
                let first = head.first_chunk().map(|chunk| u64::from_le_bytes(*chunk));
                let last = head.last_chunk().map(|chunk| u64::from_le_bytes(*chunk));
                first == Some(self.first) && last == Some(self.last)
            }
            (head, _) => head == Some(&*self.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding::{DecodeContext, skip_field, wire_type::WireType as ProstType};

    use super::*;

    #[test]
    fn groups_nest_as_deep_as_prost_lets_them() {
        for levels in [1, 98, 99, 100, 101] {
            let mut bytes = vec![0x0b; levels];
            bytes.extend(vec![0x0c; levels]);
            let mut theirs = &bytes[1..];
            let expected = skip_field(ProstType::StartGroup, 1, &mut theirs, DecodeContext::default()).is_ok();
            let skipped = Reader::new(&bytes[1..]).skip(1, WireType::StartGroup, MAX_DEPTH).is_ok();
            assert_eq!(skipped, expected, "{levels} levels");
        }
    }
}
