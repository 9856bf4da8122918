//! The port's side as a device that loses what was never synced: for simulations of crashes.
//!
//! Commits go to one log, as in fjall, and readers see them at once. A process that dies loses nothing of the log; a
//! power loss leaves a prefix of what was not synced, for a torn record is recognised by its checksum and cut off. fjall
//! syncs its log before it flushes a table, so no table runs ahead of the log: the prefix is all there is to allow. [`Order::PerSpace`]
//! is a harder device on which every space keeps a prefix of its own, so that commits across spaces come apart.
//! Dropping a space is a record like any other: before a sync it may come back.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Durability, Kv, KvError, Memory, Op};

/// A device. Processes use it through [`SimDisk::mount`], one after the other.
pub struct SimDisk {
    state: Mutex<State>,
}

struct State {
    random: fastrand::Rng,
    order: Order,
    /// What is on the device for good.
    device: Memory,
    /// What readers see: the device and all that is not synced yet.
    cache: Arc<Memory>,
    /// What the cache has and the device has not, oldest first.
    unsynced: Vec<Record>,
    /// The number of the process that uses it.
    life: u64,
}

enum Record {
    Commit(Vec<Op>),
    Drop(Arc<str>),
}

/// How a process ends that did not choose to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// It is killed; the operating system keeps what it was handed.
    Process,
    /// The machine is off; only what was synced is sure.
    Power,
}

/// What may be left of commits that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The first few of them.
    Log,
    /// Of every space the first few.
    PerSpace,
}

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

impl SimDisk {
    /// An empty device whose losses are drawn from `seed`.
    pub fn new(seed: u64, order: Order) -> Arc<Self> {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            order,
            device: Memory::new(),
            cache: Arc::default(),
            unsynced: Vec::new(),
            life: 0,
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// The use of it by a new process. Earlier ones can do nothing any more.
    pub fn mount(self: &Arc<Self>, faults: Faults) -> Arc<Mount> {
        let mut state = self.lock();
        state.life += 1;
        let mounted = MountState { faults, ..MountState::default() };
        Arc::new(Mount { disk: self.clone(), life: state.life, state: Mutex::new(mounted) })
    }

    /// Ends the present process.
    pub fn crash(&self, crash: Crash) {
        let mut state = self.lock();
        state.life += 1;
        if crash == Crash::Power {
            state.lose_power();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, record: Record) -> Result<(), KvError> {
        record.apply(&self.cache)?;
        self.unsynced.push(record);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), KvError> {
        self.unsynced.drain(..).try_for_each(|record| record.apply(&self.device))
    }

    fn lose_power(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let survivors: Vec<Record> = match self.order {
            Order::Log => {
                let count = self.random.usize(..=unsynced.len());
                unsynced.into_iter().take(count).collect()
            }
            Order::PerSpace => self.survivors_per_space(unsynced),
        };
        for record in survivors {
            // Memory without planned faults refuses nothing.
            let _ = record.apply(&self.device);
        }
        self.cache = Arc::new(self.device.copy());
    }

    /// Cuts every space off at a point of its own.
    fn survivors_per_space(&mut self, unsynced: Vec<Record>) -> Vec<Record> {
        let names: BTreeSet<Arc<str>> = unsynced.iter().flat_map(Record::spaces).collect();
        let cut: BTreeMap<_, _> =
            names.into_iter().map(|name| (name, self.random.usize(..=unsynced.len()))).collect();
        let survive = |(at, record)| {
            let kept = |space: &Arc<str>| cut.get(space).is_none_or(|cut| at < *cut);
            match record {
                Record::Commit(mut ops) => {
                    ops.retain(|op| kept(space_of(op)));
                    (!ops.is_empty()).then_some(Record::Commit(ops))
                }
                Record::Drop(space) => kept(&space).then_some(Record::Drop(space)),
            }
        };
        unsynced.into_iter().enumerate().filter_map(survive).collect()
    }
}

impl Record {
    fn apply(&self, memory: &Memory) -> Result<(), KvError> {
        match self {
            Self::Commit(ops) => memory.commit(ops.clone(), Durability::Process),
            Self::Drop(space) => memory.drop_space(space),
        }
    }

    fn spaces(&self) -> Vec<Arc<str>> {
        match self {
            Self::Commit(ops) => ops.iter().map(|op| space_of(op).clone()).collect(),
            Self::Drop(space) => vec![space.clone()],
        }
    }
}

fn space_of(op: &Op) -> &Arc<str> {
    let (Op::Put { space, .. } | Op::Delete { space, .. }) = op;
    space
}

impl Mount {
    /// Whether the process has died during a commit, as planned.
    pub fn has_died(&self) -> bool {
        self.lock().has_died
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
        let disk = self.disk.lock();
        let is_over = self.lock().has_died || disk.life != self.life;
        if is_over { Err(KvError::Other("the process is dead".into())) } else { Ok(disk.cache.clone()) }
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
        let mut disk = self.disk.lock();
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
            disk.record(Record::Commit(ops))?;
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
            disk.sync()?;
        }
        Ok(())
    }

    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.read()?.get(space, key)
    }

    fn scan(
        &self,
        space: &str,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.read()?.scan(space, from, to, visit)
    }

    fn scan_keys(
        &self,
        space: &str,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.read()?.scan_keys(space, from, to, visit)
    }

    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError> {
        self.read()?.last_key(space)
    }

    fn spaces(&self, prefix: &str) -> Vec<String> {
        self.cache().map(|cache| cache.spaces(prefix)).unwrap_or_default()
    }

    fn drop_space(&self, space: &str) -> Result<(), KvError> {
        self.cache()?;
        self.disk.lock().record(Record::Drop(space.into()))
    }

    fn settle(&self, _space: &str) {}

    fn size(&self, space: &str) -> u64 {
        self.cache().map_or(0, |cache| cache.size(space))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(space: &str, key: u8) -> Op {
        Op::Put { space: space.into(), key: vec![key].into(), value: vec![key].into() }
    }

    fn has(kv: &dyn Kv, space: &str, key: u8) -> bool {
        kv.get(space, &[key]).unwrap().is_some()
    }

    /// Synced, then unsynced across two spaces, then a drop; which of them are left after `crash`.
    fn left(seed: u64, order: Order, crash: Crash) -> [bool; 5] {
        let disk = SimDisk::new(seed, order);
        let mount = disk.mount(Faults::default());
        mount.commit(vec![put("a", 0), put("old", 0)], Durability::Synced).unwrap();
        mount.commit(vec![put("a", 1), put("b", 1)], Durability::Process).unwrap();
        mount.commit(vec![put("a", 2)], Durability::Process).unwrap();
        mount.drop_space("old").unwrap();
        disk.crash(crash);
        assert!(mount.get("a", &[0]).is_err() && mount.commit(Vec::new(), Durability::Process).is_err());
        let mount = disk.mount(Faults::default());
        [has(&*mount, "a", 0), has(&*mount, "a", 1), has(&*mount, "b", 1), has(&*mount, "a", 2), has(&*mount, "old", 0)]
    }

    #[test]
    fn a_dead_process_loses_nothing_and_power_loss_leaves_a_prefix() {
        let (mut seen, mut torn) = (BTreeSet::new(), 0);
        for seed in 0..200 {
            assert_eq!(left(seed, Order::Log, Crash::Process), [true, true, true, true, false]);
            seen.insert(left(seed, Order::Log, Crash::Power));
            let [synced, a, b, later, _] = left(seed, Order::PerSpace, Crash::Power);
            assert!(synced && (a || !later), "seed {seed}");
            torn += usize::from(a != b);
        }
        let prefixes = [
            [true, false, false, false, true],
            [true, true, true, false, true],
            [true, true, true, true, true],
            [true, true, true, true, false],
        ];
        assert_eq!(seen, BTreeSet::from(prefixes));
        assert!(torn > 0);
    }

    #[test]
    fn planned_faults_come_where_they_were_planned() {
        let faults = Faults { full: vec![2], sync: Some(3), reads: vec![1], dies: None };
        let disk = SimDisk::new(1, Order::Log);
        let mount = disk.mount(faults);
        mount.commit(vec![put("a", 1)], Durability::Synced).unwrap();
        let full = mount.commit(vec![put("a", 2)], Durability::Synced).unwrap_err();
        assert!(matches!(full, KvError::Full { .. }), "{full}");
        assert!(mount.get("a", &[1]).is_err());
        assert!(has(&*mount, "a", 1) && !has(&*mount, "a", 2));
        for _ in 0..2 {
            let failed = mount.commit(vec![put("a", 3)], Durability::Synced).unwrap_err();
            assert!(matches!(failed, KvError::Failed { .. }), "{failed}");
        }
        for written in [false, true] {
            let mount = disk.mount(Faults { dies: Some((1, written)), ..Faults::default() });
            mount.commit(vec![put("a", 4)], Durability::Synced).unwrap_err();
            assert!(mount.has_died() && mount.get("a", &[4]).is_err());
            assert_eq!(has(&*disk.mount(Faults::default()), "a", 4), written);
        }
    }
}
