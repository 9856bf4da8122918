//! Messages as odd as protobuf allows, and then broken ones.

use fastrand::Rng;

use super::oracle::NOW;

const DIMENSIONS: [&str; 5] = ["symbol", "host", "port", "", "ünïcode"];
const VALUES: [&str; 6] = ["AAPL", "MSFT", "a=b|c", "", "refused", "a value that is rather longer than the others"];
const FIELDS: [&str; 7] = ["price", "quantity", "load", "bytes", "bid", "ask", ""];

/// One `tikr.v1.IngestRequest`, valid or broken.
pub fn message(rng: &mut Rng) -> Vec<u8> {
    let mut pieces: Vec<Vec<u8>> = (0..rng.usize(..9)).map(|_| length_delimited(rng, 2, &tick(rng.clone()))).collect();
    // Every tick above came from the same state of the generator: ticks of one client look alike.
    for _ in 0..rng.usize(..4) {
        let tick = tick(rng.fork());
        pieces.push(length_delimited(rng, 2, &tick));
    }
    for _ in 0..if rng.u8(..8) == 0 { rng.usize(..3) } else { 1 } {
        let name = rng.choice(["market", "market", "strict", "strict", "nobody"]).unwrap_or_default();
        let piece = length_delimited(rng, 1, name.as_bytes());
        pieces.insert(if rng.u8(..4) == 0 { rng.usize(..=pieces.len()) } else { 0 }, piece);
    }
    if rng.u8(..4) == 0 {
        pieces.insert(rng.usize(..=pieces.len()), unknown(rng, 3));
    }
    let mut bytes = pieces.concat();
    if rng.bool() {
        mutate(rng, &mut bytes);
    }
    bytes
}

/// One `tikr.v1.TickData`.
fn tick(mut rng: Rng) -> Vec<u8> {
    let rng = &mut rng;
    let nanos = NOW as u64 - rng.u64(..2_000_000_000);
    let time = match rng.u8(..16) {
        0 => rng.u64(..),
        1 => nanos + 3_600_000_000_000,
        2 => nanos - 3_600_000_000_000,
        3..=8 => nanos / 1_000_000,
        _ => nanos,
    };
    let mut pieces = vec![scalar(rng, 1, time)];
    for _ in 0..rng.usize(..4) {
        let entry = string_entry(rng);
        pieces.push(length_delimited(rng, 2, &entry));
    }
    for _ in 0..if rng.u8(..50) == 0 { 80 } else { rng.usize(..5) } {
        let entry = int_entry(rng);
        pieces.push(length_delimited(rng, 3, &entry));
    }
    if rng.bool() {
        let sequence = if rng.u8(..8) == 0 { rng.u64(..) } else { rng.u64(..1000) };
        pieces.push(scalar(rng, 4, sequence));
    }
    if rng.u8(..8) == 0 {
        pieces.push(unknown(rng, 5));
    }
    if rng.u8(..4) == 0 {
        rng.shuffle(&mut pieces);
    }
    pieces.concat()
}

fn string_entry(rng: &mut Rng) -> Vec<u8> {
    let mut name = rng.choice(DIMENSIONS).unwrap_or_default().to_owned();
    let mut value = rng.choice(VALUES).unwrap_or_default().to_owned();
    if rng.u8(..60) == 0 {
        name = "n".repeat(rng.usize(255..258));
    }
    if rng.u8(..60) == 0 {
        value = "v".repeat(rng.usize(4095..4098));
    }
    let name = length_delimited(rng, 1, name.as_bytes());
    let value = length_delimited(rng, 2, value.as_bytes());
    entry(rng, name, value)
}

fn int_entry(rng: &mut Rng) -> Vec<u8> {
    let mut name = rng.choice(FIELDS).unwrap_or_default().to_owned();
    match rng.u8(..60) {
        0 => name = "n".repeat(rng.usize(255..258)),
        1..=20 => name.push_str(&rng.u8(..).to_string()),
        _ => {}
    }
    let value = if rng.u8(..8) == 0 { rng.u64(..) } else { rng.u64(..100_000) };
    let name = length_delimited(rng, 1, name.as_bytes());
    let value = scalar(rng, 2, value);
    entry(rng, name, value)
}

/// A map entry: mostly key and value, now and then in another order, missing, repeated, or among others.
fn entry(rng: &mut Rng, key: Vec<u8>, value: Vec<u8>) -> Vec<u8> {
    match rng.u8(..40) {
        0 => value,
        1 => key,
        2 => [value, key].concat(),
        3 => [key.clone(), value, key].concat(),
        4 => [unknown(rng, 3), key, value].concat(),
        5 => Vec::new(),
        _ => [key, value].concat(),
    }
}

fn scalar(rng: &mut Rng, tag: u64, value: u64) -> Vec<u8> {
    let wire_type = if rng.u16(..300) == 0 { rng.u64(..8) } else { 0 };
    [varint(rng, tag << 3 | wire_type), varint(rng, value)].concat()
}

fn length_delimited(rng: &mut Rng, tag: u64, bytes: &[u8]) -> Vec<u8> {
    let wire_type = if rng.u16(..300) == 0 { rng.u64(..8) } else { 2 };
    let lie = if rng.u16(..500) == 0 { rng.u64(..) >> rng.u8(..64) } else { bytes.len() as u64 };
    [varint(rng, tag << 3 | wire_type), varint(rng, lie), bytes.to_vec()].concat()
}

/// A field numbered `first` or higher, of any wire type, groups in groups included.
fn unknown(rng: &mut Rng, first: u64) -> Vec<u8> {
    let tag = first + rng.u64(..40);
    match rng.u8(..6) {
        0 => [varint(rng, tag << 3), varint(rng, 77)].concat(),
        1 => [varint(rng, tag << 3 | 1), vec![9; 8]].concat(),
        2 => [varint(rng, tag << 3 | 5), vec![9; 4]].concat(),
        3 => [varint(rng, tag << 3 | 2), vec![3, 1, 2, 3]].concat(),
        4 => {
            let depth = if rng.bool() { rng.usize(90..104) } else { rng.usize(1..4) };
            let (begin, end) = (varint(rng, tag << 3 | 3), varint(rng, tag << 3 | 4));
            [begin.repeat(depth), end.repeat(depth)].concat()
        }
        _ => [varint(rng, tag << 3 | 3), unknown(rng, 1), varint(rng, tag << 3 | 4)].concat(),
    }
}

/// A varint, now and then padded to more bytes than it needs, or to more than it may have.
fn varint(rng: &mut Rng, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    if rng.u8(..40) == 0 {
        for _ in 0..rng.usize(1..11_usize.saturating_sub(bytes.len()).max(2)) {
            if let Some(last) = bytes.last_mut() {
                *last |= 0x80;
            }
            bytes.push(0);
        }
    }
    bytes
}

/// One flipped bit, truncation, insertion, removal or repetition.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.usize(..bytes.len());
    let end = rng.usize(at..=bytes.len().min(at + 20));
    match rng.u8(..5) {
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes.truncate(at),
        2 => bytes.insert(at, rng.u8(..)),
        3 => drop(bytes.drain(at..end)),
        _ => {
            let copy = bytes[at..end].to_vec();
            bytes.splice(at..at, copy);
        }
    }
}
