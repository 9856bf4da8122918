//! The bytes of a stored bar, compact and quick to read. The key says which bar it is.
//!
//! ```text
//! layout · flags u8 · revision · first - start · last - first · ticks · late · covers · words · word…
//! ```
//! Numbers are LEB128, the difference of `first` zigzagged. Of the state, two words share a control byte that
//! says how many bytes each takes: most words are small, close to the window's start, or close to `covers`.

use bytes::Bytes;

use super::{keys, value};
use crate::codec::varint::put_varint;
use crate::model::{BarFlags, BarHead, SeriesId, TimeNs};

/// The framed bytes of a bar.
pub fn encode(key: &[u8], head: &BarHead, state: &[u64], layout: usize) -> Bytes {
    let mut out = value::begin(32 + state.len() * 5);
    write(&mut out, head, state, layout);
    value::seal(out, key)
}

/// Reads a bar's payload, its state into `state`; also gives the layout's number.
pub fn decode(key: &[u8], payload: &[u8], state: &mut Vec<u64>) -> Option<(BarHead, usize)> {
    let mut rest = payload;
    let read = read(&mut rest, keys::parse_bar(key)?, state)?;
    rest.is_empty().then_some(read)
}

/// Appends a bar's payload.
pub fn write(out: &mut Vec<u8>, head: &BarHead, state: &[u64], layout: usize) {
    put_varint(out, layout as u64);
    out.push(head.flags.0);
    put_varint(out, u64::from(head.revision));
    let first = head.first.wrapping_sub(head.start);
    put_varint(out, (first << 1 ^ first >> 63) as u64);
    for number in [head.last.wrapping_sub(head.first) as u64, head.ticks, head.late, head.covers, state.len() as u64] {
        put_varint(out, number);
    }
    for pair in state.chunks(2) {
        let at = out.len();
        out.push(0);
        for (i, word) in pair.iter().enumerate() {
            let code = put_word(out, *word, head);
            out[at] |= code << (4 * i);
        }
    }
}

/// Takes the payload of the bar of this series and start off the front of `rest`: its state into `state`; also gives the
/// layout's number.
pub fn read(rest: &mut &[u8], (series, start): (SeriesId, TimeNs), state: &mut Vec<u64>) -> Option<(BarHead, usize)> {
    let layout = varint(rest)? as usize;
    let flags = BarFlags(take(rest, 1)? as u8);
    let revision = u32::try_from(varint(rest)?).ok()?;
    let first = varint(rest)?;
    let first = start.wrapping_add((first >> 1) as i64 ^ -((first & 1) as i64));
    let last = first.wrapping_add(varint(rest)? as i64);
    let (ticks, late, covers) = (varint(rest)?, varint(rest)?, varint(rest)?);
    let mut head = BarHead { series, start, flags, revision, first, last, ticks, late, covers, ..BarHead::default() };
    let words = usize::try_from(varint(rest)?).ok().filter(|words| *words <= rest.len() * 2)?;
    head.words_len = words as u32;
    state.clear();
    while state.len() < words {
        let codes = take(rest, 1)?;
        state.push(word(rest, codes & 15, &head)?);
        if state.len() < words {
            state.push(word(rest, codes >> 4, &head)?);
        }
    }
    Some((head, layout))
}

/// Appends a word the shortest way and gives that way's code: 0–8 that many low bytes, 9 all ones, 10 and 11 the
/// top 2 and 4 bytes, 12 and 13 what it is above `start` in 4 and 5 bytes, 14 what it is below `covers` in 4.
fn put_word(out: &mut Vec<u8>, word: u64, head: &BarHead) -> u8 {
    let low = 8 - word.leading_zeros() as usize / 8;
    let above = word.wrapping_sub(head.start as u64);
    let below = head.covers.wrapping_sub(word);
    let (code, bits, len) = match word {
        u64::MAX => (9, 0, 0),
        _ if low <= 2 => (low as u8, word, low),
        _ if word << 16 == 0 => (10, word >> 48, 2),
        _ if low <= 4 => (low as u8, word, low),
        _ if word << 32 == 0 => (11, word >> 32, 4),
        _ if above >> 32 == 0 => (12, above, 4),
        _ if below >> 32 == 0 => (14, below, 4),
        _ if low > 5 && above >> 40 == 0 => (13, above, 5),
        _ => (low as u8, word, low),
    };
    out.extend_from_slice(&bits.to_le_bytes()[..len]);
    code
}

/// The inverse of [`put_word`].
fn word(rest: &mut &[u8], code: u64, head: &BarHead) -> Option<u64> {
    Some(match code {
        0..=8 => take(rest, code as usize)?,
        9 => u64::MAX,
        10 => take(rest, 2)? << 48,
        11 => take(rest, 4)? << 32,
        12 => (head.start as u64).wrapping_add(take(rest, 4)?),
        13 => (head.start as u64).wrapping_add(take(rest, 5)?),
        14 => head.covers.wrapping_sub(take(rest, 4)?),
        _ => return None,
    })
}

/// Takes a little-endian number of `len` bytes off the front.
fn take(rest: &mut &[u8], len: usize) -> Option<u64> {
    let (front, after) = rest.split_at_checked(len)?;
    *rest = after;
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(front);
    Some(u64::from_le_bytes(bytes))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?;
        value |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SeriesId;
    use proptest::prelude::*;

    fn words(head: &BarHead) -> impl Strategy<Value = Vec<u64>> + use<> {
        let (start, covers) = (head.start as u64, head.covers);
        let word = prop_oneof![
            any::<u64>(),
            0u64..300,
            Just(u64::MAX),
            any::<i32>().prop_map(|v| f64::from(v).to_bits()),
            (0u64..1 << 41).prop_map(move |d| start.wrapping_add(d)),
            (0u64..1 << 33).prop_map(move |d| covers.wrapping_sub(d)),
        ];
        prop::collection::vec(word, 0..40)
    }

    prop_compose! {
        fn heads()(series: u32, flags: u8, revision: u32, start: i64, first: i64, last: i64,
                   ticks: u64, late: u64, covers: u64) -> BarHead {
            BarHead { series: SeriesId(series), flags: BarFlags(flags), revision, start, first, last,
                      ticks, late, covers, ..BarHead::default() }
        }
    }

    proptest! {
        #[test]
        fn a_bar_reads_back_as_it_was(
            (head, state) in heads().prop_flat_map(|head| (Just(head), words(&head))),
            layout in 0usize..300,
        ) {
            let key = keys::bar(head.series, head.start);
            let frame = encode(&key, &head, &state, layout);
            let payload = value::open(&key, &frame).unwrap();
            let mut found = Vec::new();
            let (found_head, found_layout) = decode(&key, &payload, &mut found).unwrap();
            prop_assert_eq!(found_head, BarHead { words_len: state.len() as u32, ..head });
            prop_assert_eq!((found, found_layout), (state, layout));
        }

        #[test]
        fn any_bytes_are_read_or_refused(payload: Vec<u8>) {
            let key = keys::bar(SeriesId(1), 2);
            let mut state = Vec::new();
            if decode(&key, &payload, &mut state).is_some() {
                prop_assert!(state.len() <= payload.len() * 2);
            }
        }
    }
}
