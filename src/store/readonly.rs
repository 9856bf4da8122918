//! A port through which nothing is changed: for looking at a store without leaving a trace in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::kv::{VisitKey, VisitPair};
use super::{Durability, Kv, KvError, Op, Snapshot, keys};

/// Reads from another port. Opening a store brings the records about itself up to date, and drops what was about to go: both
/// is kept in memory only. Any other write fails.
pub struct ReadOnly {
    below: Arc<dyn Kv>,
    changed: Mutex<Changed>,
}

#[derive(Default)]
struct Changed {
    records: BTreeMap<Bytes, Option<Bytes>>,
    dropped: BTreeSet<String>,
}

impl ReadOnly {
    /// A view of `below`.
    pub fn new(below: Arc<dyn Kv>) -> Self {
        Self { below, changed: Mutex::default() }
    }

    fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_dropped(&self, space: &str) -> bool {
        self.changed().dropped.contains(space)
    }

    /// The records in a range, as they seem.
    fn records(&self, from: &[u8], to: Option<&[u8]>) -> Result<BTreeMap<Bytes, Bytes>, KvError> {
        let mut records = BTreeMap::new();
        self.below.scan(keys::META, from, to, &mut |key, value| {
            records.insert(Bytes::copy_from_slice(key), value);
            ControlFlow::Continue(())
        })?;
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        if matches!(to, Bound::Excluded(to) if to <= from) {
            return Ok(records);
        }
        for (key, value) in self.changed().records.range::<[u8], _>((Bound::Included(from), to)) {
            match value {
                Some(value) => records.insert(key.clone(), value.clone()),
                None => records.remove(key),
            };
        }
        Ok(records)
    }
}

impl Kv for ReadOnly {
    fn commit(&self, ops: Vec<Op>, _durability: Durability) -> Result<(), KvError> {
        let is_taken = |op: &Op| [keys::META, keys::QUARANTINE].contains(&&**op.space());
        if !ops.iter().all(is_taken) {
            return Err(KvError::Other("opened for reading only".to_owned()));
        }
        let mut changed = self.changed();
        for op in ops {
            match op {
                Op::Put { space, key, value } if &*space == keys::META => changed.records.insert(key, Some(value)),
                Op::Delete { space, key } if &*space == keys::META => changed.records.insert(key, None),
                Op::Put { .. } | Op::Delete { .. } => None,
            };
        }
        Ok(())
    }

    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let changed = (space == keys::META).then(|| self.changed().records.get(key).cloned()).flatten();
        match changed {
            Some(value) => Ok(value),
            None if self.is_dropped(space) => Ok(None),
            None => self.below.get(space, key),
        }
    }

    fn scan(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitPair<'_>) -> Result<(), KvError> {
        if space == keys::META {
            let _ = self.records(from, to)?.into_iter().try_for_each(|(key, value)| visit(&key, value));
            return Ok(());
        }
        if self.is_dropped(space) { Ok(()) } else { self.below.scan(space, from, to, visit) }
    }

    fn scan_keys(&self, space: &str, from: &[u8], to: Option<&[u8]>, visit: VisitKey<'_>) -> Result<(), KvError> {
        if space == keys::META {
            return self.scan(space, from, to, &mut |key, _| visit(key));
        }
        if self.is_dropped(space) { Ok(()) } else { self.below.scan_keys(space, from, to, visit) }
    }

    fn scan_back(&self, space: &str, from: &[u8], to: &[u8], visit: VisitPair<'_>) -> Result<(), KvError> {
        if space == keys::META {
            let _ = self.records(from, Some(to))?.into_iter().rev().try_for_each(|(key, value)| visit(&key, value));
            return Ok(());
        }
        if self.is_dropped(space) { Ok(()) } else { self.below.scan_back(space, from, to, visit) }
    }

    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError> {
        if space == keys::META {
            return Ok(self.records(&[], None)?.into_keys().next_back());
        }
        if self.is_dropped(space) { Ok(None) } else { self.below.last_key(space) }
    }

    fn spaces(&self, prefix: &str) -> Vec<String> {
        let mut spaces = self.below.spaces(prefix);
        spaces.retain(|space| !self.is_dropped(space));
        spaces
    }

    fn drop_space(&self, space: &str) -> Result<(), KvError> {
        self.changed().dropped.insert(space.to_owned());
        Ok(())
    }

    fn settle(&self, _space: &str) {}

    fn size(&self, space: &str) -> u64 {
        self.below.size(space)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError> {
        self.below.snapshot()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    fn put(space: &str, key: &'static str) -> Op {
        Op::Put { space: space.into(), key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(b"v") }
    }

    #[test]
    fn what_is_written_seems_to_be_there_and_is_not() {
        let below = Arc::new(Memory::new());
        below.commit(vec![put("meta", "a"), put("bars/x", "b")], Durability::Process).unwrap();
        let view = ReadOnly::new(below.clone());
        let gone = Op::Delete { space: "meta".into(), key: Bytes::from_static(b"a") };
        view.commit(vec![gone, put("meta", "c"), put("quarantine", "q")], Durability::Synced).unwrap();
        view.commit(vec![put("bars/x", "d")], Durability::Process).unwrap_err();
        view.drop_space("bars/x").unwrap();
        let mut records = Vec::new();
        view.scan_keys("meta", &[], None, &mut |key| {
            records.push(key.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((records, view.get("meta", b"a").unwrap()), (vec![b"c".to_vec()], None));
        assert_eq!((view.spaces("bars/"), view.get("bars/x", b"b").unwrap()), (vec![], None));
        assert!(below.get("meta", b"a").unwrap().is_some() && below.get("meta", b"c").unwrap().is_none());
        assert!(below.get("bars/x", b"b").unwrap().is_some() && below.spaces("quarantine").is_empty());
    }
}
