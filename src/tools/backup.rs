//! A consistent copy of everything, taken while the pipeline runs.
//!
//! ```text
//! DIR/store/          a data directory, as of one moment between two commits
//! DIR/MANIFEST.json   how many pairs, bytes, and which checksum every space has; written last
//! ```
//! The copy is read through a snapshot, so ingest goes on meanwhile. A directory without its manifest is a copy that did
//! not come to its end, and is not restored.

use std::fs::File;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use super::watch::{ToolError, Watch, tell};
use crate::store::{Durability, Fjall, Kv, KvError, Op, Snapshot, keys, meta, value};

/// The copy inside a backup.
pub(super) const STORE: &str = "store";
/// What says that it is whole.
pub(super) const MANIFEST: &str = "MANIFEST.json";
/// The read cache of a database that is only copied.
pub(super) const CACHE: u64 = 8 << 20;
/// Bytes written at once.
const BATCH: usize = 2 << 20;

/// What a backup holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the stored data.
    pub format: u32,
    /// When it was taken, in nanoseconds since 1970.
    pub taken_ns: i64,
    /// The next arrival number then.
    pub journal_end: u64,
    /// Every space, ascending.
    pub spaces: Vec<SpaceSum>,
}

/// What a space holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceSum {
    /// Its name.
    pub space: String,
    /// Its pairs.
    pub pairs: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
    /// The xxh3 of all of them in order, in hexadecimal.
    pub xxh3: String,
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// Where to.
    pub directory: String,
    /// Spaces copied.
    pub spaces: u64,
    /// Pairs in them.
    pub pairs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The next arrival number of the copy.
    pub journal_end: u64,
    /// Values that could not be read from the disk, and are in the copy as such.
    pub unreadable: u64,
}

/// Copies everything as it is now into an empty directory.
///
/// # Errors
/// The directory is not empty or cannot be written, `watch` breaks, or the port fails.
pub fn backup(kv: &dyn Kv, directory: &Path, watch: &mut Watch<'_>) -> Result<BackupReport, ToolError> {
    if !directory.is_absolute() {
        return Err(ToolError::Refused(format!("{}: a backup needs an absolute path", directory.display())));
    }
    be_empty(directory, "name an empty or a new directory for a backup")?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    let snapshot = kv.snapshot()?;
    let total = kv.spaces("").iter().map(|space| kv.size(space)).sum();
    let copy = Fjall::open(&directory.join(STORE), CACHE)?;
    let copied = copy_all(&*snapshot, &copy, total, watch)?;
    drop(copy);
    let manifest =
        Manifest { format: meta::FORMAT, taken_ns: now, journal_end: copied.journal_end, spaces: copied.spaces };
    write_manifest(directory, &manifest)?;
    Ok(BackupReport {
        directory: directory.display().to_string(),
        spaces: manifest.spaces.len() as u64,
        pairs: manifest.spaces.iter().map(|sum| sum.pairs).sum(),
        bytes: manifest.spaces.iter().map(|sum| sum.bytes).sum(),
        journal_end: manifest.journal_end,
        unreadable: copied.unreadable,
    })
}

/// What was copied.
#[derive(Default)]
pub(super) struct Copied {
    pub spaces: Vec<SpaceSum>,
    pub journal_end: u64,
    pub unreadable: u64,
}

/// Copies every pair and makes the copy durable.
pub(super) fn copy_all(
    from: &dyn Snapshot,
    to: &dyn Kv,
    total: u64,
    watch: &mut Watch<'_>,
) -> Result<Copied, ToolError> {
    let (mut copied, mut done) = (Copied::default(), 0);
    for space in from.spaces() {
        let name: std::sync::Arc<str> = space.as_str().into();
        let (mut ops, mut held, mut failed) = (Vec::new(), 0, None);
        let mut sum = Sum::new(&space);
        from.scan(&space, &mut |key, frame| {
            sum.add(key, &frame);
            copied.unreadable += u64::from(frame.is_empty());
            copied.note_end(&space, key, &frame);
            held += key.len() + frame.len();
            ops.push(Op::Put { space: name.clone(), key: Bytes::copy_from_slice(key), value: frame });
            if held < BATCH {
                return ControlFlow::Continue(());
            }
            done += std::mem::take(&mut held) as u64;
            let written = to.commit(std::mem::take(&mut ops), Durability::Process).map_err(ToolError::from);
            match written.and_then(|()| tell(watch, "copying", done.min(total), total)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        done += held as u64;
        to.commit(ops, Durability::Process)?;
        tell(watch, "copying", done.min(total), total)?;
        copied.spaces.extend(sum.end());
    }
    to.commit(Vec::new(), Durability::Synced)?;
    Ok(copied)
}

impl Copied {
    /// Keeps the highest arrival number that blocks and the store's own record tell of.
    fn note_end(&mut self, space: &str, key: &[u8], frame: &Bytes) {
        let end = if space.starts_with("ticks/") {
            keys::parse_block(key).map(|facts| facts.end())
        } else if space == keys::META && key == b"journal_end" {
            value::open(key, frame).and_then(|end| Some(u64::from_be_bytes(end.as_ref().try_into().ok()?)))
        } else {
            None
        };
        self.journal_end = self.journal_end.max(end.unwrap_or(0));
    }
}

/// The sum of a space in the making.
struct Sum {
    sum: SpaceSum,
    hash: Xxh3Default,
}

impl Sum {
    fn new(space: &str) -> Self {
        Self { sum: SpaceSum { space: space.to_owned(), ..SpaceSum::default() }, hash: Xxh3Default::new() }
    }

    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.sum.pairs += 1;
        self.sum.bytes += (key.len() + value.len()) as u64;
        for part in [key, value] {
            self.hash.update(&(part.len() as u32).to_le_bytes());
            self.hash.update(part);
        }
    }

    /// Nothing where the space was empty: it may have been made after the snapshot was taken.
    fn end(mut self) -> Option<SpaceSum> {
        self.sum.xxh3 = format!("{:016x}", self.hash.digest());
        (self.sum.pairs > 0).then_some(self.sum)
    }
}

/// What every space of a port holds.
pub(super) fn sums(from: &dyn Snapshot, total: u64, watch: &mut Watch<'_>) -> Result<Vec<SpaceSum>, ToolError> {
    let (mut sums, mut done) = (Vec::new(), 0);
    for space in from.spaces() {
        let (mut sum, mut stopped) = (Sum::new(&space), None);
        from.scan(&space, &mut |key, frame| {
            sum.add(key, &frame);
            done += (key.len() + frame.len()) as u64;
            match tell(watch, "reading back", done.min(total), total) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    stopped = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        stopped.map_or(Ok(()), Err)?;
        sums.extend(sum.end());
    }
    Ok(sums)
}

/// Makes sure that a directory is there and empty.
pub(super) fn be_empty(directory: &Path, remedy: &str) -> Result<(), ToolError> {
    let failed = |error| file_error(directory, error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    match std::fs::read_dir(directory).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(ToolError::Refused(format!("{} is not empty; {remedy}", directory.display()))),
    }
}

pub(super) fn file_error(path: &Path, error: std::io::Error) -> ToolError {
    if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        return KvError::Full { path: path.display().to_string() }.into();
    }
    ToolError::File { path: path.display().to_string(), error }
}

fn write_manifest(directory: &Path, manifest: &Manifest) -> Result<(), ToolError> {
    let path = directory.join(MANIFEST);
    // Numbers and strings always have a JSON form.
    let text = serde_json::to_string_pretty(manifest).unwrap_or_default();
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| File::open(directory)?.sync_all()).map_err(|error| file_error(&path, error))
}
