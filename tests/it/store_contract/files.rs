//! Any file of a data directory damaged, cut short, emptied or missing: what is there is served and is what was written,
//! what is missing is counted, or the start is refused with the path and a remedy; never a panic, never a wrong value.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use barline::model::time::SECOND;
use barline::model::*;
use barline::store::*;

use super::kit::*;

const BLOCKS: u64 = 30;

/// A directory in which every kind of file occurs: tables, blobs, and a log with what came after.
fn fill(dir: &Path) {
    let kv = std::sync::Arc::new(Fjall::open(dir, 8 << 20).unwrap());
    let store = Store::open(kv.clone(), &specs(), keep).unwrap();
    let mut random = fastrand::Rng::with_seed(3);
    for n in 0..BLOCKS {
        let rows: Vec<_> = (0..300).map(|_| (random.u32(..), NOW + random.i64(0..SECOND))).collect();
        let mut batch = store.batch();
        batch.put_series(A, SeriesId(n as u32), &SeriesKey::new([("n", n.to_string().as_str())]).unwrap());
        batch.put_checkpoint(checkpoint(0, n));
        batch.commit(Durability::Process).unwrap();
        append(&store, A, n * 300, NOW, &rows);
        put_bars(&store, A, [bar(n as u32, NOW, n + 1)]);
        if n == BLOCKS / 2 {
            let spaces = kv.spaces("");
            spaces.iter().for_each(|space| kv.settle(space));
            while tables(dir) < spaces.len() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
    store.batch().commit(Durability::Synced).unwrap();
}

/// How many spaces have been flushed; fjall's own keyspace is not one.
fn tables(dir: &Path) -> usize {
    let spaces = fs::read_dir(dir.join("keyspaces")).unwrap().map(|entry| entry.unwrap().path());
    spaces.filter(|space| !space.ends_with("0") && !files(&space.join("tables")).is_empty()).count()
}

/// Every file below a directory, in a fixed order.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect();
    files.sort_unstable();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to) } else { _ = fs::copy(entry.path(), to).unwrap() }
    }
}

/// What was read, or why not.
type Read = Result<(Vec<u64>, Vec<u64>, Vec<(Kind, u64)>), String>;

fn read(dir: &Path) -> Read {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let kv = std::sync::Arc::new(Fjall::open(dir, 8 << 20).map_err(|error| said(&error))?);
    let store = Store::open(kv, &specs(), keep).map_err(|error| said(&error))?;
    store.load_series(A, &mut |_, _| ()).map_err(|error| said(&error))?;
    let mut blocks = Vec::new();
    store.journal_from(0, &mut |offset, _, _| blocks.push(offset / 300)).map_err(|error| said(&error))?;
    let mut bars = Vec::new();
    let ask = BarScan { spec: A, granularity: 0, series: None, from: i64::MIN, to: i64::MAX };
    let mut visit = |head: &BarHead, state: &[u64]| {
        assert_eq!((u64::from(head.series.0) + 1, state), (head.ticks, &[head.ticks, 1][..]), "a wrong bar");
        bars.push(u64::from(head.series.0));
        std::ops::ControlFlow::Continue(())
    };
    store.scan_bars(&ask, &mut visit).map_err(|error| said(&error))?;
    Ok((blocks, bars, store.usage().quarantined))
}

/// Breaks a file in one of eight ways.
fn damage(path: &Path, way: usize, random: &mut fastrand::Rng) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match way {
        0 => return fs::remove_file(path).unwrap(),
        1 => bytes.truncate(used / 2),
        2 => bytes[used / 2..].fill(0),
        3 => bytes.clear(),
        _ if used > 0 => bytes[random.usize(0..used)] ^= 1 << random.u8(0..8),
        _ => {}
    }
    fs::write(path, bytes).unwrap();
}

/// What must hold of what was read, or of what was said instead.
fn judge(read: &Read, dir: &Path, is_log: bool) -> Result<(), String> {
    match read {
        Ok((blocks, bars, quarantined)) => {
            let all = |found: &[u64]| found.len() as u64 == BLOCKS;
            let sound = blocks.is_sorted() && blocks.iter().all(|block| *block < BLOCKS);
            let told = all(blocks) && all(bars) || !quarantined.is_empty();
            (sound && told).then_some(()).ok_or_else(|| format!("{read:?}"))
        }
        Err(said) => {
            let is_clear = said.contains("restore") || said.contains("verify --repair");
            let names_it = said.contains(dir.to_str().unwrap()) || said.contains("record");
            (is_clear && names_it && !is_log).then_some(()).ok_or_else(|| said.clone())
        }
    }
}

#[test]
fn any_file_damaged_or_missing_costs_what_it_held_or_is_told_and_a_damaged_log_refuses_no_start() {
    let dir = directory();
    let (sound, broken) = (dir.path().join("sound"), dir.path().join("broken"));
    fs::create_dir(&sound).unwrap();
    fill(&sound);
    assert_eq!(read(&sound).map(|read| (read.0.len(), read.1.len())), Ok((BLOCKS as usize, BLOCKS as usize)));
    let files: Vec<_> = files(&sound).iter().map(|file| file.strip_prefix(&sound).unwrap().to_owned()).collect();
    for kind in ["version", ".jnl", "current", "/v", "tables/", "blobs/"] {
        assert!(files.iter().any(|file| file.to_str().unwrap().contains(kind)), "no {kind} among {files:?}");
    }
    let mut random = fastrand::Rng::with_seed(1);
    for (file, way) in files.iter().flat_map(|file| (0..8).map(move |way| (file, way))) {
        copy(&sound, &broken);
        damage(&broken.join(file), way, &mut random);
        let is_log = file.extension().is_some_and(|extension| extension == "jnl");
        let read = catch_unwind(AssertUnwindSafe(|| read(&broken)));
        let judged = read.map_err(|_| "it panicked".to_owned()).and_then(|read| judge(&read, &broken, is_log));
        assert_eq!(judged, Ok(()), "{}, damaged in way {way}", file.display());
        fs::remove_dir_all(&broken).unwrap();
    }
}
