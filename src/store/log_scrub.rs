//! Damage in fjall's write-ahead log, cut out before the database is opened.
//!
//! fjall reads its log up to the first entry it cannot parse and silently forgets the rest, and refuses to open where a
//! checksum does not match. So the log is read here first: whole records are kept wherever they stand, everything
//! between them is set aside into the directory `damaged`. What is left is a log fjall accepts.
//!
//! ```text
//! record: 1 · items u32 · seqno u64 · item… · 3 · xxh3 of the items u64 · "FJL" 3
//! item:   2 · type u8 · compression u8 · space u64 · key u16 · value u32 · on disk u32 · key · value, or 4 · space u64
//! ```
//! Numbers are little endian. A new file is filled with zeros up to its first size.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

/// Where damaged parts are kept, below the data directory.
pub const DAMAGED: &str = "damaged";

const TRAILER: [u8; 4] = *b"FJL\x03";
/// Bytes before a record's items.
const START: usize = 13;
/// Bytes of an item before its key.
const ITEM: usize = 21;
/// Numbers of records ascend; a leap beyond this is damage.
const LEAP: u64 = 1 << 40;

/// Sets aside what is damaged in the logs of `dir`, which no process has open, and notes where one is missing.
///
/// # Errors
/// The operating system's.
pub fn scrub(dir: &Path) -> io::Result<()> {
    let logs = logs(dir)?;
    logs.iter().try_for_each(|(_, log)| scrub_log(dir, log))?;
    // Logs are numbered in a row, one is always there, and none is made empty.
    let gap = logs.windows(2).map(|pair| (pair[0].0 + 1, pair[1].0)).find(|(next, found)| next < found);
    let empty = logs.iter().find(|(_, log)| log.metadata().is_ok_and(|log| log.len() == 0));
    let none = logs.is_empty().then_some(0);
    let Some(missing) = gap.map(|gap| gap.0).or(empty.map(|empty| empty.0)).or(none) else { return Ok(()) };
    let noted = dir.join(DAMAGED).join(format!("{missing}.jnl.missing"));
    if !noted.exists() {
        fs::create_dir_all(dir.join(DAMAGED))?;
        write_synced(&noted, &[])?;
        tracing::error!(path = %dir.display(), number = missing, "a log is missing");
    }
    Ok(())
}

/// The names of what was set aside, ever, and its bytes.
///
/// # Errors
/// The operating system's.
pub fn set_aside(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let entries = match fs::read_dir(dir.join(DAMAGED)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok((entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len()))
    };
    let mut files: Vec<_> = entries.map(file).collect::<io::Result<_>>()?;
    files.sort_unstable();
    Ok(files)
}

/// The logs by number, ascending.
fn logs(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        logs.extend(number.map(|number| (number, entry.path())));
    }
    logs.sort_unstable();
    Ok(logs)
}

fn scrub_log(dir: &Path, log: &Path) -> io::Result<()> {
    let bytes = fs::read(log)?;
    let damaged = damaged(&bytes);
    if damaged.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(dir.join(DAMAGED))?;
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    for range in &damaged {
        // The content is in the name, so that damage at the same place another day does not replace it.
        let part = &bytes[range.clone()];
        let aside = format!("{name}.{}.{:08x}", range.start, xxh3_64(part) as u32);
        write_synced(&dir.join(DAMAGED).join(aside), &[part])?;
        let (start, length) = (range.start, range.len());
        tracing::error!(log = %log.display(), start, length, "part of the log is damaged and set aside");
    }
    sync_directory(&dir.join(DAMAGED))?;
    sync_directory(dir)?;
    let mut kept = Vec::with_capacity(damaged.len() + 1);
    let mut from = 0;
    for range in &damaged {
        kept.push(&bytes[from..range.start]);
        from = range.end;
    }
    kept.push(&bytes[from..]);
    let fresh = log.with_extension("scrubbed");
    write_synced(&fresh, &kept)?;
    fs::rename(&fresh, log)?;
    sync_directory(dir)
}

fn write_synced(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = File::create(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The parts of a log that belong to no whole record; zeros at its end are none.
fn damaged(log: &[u8]) -> Vec<Range<usize>> {
    let used = log.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let (mut records, mut at) = (Vec::new(), 0);
    while at < used {
        match record(&log[at..used]) {
            Some((length, number)) => {
                records.push((at..at + length, number));
                at += length;
            }
            None => at = (at + 1..used).find(|from| log[*from] == 1).unwrap_or(used),
        }
    }
    let numbers: Vec<u64> = records.iter().map(|(_, number)| *number).collect();
    let (mut damaged, mut from) = (Vec::new(), 0);
    for index in ascending(&numbers) {
        let range = &records[index].0;
        if range.start > from {
            damaged.push(from..range.start);
        }
        from = range.end;
    }
    if used > from {
        damaged.push(from..used);
    }
    damaged
}

/// The most of `numbers` that ascend, by index: a record's own number is the one thing its checksum leaves out.
fn ascending(numbers: &[u64]) -> Vec<usize> {
    // By length, less one: the index of the lowest number that ends so long a row; and what comes before each in its row.
    let (mut ends, mut before): (Vec<usize>, Vec<Option<usize>>) = (Vec::new(), Vec::new());
    for (index, number) in numbers.iter().enumerate() {
        let length = ends.partition_point(|end| numbers[*end] < *number);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut row: Vec<usize> = std::iter::successors(ends.last().copied(), |index| before[*index]).collect();
    row.reverse();
    let leaps = |pair: &[usize]| numbers[pair[1]] - numbers[pair[0]] > LEAP;
    if let Some(at) = row.windows(2).position(leaps) {
        row.truncate(at + 1);
    }
    row
}

/// Length and number of the whole record that `bytes` begin with.
fn record(bytes: &[u8]) -> Option<(usize, u64)> {
    let head = bytes.get(..START)?;
    let (tag, items) = (head[0], u32_at(head, 1)?);
    if tag != 1 {
        return None;
    }
    let mut at = START;
    for _ in 0..items {
        at += item(bytes.get(at..)?)?;
    }
    let end = bytes.get(at..at + 1 + 8 + TRAILER.len())?;
    let sound = end[0] == 3 && end[9..] == TRAILER && u64_at(end, 1)? == xxh3_64(&bytes[START..at]);
    sound.then(|| Some((at + end.len(), u64_at(head, 5)?)))?
}

/// The length of the item that `bytes` begin with.
fn item(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        2 => {
            let head = bytes.get(..ITEM)?;
            let key = u16::from_le_bytes([head[11], head[12]]);
            let length = ITEM.checked_add(usize::from(key))?.checked_add(u32_at(head, 17)? as usize)?;
            (length <= bytes.len()).then_some(length)
        }
        4 => (bytes.len() >= 9).then_some(9),
        _ => None,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Durability, Fjall, Kv, Op};

    /// The log of a database with `commits` commits, and where each ends.
    fn log(commits: u8) -> (tempfile::TempDir, PathBuf, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let kv = Fjall::open(dir.path(), 1 << 20).unwrap();
        let mut ends = Vec::new();
        for n in 0..commits {
            let put = |key| Op::Put { space: "a".into(), key: vec![n, key].into(), value: vec![n; 100].into() };
            kv.commit((0..3).map(put).collect(), Durability::Process).unwrap();
            let bytes = fs::read(&logs(dir.path()).unwrap()[0].1).unwrap();
            ends.push(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        }
        drop(kv);
        let path = logs(dir.path()).unwrap().remove(0).1;
        (dir, path, ends)
    }

    #[test]
    fn the_log_fjall_writes_is_sound_and_every_record_ends_where_fjall_says() {
        let (_dir, path, ends) = log(5);
        let bytes = fs::read(path).unwrap();
        assert!(damaged(&bytes).is_empty());
        let mut at = record(&bytes).unwrap().0;
        let mut found = vec![at];
        while let Some((length, _)) = record(&bytes[at..]) {
            at += length;
            found.push(at);
        }
        assert!(ends.iter().all(|end| found.contains(end)), "{ends:?} are not all among {found:?}");
    }

    #[test]
    fn a_flipped_byte_costs_one_record_and_a_cut_or_zeroed_end_what_it_took() {
        let (_dir, path, ends) = log(6);
        let mut sound = fs::read(path).unwrap();
        sound.truncate(ends[5] + 100);
        for at in 0..ends[5] {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x40;
            let hit = damaged(&bytes);
            let lost: usize = hit.iter().map(ExactSizeIterator::len).sum();
            // A record's own number is checked against its neighbours' only: the last may be a little higher.
            let is_number = |end: &usize| record(&sound[*end..]).is_some() && (end + 5..end + START).contains(&at);
            let last = is_number(&ends[4]) && hit.is_empty();
            assert!(last || hit.iter().any(|range| range.contains(&at)), "byte {at}: {hit:?}");
            // The first record of a space also makes it known; no record here is longer.
            assert!(lost <= 500, "byte {at}: {hit:?}");
        }
        for at in ends[1]..ends[5] {
            let mut zeroed = sound.clone();
            zeroed[at..].fill(0);
            for bytes in [&sound[..at], &zeroed] {
                let whole = ends.iter().rposition(|end| *end <= at).unwrap();
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
                let expected: Vec<_> = (used > ends[whole]).then(|| ends[whole]..used).into_iter().collect();
                assert_eq!(damaged(bytes), expected, "cut at {at}");
            }
        }
    }
}
