//! Spaces about to be dropped: told by a record first, so that whatever happens each goes as a whole, and none is
//! taken for data at the next start.
//!
//! A record stands for a space while that is being made out of another one, too: if the process dies meanwhile, the
//! half-made space goes. One synced commit takes the record of the new space away and writes that of the old one.

use std::sync::PoisonError;

use super::partition::Partition;
use super::{Durability, Kv, Op, Store, StoreError, keys, meta};

const PREFIX: &str = "doomed/";

/// The write that dooms a space.
pub fn put(space: &str) -> Op {
    meta::put(&format!("{PREFIX}{space}"), &[])
}

/// The write that says that it is gone, or is to stay after all.
pub fn lift(space: &str) -> Op {
    meta::remove(&format!("{PREFIX}{space}"))
}

/// Whether a space is doomed.
pub fn is(kv: &dyn Kv, space: &str) -> Result<bool, StoreError> {
    Ok(kv.get(keys::META, format!("{PREFIX}{space}").as_bytes())?.is_some())
}

/// Drops every space that was doomed when the last process ended.
///
/// Of a partition that is there in both orders the one in order of arrival is kept: it is whole until the other is. Where
/// the log was damaged the records may be older than the spaces; then one clustered by series that stands alone is whole.
pub fn finish(kv: &dyn Kv, log_damaged: bool) -> Result<(), StoreError> {
    let mut recorded = Vec::new();
    meta::scan(kv, PREFIX, &mut |key, _| {
        recorded.extend(std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(PREFIX)).map(String::from));
    })?;
    let (present, sorted) = (kv.spaces("ticks/"), kv.spaces("sorted/"));
    let in_arrival = |space: &str| {
        let place = space.strip_prefix("sorted/")?;
        present.iter().find(|space| space.strip_prefix("ticks/") == Some(place))
    };
    let is_whole = |space: &String| log_damaged && sorted.contains(space) && in_arrival(space).is_none();
    let mut doomed: Vec<_> = recorded.iter().filter(|space| !is_whole(space)).cloned().collect();
    let half_made = |space: &&String| in_arrival(space).is_some_and(|arrived| !recorded.contains(arrived));
    doomed.extend(sorted.iter().filter(half_made).cloned());
    doomed.iter().try_for_each(|space| kv.drop_space(space))?;
    if !recorded.is_empty() {
        kv.commit(recorded.iter().map(|space| lift(space)).collect(), Durability::Synced)?;
    }
    Ok(())
}

impl Store {
    /// Drops what was replaced and nobody reads any more; says whether nothing is left.
    pub(super) fn sweep(&self) -> Result<bool, StoreError> {
        self.sweep_those(Partition::is_unread)
    }

    /// Drops what `space` has replaced, read or not, because `space` itself is about to go.
    pub(super) fn sweep_behind(&self, space: &str) -> Result<bool, StoreError> {
        // Both are named alike but for the family.
        let place = |space: &str| space.split_once('/').map(|(_, place)| place.to_owned());
        self.sweep_those(|old| place(&old.space) == place(space))
    }

    fn sweep_those(&self, wanted: impl Fn(&Partition) -> bool) -> Result<bool, StoreError> {
        let mut replaced = self.inner.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(at) = replaced.iter().position(&wanted) {
            let space = &replaced[at].space;
            self.inner.kv.drop_space(space)?;
            self.inner.kv.commit(vec![lift(space)], Durability::Synced)?;
            replaced.remove(at);
        }
        Ok(replaced.is_empty())
    }
}
