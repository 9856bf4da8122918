//! Rewriting beside the rest of the store: damage, other definitions of a spec, tools, ageing.

use super::*;

#[test]
fn a_corrupt_block_costs_only_itself() {
    on_both(|side| {
        let (kv, store) = filled(side, 9);
        let space = kv.spaces("ticks/a/").remove(1);
        let (mut key, mut bytes) = (Vec::new(), Vec::new());
        kv.scan(&space, &[], None, &mut |found, value| {
            (key, bytes) = (found.to_vec(), value.to_vec());
            ControlFlow::Break(())
        })
        .unwrap();
        let lost = keys::parse_block(&key).unwrap().rows;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let put = Op::Put { space: space.as_str().into(), key: key.into(), value: bytes.into() };
        kv.commit(vec![put], Durability::Process).unwrap();
        assert_eq!(cluster(&store, LATER).unwrap(), store.journal_end() - u64::from(lost));
        assert_eq!(store.usage().quarantined, [(Kind::Block, 1)]);
        assert_eq!(
            rows(&store, all_ticks(A)).values().map(Vec::len).sum::<usize>() as u64,
            store.journal_end() - u64::from(lost)
        );
    });
}

#[test]
fn blocks_of_another_definition_of_the_spec_keep_their_fields() {
    on_both(|side| {
        let before = {
            let store = side.store();
            fill(&store, 13);
            rows(&store, all_ticks(A))
        };
        let mut newer = spec("a");
        newer.fields = vec![Field { name: "spread".into(), ty: FieldType::Float64 }];
        newer.accumulators = vec![Accumulator { kind: AccumulatorKind::Max, field: 0, ty: FieldType::Float64 }];
        {
            let specs = Specs::new(vec![newer]);
            let store = Store::open(side.open(), &specs, keep).unwrap();
            let mut batch = TickBatch::new(A, 1);
            batch.series.push(3);
            batch.timestamps.push(START + 14 * MINUTE);
            batch.fields[0].bits.push(1.5f64.to_bits());
            let facts = BlockFacts::of(&batch, store.journal_end(), START + 14 * MINUTE);
            let mut write = store.batch();
            write.append(A, facts, block::encode(&batch, specs.get(A), facts.offset, facts.received_at).into());
            write.commit(Durability::Synced).unwrap();
            all_in_bars(&store);
            assert_eq!(cluster(&store, LATER).unwrap(), store.journal_end());
        }
        let mut found = rows(&side.store(), all_ticks(A));
        assert_eq!(found.get_mut(&3).and_then(Vec::pop).map(|row| row.2), Some(vec![Some(1.5f64.to_bits())]));
        assert_eq!(found, before);
    });
}

#[test]
fn ticks_that_were_given_up_keep_their_arrival_numbers() {
    on_both(|side| {
        let (kv, store) = filled(side, 19);
        let second = kv.spaces("ticks/a/").remove(1);
        let mut first = None;
        kv.scan_keys(&second, &[], None, &mut |key| {
            first = keys::parse_block(key);
            ControlFlow::Break(())
        })
        .unwrap();
        let (offset, rows) = first.map(|facts| (facts.offset, u64::from(facts.rows))).unwrap();
        store.poison(A, Poisoned { offset, rows, instances: 2, instance: 0, ticks: 1 }).unwrap();
        cluster(&store, LATER).unwrap();
        assert_eq!((kv.spaces("ticks/a/"), kv.spaces("sorted/a/").len()), (vec![second], 2));
    });
}

#[test]
fn tools_know_what_is_there_and_that_nothing_is_lacking() {
    on_both(|side| {
        let (kv, store) = filled(side, 21);
        let ticks = |scan| rows(&store, scan).values().map(|rows| rows.len() as u64).sum::<u64>();
        let all = ticks(all_ticks(A));
        let holes = store.holes(A).unwrap();
        cluster(&store, LATER).unwrap();
        assert_eq!(store.count_ticks(&all_ticks(A)).unwrap(), all);
        assert!(store.count_ticks(&TickScan { from: START + 8 * MINUTE, ..all_ticks(A) }).unwrap() < all);
        assert_eq!(store.holes(A).unwrap(), holes);
        let report = verify::look(&*kv, &mut |_| ControlFlow::Continue(())).unwrap().report();
        let sorted = report.kinds.iter().find(|kind| kind.kind == "sorted").unwrap();
        assert!(sorted.values > 20 && sorted.bad == 0, "{report:?}");
        assert_eq!(report.gaps, []);
        // A damaged block is found, put aside by whoever meets it, and its times are known to lack ticks.
        let space = kv.spaces("sorted/a/").remove(0);
        let mut bad = None;
        kv.scan(&space, &[], None, &mut |key, value| {
            let mut bytes = value.to_vec();
            bytes[9] ^= 1;
            bad = Some(Op::Put { space: space.as_str().into(), key: key.to_vec().into(), value: bytes.into() });
            ControlFlow::Break(())
        })
        .unwrap();
        kv.commit(bad.into_iter().collect(), Durability::Process).unwrap();
        let report = verify::look(&*kv, &mut |_| ControlFlow::Continue(())).unwrap().report();
        assert!(report.kinds.iter().any(|kind| (kind.kind.as_str(), kind.bad) == ("sorted", 1)), "{report:?}");
        assert!(ticks(all_ticks(A)) < all);
        assert_eq!(store.holes(A).unwrap().damaged.len(), 1);
    });
}

#[test]
fn a_half_rewritten_store_can_be_looked_at_without_a_trace() {
    on_both(|side| {
        let kv = side.open();
        let expected = {
            let store = Store::open(kv.clone(), &specs(), keep).unwrap();
            fill(&store, 23);
            let mut work = None;
            (0..4).for_each(|_| _ = store.cluster(&mut work, LATER, SIZE).unwrap());
            rows(&store, all_ticks(A))
        };
        assert_eq!(spaces(&*kv), (3, 1));
        let looked = Store::open(Arc::new(ReadOnly::new(kv.clone())), &specs(), keep).unwrap();
        assert_eq!(rows(&looked, all_ticks(A)), expected);
        assert_eq!(spaces(&*kv), (3, 1));
        assert_eq!(rows(&Store::open(kv.clone(), &specs(), keep).unwrap(), all_ticks(A)), expected);
        assert_eq!(spaces(&*kv), (3, 0));
    });
}

#[test]
fn where_a_damaged_log_took_the_records_the_whole_of_both_is_kept() {
    let memory = Arc::new(Memory::new());
    let side = Side::Memory(memory.clone());
    let store = side.store();
    fill(&store, 25);
    let expected = rows(&store, all_ticks(A));
    let record = |space: &str| Bytes::from(format!("doomed/{space}"));
    let delete =
        |key: Bytes| memory.commit(vec![Op::Delete { space: "meta".into(), key }], Durability::Synced).unwrap();
    let mut work = None;
    (0..4).for_each(|_| _ = store.cluster(&mut work, LATER, SIZE).unwrap());
    // The record of what is half made is lost.
    delete(record(&memory.spaces("sorted/a/")[0]));
    let store = side.store();
    assert_eq!((rows(&store, all_ticks(A)), spaces(&*memory)), (expected.clone(), (3, 0)));
    // What is whole is doomed, as it was while it was made, and what it was made from has gone.
    cluster(&store, LATER).unwrap();
    let key = record(&memory.spaces("sorted/a/")[0]);
    let frame = |key: &[u8]| barline::store::value::frame(key, &[]);
    let put = |key: Bytes| Op::Put { space: "meta".into(), value: frame(&key), key };
    memory.commit(vec![put(key), put(Bytes::from_static(b"log_damaged"))], Durability::Synced).unwrap();
    assert_eq!((rows(&side.store(), all_ticks(A)), spaces(&*memory)), (expected, (0, 3)));
}

#[test]
fn what_expires_while_it_is_rewritten_stays_gone_and_is_counted_once() {
    on_both(|side| {
        let (kv, store) = filled(side, 15);
        let mut work = None;
        store.cluster(&mut work, LATER, SIZE).unwrap();
        let much_later = START + 5 * HOUR;
        let dropped = store.reap(much_later, &PLENTY).unwrap().dropped;
        assert_eq!(dropped.iter().map(|dropped| dropped.ticks).sum::<u64>(), store.journal_end());
        while store.cluster(&mut work, much_later, SIZE).unwrap().is_some() {}
        assert_eq!(spaces(&*kv), (0, 0));
        assert_eq!(rows(&store, TickScan { from: i64::MIN, ..all_ticks(A) }), BySeries::new());
        assert_eq!(store.expired_totals(A).unwrap().by_age.ticks, store.journal_end());
    });
}

#[test]
fn rewritten_partitions_age_and_are_counted_like_others() {
    on_both(|side| {
        let store = side.store();
        fill(&store, 17);
        cluster(&store, LATER).unwrap();
        assert_eq!(store.usage().specs[0].partitions, 3);
        assert!(store.usage().specs[0].ticks > 0);
        let dropped = store.reap(START + 5 * HOUR, &PLENTY).unwrap().dropped;
        assert!(dropped.iter().all(|dropped| dropped.family == Family::Sorted && dropped.blocks > 0));
        assert_eq!(dropped.iter().map(|dropped| dropped.ticks).sum::<u64>(), store.journal_end());
        assert_eq!(store.usage().specs[0].ticks, 0);
        drop(store);
        let store = side.store();
        assert_eq!(store.expired_totals(A).unwrap().by_age.ticks, store.journal_end());
    });
}
