//! What commits cost: measured here, where the device is waited for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Durability, Store};
use crate::times::Times;

/// Figures of all commits since the store was opened.
#[derive(Debug, Default)]
pub struct Commits {
    /// Of those that were synced to the device: the journal's, mostly.
    pub synced: Times,
    /// Of those that were handed to the operating system.
    pub process: Times,
    journal_bytes: AtomicU64,
}

impl Commits {
    /// Notes a commit of so many bytes of ticks.
    pub(super) fn note(&self, durability: Durability, took: Duration, journal_bytes: u64) {
        match durability {
            Durability::Synced => self.synced.record(took),
            Durability::Process => self.process.record(took),
        }
        self.journal_bytes.fetch_add(journal_bytes, Relaxed);
    }

    /// Bytes of blocks of ticks.
    pub fn journal_bytes(&self) -> u64 {
        self.journal_bytes.load(Relaxed)
    }
}

impl Store {
    /// What commits have cost.
    pub fn commits(&self) -> &Commits {
        &self.inner.commits
    }
}
