//! The position that travels with a transaction: what will be outstanding once it is committed, by spec.

use std::collections::BTreeMap;

use super::feed::Feed;
use crate::runtime::{Context, StageError};
use crate::store::{Cursor, Fate};
use crate::topology::{Plan, StagePlan};

/// The longest position: a broker keeps up to 4 096 bytes.
const LONGEST: usize = 4_000;

/// A name that no other producer has: the same after every restart on this data directory.
///
/// # Errors
/// The store fails.
pub(super) fn id(context: &Context, plan: &Plan, stage: &StagePlan) -> Result<String, StageError> {
    let store = context.store.identity(context.clock.now()).map_err(crate::stages::store_failed)?;
    Ok(format!("barline-{}-{}-{store:016x}", plan.name, stage.name))
}

/// The position once everything handed over is committed. Where it would be too long, only the lowest outstanding
/// positions are said: then bars may come twice after a failure, but none is left out.
pub(super) fn write(feeds: &[Feed]) -> String {
    let cursors: BTreeMap<&str, Cursor> = feeds
        .iter()
        .map(|feed| {
            let mut cursor = feed.follower.cursor();
            feed.promised().for_each(|(from, to)| _ = cursor.settle(from, to));
            (feed.maker.spec.name.as_str(), cursor)
        })
        .collect();
    // Names and numbers always have a JSON form.
    let text = serde_json::to_string(&cursors).unwrap_or_default();
    if text.len() <= LONGEST {
        return text;
    }
    let lowest: BTreeMap<_, _> =
        cursors.iter().map(|(spec, cursor)| (spec, Cursor::starting_at(cursor.lowest()))).collect();
    serde_json::to_string(&lowest).unwrap_or_default()
}

/// Settles what is settled in the position that the broker holds, and begins anew there.
///
/// # Errors
/// The store fails.
pub(super) fn adopt(context: &Context, feed: &mut Feed, position: Option<&str>) -> Result<(), StageError> {
    let cursors = position.and_then(|text| serde_json::from_str::<BTreeMap<String, Cursor>>(text).ok());
    let cursor = cursors.and_then(|mut cursors| cursors.remove(&feed.maker.spec.name)).filter(Cursor::is_sound);
    let mut before = 0;
    for (from, to) in cursor.iter().flat_map(|cursor| cursor.ranges()) {
        let settled = context.store.settle_all(&feed.follower, before, *from, Fate::Delivered);
        settled.map_err(crate::stages::try_later)?;
        before = *to;
    }
    feed.restart();
    Ok(())
}
