//! Which rows lack a field: runs where that is shorter, bits where it is not.

use super::block_header::CorruptBlock;
use super::varint::put_varint;
use super::wire::Reader;

const RAW: u8 = 0;
const RUNS: u8 = 1;

/// Appends the first `rows` bits of `words`, where words that are missing are zero. Nothing if no bit is set.
pub fn pack(words: &[u64], rows: usize, out: &mut Vec<u8>) {
    let bit = |row: usize| words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1);
    if !(0..rows.min(words.len() * 64)).any(bit) {
        return;
    }
    let start = out.len();
    let raw_len = rows.div_ceil(8);
    out.push(RUNS);
    let (mut run, mut set) = (0, false);
    for row in 0..rows {
        if bit(row) != set {
            put_varint(out, run);
            (run, set) = (0, !set);
        }
        run += 1;
    }
    put_varint(out, run);
    if out.len() - start > raw_len {
        out.truncate(start);
        out.push(RAW);
        out.extend(
            (0..raw_len).map(|byte| (0..8).fold(0, |b, i| b | u8::from(byte * 8 + i < rows && bit(byte * 8 + i)) << i)),
        );
    }
}

/// Reads what [`pack`] wrote for `rows` rows, without zero words at the end.
///
/// # Errors
/// The bytes are not what `pack` writes for that many rows.
pub fn unpack(bytes: &[u8], rows: usize) -> Result<Vec<u64>, CorruptBlock> {
    let mut words = match bytes {
        [] => Vec::new(),
        [RAW, rest @ ..] if rest.len() == rows.div_ceil(8) => rest.chunks(8).map(word_of).collect(),
        [RUNS, rest @ ..] => unpack_runs(rest, rows)?,
        _ => return Err(CorruptBlock("a bitmap in no known encoding")),
    };
    if let (Some(last), 1..) = (words.get_mut(rows / 64), rows % 64) {
        *last &= (1 << (rows % 64)) - 1;
    }
    while words.last() == Some(&0) {
        words.pop();
    }
    Ok(words)
}

/// Up to eight bytes as a word, the first one lowest.
fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn unpack_runs(bytes: &[u8], rows: usize) -> Result<Vec<u64>, CorruptBlock> {
    let mut words = vec![0; rows.div_ceil(64)];
    let (mut row, mut set) = (0, false);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let run = reader.varint().ok().and_then(|run| usize::try_from(run).ok()).unwrap_or(usize::MAX);
        if run > rows - row {
            return Err(CorruptBlock("a bitmap is longer than its block"));
        }
        if set {
            (row..row + run).for_each(|row| words[row / 64] |= 1 << (row % 64));
        }
        (row, set) = (row + run, !set);
    }
    if row == rows { Ok(words) } else { Err(CorruptBlock("a bitmap is shorter than its block")) }
}

/// How many of the first `rows` bits are set.
pub fn count(words: &[u64]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_bitmap_is_read_as_it_was_written(words in prop::collection::vec(any::<u64>(), 0..4), mask: u64, rows in 0usize..300) {
            let words: Vec<u64> = words.iter().map(|word| word & mask & mask.rotate_left(17)).collect();
            let mut bytes = Vec::new();
            pack(&words, rows, &mut bytes);
            let read = unpack(&bytes, rows).unwrap();
            let bit = |words: &[u64], row: usize| words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1);
            for row in 0..400 {
                prop_assert_eq!(bit(&read, row), row < rows && bit(&words, row));
            }
            prop_assert!(bytes.len() <= rows.div_ceil(8) + 1);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), rows in 0usize..300) {
            if let Ok(words) = unpack(&bytes, rows) {
                prop_assert!(count(&words) <= rows);
            }
        }
    }
}
