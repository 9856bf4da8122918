//! The bytes of the outbox: which revisions of which bars a commit stored.

use super::keys;
use crate::codec::varint::{put_varint, unzigzag, zigzag};
use crate::codec::wire::Reader;
use crate::model::{BarHead, DurationNs, SeriesId, TimeNs};

/// What one commit stored.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// When it was stored; `None` in entries of before that was noted.
    pub stored_at: Option<TimeNs>,
    /// The spec's name.
    pub spec: String,
    /// In their order.
    pub bars: Vec<Named>,
}

/// A revision of a bar.
#[derive(Debug, PartialEq)]
pub(super) struct Named {
    /// The length of its window.
    pub window: DurationNs,
    pub series: SeriesId,
    pub start: TimeNs,
    pub revision: u32,
}

impl Entry {
    /// 0 · time · spec · window lengths · bars, each as the difference to the one before; all numbers LEB128. No name of a
    /// spec is empty, so the 0 tells it from entries without a time, which begin with the spec.
    pub fn write(spec: &str, windows: &[DurationNs], heads: &[BarHead], stored_at: TimeNs) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + heads.len() * 6);
        out.push(0);
        put_varint(&mut out, zigzag(stored_at));
        put_varint(&mut out, spec.len() as u64);
        out.extend_from_slice(spec.as_bytes());
        put_varint(&mut out, windows.len() as u64);
        windows.iter().for_each(|window| put_varint(&mut out, *window as u64));
        put_varint(&mut out, heads.len() as u64);
        let (mut series, mut start) = (0i64, 0i64);
        for head in heads {
            put_varint(&mut out, head.granularity.into());
            put_varint(&mut out, zigzag(i64::from(head.series.0) - series));
            put_varint(&mut out, zigzag(head.start.wrapping_sub(start)));
            put_varint(&mut out, head.revision.into());
            (series, start) = (head.series.0.into(), head.start);
        }
        out
    }

    /// Reads what [`Entry::write`] wrote; `None` where that is no such thing.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload.strip_prefix(&[0]).unwrap_or(payload));
        let stored_at = match payload.first()? {
            0 => Some(unzigzag(reader.varint().ok()?)),
            _ => None,
        };
        let spec = reader.string().ok()?.to_owned();
        let windows =
            (0..count(&mut reader)?).map(|_| Some(reader.varint().ok()? as i64)).collect::<Option<Vec<_>>>()?;
        let bars = count(&mut reader)?;
        let (mut series, mut start, mut named) = (0i64, 0i64, Vec::with_capacity(bars));
        for _ in 0..bars {
            let window = *windows.get(usize::try_from(reader.varint().ok()?).ok()?)?;
            series = series.wrapping_add(unzigzag(reader.varint().ok()?));
            start = start.wrapping_add(unzigzag(reader.varint().ok()?));
            let revision = u32::try_from(reader.varint().ok()?).ok()?;
            named.push(Named { window, series: SeriesId(u32::try_from(series).ok()?), start, revision });
        }
        reader.rest().is_empty().then_some(Self { stored_at, spec, bars: named })
    }
}

/// How many follow, each of one byte at the least.
fn count(reader: &mut Reader<'_>) -> Option<usize> {
    usize::try_from(reader.varint().ok()?).ok().filter(|count| *count <= reader.rest().len())
}

/// The key of a revision that was replaced.
pub(super) fn superseded_key(head: &BarHead, window: DurationNs, spec: &str) -> Vec<u8> {
    let revision = head.revision.to_be_bytes();
    [&keys::bar(head.series, head.start)[..], &window.to_be_bytes(), &revision, spec.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(
            bars in prop::collection::vec((0..2u8, any::<u32>(), any::<i64>(), any::<u32>()), 0..40),
            stored_at in any::<i64>(),
        ) {
            let windows = [1_000_000_000, 60_000_000_000];
            let head = |(granularity, series, start, revision): &(u8, u32, i64, u32)| BarHead {
                granularity: *granularity, series: SeriesId(*series), start: *start, revision: *revision, ..BarHead::default()
            };
            let heads: Vec<_> = bars.iter().map(head).collect();
            let read = Entry::read(&Entry::write("market_ticks", &windows, &heads, stored_at)).unwrap();
            prop_assert_eq!((read.spec.as_str(), read.stored_at), ("market_ticks", Some(stored_at)));
            let named = heads.iter().map(|head| Named {
                window: windows[usize::from(head.granularity)],
                series: head.series,
                start: head.start,
                revision: head.revision,
            });
            prop_assert_eq!(read.bars, named.collect::<Vec<_>>());
        }

        #[test]
        fn an_entry_without_a_time_is_read_as_well(stored_at in any::<i64>()) {
            let head = BarHead { series: SeriesId(7), start: 5, revision: 2, ..BarHead::default() };
            let written = Entry::write("s", &[1_000_000_000], &[head], stored_at);
            let mut time = Vec::new();
            put_varint(&mut time, zigzag(stored_at));
            let read = Entry::read(&written[1 + time.len()..]).unwrap();
            prop_assert_eq!(&read, &Entry { stored_at: None, ..Entry::read(&written).unwrap() });
        }

        #[test]
        fn other_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Entry::read(&bytes);
        }
    }
}
