//! The series a stream has named, by the very bytes it named them with.
//!
//! A client sends the dimensions of a series in the same bytes tick after tick. Those bytes are hashed and
//! compared as they are, so that a known series costs no parsing, no UTF-8 check and no allocation. The same
//! series in other bytes (another order, say) is just another entry.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::RandomState;

use crate::model::{SeriesId, SpecId};

/// The most memory one dictionary takes, in bytes; about a million series.
const MAX_BYTES: usize = 64 << 20;
/// The longest dimensions worth remembering, in bytes; longer ones are parsed every time.
const MAX_KEY: usize = 4096;
/// Series number, spec number and length stand before the bytes of an entry.
const HEAD: usize = 8;

/// Raw dimensions → series number, for all specs of one stream. Bounded: when full it forgets everything,
/// which costs time, never correctness.
#[derive(Debug, Default)]
pub struct Dictionary {
    /// Open addressing with linear probing; the length is 0 or a power of two, at most half of it used.
    slots: Vec<Slot>,
    used: usize,
    /// The entries, back to back.
    arena: Vec<u8>,
    hasher: RandomState,
}

/// Where an entry is, with a part of its hash so that most others are told apart without looking there.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    tag: u32,
    /// Position in the arena plus 1; 0 is an empty slot.
    at: u32,
}

impl Dictionary {
    /// The series of `spec` that was inserted with these bytes.
    #[inline]
    pub fn get(&self, spec: SpecId, raw: &[u8]) -> Option<SeriesId> {
        if self.slots.is_empty() || raw.len() > MAX_KEY {
            return None;
        }
        let hash = self.hash(spec, raw);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.at == 0 {
                return None;
            }
            if slot.tag == (hash >> 32) as u32 {
                let (head, bytes) = self.arena[slot.at as usize - 1..].split_first_chunk::<HEAD>()?;
                let head = u64::from_le_bytes(*head);
                if head >> 32 == Self::facts(spec, raw) && bytes.starts_with(raw) {
                    return Some(SeriesId(head as u32));
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Remembers a series. The bytes must not be in the dictionary.
    pub fn insert(&mut self, spec: SpecId, raw: &[u8], series: SeriesId) {
        if raw.len() > MAX_KEY {
            return;
        }
        if self.used * 2 >= self.slots.len() {
            self.grow();
        }
        if self.bytes() + HEAD + raw.len() > MAX_BYTES {
            *self = Self::default();
            self.grow();
        }
        let at = self.arena.len() as u32 + 1;
        self.arena.extend_from_slice(&(Self::facts(spec, raw) << 32 | u64::from(series.0)).to_le_bytes());
        self.arena.extend_from_slice(raw);
        self.place(self.hash(spec, raw), at);
        self.used += 1;
    }

    /// Memory in use, in bytes.
    fn bytes(&self) -> usize {
        self.arena.len() + self.slots.len() * size_of::<Slot>()
    }

    /// Doubles the slots and places every entry anew.
    fn grow(&mut self) {
        self.slots = vec![Slot::default(); (self.slots.len() * 2).max(64)];
        let mut at = 0;
        while let Some((head, bytes)) = self.arena[at..].split_first_chunk::<HEAD>() {
            let [.., spec_low, spec_high, len_low, len_high] = *head;
            let len = u16::from_le_bytes([len_low, len_high]) as usize;
            let spec = SpecId(u16::from_le_bytes([spec_low, spec_high]));
            let hash = self.hash(spec, &bytes[..len]);
            self.place(hash, at as u32 + 1);
            at += HEAD + len;
        }
    }

    /// Puts an entry into the first free slot of its chain.
    fn place(&mut self, hash: u64, at: u32) {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot].at != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = Slot { tag: (hash >> 32) as u32, at };
    }

    /// The upper half of an entry's head: what two entries must share besides their bytes.
    #[inline]
    fn facts(spec: SpecId, raw: &[u8]) -> u64 {
        (raw.len() as u64) << 16 | u64::from(spec.0)
    }

    #[inline]
    fn hash(&self, spec: SpecId, raw: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u16(spec.0);
        hasher.write(raw);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_again_and_nothing_else() {
        let mut dictionary = Dictionary::default();
        assert_eq!(dictionary.get(SpecId(0), b""), None);
        for i in 0..5_000u32 {
            dictionary.insert(SpecId((i % 3) as u16), i.to_string().as_bytes(), SeriesId(i));
        }
        dictionary.insert(SpecId(7), b"", SeriesId(9));
        for i in 0..5_000u32 {
            assert_eq!(dictionary.get(SpecId((i % 3) as u16), i.to_string().as_bytes()), Some(SeriesId(i)));
            assert_eq!(dictionary.get(SpecId((i % 3 + 1) as u16), i.to_string().as_bytes()), None);
        }
        assert_eq!(dictionary.get(SpecId(7), b""), Some(SeriesId(9)));
    }

    #[test]
    fn memory_is_bounded_and_a_full_dictionary_starts_over() {
        let mut dictionary = Dictionary::default();
        let mut raw = vec![0; MAX_KEY];
        for i in 0..20_000u32 {
            raw[..4].copy_from_slice(&i.to_le_bytes());
            dictionary.insert(SpecId(0), &raw, SeriesId(i));
            assert!(dictionary.bytes() <= MAX_BYTES);
        }
        assert_eq!(dictionary.get(SpecId(0), &raw), Some(SeriesId(19_999)));
        assert_eq!(dictionary.get(SpecId(0), &vec![0; MAX_KEY + 1]), None);
    }
}
