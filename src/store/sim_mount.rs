//! A process's use of a simulated device: what goes wrong on the way there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::kv::{VisitKey, VisitPair};
use super::sim_disk::{Record, SimDisk};
use super::{Durability, Kv, KvError, Memory, Op, Snapshot};

/// What goes wrong while a process uses the device. Commits and reads are counted from 1.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// These commits find the device full.
    pub full: Vec<u64>,
    /// The sync of this commit fails, and nothing can be written any more: what was not synced may be lost or not.
    pub sync: Option<u64>,
    /// These reads fail at their first pair, or before.
    pub reads: Vec<u64>,
    /// The process dies during this commit: whether it is written by then.
    pub dies: Option<(u64, bool)>,
}

/// A process's use of the device: over when the process is.
pub struct Mount {
    disk: Arc<SimDisk>,
    life: u64,
    state: Mutex<MountState>,
}

#[derive(Default)]
struct MountState {
    faults: Faults,
    commits: u64,
    reads: u64,
    /// A sync has failed, or the process is dead.
    is_over: bool,
    has_died: bool,
}

impl Mount {
    pub(super) fn new(disk: Arc<SimDisk>, life: u64, faults: Faults) -> Arc<Self> {
        let state = Mutex::new(MountState { faults, ..MountState::default() });
        Arc::new(Self { disk, life, state })
    }

    /// Whether the process has died during a commit, as planned.
    pub fn has_died(&self) -> bool {
        self.lock().has_died
    }

    /// Whether nothing can be written any more: a sync has failed, or the process has died.
    pub fn has_failed(&self) -> bool {
        self.lock().is_over
    }

    /// Commits so far.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, MountState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What readers see.
    fn cache(&self) -> Result<Arc<Memory>, KvError> {
        let alive = self.disk.cache(self.life).filter(|_| !self.has_died());
        alive.ok_or_else(|| KvError::Other("the process is dead".into()))
    }

    /// What readers see, unless this read is planned to fail.
    fn read(&self) -> Result<Arc<Memory>, KvError> {
        let number = {
            let mut state = self.lock();
            state.reads += 1;
            state.reads
        };
        if self.lock().faults.reads.contains(&number) {
            return Err(KvError::Other(format!("planned failure of read {number}")));
        }
        self.cache()
    }
}

impl Kv for Mount {
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> Result<(), KvError> {
        self.cache()?;
        let mut state = self.lock();
        state.commits += 1;
        let number = state.commits;
        if state.is_over {
            return Err(KvError::Failed { path: "simulated".into(), reason: "an earlier sync failed".into() });
        }
        if state.faults.full.contains(&number) {
            return Err(KvError::Full { path: "simulated".into() });
        }
        let dies = state.faults.dies.filter(|(at, _)| *at == number);
        if dies.is_none_or(|(_, written)| written) {
            self.disk.record(Record::Commit(ops))?;
        }
        if dies.is_some() {
            (state.has_died, state.is_over) = (true, true);
            return Err(KvError::Other("the process is dead".into()));
        }
        if durability == Durability::Synced {
            if state.faults.sync.is_some_and(|at| at <= number) {
                state.is_over = true;
                return Err(KvError::Failed { path: "simulated".into(), reason: "planned failure of a sync".into() });
            }
            self.disk.sync()?;
        }
        Ok(())
    }

    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.read()?.get(space, key)
    }

    fn scan(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitPair<'_>) -> Result<(), KvError> {
        self.read()?.scan(space, from, to, visit)
    }

    fn scan_keys(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitKey<'_>) -> Result<(), KvError> {
        self.read()?.scan_keys(space, from, to, visit)
    }

    fn scan_back(&self, space: &str, from: &[u8], to: &[u8], visit: VisitPair<'_>) -> Result<(), KvError> {
        self.read()?.scan_back(space, from, to, visit)
    }

    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError> {
        self.read()?.last_key(space)
    }

    fn spaces(&self, prefix: &str) -> Vec<String> {
        self.cache().map(|cache| cache.spaces(prefix)).unwrap_or_default()
    }

    fn drop_space(&self, space: &str) -> Result<(), KvError> {
        self.cache()?;
        self.disk.record(Record::Drop(space.into()))
    }

    fn settle(&self, _space: &str) {}

    fn size(&self, space: &str) -> u64 {
        self.cache().map_or(0, |cache| cache.size(space))
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError> {
        self.cache()?.snapshot()
    }
}
