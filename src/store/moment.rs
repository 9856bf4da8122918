//! Reading pairs of the database on disk, as they are or as they were at one moment.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use fjall::{Guard, Keyspace, Readable, UserKey};

use super::kv::VisitPair;
use super::{KvError, Snapshot};

/// Whether what was written reads back as something else, rather than the device failing.
pub(super) fn is_damage(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Storage(fjall::LsmError::Io(io)) | fjall::Error::Io(io) => {
            matches!(io.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        }
        fjall::Error::Storage(_) | fjall::Error::Decompress(_) => true,
        _ => false,
    }
}

/// Visits pairs until `visit` breaks.
pub(super) fn visit_pairs(space: &str, pairs: impl Iterator<Item = Guard>, visit: VisitPair<'_>) -> fjall::Result<()> {
    for pair in pairs {
        // Where a value lying apart cannot be read, its key still can.
        let seen = std::cell::OnceCell::<UserKey>::new();
        let read = pair.into_inner_if(|key| seen.set(key.clone()).is_ok());
        let (key, value) = match (read, seen.into_inner()) {
            (Ok((key, value)), _) => (key, value.map(Bytes::from).unwrap_or_default()),
            (Err(error), Some(key)) if is_damage(&error) => {
                tracing::error!(space, key = ?&*key, ?error, "a value cannot be read");
                (key, Bytes::new())
            }
            (Err(error), _) => return Err(error),
        };
        if visit(&key, value).is_break() {
            break;
        }
    }
    Ok(())
}

/// Everything at one moment, and the spaces there were.
pub(super) struct Moment {
    pub path: String,
    pub spaces: BTreeMap<String, Keyspace>,
    pub snapshot: fjall::Snapshot,
}

impl Snapshot for Moment {
    fn spaces(&self) -> Vec<String> {
        self.spaces.keys().cloned().collect()
    }

    fn scan(&self, space: &str, visit: VisitPair<'_>) -> Result<(), KvError> {
        let Some(keyspace) = self.spaces.get(space) else { return Ok(()) };
        let pairs = self.snapshot.iter(keyspace);
        visit_pairs(space, pairs, visit).map_err(|error| KvError::Other(format!("{error:?}, in {}", self.path)))
    }
}
