//! The time of a source. It has no shell that calls it: it is busy while anything runs on its thread, its connections
//! included, and backpressured while it waits for room and nothing runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

use super::phases::Spent;

/// What is known of the thread a source lives on; of anyone else nothing is.
#[derive(Debug, Default)]
pub struct ThreadTime {
    runtime: OnceLock<RuntimeMetrics>,
    /// Whether the source waits for room.
    waits: AtomicBool,
    /// How long the thread had been busy when it began to wait.
    since: AtomicU64,
    /// How long the thread was busy during all waits that are over.
    overlap: AtomicU64,
}

impl ThreadTime {
    /// Says that the calling thread's runtime is the source's.
    pub fn adopt(&self) {
        // A source lives on one thread.
        let _ = self.runtime.set(Handle::current().metrics());
    }

    /// The source begins to wait for room.
    pub fn begin_wait(&self) {
        self.since.store(self.busy(), Relaxed);
        self.waits.store(true, Relaxed);
    }

    /// The source goes on.
    pub fn end_wait(&self) {
        self.waits.store(false, Relaxed);
        self.overlap.fetch_add(self.busy().saturating_sub(self.since.load(Relaxed)), Relaxed);
    }

    /// Divides the time of a source, of which so much was `spent` waiting for room.
    pub fn divide(&self, spent: Spent) -> Spent {
        if self.runtime.get().is_none() {
            return spent;
        }
        let (total, busy) = (spent.total(), self.busy());
        let waits = self.waits.load(Relaxed);
        let now = if waits { busy.saturating_sub(self.since.load(Relaxed)) } else { 0 };
        let overlap = Duration::from_nanos(self.overlap.load(Relaxed) + now);
        let busy = Duration::from_nanos(busy).min(total);
        let backpressured = spent.backpressured.saturating_sub(overlap).min(total - busy);
        Spent { busy, backpressured, idle: total - busy - backpressured }
    }

    fn busy(&self) -> u64 {
        self.runtime.get().map_or(0, |runtime| runtime.worker_total_busy_duration(0).as_nanos() as u64)
    }
}
