//! Corrupt values: moved aside, counted by kind, logged once; the engine goes on without them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::{Durability, Kv, KvError, Op, keys, value};

/// What a corrupt value was to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The key of a series: its number stays taken, its name is lost.
    Series,
    /// A journal block.
    Block,
    /// A block of late ticks kept aside.
    Side,
    /// A bar.
    Bar,
    /// A record of the store about itself.
    Meta,
    /// What is remembered of a producer: a batch of it that is sent again counts again.
    Producer,
    /// An entry of the outbox: followers are not shown its bars.
    Outbox,
    /// A part of the database's own log, set aside as a file.
    Log,
    /// Messages a source had claimed and not handed on.
    Inbox,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Series,
        Self::Block,
        Self::Side,
        Self::Bar,
        Self::Meta,
        Self::Producer,
        Self::Outbox,
        Self::Log,
        Self::Inbox,
    ];

    /// The kind's name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Block => "block",
            Self::Side => "side",
            Self::Bar => "bar",
            Self::Meta => "meta",
            Self::Producer => "producer",
            Self::Outbox => "outbox",
            Self::Log => "log",
            Self::Inbox => "inbox",
        }
    }
}

/// The write that counts a part of the log set aside as the file `name`.
pub fn note_log(name: &str, bytes: u64) -> Op {
    let key: Bytes = [&[Kind::Log as u8], name.as_bytes()].concat().into();
    Op::Put { space: keys::QUARANTINE.into(), value: value::frame(&key, &bytes.to_be_bytes()), key }
}

/// Whether that is counted already.
///
/// # Errors
/// The port fails.
pub fn knows_log(kv: &dyn Kv, name: &str) -> Result<bool, KvError> {
    Ok(kv.get(keys::QUARANTINE, &[&[Kind::Log as u8], name.as_bytes()].concat())?.is_some())
}

/// The key under which a corrupt value is kept.
fn place_of(kind: Kind, space: &str, key: &[u8]) -> Vec<u8> {
    [&[kind as u8], space.as_bytes(), &[0], key].concat()
}

/// Where corrupt values go.
pub struct Quarantine {
    kv: Arc<dyn Kv>,
    counts: [AtomicU64; Kind::ALL.len()],
}

impl Quarantine {
    /// Counts what earlier runs put aside.
    pub fn open(kv: Arc<dyn Kv>) -> Result<Self, KvError> {
        let counts: [AtomicU64; Kind::ALL.len()] = Default::default();
        kv.scan_keys(keys::QUARANTINE, &[], None, &mut |key| {
            if let Some(count) = key.first().and_then(|kind| counts.get(*kind as usize)) {
                count.fetch_add(1, Relaxed);
            }
            ControlFlow::Continue(())
        })?;
        Ok(Self { kv, counts })
    }

    /// Moves corrupt values of one space aside and leaves nothing in their place.
    pub fn take_all(&self, kind: Kind, space: &str, corrupt: Vec<(Vec<u8>, Bytes)>) {
        for (key, bytes) in corrupt {
            self.take(kind, space, &key, &bytes, None);
        }
    }

    /// Moves the corrupt `bytes` of `key` aside and leaves `instead` in its place, or nothing. Where even that
    /// fails the value stays and is met again.
    pub fn take(&self, kind: Kind, space: &str, key: &[u8], bytes: &[u8], instead: Option<Bytes>) {
        if self.kv.get(space, key).ok().flatten().is_none_or(|now| now != bytes) {
            return; // Put aside, dropped or replaced by someone else in the meantime.
        }
        let aside = place_of(kind, space, key);
        let framed = value::frame(&aside, bytes);
        let put = Op::Put { space: keys::QUARANTINE.into(), key: aside.into(), value: framed };
        let (space_name, key_bytes) = (Arc::from(space), Bytes::copy_from_slice(key));
        let replace = match instead {
            Some(value) => Op::Put { space: space_name, key: key_bytes, value },
            None => Op::Delete { space: space_name, key: key_bytes },
        };
        match self.kv.commit(vec![put, replace], Durability::Process) {
            Ok(()) => {
                self.counts[kind as usize].fetch_add(1, Relaxed);
                let bytes = bytes.len();
                tracing::error!(kind = kind.name(), space, key = ?key, bytes, "corrupt value put aside");
            }
            Err(error) => tracing::error!(kind = kind.name(), space, key = ?key, %error, "corrupt value stays"),
        }
    }

    /// Whether a value of `key` was put aside, ever.
    pub fn has(&self, kind: Kind, space: &str, key: &[u8]) -> Result<bool, KvError> {
        let is_any = self.counts[kind as usize].load(Relaxed) > 0;
        Ok(is_any && self.kv.get(keys::QUARANTINE, &place_of(kind, space, key))?.is_some())
    }

    /// How many were put aside, by kind; kinds that never occurred are left out.
    pub fn counts(&self) -> Vec<(Kind, u64)> {
        let counts = Kind::ALL.iter().zip(&self.counts).map(|(kind, count)| (*kind, count.load(Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}
