//! Which batches of which producers are in the journal, in the space `producers`: by the producer's id, when its last
//! batch came (i64), then [`Taken`].

use std::ops::ControlFlow;

use bytes::Bytes;

use super::keys::PRODUCERS;
use super::{Durability, Kind, Op, Store, StoreBatch, StoreError, value};
use crate::model::{Taken, TimeNs};

/// Sources within this process are remembered however long it was down: what lies in their inbox may be in the journal.
pub const LASTING: &str = "kafka_source/";

impl StoreBatch {
    /// Sets which batches of a producer are in the journal, the last of them since `now`.
    pub fn put_producer(&mut self, producer: &str, taken: &Taken, now: TimeNs) {
        let key = Bytes::copy_from_slice(producer.as_bytes());
        let payload = [&now.to_be_bytes()[..], &taken.to_bytes()].concat();
        self.put_record(Op::Put { space: PRODUCERS.into(), value: value::frame(&key, &payload), key });
    }
}

impl Store {
    /// Visits every producer: when its last batch came, and which are in the journal. Those silent since before `since`
    /// are forgotten instead. One that cannot be read is put aside.
    ///
    /// # Errors
    /// The port fails.
    pub fn load_producers(&self, since: TimeNs, visit: &mut dyn FnMut(&str, TimeNs, Taken)) -> Result<(), StoreError> {
        let (mut corrupt, mut silent) = (Vec::new(), Vec::new());
        self.inner.kv.scan(PRODUCERS, &[], None, &mut |key, frame| {
            match read(key, &frame) {
                Some((producer, last, taken)) if last >= since || producer.starts_with(LASTING) => {
                    visit(producer, last, taken)
                }
                Some(_) => silent.push(Op::Delete { space: PRODUCERS.into(), key: Bytes::copy_from_slice(key) }),
                None => corrupt.push((key.to_vec(), frame)),
            }
            ControlFlow::Continue(())
        })?;
        self.inner.quarantine.take_all(Kind::Producer, PRODUCERS, corrupt);
        if silent.is_empty() { Ok(()) } else { Ok(self.inner.kv.commit(silent, Durability::Process)?) }
    }
}

fn read<'a>(key: &'a [u8], frame: &Bytes) -> Option<(&'a str, TimeNs, Taken)> {
    let payload = value::open(key, frame)?;
    let (last, taken) = payload.split_first_chunk()?;
    Some((std::str::from_utf8(key).ok()?, TimeNs::from_be_bytes(*last), Taken::from_bytes(taken)?))
}
