//! The port to whatever keeps bytes: named, ordered key spaces with atomic commits across them.
//!
//! Its sides: fjall on disk, a map in memory with fault injection, and a device that crashes for simulations. Everything typed
//! (series, journal, bars) is written once, above this port.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

/// How far a commit must have got before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Handed to the operating system: survives the death of the process.
    Process,
    /// Synced to the device: survives loss of power.
    Synced,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets `key` in `space` to `value`.
    Put {
        /// The key space, created when missing; at most 255 bytes.
        space: Arc<str>,
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
    },
    /// Removes `key` from `space`.
    Delete {
        /// The key space.
        space: Arc<str>,
        /// The key.
        key: Bytes,
    },
}

impl Op {
    /// The key space it writes to.
    pub fn space(&self) -> &Arc<str> {
        let (Self::Put { space, .. } | Self::Delete { space, .. }) = self;
        space
    }
}

/// Keys beside the point that a scan reads past before it seeks instead, which costs about as much.
pub(super) const MISSES: u32 = 24;

/// Takes a pair; says whether to go on.
pub type VisitPair<'a> = &'a mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>;
/// Takes a key; says whether to go on.
pub type VisitKey<'a> = &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>;

/// Why the store could not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Another process has the directory.
    #[error("{path} is in use by another process; stop it, or give this one another --data-dir")]
    Locked {
        /// The data directory.
        path: String,
    },
    /// No space left on the device.
    #[error("no space left on the device while writing {path}; free some, or lower the reaper's budget")]
    Full {
        /// The data directory.
        path: String,
    },
    /// The process has no file descriptor left.
    #[error("{reason} while using {path}; close some connections, or raise the limit (ulimit -n)")]
    Busy {
        /// The data directory.
        path: String,
        /// What the operating system says.
        reason: String,
    },
    /// A write has failed in the background, and nothing keeps another from being written now.
    #[error("a write to {path} has failed in the background; the database is opened anew")]
    Interrupted {
        /// The data directory.
        path: String,
    },
    /// The directory cannot be created, read or written.
    #[error("cannot use {path} as data directory: {reason}; make it writable, or give another --data-dir")]
    Unusable {
        /// The data directory.
        path: String,
        /// What the operating system said.
        reason: String,
    },
    /// The database's own files are damaged.
    #[error(
        "the database in {path} cannot be read: one of its own files is damaged or missing ({reason}); restore a backup \
         (barline restore DIR --data-dir NEW), or give an empty --data-dir and keep this one for inspection"
    )]
    Unreadable {
        /// The data directory.
        path: String,
        /// What the database says.
        reason: String,
    },
    /// The device failed to write or to sync. Nothing may be tried again on the same files: the operating system has
    /// forgotten what it could not write, and would say of a second sync that all is well.
    #[error(
        "{path} could not be written or synced: {reason}; nothing is acknowledged any more, what was acknowledged before \
         is kept; check the device, then start again"
    )]
    Failed {
        /// The data directory.
        path: String,
        /// What the operating system said.
        reason: String,
    },
    /// Anything else.
    #[error("store: {0}")]
    Other(String),
}

/// Named, ordered key spaces. Keys are ordered as bytes.
pub trait Kv: Send + Sync {
    /// Applies all of `ops` or none, and returns when they, and everything committed before, are as durable as
    /// asked. After an error nothing of `ops` is visible; where only the sync failed, all of it may come to light
    /// after a restart. Committing the same again is harmless.
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> Result<(), KvError>;

    /// The value of `key`; `None` where the space or the key is missing. A value that was damaged on the device is
    /// given as an empty one.
    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Visits the pairs with `from <= key < to` (no upper end where `to` is `None`) in ascending order until
    /// `visit` breaks: all that were committed before the call, and perhaps some committed meanwhile. A value
    /// that was damaged on the device is visited as an empty one.
    fn scan(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitPair<'_>) -> Result<(), KvError>;

    /// As [`Kv::scan`], without reading large values.
    fn scan_keys(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitKey<'_>) -> Result<(), KvError>;

    /// As [`Kv::scan`], in descending order.
    fn scan_back(&self, space: &str, from: &[u8], to: &[u8], visit: VisitPair<'_>) -> Result<(), KvError>;

    /// The highest key of a space.
    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError>;

    /// The names of all spaces that begin with `prefix`, ascending.
    fn spaces(&self, prefix: &str) -> Vec<String>;

    /// Removes a whole space at once; no error where it is missing.
    fn drop_space(&self, space: &str) -> Result<(), KvError>;

    /// Says that little more will be written to a space, so that its write buffer can be freed.
    fn settle(&self, space: &str);

    /// The bytes a space occupies, in memory and on disk, as far as is known.
    fn size(&self, space: &str) -> u64;

    /// Everything as it is now, whatever is written or dropped later. What it holds on to stays on disk until it is
    /// dropped.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError>;
}

/// Every space at one moment between two commits.
pub trait Snapshot: Send {
    /// The names of all spaces, ascending.
    fn spaces(&self) -> Vec<String>;

    /// Visits all pairs of a space in ascending order until `visit` breaks. A value that was damaged on the device is
    /// visited as an empty one.
    fn scan(&self, space: &str, visit: VisitPair<'_>) -> Result<(), KvError>;
}
