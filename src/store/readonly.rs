//! A port through which nothing is changed: for looking at a store without leaving a trace in it.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Durability, Kv, KvError, Op, Snapshot, keys};

/// Reads from another port. Writes to it fail, but for what opening a store does to bring it up to date, which is
/// forgotten: records of the store about itself, and drops of spaces, which are doomed and looked at by nobody.
pub struct ReadOnly(pub Arc<dyn Kv>);

impl Kv for ReadOnly {
    fn commit(&self, ops: Vec<Op>, _durability: Durability) -> Result<(), KvError> {
        let is_record =
            |op: &Op| matches!(op, Op::Put { space, .. } | Op::Delete { space, .. } if **space == *keys::META);
        if ops.iter().all(is_record) { Ok(()) } else { Err(KvError::Other("opened for reading only".to_owned())) }
    }

    fn get(&self, space: &str, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.0.get(space, key)
    }

    fn scan(
        &self,
        space: &str,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], Bytes) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.0.scan(space, from, to, visit)
    }

    fn scan_keys(
        &self,
        space: &str,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), KvError> {
        self.0.scan_keys(space, from, to, visit)
    }

    fn last_key(&self, space: &str) -> Result<Option<Bytes>, KvError> {
        self.0.last_key(space)
    }

    fn spaces(&self, prefix: &str) -> Vec<String> {
        self.0.spaces(prefix)
    }

    fn drop_space(&self, _space: &str) -> Result<(), KvError> {
        Ok(())
    }

    fn settle(&self, _space: &str) {}

    fn size(&self, space: &str) -> u64 {
        self.0.size(space)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot>, KvError> {
        self.0.snapshot()
    }
}
