//! The port's side on disk: one fjall database, one of its keyspaces per space.
//!
//! A write that fails, as on a full disk, leaves a fjall database refusing every later one. So the database is
//! opened anew before the next commit: fjall cuts the torn write off its log, and where space has been freed
//! the commit succeeds. After the device itself has failed nothing is tried again: see [`KvError::Failed`].

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{AbstractTree, CompressionType, Database, Iter, Keyspace, OwnedWriteBatch, PersistMode};

use super::disk_options::{BUFFER, options};
use super::kv::{VisitKey, VisitPair};
use super::moment::{Moment, is_damage, visit_pairs};
use super::{Durability, Kv, KvError, Op, Snapshot, dir_check, log_scrub, mend, quarantine};
use crate::topology::plan::STORE_LOG;

/// The operating system's numbers for "no file descriptor left", in the whole system and in this process.
const TOO_MANY_IN_SYSTEM: i32 = 23;
const TOO_MANY_IN_PROCESS: i32 = 24;
/// And for "the device failed".
const DEVICE_FAILED: i32 = 5;

/// Threads that flush and compact: while one compacts the other flushes.
const THREADS: usize = 2;
/// The pause between two attempts to open the database anew.
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// Files kept open.
const OPEN_FILES: usize = 256;

/// A data directory. Only one process can have it.
pub struct Fjall {
    path: PathBuf,
    cache_bytes: u64,
    /// Absent while it could not be opened anew.
    open: RwLock<Option<Arc<Open>>>,
    /// Why the database refuses writes until it is opened anew.
    broken: Mutex<Option<Broken>>,
}

/// A database that is to be opened anew.
struct Broken {
    reason: KvError,
    /// When that was tried last.
    tried: Option<Instant>,
}

/// An open database and the spaces used so far.
struct Open {
    spaces: Mutex<HashMap<Arc<str>, Keyspace>>,
    db: Database,
}

impl Fjall {
    /// Opens the directory, or creates it. `cache_bytes` is the read cache of all spaces.
    ///
    /// # Errors
    /// Another process has it, it cannot be used, the device is full, or what is there cannot be read.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, KvError> {
        let fjall = Self { path: path.into(), cache_bytes, open: RwLock::new(None), broken: Mutex::new(None) };
        fjall.before_opening().map_err(|error| fjall.explain(&error.into()))??;
        fjall.reopen()?;
        fjall.note_damage()?;
        Ok(fjall)
    }

    /// Looks at what fjall would not tell about, unless another process has the directory.
    fn before_opening(&self) -> io::Result<Result<(), KvError>> {
        let lock = match OpenOptions::new().write(true).open(self.path.join("lock")) {
            Ok(lock) => lock,
            // No database yet, or one that fjall will have something to say about.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ok(())),
            Err(error) => return Err(error),
        };
        if lock.try_lock().is_err() {
            return Ok(Ok(()));
        }
        if let Err(reason) = dir_check::check(&self.path)? {
            return Ok(Err(KvError::Unreadable { path: self.path(), reason }));
        }
        log_scrub::scrub(&self.path).map(Ok)
    }

    /// Counts what was cut out of the log, and has what it held derived anew.
    fn note_damage(&self) -> Result<(), KvError> {
        let mut ops = Vec::new();
        for (name, bytes) in log_scrub::set_aside(&self.path).map_err(|error| self.explain(&error.into()))? {
            if !quarantine::knows_log(self, &name)? {
                ops.push(quarantine::note_log(&name, bytes));
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        ops.push(mend::mark());
        Kv::commit(self, ops, Durability::Synced)
    }

    /// Opens the database, anew where a write has failed.
    fn reopen(&self) -> Result<Arc<Open>, KvError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        *open = None;
        let db = Database::builder(&self.path)
            .cache_size(self.cache_bytes)
            .worker_threads(THREADS)
            .max_cached_files(Some(OPEN_FILES))
            .max_journaling_size(STORE_LOG)
            // What is large is compressed already.
            .journal_compression(CompressionType::None)
            .open()
            .map_err(|error| self.explain_open(&error))?;
        let fresh = Arc::new(Open { spaces: Mutex::default(), db });
        *open = Some(fresh.clone());
        Ok(fresh)
    }

    /// The database, opened anew if it could not be before.
    fn current(&self) -> Result<Arc<Open>, KvError> {
        self.opened().map_or_else(|| self.healed(), Ok)
    }

    fn opened(&self) -> Option<Arc<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// As [`Self::explain`], of an error that kept the database from being opened.
    fn explain_open(&self, error: &fjall::Error) -> KvError {
        let (path, reason) = (self.path(), format!("{error:?}"));
        match error {
            fjall::Error::Locked => self.explain(error),
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => match io.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::InvalidData
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::NotFound => KvError::Unreadable { path, reason },
                io::ErrorKind::AlreadyExists if self.path.join("keyspaces").exists() => {
                    KvError::Unreadable { path, reason: "the file \"version\" is missing".into() }
                }
                _ => self.explain(error),
            },
            _ => KvError::Unreadable { path, reason },
        }
    }

    fn explain(&self, error: &fjall::Error) -> KvError {
        let path = self.path();
        if is_damage(error) {
            return KvError::Unreadable { path, reason: format!("{error:?}") };
        }
        let io = match error {
            fjall::Error::Locked => return KvError::Locked { path },
            fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) => io,
            other => return KvError::Other(format!("{other:?}, in {path}")),
        };
        if matches!(io.raw_os_error(), Some(TOO_MANY_IN_SYSTEM | TOO_MANY_IN_PROCESS)) {
            return KvError::Busy { path, reason: io.to_string() };
        }
        if io.raw_os_error() == Some(DEVICE_FAILED) {
            return KvError::Failed { path, reason: io.to_string() };
        }
        match io.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => KvError::Full { path },
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => KvError::Unusable { path, reason: io.to_string() },
            _ => KvError::Other(format!("{io}, in {path}")),
        }
    }

    /// The database, opened anew if the last write failed.
    fn healed(&self) -> Result<Arc<Open>, KvError> {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Broken { reason, tried }) = &mut *broken else {
            return self.opened().ok_or_else(|| KvError::Other(format!("{} is not open", self.path())));
        };
        if matches!(reason, KvError::Failed { .. }) || tried.is_some_and(|tried| tried.elapsed() < TRY_AGAIN) {
            return Err(reason.clone());
        }
        tracing::warn!(path = self.path(), %reason, "opening the database anew after a failed write");
        match self.reopen() {
            Ok(open) => {
                *broken = None;
                Ok(open)
            }
            Err(error) => {
                *tried = Some(Instant::now());
                // Where it is locked somebody still reads from the old one.
                Err(if matches!(error, KvError::Locked { .. }) { reason.clone() } else { error })
            }
        }
    }

    /// Notes that a write failed. fjall does not say why an earlier one failed in the background.
    fn fail(&self, error: &fjall::Error) -> KvError {
        let told = if matches!(error, fjall::Error::Poisoned) { self.probe() } else { self.explain(error) };
        let broken = Broken { reason: told.clone(), tried: None };
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(broken);
        told
    }

    /// What keeps another buffer's flush from being written; nothing may, any longer.
    fn probe(&self) -> KvError {
        let probe = self.path.join("probe");
        let write = |bytes: &[u8]| {
            let mut file = File::create(&probe)?;
            file.write_all(bytes)?;
            file.sync_all()
        };
        let written = write(&vec![1; 2 * BUFFER as usize]);
        let removed = std::fs::remove_file(&probe);
        match written.and(removed) {
            Ok(()) => KvError::Interrupted { path: self.path() },
            Err(error) => self.explain(&error.into()),
        }
    }

    fn range(&self, space: &str, from: &[u8], to: Option<&[u8]>) -> Result<Option<Iter>, KvError> {
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        if matches!(to, Bound::Excluded(to) if to <= from) {
            return Ok(None);
        }
        let keyspace = self.current()?.existing(space).map_err(|error| self.explain(&error))?;
        Ok(keyspace.map(|keyspace| keyspace.range::<&[u8], _>((Bound::Included(from), to))))
    }
}

impl Open {
    /// The keyspace of a space, created when missing.
    fn keyspace(&self, space: &Arc<str>) -> fjall::Result<Keyspace> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keyspace) = spaces.get(space) {
            return Ok(keyspace.clone());
        }
        let keyspace = self.db.keyspace(space, || options(space))?;
        spaces.insert(space.clone(), keyspace.clone());
        Ok(keyspace)
    }

    fn existing(&self, space: &str) -> fjall::Result<Option<Keyspace>> {
        if let Some(keyspace) = self.spaces.lock().unwrap_or_else(PoisonError::into_inner).get(space) {
            return Ok(Some(keyspace.clone()));
        }
        self.db.keyspace_exists(space).then(|| self.keyspace(&space.into())).transpose()
    }

    fn commit(&self, ops: &[Op], durability: Durability) -> fjall::Result<()> {
        let mode = match durability {
            Durability::Process => PersistMode::Buffer,
            // fdatasync also syncs a file's size and extents; only times are left out.
            Durability::Synced => PersistMode::SyncData,
        };
        if ops.is_empty() {
            return self.db.persist(mode);
        }
        let mut batch = OwnedWriteBatch::with_capacity(self.db.clone(), ops.len()).durability(Some(mode));
        let mut last: Option<(&Arc<str>, Keyspace)> = None;
        for op in ops {
            let space = op.space();
            let keyspace = match last.take() {
                Some((name, keyspace)) if Arc::ptr_eq(name, space) || name == space => keyspace,
                _ => self.keyspace(space)?,
            };
            match op {
                Op::Put { key, value, .. } => batch.insert(&keyspace, key.clone(), value.clone()),
                Op::Delete { key, .. } => batch.remove(&keyspace, key.clone()),
            }
            last = Some((space, keyspace));
        }
        batch.commit()
    }
}

impl Kv for Fjall {
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> Result<(), KvError> {
        match self.healed()?.commit(&ops, durability) {
            // It refuses because something failed in the background, and has written nothing: one more try.
            Err(error @ fjall::Error::Poisoned) => {
                self.fail(&error);
                self.healed()?.commit(&ops, durability).map_err(|error| self.fail(&error))
            }
            result => result.map_err(|error| self.fail(&error)),
        }
    }

    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let open = self.current()?;
        match open.existing(space).and_then(|keyspace| keyspace.map(|k| k.get(key)).transpose()) {
            Ok(value) => Ok(value.flatten().map(Bytes::from)),
            Err(error) if is_damage(&error) => {
                tracing::error!(space, ?key, ?error, "a value cannot be read");
                Ok(Some(Bytes::new()))
            }
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn scan(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitPair<'_>) -> Result<(), KvError> {
        let Some(pairs) = self.range(space, from, to)? else { return Ok(()) };
        visit_pairs(space, pairs, visit).map_err(|error| self.explain(&error))
    }

    fn scan_keys(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitKey<'_>) -> Result<(), KvError> {
        for pair in self.range(space, from, to)?.into_iter().flatten() {
            if visit(&pair.key().map_err(|error| self.explain(&error))?).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&self, space: &str, from: &[u8], to: &[u8], visit: VisitPair<'_>) -> Result<(), KvError> {
        let Some(pairs) = self.range(space, from, Some(to))? else { return Ok(()) };
        visit_pairs(space, pairs.rev(), visit).map_err(|error| self.explain(&error))
    }

    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError> {
        let keyspace = self.current()?.existing(space).map_err(|error| self.explain(&error))?;
        let key = keyspace.and_then(|keyspace| keyspace.last_key_value()).map(fjall::Guard::key).transpose();
        Ok(key.map_err(|error| self.explain(&error))?.map(Bytes::from))
    }

    fn spaces(&self, prefix: &str) -> Vec<String> {
        let Ok(open) = self.current() else { return Vec::new() };
        let names = open.db.list_keyspace_names();
        let mut names: Vec<_> = names.iter().filter(|name| name.starts_with(prefix)).map(|n| n.to_string()).collect();
        names.sort_unstable();
        names
    }

    fn drop_space(&self, space: &str) -> Result<(), KvError> {
        let open = self.current()?;
        let Some(keyspace) = open.existing(space).map_err(|error| self.explain(&error))? else { return Ok(()) };
        open.spaces.lock().unwrap_or_else(PoisonError::into_inner).remove(space);
        open.db.delete_keyspace(keyspace).map_err(|error| self.explain(&error))
    }

    fn settle(&self, space: &str) {
        let keyspace = self.current().ok().and_then(|open| open.existing(space).ok().flatten());
        if let Some(Err(error)) = keyspace.map(|keyspace| keyspace.rotate_memtable()) {
            tracing::warn!(space, %error, "a write buffer stays in memory");
        }
    }

    fn size(&self, space: &str) -> u64 {
        let keyspace = self.current().ok().and_then(|open| open.existing(space).ok().flatten());
        keyspace.map_or(0, |keyspace| {
            let sealed = keyspace.tree.sealed_memtable_count() as u64 * BUFFER;
            keyspace.disk_space() + keyspace.tree.active_memtable().size() + sealed
        })
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError> {
        let open = self.current()?;
        let snapshot = open.db.snapshot();
        let mut spaces = BTreeMap::new();
        for name in self.spaces("") {
            let keyspace = open.existing(&name).map_err(|error| self.explain(&error))?;
            spaces.extend(keyspace.map(|keyspace| (name, keyspace)));
        }
        Ok(Box::new(Moment { path: self.path(), spaces, snapshot }))
    }
}
