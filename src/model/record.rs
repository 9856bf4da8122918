//! A record as it goes to a broker.

use std::sync::Arc;

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The topic.
    pub topic: Arc<str>,
    /// What the partition is chosen by; empty but present where a bar has no dimensions.
    pub key: Vec<u8>,
    /// The encoded bar.
    pub value: Vec<u8>,
    /// What else is told beside it.
    pub headers: Headers,
}

impl Record {
    /// About the bytes it takes on the way.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + self.headers.bytes()
    }
}

/// Headers: names and values, in the order in which they were added. The values lie back to back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers {
    /// Each name, and where its value ends.
    ends: Vec<(&'static str, usize)>,
    values: Vec<u8>,
}

impl Headers {
    /// None yet, with room for so many names and bytes of values.
    pub fn with_capacity(names: usize, bytes: usize) -> Self {
        Self { ends: Vec::with_capacity(names), values: Vec::with_capacity(bytes) }
    }

    /// Adds one, whose value `write` appends.
    pub fn add(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.values);
        self.ends.push((name, self.values.len()));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        self.ends.iter().zip(starts).map(|((name, end), start)| (*name, &self.values[start..*end]))
    }

    fn bytes(&self) -> usize {
        self.ends.iter().map(|(name, _)| name.len()).sum::<usize>() + self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_added() {
        let mut headers = Headers::with_capacity(2, 8);
        for (name, value) in [("a", "one"), ("empty", ""), ("c", "three")] {
            headers.add(name, |out| out.extend_from_slice(value.as_bytes()));
        }
        let found: Vec<_> = headers.iter().collect();
        assert_eq!(found, [("a", b"one".as_slice()), ("empty", b""), ("c", b"three")]);
        assert_eq!((headers.len(), headers.bytes()), (3, 15));
    }
}
