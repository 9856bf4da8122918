//! Protobuf written by hand: fields appended to a buffer, nested messages measured after they are written.

use super::varint::put_varint;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;

/// Appends `field` with a varint; 0, the default, is left out.
pub fn uint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        key(out, field, VARINT);
        put_varint(out, value);
    }
}

/// Appends `field` with 8 bytes; 0, the default, is left out.
pub fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        fixed64_always(out, field, value);
    }
}

/// Appends `field` with 8 bytes, also where they are 0: a member of a `oneof`.
pub fn fixed64_always(out: &mut Vec<u8>, field: u32, value: u64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends `field` with text; empty text, the default, is left out.
pub fn text(out: &mut Vec<u8>, field: u32, value: &str) {
    if !value.is_empty() {
        text_always(out, field, value);
    }
}

/// Appends `field` with text, also where it is empty: a member of a `oneof`.
pub fn text_always(out: &mut Vec<u8>, field: u32, value: &str) {
    key(out, field, LENGTH);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value.as_bytes());
}

/// Appends `field` with the message that `fill` writes. Its length is known only afterwards: one byte is kept for it, which
/// is enough for most, and a longer message is moved up.
pub fn message(out: &mut Vec<u8>, field: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, LENGTH);
    let at = out.len();
    out.push(0);
    fill(out);
    let mut length = out.len() - at - 1;
    let more = length.checked_ilog2().unwrap_or(0) as usize / 7;
    if more > 0 {
        let end = out.len();
        out.resize(end + more, 0);
        out.copy_within(at + 1..end, at + 1 + more);
    }
    for byte in &mut out[at..at + more] {
        *byte = length as u8 | 0x80;
        length >>= 7;
    }
    out[at + more] = length as u8;
}

fn key(out: &mut Vec<u8>, field: u32, kind: u32) {
    put_varint(out, u64::from(field << 3 | kind));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stands_behind_its_length_however_long_it_is() {
        for length in [0_usize, 1, 124, 125, 126, 127, 128, 16_379, 16_380, 16_381, 20_000, 2_100_000] {
            let mut out = b"before".to_vec();
            message(&mut out, 2, |out| text(out, 1, &"x".repeat(length)));
            let mut inner = Vec::new();
            text(&mut inner, 1, &"x".repeat(length));
            let mut expected = b"before\x12".to_vec();
            put_varint(&mut expected, inner.len() as u64);
            expected.extend(inner);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn defaults_are_left_out_but_not_in_a_oneof() {
        let mut out = Vec::new();
        uint(&mut out, 1, 0);
        fixed64(&mut out, 2, 0);
        text(&mut out, 3, "");
        assert!(out.is_empty());
        fixed64_always(&mut out, 6, 0);
        text_always(&mut out, 1, "");
        assert_eq!(out, [0x31, 0, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0]);
    }
}
