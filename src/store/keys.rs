//! Names of key spaces and layout of keys. Everything ascends as bytes in the order it ascends in meaning.
//!
//! ```text
//! series/<spec>                            series u32                                  → the series' key
//! ticks/<spec>/<start>-<length>            offset u64 · rows u32 · min i64 · max i64   → block
//! sorted/<spec>/<start>-<length>           see [`sorted`](super::sorted)                → block
//! side/<spec>/<start>-<length>             the same · content u64                      → block
//! producers                                the producer's id                           → its batches
//! bars/<spec>/<window>/<start>-<length>    series u32 · start i64                      → bar
//! ```
//! Numbers in keys are big endian, times with the sign bit flipped. A space's start, length and window are
//! nanoseconds in hexadecimal, the start again with the sign bit flipped.

use super::BlockFacts;
use super::types::Family;
use crate::model::{DurationNs, SeriesId, TimeNs};

/// The space of everything that is remembered about the store itself.
pub const META: &str = "meta";
/// The space of what is remembered of producers.
pub const PRODUCERS: &str = "producers";
/// The space of corrupt values.
pub const QUARANTINE: &str = "quarantine";

/// The space of a spec's series.
pub fn series_space(spec: &str) -> String {
    format!("series/{spec}")
}

/// What the name of a partition's space says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionName<'a> {
    /// What it holds.
    pub family: Family,
    /// The spec's name.
    pub spec: &'a str,
    /// The window length of bars, 0 for ticks.
    pub window: DurationNs,
    /// Where its time range begins.
    pub start: TimeNs,
    /// How long it is at most.
    pub length: DurationNs,
}

impl<'a> PartitionName<'a> {
    /// The space's name.
    pub fn space(&self) -> String {
        let Self { family, spec, window, start, length } = self;
        let start = order(*start);
        match family {
            Family::Bars => format!("bars/{spec}/{window:x}/{start:016x}-{length:x}"),
            Family::Ticks => format!("ticks/{spec}/{start:016x}-{length:x}"),
            Family::Sorted => format!("sorted/{spec}/{start:016x}-{length:x}"),
            Family::Side => format!("side/{spec}/{start:016x}-{length:x}"),
        }
    }

    /// Reads a space's name; `None` where it is no partition's.
    pub fn parse(space: &'a str) -> Option<Self> {
        let mut parts = space.split('/');
        let family = match parts.next()? {
            "ticks" => Family::Ticks,
            "sorted" => Family::Sorted,
            "side" => Family::Side,
            "bars" => Family::Bars,
            _ => return None,
        };
        let spec = parts.next()?;
        let window = match family {
            Family::Bars => i64::from_str_radix(parts.next()?, 16).ok()?,
            _ => 0,
        };
        let (start, length) = parts.next()?.split_once('-')?;
        let start = unorder(u64::from_str_radix(start, 16).ok()?);
        let length = i64::from_str_radix(length, 16).ok().filter(|length| *length > 0)?;
        parts.next().is_none().then_some(Self { family, spec, window, start, length })
    }
}

/// The key of a series.
pub fn series(id: SeriesId) -> [u8; 4] {
    id.0.to_be_bytes()
}

/// Reads the key of a series.
pub fn parse_series(key: &[u8]) -> Option<SeriesId> {
    Some(SeriesId(u32::from_be_bytes(key.try_into().ok()?)))
}

/// The key of a bar.
pub fn bar(series: SeriesId, start: TimeNs) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&series.0.to_be_bytes());
    key[4..].copy_from_slice(&order(start).to_be_bytes());
    key
}

/// Reads the key of a bar.
pub fn parse_bar(key: &[u8]) -> Option<(SeriesId, TimeNs)> {
    let (series, start) = key.split_first_chunk::<4>()?;
    let start = u64::from_be_bytes(start.try_into().ok()?);
    Some((SeriesId(u32::from_be_bytes(*series)), unorder(start)))
}

/// The key of a journal block.
pub fn block(facts: &BlockFacts) -> [u8; 28] {
    let mut key = [0; 28];
    key[..8].copy_from_slice(&facts.offset.to_be_bytes());
    key[8..12].copy_from_slice(&facts.rows.to_be_bytes());
    key[12..20].copy_from_slice(&order(facts.min_time).to_be_bytes());
    key[20..].copy_from_slice(&order(facts.max_time).to_be_bytes());
    key
}

/// The key of a late block. Several instances may put aside ticks of one batch, so the content tells them
/// apart, and putting the same aside again changes nothing.
pub fn side_block(facts: &BlockFacts, bytes: &[u8]) -> [u8; 36] {
    let mut key = [0; 36];
    key[..28].copy_from_slice(&block(facts));
    key[28..].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(bytes).to_be_bytes());
    key
}

/// Reads the key of a block, but for when it arrived.
pub fn parse_block(key: &[u8]) -> Option<BlockFacts> {
    let (offset, rest) = key.split_first_chunk::<8>()?;
    let (rows, rest) = rest.split_first_chunk::<4>()?;
    let (min, rest) = rest.split_first_chunk::<8>()?;
    let (max, _) = rest.split_first_chunk::<8>()?;
    Some(BlockFacts {
        offset: u64::from_be_bytes(*offset),
        rows: u32::from_be_bytes(*rows),
        min_time: unorder(u64::from_be_bytes(*min)),
        max_time: unorder(u64::from_be_bytes(*max)),
        received_at: 0,
    })
}

/// Maps a signed time to an unsigned number of the same order.
pub fn order(time: TimeNs) -> u64 {
    time as u64 ^ 1 << 63
}

/// The inverse of [`order`].
pub fn unorder(bits: u64) -> TimeNs {
    (bits ^ 1 << 63) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_as_their_meaning_does() {
        let times = [i64::MIN, -5, -1, 0, 1, 256, i64::MAX];
        for pair in times.windows(2) {
            assert!(bar(SeriesId(7), pair[0]) < bar(SeriesId(7), pair[1]));
            assert!(bar(SeriesId(7), pair[1]) < bar(SeriesId(8), pair[0]));
        }
        let facts = BlockFacts { offset: 9, rows: 3, min_time: -4, max_time: 8, received_at: 0 };
        assert_eq!(parse_block(&block(&facts)), Some(facts));
        assert_eq!(parse_block(&side_block(&facts, b"x")), Some(facts));
        assert!(block(&facts) < block(&BlockFacts { offset: 256, rows: 0, ..facts }));
        assert_eq!(parse_bar(&bar(SeriesId(3), -9)), Some((SeriesId(3), -9)));
        assert_eq!(parse_bar(b"short"), None);
    }

    #[test]
    fn a_partition_is_told_by_its_spaces_name() {
        for family in [Family::Ticks, Family::Sorted, Family::Side, Family::Bars] {
            let window = if family == Family::Bars { 1_000_000_000 } else { 0 };
            for start in [i64::MIN, -1, 0, 1_700_000_000_000_000_000] {
                let name = PartitionName { family, spec: "market_ticks", window, start, length: 3_600 };
                assert_eq!(PartitionName::parse(&name.space()), Some(name));
            }
        }
        for bad in ["", "meta", "ticks/a", "ticks/a/x-y", "ticks/a/1-0", "bars/a/1/2-3/4", "series/a"] {
            assert_eq!(PartitionName::parse(bad), None, "{bad}");
        }
    }
}
