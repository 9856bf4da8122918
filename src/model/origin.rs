//! Where ticks come from, where the producer says so: what lets a batch that is sent again count once.

use std::sync::Arc;

/// One batch of one producer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The producer's id.
    pub producer: Arc<str>,
    /// The number it gave the batch.
    pub batch: u64,
}

/// The numbers of the batches taken from one producer. Producers number upwards, so a few ranges say it all; where more
/// than [`Taken::MOST`] would be needed the lowest ones are forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    /// Nothing is known of numbers below this.
    floor: u64,
    /// Inclusive ranges, ascending, with a gap between any two.
    ranges: Vec<(u64, u64)>,
}

/// What is known of a batch number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It was never taken.
    New,
    /// It was taken.
    Taken,
    /// Too long ago to be known: below this.
    Below(u64),
}

impl Taken {
    /// The most ranges remembered.
    pub const MOST: usize = 256;

    /// What is known of `number`.
    pub fn look_up(&self, number: u64) -> Known {
        if number < self.floor {
            return Known::Below(self.floor);
        }
        let after = self.ranges.partition_point(|(first, _)| *first <= number);
        let within = after.checked_sub(1).is_some_and(|before| number <= self.ranges[before].1);
        if within { Known::Taken } else { Known::New }
    }

    /// Notes that `number` was taken.
    pub fn insert(&mut self, number: u64) {
        if self.look_up(number) != Known::New {
            return;
        }
        let at = self.ranges.partition_point(|(first, _)| *first <= number);
        let joins_before = at > 0 && self.ranges[at - 1].1 + 1 == number;
        let joins_after = self.ranges.get(at).is_some_and(|(first, _)| number + 1 == *first);
        match (joins_before, joins_after) {
            (true, true) => self.ranges[at - 1].1 = self.ranges.remove(at).1,
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) => self.ranges.insert(at, (number, number)),
        }
        if self.ranges.len() > Self::MOST {
            let (_, last) = self.ranges.remove(0);
            self.floor = last + 1;
        }
    }

    /// As bytes: the floor, then first and last of every range, big endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.floor.to_be_bytes().to_vec();
        for (first, last) in &self.ranges {
            bytes.extend(first.to_be_bytes());
            bytes.extend(last.to_be_bytes());
        }
        bytes
    }

    /// Reads what [`Taken::to_bytes`] wrote; `None` where that is no such thing.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (floor, rest) = bytes.split_first_chunk()?;
        let (pairs, []) = rest.as_chunks::<16>() else { return None };
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
        let ranges = pairs.iter().map(|pair| Some((number(&pair[..8])?, number(&pair[8..])?)));
        let taken = Self { floor: u64::from_be_bytes(*floor), ranges: ranges.collect::<Option<_>>()? };
        let ascends = taken.ranges.iter().all(|(first, last)| first <= last)
            && taken.ranges.windows(2).all(|pair| pair[0].1.checked_add(1).is_some_and(|next| next < pair[1].0));
        ascends.then_some(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_knows_exactly_what_was_inserted_and_keeps_it_as_bytes(
            numbers in prop::collection::vec(prop_oneof![0u64..60, u64::MAX - 4..=u64::MAX], 0..60),
        ) {
            let (mut taken, mut model) = (Taken::default(), BTreeSet::new());
            for number in numbers {
                taken.insert(number);
                model.insert(number);
            }
            for number in (0..64).chain(u64::MAX - 6..=u64::MAX) {
                let expected = if model.contains(&number) { Known::Taken } else { Known::New };
                prop_assert_eq!(taken.look_up(number), expected);
            }
            prop_assert_eq!(Taken::from_bytes(&taken.to_bytes()), Some(taken));
        }

        #[test]
        fn other_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(taken) = Taken::from_bytes(&bytes) {
                prop_assert_eq!(taken.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn numbers_in_order_are_one_range_and_scattered_ones_forget_the_lowest() {
        let mut taken = Taken::default();
        (0..100_000).for_each(|number| taken.insert(number));
        assert_eq!(taken.to_bytes().len(), 24);
        (0..Taken::MOST as u64).for_each(|number| taken.insert(200_000 + 2 * number));
        assert_eq!(taken.look_up(5), Known::Below(100_000));
        assert_eq!((taken.look_up(100_000), taken.look_up(200_002)), (Known::New, Known::Taken));
    }
}
