//! What can be made good is made good; of the rest it is told what is lost.

use std::collections::{BTreeMap, HashSet};

use super::check::Content;
use super::walk::{Bad, Walk};
use crate::model::{SpecId, TimeNs};
use crate::spec::{LatePolicy, Spec};
use crate::store::follower::FollowerRecord;
use crate::store::keys::{self, PartitionName};
use crate::store::{Kind, SortedKey, value};
use crate::tools::replay::{BarId, Grounds, HELD_BYTES, Install, Replay, replay};
use crate::tools::watch::{ToolError, Watch};

/// Repairs what a walk found; gives how many missing bars were derived again beside the damaged ones.
pub(super) fn repair(grounds: Grounds<'_>, found: &mut Walk, watch: &mut Watch<'_>) -> Result<u64, ToolError> {
    let mut records = false;
    for bad in &mut found.bad {
        records |= bad.content == Content::Meta;
        put_aside(grounds, bad);
    }
    if records {
        grounds.store.rewrite_records()?;
    }
    let mut restored = 0;
    let mut damaged: BTreeMap<SpecId, HashSet<BarId>> = BTreeMap::new();
    for (spec, id) in found.bad.iter().filter_map(|bad| bar_of(grounds, bad)) {
        damaged.entry(spec).or_default().insert(id);
    }
    for spec in grounds.specs.iter() {
        restored += derive_again(grounds, spec, damaged.get(&spec.id), watch)?;
    }
    for bad in &mut found.bad {
        let Some((spec, (granularity, series, start))) = bar_of(grounds, bad) else { continue };
        if grounds.store.bar(spec, granularity, series, start)?.is_some() {
            restored = restored.saturating_sub(1);
            (bad.repaired, bad.outcome) = (true, "derived again from the journal".to_owned());
        } else {
            bad.outcome =
                "not derived again: the journal does not have every tick of its window, or not all are settled yet"
                    .to_owned();
        }
    }
    Ok(restored)
}

/// Moves a damaged value aside, and says what that means.
fn put_aside(grounds: Grounds<'_>, bad: &mut Bad) {
    let aside = |kind, instead| grounds.store.put_aside(kind, &bad.space, &bad.key, &bad.frame, instead);
    let unreadable = bad.what.starts_with("what follows");
    let outcome = match bad.content {
        _ if unreadable => "a file of the database is damaged; restore a backup".to_owned(),
        Content::Series if bad.frame.is_empty() => {
            let op = crate::store::Op::Put {
                space: bad.space.as_str().into(),
                value: value::frame(&bad.key, &[0]),
                key: bad.key.clone().into(),
            };
            match grounds.store.kv().commit(vec![op], crate::store::Durability::Synced) {
                Ok(()) => "its name is lost; the number stays taken, what it has is shown as lost_series".to_owned(),
                Err(error) => error.to_string(),
            }
        }
        Content::Series => {
            aside(Kind::Series, Some(value::frame(&bad.key, &[0])));
            "its name is lost; its ticks and bars stay and are shown as lost_series, new ticks get a new number"
                .to_owned()
        }
        Content::Block | Content::Side | Content::Sorted => {
            aside(if bad.content == Content::Side { Kind::Side } else { Kind::Block }, None);
            let rows = match bad.content {
                Content::Sorted => SortedKey::parse(&bad.key).map(|told| told.rows),
                _ => keys::parse_block(&bad.key).map(|told| told.rows),
            };
            format!("{} ticks are lost; stored bars keep what they have of them", rows.unwrap_or(0))
        }
        Content::Bar => {
            aside(Kind::Bar, None);
            String::new()
        }
        Content::Meta => {
            // Of some it only matters that they are there.
            let is_mark = [&b"doomed/"[..], b"log_damaged"].iter().any(|mark| bad.key.starts_with(mark));
            aside(Kind::Meta, is_mark.then(|| value::frame(&bad.key, &[])));
            bad.repaired = true;
            "removed; what is known of it is written anew".to_owned()
        }
        Content::Cursor => {
            aside(Kind::Meta, Some(FollowerRecord::fresh().to_frame(&bad.key)));
            bad.repaired = true;
            "begun anew: a sink that is not running now sends again what the outbox has, and counts from nothing"
                .to_owned()
        }
        Content::Refused => {
            aside(Kind::Meta, None);
            "which bar was refused, and why, is lost; it stays counted as quarantined".to_owned()
        }
        Content::Inbox => {
            aside(Kind::Inbox, None);
            "messages that this store had claimed and not taken in are lost, unless their claim was never committed"
                .to_owned()
        }
        Content::Outbox => {
            aside(Kind::Outbox, None);
            "whoever follows the bars by position does not see this one; it is stored as ever".to_owned()
        }
        Content::Quarantine | Content::Other => "left as it is".to_owned(),
    };
    bad.outcome = outcome;
}

/// The bar a damaged value was, where its spec and granularity are still configured.
fn bar_of(grounds: Grounds<'_>, bad: &Bad) -> Option<(SpecId, BarId)> {
    let name = PartitionName::parse(&bad.space).filter(|_| bad.content == Content::Bar)?;
    let spec = grounds.specs.by_name(name.spec)?;
    let granularity = spec.granularities.iter().position(|known| known.length == name.window)?;
    let (series, start) = keys::parse_bar(&bad.key)?;
    Some((spec.id, (granularity as u8, series, start)))
}

/// Derives the bars of a spec again that are missing. Where late ticks do not go into bars, a window may rightly have
/// none, and only the `damaged` ones are looked at.
fn derive_again(
    grounds: Grounds<'_>,
    spec: &Spec,
    damaged: Option<&HashSet<BarId>>,
    watch: &mut Watch<'_>,
) -> Result<u64, ToolError> {
    let install = match (spec.window.late, damaged) {
        (LatePolicy::Amend, _) => Install::Missing,
        (_, Some(damaged)) => Install::These(damaged.clone()),
        (_, None) => return Ok(0),
    };
    let (from, to) = (TimeNs::MIN, TimeNs::MAX);
    let (spec, install) = (spec.clone(), Some(install));
    let job = Replay { spec, ticks_of: None, from, to, examples: 0, held_bytes: HELD_BYTES, install };
    Ok(replay(grounds, &job, watch)?.installed())
}
