//! A port over another one that commits as it is told and counts what is read: for tests and measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::kv::{VisitKey, VisitPair};
use super::{Durability, Kv, KvError, Op, Snapshot};

/// What happens on a commit: it is handed the port below, and the commit.
pub type OnCommit = Box<dyn Fn(&dyn Kv, Vec<Op>, Durability) -> Result<(), KvError> + Send + Sync>;

/// See the module's text. All but commits goes to the port below as it is.
pub struct Hooked {
    below: Arc<dyn Kv>,
    commit: OnCommit,
    got: AtomicU64,
}

impl Hooked {
    /// Commits as they are.
    pub fn counting(below: Arc<dyn Kv>) -> Self {
        Self::committing(below, Box::new(|below, ops, durability| below.commit(ops, durability)))
    }

    /// Commits as told.
    pub fn committing(below: Arc<dyn Kv>, commit: OnCommit) -> Self {
        Self { below, commit, got: AtomicU64::new(0) }
    }

    /// The bytes of the values got since it was last asked.
    pub fn take_got(&self) -> u64 {
        self.got.swap(0, Relaxed)
    }
}

impl Kv for Hooked {
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> Result<(), KvError> {
        (self.commit)(&*self.below, ops, durability)
    }

    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.below.get(space, key)?;
        self.got.fetch_add(value.as_ref().map_or(0, |value| value.len() as u64), Relaxed);
        Ok(value)
    }

    fn scan(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitPair<'_>) -> Result<(), KvError> {
        self.below.scan(space, from, to, visit)
    }

    fn scan_keys(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitKey<'_>) -> Result<(), KvError> {
        self.below.scan_keys(space, from, to, visit)
    }

    fn scan_back(&self, space: &str, from: &[u8], to: &[u8], visit: VisitPair<'_>) -> Result<(), KvError> {
        self.below.scan_back(space, from, to, visit)
    }

    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError> {
        self.below.last_key(space)
    }

    fn spaces(&self, prefix: &str) -> Vec<String> {
        self.below.spaces(prefix)
    }

    fn drop_space(&self, space: &str) -> Result<(), KvError> {
        self.below.drop_space(space)
    }

    fn settle(&self, space: &str) {
        self.below.settle(space);
    }

    fn size(&self, space: &str) -> u64 {
        self.below.size(space)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError> {
        self.below.snapshot()
    }
}
