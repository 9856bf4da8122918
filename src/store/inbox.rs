//! What was taken from elsewhere and is not in the journal yet, in the spaces `inbox/<stage>`: by number, ascending.
//!
//! A source that shares its input with others writes here first what it is about to claim; what it claimed and had not
//! handed on when the process died is found here again.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Durability, Kind, Op, Store, StoreBatch, StoreError, meta, value};

/// What tells the entries of this store's runs from those of any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The store.
    pub instance: u64,
    /// How often the stage has begun on it.
    pub run: u32,
}

impl StoreBatch {
    /// Keeps an entry.
    pub fn put_inbox(&mut self, stage: &str, number: u64, payload: &[u8]) {
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        self.put_record(Op::Put { space: space(stage), value: value::frame(&key, payload), key });
    }

    /// Forgets an entry.
    pub fn remove_inbox(&mut self, stage: &str, number: u64) {
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        self.put_record(Op::Delete { space: space(stage), key });
    }
}

impl Store {
    /// Visits the entries of `stage`. One that cannot be read is put aside.
    ///
    /// # Errors
    /// The port fails.
    pub fn load_inbox(&self, stage: &str, visit: &mut dyn FnMut(u64, Bytes)) -> Result<(), StoreError> {
        let (space, mut corrupt) = (space(stage), Vec::new());
        self.inner.kv.scan(&space, &[], None, &mut |key, frame| {
            let number = key.try_into().map(u64::from_be_bytes);
            match (number, value::open(key, &frame)) {
                (Ok(number), Some(payload)) => visit(number, payload),
                _ => corrupt.push((key.to_vec(), frame)),
            }
            ControlFlow::Continue(())
        })?;
        self.inner.quarantine.take_all(Kind::Inbox, &space, corrupt);
        Ok(())
    }

    /// Notes that `stage` begins once more; on a store it never began on, `fresh` becomes the store's name.
    ///
    /// # Errors
    /// The port fails.
    pub fn begin_inbox(&self, stage: &str, fresh: u64) -> Result<Run, StoreError> {
        let record = format!("inbox/{stage}");
        let last = meta::get(&*self.inner.kv, &record).ok().flatten().and_then(|bytes| read(&bytes));
        let run = match last {
            Some(Run { instance, run }) => Run { instance, run: run.wrapping_add(1) },
            None => Run { instance: fresh, run: 1 },
        };
        let payload = [&run.instance.to_be_bytes()[..], &run.run.to_be_bytes()].concat();
        self.inner.kv.commit(vec![meta::put(&record, &payload)], Durability::Synced)?;
        Ok(run)
    }
}

fn read(payload: &[u8]) -> Option<Run> {
    let (instance, run) = payload.split_first_chunk()?;
    Some(Run { instance: u64::from_be_bytes(*instance), run: u32::from_be_bytes(run.try_into().ok()?) })
}

fn space(stage: &str) -> Arc<str> {
    format!("inbox/{stage}").into()
}
