//! The frame around every value: a version, the payload, a checksum.
//!
//! ```text
//! version u8 · payload · checksum u32 le
//! ```
//! The checksum covers version and payload and is seeded with the key, so that a value under a wrong key is
//! as corrupt as one with a flipped bit.

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The version written.
const VERSION: u8 = 1;
/// Bytes a frame adds to its payload.
pub const OVERHEAD: usize = 5;

/// Starts a frame: push the payload, then [`seal`] it.
pub fn begin(capacity: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(capacity + OVERHEAD);
    frame.push(VERSION);
    frame
}

/// Ends a frame started by [`begin`], for the value of `key`.
pub fn seal(mut frame: Vec<u8>, key: &[u8]) -> Bytes {
    let sum = checksum(key, &frame);
    frame.extend_from_slice(&sum.to_le_bytes());
    frame.into()
}

/// Frames a finished payload.
pub fn frame(key: &[u8], payload: &[u8]) -> Bytes {
    let mut frame = begin(payload.len());
    frame.extend_from_slice(payload);
    seal(frame, key)
}

/// The payload of a frame, sharing its memory; `None` where the frame is corrupt or of an unknown version.
pub fn open(key: &[u8], frame: &Bytes) -> Option<Bytes> {
    let (body, sum) = frame.split_last_chunk::<4>()?;
    let sound = body.first() == Some(&VERSION) && checksum(key, body) == u32::from_le_bytes(*sum);
    sound.then(|| frame.slice(1..body.len()))
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    xxh3_64_with_seed(body, xxh3_64(key)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_wrong_key_is_noticed() {
        let sound = frame(b"key", b"some payload");
        assert_eq!(open(b"key", &sound).as_deref(), Some(b"some payload".as_slice()));
        assert_eq!(open(b"kez", &sound), None);
        for bit in 0..sound.len() * 8 {
            let mut bad = sound.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(b"key", &bad.into()), None, "bit {bit}");
        }
        for len in 0..sound.len() {
            assert_eq!(open(b"key", &sound.slice(..len)), None, "cut at {len}");
        }
    }
}
