//! Corrupt values and files, failing and vanishing commits, directories that cannot be had.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use barline::model::time::{MINUTE, SECOND};
use barline::model::*;
use barline::store::*;
use bytes::Bytes;

use super::kit::*;

/// Flips a bit of every value in the spaces that begin so.
fn flip(kv: &dyn Kv, prefix: &str) {
    for space in kv.spaces(prefix) {
        let mut ops = Vec::new();
        kv.scan(&space, &[], None, &mut |key, value| {
            let mut bytes = value.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
            ops.push(Op::Put { space: space.as_str().into(), key: Bytes::copy_from_slice(key), value: bytes.into() });
            ControlFlow::Continue(())
        })
        .unwrap();
        kv.commit(ops, Durability::Process).unwrap();
    }
}

#[test]
fn corrupt_values_are_put_aside_and_counted_and_the_rest_is_served() {
    on_both(|side| {
        let key = SeriesKey::new([("n", "1")]).unwrap();
        {
            let kv = side.open();
            let store = Store::open(kv.clone(), &specs(), keep).unwrap();
            let mut batch = store.batch();
            batch.put_series(A, SeriesId(0), &key);
            batch.put_checkpoint(checkpoint(0, 4));
            batch.commit(Durability::Process).unwrap();
            append(&store, A, 0, NOW, &[(0, NOW)]);
            put_bars(&store, A, [bar(0, NOW, 1), bar(0, NOW + SECOND, 1)]);
            ["ticks/", "bars/", "series/"].iter().for_each(|prefix| flip(&*kv, prefix));
            append(&store, A, 1, NOW, &[(0, NOW)]);
            put_bars(&store, A, [bar(0, NOW + MINUTE, 1)]);
            assert_eq!(offsets(&store, all_ticks(A)), [1]);
            assert_eq!(store.bar(A, 0, SeriesId(0), NOW).unwrap(), None);
            assert_eq!(all_bars(&store, A).iter().map(|bar| bar.start).collect::<Vec<_>>(), [NOW + MINUTE]);
            for _ in 0..2 {
                // Its number stays taken.
                store.load_series(A, &mut |id, key| assert_eq!((id, key), (SeriesId(0), None))).unwrap();
            }
            assert_eq!(store.usage().quarantined, [(Kind::Series, 1), (Kind::Block, 1), (Kind::Bar, 2)]);
            let meta = |record: &str| kv.get("meta", record.as_bytes()).unwrap().unwrap();
            let mut bytes = meta("checkpoint/2/0").to_vec();
            bytes[3] ^= 1;
            let (space, record) = ("meta".into(), Bytes::from_static(b"checkpoint/2/0"));
            kv.commit(vec![Op::Put { space, key: record, value: bytes.into() }], Durability::Process).unwrap();
        }
        let store = side.store();
        assert_eq!((store.checkpoints(), store.journal_end()), (vec![], 2));
        let counts = [(Kind::Series, 1), (Kind::Block, 1), (Kind::Bar, 2), (Kind::Meta, 1)];
        assert_eq!(store.usage().quarantined, counts);
        assert_eq!(replay(&store, 0), [(1, A)]);
    });
}

#[test]
fn a_damaged_file_costs_only_what_it_held() {
    let side = Side::Disk(directory());
    let Side::Disk(dir) = &side else { unreachable!() };
    let of_blobs = |path: &Path| path.parent().is_some_and(|parent| parent.ends_with("blobs"));
    {
        let kv = side.open();
        let store = Store::open(kv.clone(), &specs(), keep).unwrap();
        let mut random = fastrand::Rng::with_seed(3);
        for n in 0..20 {
            let rows: Vec<_> = (0..1_000).map(|_| (random.u32(..), NOW + random.i64(0..SECOND))).collect();
            append(&store, A, n * 1_000, NOW, &rows);
        }
        kv.settle(&kv.spaces("ticks/a/")[0]);
        while !files(dir.path()).iter().any(|path| of_blobs(path)) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    for path in files(dir.path()).into_iter().filter(|path| of_blobs(path)) {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }
    let store = side.store();
    assert_eq!(offsets(&store, all_ticks(A)).len(), 19);
    assert_eq!(store.usage().quarantined, [(Kind::Block, 1)]);
    assert_eq!(replay(&store, 0).len(), 19);
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn a_newer_format_is_refused() {
    on_both(|side| {
        drop(side.store());
        let kv = side.open();
        let key = Bytes::from_static(b"format");
        let newer = barline::store::value::frame(&key, &3u32.to_be_bytes());
        kv.commit(vec![Op::Put { space: "meta".into(), key, value: newer }], Durability::Process).unwrap();
        let error = Store::open(kv, &specs(), keep).err().unwrap();
        assert_eq!(error.to_string(), "the data is of format 3, this version reads up to 2; use a newer barline");
    });
}

#[test]
fn a_directory_in_use_and_one_that_cannot_be_used_are_told_clearly() {
    let dir = directory();
    let first = Fjall::open(dir.path(), 1 << 20).unwrap();
    let error = Fjall::open(dir.path(), 1 << 20).err().unwrap();
    assert!(matches!(error, KvError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("is in use by another process; stop it"), "{error}");
    drop(first);
    Fjall::open(dir.path(), 1 << 20).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Fjall::open(&file, 1 << 20).err().unwrap();
    assert!(matches!(error, KvError::Unusable { .. }), "{error}");
}

#[test]
fn power_loss_takes_only_what_was_not_synced() {
    let memory = Arc::new(Memory::with_faults(FaultPlan::default()));
    let side = Side::Memory(memory.clone());
    let store = side.store();
    append(&store, A, 0, NOW, &[(0, NOW)]);
    put_bars(&store, A, [bar(0, NOW, 1)]);
    memory.crash();
    let store = side.store();
    assert_eq!((offsets(&store, all_ticks(A)), all_bars(&store, A)), (vec![0], vec![]));
    assert_eq!(store.newest_start(A, 0), None);
    put_bars(&store, A, [bar(0, NOW, 1)]);
    store.batch().commit(Durability::Synced).unwrap();
    memory.crash();
    assert_eq!(all_bars(&side.store(), A).len(), 1);
}

#[test]
fn a_failed_commit_leaves_nothing_and_may_be_repeated() {
    let memory = Arc::new(Memory::new());
    let store = Side::Memory(memory.clone()).store();
    memory.plan(FaultPlan { commits: vec![(1, Fault::Full), (2, Fault::Other)], scans: vec![2] });
    let fill = || {
        let mut batch = store.batch();
        batch.put_bar(A, &bar(0, NOW, 1), &[1, 1]);
        let (facts, block) = ticks(A, 0, NOW, &[(0, NOW)]);
        batch.append(A, facts, block);
        batch.put_checkpoint(checkpoint(0, 1));
        batch.commit(Durability::Synced)
    };
    assert!(fill().unwrap_err().may_pass());
    assert!(!fill().unwrap_err().may_pass());
    assert_eq!((store.journal_end(), store.newest_start(A, 0), store.checkpoints()), (0, None, vec![]));
    fill().unwrap();
    assert_eq!(
        (store.journal_end(), store.newest_start(A, 0), store.checkpoints()),
        (1, Some(NOW), vec![checkpoint(0, 1)])
    );
    assert_eq!(all_bars(&store, A).len(), 1);
    let ask = BarScan { spec: A, granularity: 0, series: None, from: i64::MIN, to: i64::MAX };
    assert!(store.scan_bars(&ask, &mut |_, _| ControlFlow::Continue(())).is_err());
    assert_eq!(all_bars(&store, A).len(), 1);
}
