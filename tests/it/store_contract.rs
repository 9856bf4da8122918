//! The store's contract, held by both sides of its port: on disk and in memory.

mod ageing;
mod budget;
mod clustering;
mod damage;
pub mod files;
mod follower;
pub mod kit;
mod outbox;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use barline::model::time::{HOUR, MINUTE, SECOND};
use barline::model::*;
use barline::spec::*;
use barline::store::*;
use bytes::Bytes;
use proptest::prelude::*;

use kit::*;

#[test]
fn key_spaces_are_ordered_named_and_dropped_whole() {
    on_both(|side| {
        let kv = side.open();
        let ops = vec![put("x/1", b"b", b"2"), put("x/1", b"a", b"1"), put("x/1", b"c", b"3"), put("y", b"a", b"9")];
        kv.commit(ops, Durability::Synced).unwrap();
        let keys = |from: &[u8], to: Option<&[u8]>| {
            let mut keys = Vec::new();
            kv.scan("x/1", from, to, &mut |key, value| {
                keys.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
            let mut bare = Vec::new();
            kv.scan_keys("x/1", from, to, &mut |key| {
                bare.push(key.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
            assert!(keys.iter().map(|(key, _)| key).eq(&bare));
            let mut back = Vec::new();
            kv.scan_back("x/1", from, to.unwrap_or(b"zz"), &mut |key, value| {
                back.insert(0, (key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(back, keys);
            keys.into_iter().map(|(key, value)| (key[0], value[0])).collect::<Vec<_>>()
        };
        assert_eq!(keys(b"", None), [(b'a', b'1'), (b'b', b'2'), (b'c', b'3')]);
        assert_eq!(keys(b"b", Some(b"c")), [(b'b', b'2')]);
        assert_eq!(keys(b"c", Some(b"b")), []);
        assert_eq!(kv.last_key("x/1").unwrap().as_deref(), Some(b"c".as_slice()));
        let delete = Op::Delete { space: "x/1".into(), key: Bytes::from_static(b"c") };
        kv.commit(vec![delete, put("x/2", b"k", b"v")], Durability::Process).unwrap();
        assert_eq!(kv.last_key("x/1").unwrap().as_deref(), Some(b"b".as_slice()));
        assert_eq!(kv.spaces("x/"), ["x/1", "x/2"]);
        assert!(kv.size("x/1") > 0);
        kv.drop_space("x/1").unwrap();
        kv.drop_space("x/1").unwrap();
        assert_eq!((kv.get("x/1", b"a").unwrap(), kv.last_key("x/1").unwrap(), kv.size("x/1")), (None, None, 0));
        assert_eq!(keys(b"", None), []);
        kv.commit(vec![put("x/1", b"z", b"new")], Durability::Process).unwrap();
        assert_eq!(keys(b"", None), [(b'z', b'n')]);
        assert_eq!(kv.get("y", b"a").unwrap().as_deref(), Some(b"9".as_slice()));
    });
}

#[test]
fn everything_is_there_after_reopening() {
    on_both(|side| {
        let key = SeriesKey::new([("symbol", "AAPL")]).unwrap();
        let head = BarHead { granularity: 1, revision: 3, flags: BarFlags::OVERFLOW, ..bar(0, NOW, 42) };
        {
            let store = side.store();
            assert_eq!((store.journal_end(), store.newest_start(A, 0)), (0, None));
            let mut batch = store.batch();
            batch.put_series(A, SeriesId(0), &key);
            let (facts, block) = ticks(A, 5, NOW, &[(0, NOW), (0, NOW + 1)]);
            batch.append(A, facts, block);
            batch.put_bar(A, &head, &[42, u64::MAX]);
            batch.put_bar(A, &bar(0, NOW - SECOND, 1), &[1, 1]);
            batch.put_checkpoint(checkpoint(1, 99));
            batch.put_checkpoint(checkpoint(0, 98));
            batch.commit(Durability::Synced).unwrap();
        }
        let store = side.store();
        let mut series = Vec::new();
        store.load_series(A, &mut |id, key| series.push((id, key))).unwrap();
        assert_eq!(series, [(SeriesId(0), Some(key.clone()))]);
        assert_eq!((store.journal_end(), store.checkpoints()), (7, vec![checkpoint(0, 98), checkpoint(1, 99)]));
        let (found, state) = store.bar(A, 1, SeriesId(0), NOW).unwrap().unwrap();
        assert_eq!((BarHead { words_len: 0, ..found }, state), (head, vec![42, u64::MAX]));
        assert_eq!(store.bar(A, 0, SeriesId(0), NOW).unwrap(), None);
        assert_eq!((store.newest_start(A, 0), store.newest_start(A, 1)), (Some(NOW - SECOND), Some(NOW)));
        assert_eq!(offsets(&store, all_ticks(A)), [5]);
        assert_eq!(store.newest_start(B, 0), None);
    });
}

#[test]
fn a_bar_of_no_granularity_commits_nothing() {
    on_both(|side| {
        let store = side.store();
        let mut batch = store.batch();
        batch.put_bar(A, &bar(0, NOW, 1), &[1, 1]);
        batch.put_bar(A, &BarHead { granularity: 2, ..bar(0, NOW, 1) }, &[]);
        let error = batch.commit(Durability::Process).unwrap_err();
        assert_eq!(error.to_string(), "spec \"a\" has no granularity number 2");
        assert_eq!(all_bars(&store, A), []);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Scans and point reads of bars give what a plain map gives, over partitions, overwrites and ranges.
    #[test]
    fn bars_read_as_from_a_map(
        writes in prop::collection::vec((0u32..40, -2_000i64..60_000, 1u64..9), 1..400),
        (from, to) in (-3_000i64..65_000, -3_000i64..65_000),
        only in prop::option::of(0u32..40),
        on_disk: bool,
    ) {
        let side = if on_disk { Side::Disk(directory()) } else { Side::Memory(Arc::default()) };
        let store = side.store();
        let mut model = BTreeMap::new();
        for chunk in writes.chunks(50) {
            let bars = chunk.iter().map(|(series, second, ticks)| bar(*series, second * SECOND, *ticks));
            model.extend(bars.clone().map(|bar| ((bar.series, bar.start), bar)));
            put_bars(&store, A, bars);
        }
        let (from, to) = (from * SECOND, to * SECOND);
        let ask = BarScan { spec: A, granularity: 0, series: only.map(SeriesId), from, to };
        let mut found = scan(&store, ask);
        let by_series = |series: SeriesId| found.iter().filter(move |bar| bar.series == series).map(|bar| bar.start);
        prop_assert!((0..40).all(|series| by_series(SeriesId(series)).is_sorted()));
        found.sort_by_key(|bar| (bar.series, bar.start));
        let inside = |bar: &&BarHead| (from..to).contains(&bar.start) && only.is_none_or(|only| bar.series.0 == only);
        let expected: Vec<_> = model.values().filter(inside).map(|bar| BarHead { words_len: 2, ..*bar }).collect();
        prop_assert_eq!(found, expected);
        for bar in model.values() {
            let (head, _) = store.bar(A, 0, bar.series, bar.start).unwrap().unwrap();
            prop_assert_eq!(head.ticks, bar.ticks);
        }
        prop_assert_eq!(store.newest_start(A, 0), model.values().map(|bar| bar.start).max());
        for series in (0..40).map(SeriesId) {
            let (most, mut newest) = (model.len() / 20, Vec::new());
            let visit = &mut |head: &BarHead| {
                newest.push(head.start);
                if newest.len() > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            store.newest_bars(A, 0, series, visit).unwrap();
            let of = model.range((series, i64::MIN)..=(series, i64::MAX)).rev();
            prop_assert_eq!(newest, of.map(|(_, bar)| bar.start).take(most + 1).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_scan_stops_where_it_is_told_to() {
    on_both(|side| {
        let store = side.store();
        put_bars(&store, A, (0..100).map(|n| bar(0, NOW + n * HOUR, 1)));
        let mut seen = 0;
        let ask = BarScan { spec: A, granularity: 0, series: None, from: i64::MIN, to: i64::MAX };
        let visit = &mut |_: &BarHead, _: &[u64]| {
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.scan_bars(&ask, visit).unwrap();
        assert_eq!(seen, 3);
    });
}

#[test]
fn blocks_are_found_by_time_and_series_and_replayed_in_order_of_arrival() {
    on_both(|side| {
        let store = side.store();
        // Two specs take turns; arrival moves on by five minutes, event time runs an hour behind.
        for n in 0..40u64 {
            let at = NOW + n as i64 * 5 * MINUTE;
            let spec = SpecId((n % 2) as u16);
            append(&store, spec, n * 10, at, &[(n as u32, at - HOUR), (100, at - HOUR + SECOND)]);
        }
        let of_a: Vec<u64> = (0..40).step_by(2).map(|n| n * 10).collect();
        assert_eq!(offsets(&store, all_ticks(A)), of_a);
        let from = NOW + 20 * 5 * MINUTE - HOUR;
        assert_eq!(offsets(&store, TickScan { from, ..all_ticks(A) }), of_a[10..]);
        assert_eq!(offsets(&store, TickScan { from, to: from + 1, ..all_ticks(A) }), [200]);
        assert_eq!(offsets(&store, TickScan { series: Some([SeriesId(6)].into()), ..all_ticks(A) }), [60]);
        assert_eq!(offsets(&store, TickScan { series: Some([SeriesId(100)].into()), ..all_ticks(A) }), of_a);
        assert!(offsets(&store, TickScan { series: Some([SeriesId(7)].into()), ..all_ticks(A) }).is_empty());
        assert!(offsets(&store, TickScan { side: true, ..all_ticks(A) }).is_empty());
        let replayed = replay(&store, 0);
        assert_eq!(
            replayed.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(),
            (0..40).map(|n| n * 10).collect::<Vec<_>>()
        );
        assert!(replayed.iter().all(|(offset, spec)| u64::from(spec.0) == offset / 10 % 2));
        assert_eq!(replay(&store, 371)[0].0, 370);
        assert_eq!(replay(&store, 372)[0].0, 380);
        assert_eq!(replay(&store, 392), []);
        assert_eq!(store.journal_end(), 392);
    });
}

#[test]
fn late_ticks_of_one_batch_from_several_instances_are_all_kept_and_each_once() {
    on_both(|side| {
        let store = side.store();
        for rows in [[(1, NOW)], [(2, NOW)], [(1, NOW)]] {
            let (facts, block) = ticks(A, 3, NOW, &rows);
            let mut batch = store.batch();
            batch.put_side(A, facts, block);
            batch.commit(Durability::Process).unwrap();
        }
        assert_eq!(offsets(&store, TickScan { side: true, ..all_ticks(A) }), [3, 3]);
        assert_eq!((offsets(&store, all_ticks(A)), store.journal_end()), (vec![], 0));
    });
}

#[test]
fn bars_of_an_older_spec_are_read_in_the_present_layout() {
    on_both(|side| {
        put_bars(&side.store(), A, [bar(0, NOW, 42)]);
        let mut newer = spec("a");
        newer.fields.remove(0);
        newer.fields.push(Field { name: "spread".into(), ty: FieldType::Int64 });
        newer.fields.push(Field { name: "price".into(), ty: FieldType::Int64 });
        newer.accumulators = vec![
            accumulator(AccumulatorKind::Min, 1),
            accumulator(AccumulatorKind::Max, 2),
            accumulator(AccumulatorKind::Count, 1),
        ];
        {
            let store = Store::open(side.open(), &Specs::new(vec![newer]), keep).unwrap();
            let (_, state) = store.bar(A, 0, SeriesId(0), NOW).unwrap().unwrap();
            assert_eq!(state, [0, 42, 0]);
            let mut batch = store.batch();
            batch.put_bar(A, &bar(1, NOW, 1), &[5, 6, 7]);
            batch.commit(Durability::Process).unwrap();
        }
        let store = side.store();
        assert_eq!(store.bar(A, 0, SeriesId(0), NOW).unwrap().unwrap().1, [42, 1]);
        assert_eq!(store.bar(A, 0, SeriesId(1), NOW).unwrap().unwrap().1, [6, 0]);
    });
}
