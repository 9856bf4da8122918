//! What the reader's thread and the source share: what was handed over, and what of it the journal has.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::runtime::Meter;

/// What reader and source share.
pub struct Shared {
    pub stop: CancellationToken,
    pub meter: Arc<Meter>,
    finished: Mutex<Vec<u64>>,
    outstanding: AtomicUsize,
}

impl Shared {
    pub fn new(stop: CancellationToken, meter: Arc<Meter>) -> Self {
        Self { stop, meter, finished: Mutex::default(), outstanding: AtomicUsize::new(0) }
    }

    /// So many bytes are handed over.
    pub fn begin(&self, bytes: usize) {
        self.outstanding.fetch_add(bytes, Relaxed);
    }

    /// The journal has all of a claim that was handed over.
    pub fn finish(&self, number: u64, bytes: usize) {
        self.forget(number);
        self.outstanding.fetch_sub(bytes, Relaxed);
    }

    /// The inbox may forget a claim.
    pub fn forget(&self, number: u64) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }

    /// Claims that the inbox may forget.
    pub fn take_finished(&self) -> Vec<u64> {
        std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes handed over that are not in the journal.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Relaxed)
    }
}
