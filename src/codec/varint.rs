//! Integers in as many bytes as they need: protobuf's varints, and signed numbers folded for them.

/// A varint of two bytes or more and its length; length 0 for a malformed one. Nanosecond timestamps have nine.
pub fn long_varint(bytes: &[u8]) -> (u64, usize) {
    if let [a, b, c, ..] = bytes {
        if *b < 0x80 {
            return (u64::from(a & 0x7f) | u64::from(*b) << 7, 2);
        }
        if *c < 0x80 {
            return (u64::from(a & 0x7f) | u64::from(b & 0x7f) << 7 | u64::from(*c) << 14, 3);
        }
    }
    let Some((head, tail)) = bytes.split_first_chunk::<8>() else {
        return slow_varint(bytes);
    };
    let word = u64::from_le_bytes(*head);
    let stops = !word & 0x8080_8080_8080_8080;
    if stops != 0 {
        return (gather(word & (stops ^ (stops - 1))), stops.trailing_zeros() as usize / 8 + 1);
    }
    match tail {
        [ninth, ..] if *ninth < 0x80 => (gather(word) | u64::from(*ninth) << 56, 9),
        [ninth, tenth @ ..=1, ..] => (gather(word) | u64::from(ninth & 0x7f) << 56 | u64::from(*tenth) << 63, 10),
        _ => (0, 0),
    }
}

/// As [`long_varint`], one byte at a time, for less than eight bytes.
fn slow_varint(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return (value, i + 1);
        }
    }
    (0, 0)
}

/// Closes the gaps the continuation bits leave: eight groups of 7 bits become 56 bits.
#[inline]
fn gather(word: u64) -> u64 {
    let x = word & 0x7f7f_7f7f_7f7f_7f7f;
    let x = (x & 0x007f_007f_007f_007f) | (x & 0x7f00_7f00_7f00_7f00) >> 1;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x3fff_0000_3fff_0000) >> 2;
    (x & 0x0000_0000_0fff_ffff) | (x & 0x0fff_ffff_0000_0000) >> 4
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Signed to unsigned so that small magnitudes stay small.
#[inline]
pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::encoding::decode_varint;

    use super::*;
    use crate::codec::wire::Reader;

    proptest! {
        #[test]
        fn any_bytes_read_as_the_varint_prost_reads(
            bytes in prop::collection::vec(prop_oneof![3 => 0x80u8.., 1 => any::<u8>()], 0..14)
        ) {
            let mut ours = Reader::new(&bytes);
            let mut theirs = bytes.as_slice();
            let expected = decode_varint(&mut theirs).ok();
            prop_assert_eq!(ours.varint().ok(), expected);
            if expected.is_some() {
                prop_assert_eq!(ours.rest(), theirs);
            }
        }

        #[test]
        fn every_number_survives_its_varint_and_zigzag(value: u64, padding in 0usize..9) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            bytes.extend(vec![0; padding]);
            prop_assert_eq!(Reader::new(&bytes).varint(), Ok(value));
            prop_assert_eq!(zigzag(unzigzag(value)), value);
        }
    }
}
