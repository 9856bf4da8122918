//! The bytes of the outbox: which revisions of which bars a commit stored, and beside them what is in these.

use super::bar_bytes;
use crate::codec::varint::{put_varint, unzigzag, zigzag};
use crate::codec::wire::Reader;
use crate::model::{BarHead, DurationNs, SeriesId, TimeNs};

/// What a commit stored, or a part of it.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    /// When it was stored.
    pub stored_at: TimeNs,
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
    /// 0 · time · spec · window lengths · bars, each as the difference to the one before; all numbers LEB128.
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
        let mut reader = Reader::new(payload.strip_prefix(&[0])?);
        let stored_at = unzigzag(reader.varint().ok()?);
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

/// A bar in one of its spec's layouts, whose number comes with it; its state is elsewhere.
pub(super) type Laid = (BarHead, usize);

/// Appends what is in a bar, and in the one it replaced.
pub(super) fn write_content(
    out: &mut Vec<u8>,
    (head, state): (&BarHead, &[u64]),
    replaced: Option<&(BarHead, Vec<u64>)>,
    layout: usize,
) {
    bar_bytes::write(out, head, state, layout);
    out.push(u8::from(replaced.is_some()));
    replaced.into_iter().for_each(|(head, state)| bar_bytes::write(out, head, state, layout));
}

/// Takes what [`write_content`] appended of the bar `named` off the front of `rest`: the bar, its state into `state`, and the
/// one it replaced, that one's into `before`.
pub(super) fn read_content(
    rest: &mut &[u8],
    named: &Named,
    state: &mut Vec<u64>,
    before: &mut Vec<u64>,
) -> Option<(Laid, Option<Laid>)> {
    let identity = (named.series, named.start);
    let bar = bar_bytes::read(rest, identity, state).filter(|(head, _)| head.revision == named.revision)?;
    let (replaces, after) = rest.split_first()?;
    *rest = after;
    let replaced = match replaces {
        0 => None,
        _ => Some(bar_bytes::read(rest, identity, before)?),
    };
    Some((bar, replaced))
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
            prop_assert_eq!((read.spec.as_str(), read.stored_at), ("market_ticks", stored_at));
            let named = heads.iter().map(|head| Named {
                window: windows[usize::from(head.granularity)],
                series: head.series,
                start: head.start,
                revision: head.revision,
            });
            prop_assert_eq!(read.bars, named.collect::<Vec<_>>());
        }

        #[test]
        fn contents_are_read_as_they_were_written(
            bars in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u64>(), 0..6), any::<bool>()), 0..20),
        ) {
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            for (revision, words, replaces) in &bars {
                let head = |revision| BarHead { start: 7, revision, words_len: words.len() as u32, ..BarHead::default() };
                let replaced = replaces.then(|| (head(revision.wrapping_sub(1)), words.iter().rev().copied().collect()));
                write_content(&mut out, (&head(*revision), words), replaced.as_ref(), 3);
                expected.push((head(*revision), words, replaced));
            }
            let (mut rest, mut state, mut before) = (&out[..], Vec::new(), Vec::new());
            for (head, words, replaced) in expected {
                let named = Named { window: 1, series: head.series, start: head.start, revision: head.revision };
                let (bar, old) = read_content(&mut rest, &named, &mut state, &mut before).unwrap();
                prop_assert_eq!((bar, &state), ((head, 3), words));
                prop_assert_eq!(old.map(|(head, _)| (head, before.clone())), replaced);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn other_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Entry::read(&bytes);
            let named = Named { window: 1, series: SeriesId(1), start: 0, revision: 0 };
            let _ = read_content(&mut &bytes[..], &named, &mut Vec::new(), &mut Vec::new());
        }
    }
}
