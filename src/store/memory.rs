//! The port's side in memory: ordered maps, and faults on demand, the same ones at every run.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::kv::{VisitKey, VisitPair};
use super::{Durability, Kv, KvError, Op, Snapshot};

/// What goes wrong, and when. Commits and scans are counted from 1, scans together with scans of keys.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    /// These commits fail, without effect.
    pub commits: Vec<(u64, Fault)>,
    /// These scans fail after their first pair.
    pub scans: Vec<u64>,
}

/// How a commit fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No space left.
    Full,
    /// Anything else.
    Other,
}

/// Key spaces in memory.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spaces: BTreeMap<Arc<str>, Space>,
    /// Present where a crash may be asked for: how to undo all since the last synced commit, oldest first.
    undo: Option<Vec<Undo>>,
    plan: FaultPlan,
    commits: u64,
    scans: u64,
}

/// A space, a key, and what was there.
type Undo = (Arc<str>, Bytes, Option<Bytes>);

#[derive(Default, Clone)]
struct Space {
    pairs: BTreeMap<Bytes, Bytes>,
    bytes: u64,
}

/// The most pairs copied at once by a scan.
const CHUNK: usize = 1024;

impl Memory {
    /// Empty, without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Empty, failing as planned, and able to [`Memory::crash`].
    pub fn with_faults(plan: FaultPlan) -> Self {
        let memory = Self::new();
        memory.plan(plan);
        memory
    }

    /// Fails as planned from here on: counting begins anew. From here on it can [`Memory::crash`], too.
    pub fn plan(&self, plan: FaultPlan) {
        let mut state = self.lock();
        (state.plan, state.commits, state.scans) = (plan, 0, 0);
        state.undo.get_or_insert_default();
    }

    /// Loses power: all that was committed since the last synced commit is gone. Dropped spaces stay dropped.
    pub fn crash(&self) {
        let mut state = self.lock();
        for (space, key, before) in state.undo.as_mut().map(std::mem::take).unwrap_or_default().into_iter().rev() {
            state.spaces.entry(space).or_default().set(key, before);
        }
        state.spaces.retain(|_, space| !space.pairs.is_empty());
    }

    /// The same content, without faults.
    pub(super) fn copy(&self) -> Self {
        let state = State { spaces: self.lock().spaces.clone(), ..State::default() };
        Self { state: Mutex::new(state) }
    }

    /// Commits since it was made or last planned for.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The highest pair of a range.
    fn highest_below(&self, space: &str, from: &[u8], to: &[u8]) -> Option<(Bytes, Bytes)> {
        let state = self.lock();
        let space = state.spaces.get(space).filter(|_| from < to)?;
        let (key, value) = space.pairs.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).next_back()?;
        Some((key.clone(), value.clone()))
    }

    /// Copies the next pairs of a scan, so that the visitor may itself use the store.
    fn chunk(&self, space: &str, from: Bound<&[u8]>, to: Option<&[u8]>, most: usize) -> Vec<(Bytes, Bytes)> {
        let state = self.lock();
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        let is_empty = match (from, to) {
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
            _ => false,
        };
        let Some(space) = state.spaces.get(space).filter(|_| !is_empty) else { return Vec::new() };
        let range = space.pairs.range::<[u8], _>((from, to));
        range.take(most).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

impl Space {
    /// Sets or removes a pair and gives what was there.
    fn set(&mut self, key: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        let key_len = key.len();
        let size = |value: &Option<Bytes>| value.as_ref().map_or(0, |value| (key_len + value.len()) as u64);
        self.bytes += size(&value);
        let before = match value {
            Some(value) => self.pairs.insert(key, value),
            None => self.pairs.remove(&key),
        };
        self.bytes -= size(&before);
        before
    }
}

impl State {
    fn apply(&mut self, op: Op) {
        let (name, key, value) = match op {
            Op::Put { space, key, value } => (space, key, Some(value)),
            Op::Delete { space, key } => (space, key, None),
        };
        if value.is_none() && !self.spaces.contains_key(&name) {
            return;
        }
        let space = self.spaces.entry(name.clone()).or_default();
        let before = space.set(key.clone(), value);
        if let Some(undo) = &mut self.undo {
            undo.push((name, key, before));
        }
    }
}

impl Kv for Memory {
    fn commit(&self, ops: Vec<Op>, durability: Durability) -> Result<(), KvError> {
        let mut state = self.lock();
        state.commits += 1;
        let number = state.commits;
        match state.plan.commits.iter().find(|(commit, _)| *commit == number) {
            Some((_, Fault::Full)) => return Err(KvError::Full { path: "memory".into() }),
            Some((_, Fault::Other)) => return Err(KvError::Other(format!("planned failure of commit {number}"))),
            None => {}
        }
        ops.into_iter().for_each(|op| state.apply(op));
        if durability == Durability::Synced
            && let Some(undo) = &mut state.undo
        {
            undo.clear();
        }
        Ok(())
    }

    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.lock().spaces.get(space).and_then(|space| space.pairs.get(key)).cloned())
    }

    fn scan(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitPair<'_>) -> Result<(), KvError> {
        let number = {
            let mut state = self.lock();
            state.scans += 1;
            state.scans
        };
        let fails = self.lock().plan.scans.contains(&number);
        let (mut most, mut last): (_, Option<Bytes>) = (16, None);
        loop {
            let begin = last.as_ref().map_or(Bound::Included(from), |last| Bound::Excluded(last.as_ref()));
            let pairs = self.chunk(space, begin, to, most);
            let is_end = pairs.len() < most;
            for (key, value) in pairs {
                if visit(&key, value).is_break() {
                    return Ok(());
                }
                if fails {
                    return Err(KvError::Other(format!("planned failure of scan {number}")));
                }
                last = Some(key);
            }
            if is_end {
                return Ok(());
            }
            most = (most * 4).min(CHUNK);
        }
    }

    fn scan_keys(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitKey<'_>) -> Result<(), KvError> {
        self.scan(space, from, to, &mut |key, _| visit(key))
    }

    fn scan_back(&self, space: &str, from: &[u8], to: &[u8], visit: VisitPair<'_>) -> Result<(), KvError> {
        let mut to = Bytes::copy_from_slice(to);
        while let Some((key, value)) = self.highest_below(space, from, &to) {
            if visit(&key, value).is_break() {
                break;
            }
            to = key;
        }
        Ok(())
    }

    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError> {
        let state = self.lock();
        Ok(state.spaces.get(space).and_then(|space| space.pairs.last_key_value()).map(|(key, _)| key.clone()))
    }

    fn spaces(&self, prefix: &str) -> Vec<String> {
        let state = self.lock();
        let from = state.spaces.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(name, _)| name.to_string()).take_while(|name| name.starts_with(prefix)).collect()
    }

    fn drop_space(&self, space: &str) -> Result<(), KvError> {
        let mut state = self.lock();
        state.spaces.remove(space);
        if let Some(undo) = &mut state.undo {
            undo.retain(|(name, ..)| &**name != space);
        }
        Ok(())
    }

    fn settle(&self, _space: &str) {}

    fn size(&self, space: &str) -> u64 {
        self.lock().spaces.get(space).map_or(0, |space| space.bytes)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError> {
        let state = self.lock();
        let pairs = |(name, space): (&Arc<str>, &Space)| (name.to_string(), space.pairs.clone());
        Ok(Box::new(Copied(state.spaces.iter().map(pairs).collect())))
    }
}

/// All there was at one moment; keys and values are shared.
struct Copied(BTreeMap<String, BTreeMap<Bytes, Bytes>>);

impl Snapshot for Copied {
    fn spaces(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn scan(&self, space: &str, visit: VisitPair<'_>) -> Result<(), KvError> {
        let mut pairs = self.0.get(space).into_iter().flatten();
        let _ = pairs.try_for_each(|(key, value)| visit(key, value.clone()));
        Ok(())
    }
}
