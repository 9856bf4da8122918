//! The port's side as a device that loses what was never synced: for simulations of crashes.
//!
//! Commits go to one log, as in fjall, and readers see them at once. A process that dies loses nothing of the log; a
//! power loss leaves a prefix of what was not synced, for a torn record is recognised by its checksum and cut off. fjall
//! syncs its log before it flushes a table, so no table runs ahead of the log: the prefix is all there is to allow. [`Order::PerSpace`]
//! is a harder device on which every space keeps a prefix of its own, so that commits across spaces come apart.
//! Dropping a space is a record like any other: before a sync it may come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sim_mount::{Faults, Mount};
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

/// One entry of the log.
pub(super) enum Record {
    /// Writes, all or nothing.
    Commit(Vec<Op>),
    /// A space was dropped.
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
        Mount::new(self.clone(), state.life, faults)
    }

    /// What the process number `life` reads; `None` when it is dead.
    pub(super) fn cache(&self, life: u64) -> Option<Arc<Memory>> {
        let state = self.lock();
        (state.life == life).then(|| state.cache.clone())
    }

    /// Takes a record into the log.
    pub(super) fn record(&self, record: Record) -> Result<(), KvError> {
        let mut state = self.lock();
        record.apply(&state.cache)?;
        state.unsynced.push(record);
        Ok(())
    }

    /// Brings the log to the device.
    pub(super) fn sync(&self) -> Result<(), KvError> {
        let mut state = self.lock();
        let unsynced = std::mem::take(&mut state.unsynced);
        unsynced.into_iter().try_for_each(|record| record.apply(&state.device))
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
        let cut: BTreeMap<_, _> = names.into_iter().map(|name| (name, self.random.usize(..=unsynced.len()))).collect();
        let survive = |(at, record)| {
            let kept = |space: &Arc<str>| cut.get(space).is_none_or(|cut| at < *cut);
            match record {
                Record::Commit(mut ops) => {
                    ops.retain(|op| kept(op.space()));
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
            Self::Commit(ops) => ops.iter().map(|op| op.space().clone()).collect(),
            Self::Drop(space) => vec![space.clone()],
        }
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
