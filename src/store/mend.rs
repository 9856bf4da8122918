//! Making good what a damaged log has cost: it held the latest of everything, so records that vouch for other data may
//! be older than that data, or newer.
//!
//! Every checkpoint is forgotten, so that the whole journal is replayed against the bars there are; the highest window
//! start and the end of the journal are raised to what the bars say.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::keys::{self, PartitionName};
use super::open::newest_record;
use super::{Durability, Kv, Op, StoreError, bar_bytes, meta, value};

/// Present from the moment damage was found until it is made good.
const MARK: &str = "log_damaged";

/// The write that has the store mended when it is opened.
pub(super) fn mark() -> Op {
    meta::put(MARK, &[])
}

/// Whether the mark is set.
///
/// # Errors
/// The port fails.
pub(super) fn is_marked(kv: &dyn Kv) -> Result<bool, StoreError> {
    Ok(kv.get(keys::META, MARK.as_bytes())?.is_some())
}

/// Mends the store, where the mark is set, and says whether it was.
///
/// # Errors
/// The port fails.
pub(super) fn mend(kv: &dyn Kv) -> Result<bool, StoreError> {
    if !is_marked(kv)? {
        return Ok(false);
    }
    tracing::warn!("the log was damaged: bars are checked against the whole journal");
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    let mut end = meta::get_u64(kv, "journal_end")?.unwrap_or(0);
    for space in kv.spaces("bars/") {
        let Some(name) = PartitionName::parse(&space) else { continue };
        let highest = newest.entry(newest_record(name.spec, name.window)).or_insert(i64::MIN);
        kv.scan(&space, &[], None, &mut |key, frame| {
            *highest = keys::parse_bar(key).map_or(*highest, |(_, start)| start.max(*highest));
            let bar = value::open(key, &frame).and_then(|payload| bar_bytes::decode(key, &payload, &mut Vec::new()));
            end = bar.map_or(end, |(head, _)| end.max(head.covers));
            ControlFlow::Continue(())
        })?;
    }
    let mut ops = vec![meta::put("journal_end", &end.to_be_bytes()), meta::remove(MARK)];
    for (record, highest) in newest {
        let known = meta::get_u64(kv, &record)?.map_or(i64::MIN, |known| known as i64);
        ops.push(meta::put(&record, &known.max(highest).to_be_bytes()));
    }
    meta::scan(kv, meta::CHECKPOINT, &mut |key, _| {
        ops.push(Op::Delete { space: keys::META.into(), key: Bytes::copy_from_slice(key) });
    })?;
    kv.commit(ops, Durability::Synced)?;
    Ok(true)
}
