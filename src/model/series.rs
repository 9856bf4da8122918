//! Series identity: a spec and a set of dimensions.
//!
//! Inside the engine a series is a small dense number; its full key is compared once, when the series is
//! interned, so no hash collision can merge two series.

use std::fmt;
use std::sync::Arc;

/// A series spec's number: stable across restarts, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpecId(pub u16);

/// A series' number within its spec: dense from 0, stable across restarts, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesId(pub u32);

/// The most dimensions one series may have.
pub const MAX_DIMENSIONS: usize = 64;
/// The longest dimension name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// The longest dimension value, in bytes.
pub const MAX_VALUE_BYTES: usize = 4096;

/// Why a set of dimensions cannot be a series.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DimensionError {
    /// More than [`MAX_DIMENSIONS`].
    #[error("{0} dimensions, at most {MAX_DIMENSIONS} are allowed")]
    TooMany(usize),
    /// A name longer than [`MAX_NAME_BYTES`].
    #[error("a dimension name of {0} bytes, at most {MAX_NAME_BYTES} are allowed")]
    NameTooLong(usize),
    /// A value longer than [`MAX_VALUE_BYTES`].
    #[error("a value of {bytes} bytes for dimension {name:?}, at most {MAX_VALUE_BYTES} are allowed")]
    ValueTooLong {
        /// The dimension.
        name: String,
        /// The value's length.
        bytes: usize,
    },
}

/// The canonical bytes of a set of dimensions: sorted by name, each name and value behind its length
/// (u16, little endian), so that no two different sets share an encoding. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeriesKey(Arc<[u8]>);

impl SeriesKey {
    /// Builds the key of `dimensions`, in any order; of equal names the last one counts, as in a protobuf map.
    ///
    /// # Errors
    /// Too many dimensions, or one that is too long.
    pub fn new<'a>(dimensions: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, DimensionError> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for pair in dimensions {
            match pairs.iter().position(|(name, _)| *name == pair.0) {
                Some(seen) => pairs[seen].1 = pair.1,
                None if pairs.len() == MAX_DIMENSIONS => {
                    return Err(DimensionError::TooMany(MAX_DIMENSIONS + 1));
                }
                None => pairs.push(pair),
            }
        }
        pairs.sort_unstable();
        let mut bytes = Vec::with_capacity(pairs.iter().map(|(n, v)| 4 + n.len() + v.len()).sum());
        for (name, value) in pairs {
            if name.len() > MAX_NAME_BYTES {
                return Err(DimensionError::NameTooLong(name.len()));
            }
            if value.len() > MAX_VALUE_BYTES {
                return Err(DimensionError::ValueTooLong { name: name.into(), bytes: value.len() });
            }
            for part in [name, value] {
                bytes.extend_from_slice(&(part.len() as u16).to_le_bytes());
                bytes.extend_from_slice(part.as_bytes());
            }
        }
        Ok(Self(bytes.into()))
    }

    /// Takes bytes that [`SeriesKey::as_bytes`] once gave; `None` where they are no such bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split_part(split_part(rest)?.1)?.1;
        }
        Some(Self(bytes.into()))
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The dimensions as (name, value), ascending by name.
    pub fn dimensions(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (name, after) = split_part(rest)?;
            let (value, after) = split_part(after)?;
            rest = after;
            Some((name, value))
        })
    }

    /// Appends `k=v` joined by `|`, with `\`, `=` and `|` escaped by `\`: also the key of Kafka records.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        for (at, (name, value)) in self.dimensions().enumerate() {
            if at > 0 {
                out.push(b'|');
            }
            write_escaped(out, name);
            out.push(b'=');
            write_escaped(out, value);
        }
    }

    /// The value of dimension `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.dimensions().find(|(n, _)| *n == name).map(|(_, value)| value)
    }
}

/// Splits one length-prefixed string off the front.
fn split_part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (part, rest) = rest.split_at_checked(u16::from_le_bytes(*len) as usize)?;
    Some((std::str::from_utf8(part).ok()?, rest))
}

/// As [`SeriesKey::write_text`] says.
impl fmt::Display for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::new();
        self.write_text(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Debug for SeriesKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

fn write_escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        if matches!(byte, b'\\' | b'=' | b'|') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_in_names_and_values_never_merge_two_series() {
        let a = SeriesKey::new([("a=b", "c")]).unwrap();
        let b = SeriesKey::new([("a", "b=c")]).unwrap();
        assert_ne!(a, b);
        assert_eq!(a.to_string(), r"a\=b=c");
        assert_eq!(b.to_string(), r"a=b\=c");
    }

    #[test]
    fn order_does_not_matter_and_the_last_of_equal_names_counts() {
        let a = SeriesKey::new([("x", "1"), ("b", "2"), ("x", "3")]).unwrap();
        assert_eq!(a, SeriesKey::new([("b", "2"), ("x", "3")]).unwrap());
        assert_eq!(a.dimensions().collect::<Vec<_>>(), [("b", "2"), ("x", "3")]);
        assert_eq!(SeriesKey::from_bytes(a.as_bytes()), Some(a.clone()));
        assert_eq!(SeriesKey::from_bytes(&a.as_bytes()[1..]), None);
        assert_eq!(a.get("x"), Some("3"));
    }
}
