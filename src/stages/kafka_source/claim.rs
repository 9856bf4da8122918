//! Messages of one partition that are claimed together, as they lie in the inbox.
//!
//! ```text
//! instance u64 · run u32 · partition i32 · from i64 · to i64 · topic: varint length, bytes
//! then per message: varint offset - from · varint length · bytes
//! ```

use crate::broker::consumer::Partition;
use crate::codec::varint::put_varint;
use crate::codec::wire::Reader;

use super::ownership::Owner;

/// See the module's text. Its number orders the claims of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The claim's number, unique in its store for ever.
    pub number: u64,
    /// The run that made it.
    pub owner: Owner,
    /// Where the messages are from.
    pub partition: Partition,
    /// The first offset claimed.
    pub from: i64,
    /// The first that is not.
    pub to: i64,
    /// The messages.
    messages: Vec<u8>,
}

impl Claim {
    /// A claim without messages, of what begins at `from`.
    pub fn new(owner: Owner, partition: Partition, from: i64) -> Self {
        Self { number: 0, owner, partition, from, to: from, messages: Vec::new() }
    }

    /// Adds a message.
    pub fn push(&mut self, offset: i64, value: &[u8]) {
        put_varint(&mut self.messages, offset.abs_diff(self.from));
        put_varint(&mut self.messages, value.len() as u64);
        self.messages.extend_from_slice(value);
        self.to = offset.saturating_add(1);
    }

    /// The bytes of its messages.
    pub fn bytes(&self) -> usize {
        self.messages.len()
    }

    /// Its messages, by offset.
    pub fn messages(&self) -> impl Iterator<Item = (i64, &[u8])> {
        let mut reader = Reader::new(&self.messages);
        std::iter::from_fn(move || {
            let offset = self.from.checked_add_unsigned(reader.varint().ok()?)?;
            Some((offset, reader.nested().ok()?.rest()))
        })
    }

    /// As bytes, but for its number.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.messages.len());
        bytes.extend(self.owner.instance.to_be_bytes());
        bytes.extend(self.owner.run.to_be_bytes());
        bytes.extend(self.partition.number.to_be_bytes());
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.to.to_be_bytes());
        put_varint(&mut bytes, self.partition.topic.len() as u64);
        bytes.extend_from_slice(self.partition.topic.as_bytes());
        bytes.extend_from_slice(&self.messages);
        bytes
    }

    /// Reads what [`Claim::to_bytes`] wrote; `None` where that is no such thing.
    pub fn from_bytes(number: u64, bytes: &[u8]) -> Option<Self> {
        let (instance, rest) = bytes.split_first_chunk()?;
        let (run, rest) = rest.split_first_chunk()?;
        let (partition, rest) = rest.split_first_chunk()?;
        let (from, rest) = rest.split_first_chunk()?;
        let (to, rest) = rest.split_first_chunk()?;
        let mut reader = Reader::new(rest);
        let topic = reader.string().ok()?;
        Some(Self {
            number,
            owner: Owner { instance: u64::from_be_bytes(*instance), run: u32::from_be_bytes(*run) },
            partition: Partition { topic: topic.into(), number: i32::from_be_bytes(*partition) },
            from: i64::from_be_bytes(*from),
            to: i64::from_be_bytes(*to),
            messages: reader.rest().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_lies_in_the_inbox_as_it_was_made() {
        let partition = Partition { topic: "ticks".into(), number: 7 };
        let mut claim = Claim::new(Owner { instance: 5, run: 2 }, partition, 100);
        claim.push(100, b"one");
        claim.push(103, b"");
        claim.number = 9;
        assert_eq!((claim.from, claim.to), (100, 104));
        let read = Claim::from_bytes(9, &claim.to_bytes()).unwrap();
        assert_eq!(read, claim);
        assert_eq!(read.messages().collect::<Vec<_>>(), [(100, &b"one"[..]), (103, &b""[..])]);
        assert_eq!(Claim::from_bytes(9, b"short"), None);
    }
}
