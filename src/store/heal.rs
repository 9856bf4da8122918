//! Damaged records of the store about itself, and ones lost with a log, made good when it is opened, so that a start is not
//! refused for them.
//!
//! Each is derived from the rest of the data: the end of the journal from blocks, checkpoints and bars, the highest
//! window start from the keys of bars, a cutoff from the retention once the time is told. The record of a spec holds the layouts
//! its bars are in. Where its text can still be read and fits all bars, it is kept. Otherwise the bars of the highest
//! layout number are taken to be in the spec's present layout, if their states have its shape, and those of other
//! numbers, which nobody can read any more, are put aside: `barline store verify --repair` derives them again.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::keys::{self, PartitionName};
use super::meta::{self, SpecRecord};
use super::quarantine::{Kind, Quarantine};
use super::ticks::journal_end_of_all;
use super::{Durability, Kv, StoreError, bar_bytes, mend, value};
use crate::model::time::DAY;
use crate::spec::{Spec, Specs};
use crate::window::state;

/// How long data is kept whose spec is neither configured nor remembered, unless the budget is spent before.
const FORGOTTEN: i64 = 365 * DAY;

/// Makes good what is damaged of the records that a store cannot be opened without.
///
/// # Errors
/// The port fails.
pub(super) fn heal(kv: &Arc<dyn Kv>, specs: &Specs) -> Result<(), StoreError> {
    let mut damaged = Vec::new();
    kv.scan(keys::META, &[], None, &mut |key, frame| {
        if !is_sound_record(key, &frame) {
            damaged.push((key.to_vec(), frame));
        }
        ControlFlow::Continue(())
    })?;
    let lost = if mend::is_marked(&**kv)? { lost(&**kv, specs)? } else { Vec::new() };
    if damaged.is_empty() && lost.is_empty() {
        return Ok(());
    }
    let quarantine = Quarantine::open(kv.clone())?;
    for (key, frame) in damaged {
        let name = String::from_utf8_lossy(&key).into_owned();
        tracing::error!(record = name, "a record of the store is damaged and derived anew");
        let payload = derive(&**kv, &name, &frame, specs, &quarantine)?;
        let instead = payload.map(|payload| value::frame(&key, &payload));
        quarantine.take(Kind::Meta, keys::META, &key, &frame, instead);
    }
    for name in lost {
        tracing::error!(record = name, "a record of the store is lost with a log and derived anew");
        let payload = derive(&**kv, &name, &Bytes::new(), specs, &quarantine)?.unwrap_or_default();
        kv.commit(vec![meta::put(&name, &payload)], Durability::Synced)?;
    }
    Ok(())
}

/// The records that every store with such data has, and this one does not.
fn lost(kv: &dyn Kv, specs: &Specs) -> Result<Vec<String>, StoreError> {
    let with_bars = specs.iter().map(|spec| &spec.name).filter(|spec| !kv.spaces(&format!("bars/{spec}/")).is_empty());
    let mut names: Vec<_> = with_bars.map(|spec| format!("spec/{spec}")).chain(["format".to_owned()]).collect();
    let mut known = Vec::new();
    kv.scan_keys(keys::META, &[], None, &mut |key| {
        known.push(key.to_vec());
        ControlFlow::Continue(())
    })?;
    names.retain(|name| !known.iter().any(|key| key == name.as_bytes()));
    Ok(names)
}

/// Whether a record of the store about itself is what its name says; always of those that are looked after elsewhere.
pub fn is_sound_record(key: &[u8], frame: &Bytes) -> bool {
    let payload = || value::open(key, frame);
    match key.split(|byte| *byte == b'/').next().unwrap_or_default() {
        b"format" => payload().is_some_and(|payload| payload.len() == 4),
        b"journal_end" | b"newest" | b"cutoff" => payload().is_some_and(|payload| payload.len() == 8),
        b"spec" => payload().is_some_and(|payload| serde_json::from_slice::<SpecRecord>(&payload).is_ok()),
        _ => true,
    }
}

/// What is to stand in a damaged record's place; `None` where it is to be missing.
fn derive(
    kv: &dyn Kv,
    name: &str,
    frame: &Bytes,
    specs: &Specs,
    quarantine: &Quarantine,
) -> Result<Option<Vec<u8>>, StoreError> {
    let parts: Vec<&str> = name.split('/').collect();
    Ok(match parts[..] {
        // Every value has a version of its own, so nothing is misread where this is wrong.
        ["format"] => Some(meta::FORMAT.to_be_bytes().to_vec()),
        ["journal_end"] => Some(journal_end(kv)?.to_be_bytes().to_vec()),
        ["newest", spec, window] => newest(kv, spec, window)?.map(|newest| newest.to_be_bytes().to_vec()),
        ["spec", spec] => {
            let record = match specs.by_name(spec) {
                Some(spec) => spec_record(kv, spec, frame, quarantine)?,
                None => SpecRecord {
                    keep_ticks: FORGOTTEN,
                    keep_bars: FORGOTTEN,
                    max_ahead: DAY,
                    layouts: Vec::new(),
                    windows: Vec::new(),
                },
            };
            Some(serde_json::to_vec(&record).unwrap_or_default())
        }
        _ => None,
    })
}

/// No arrival number below this was given to a tick that anything kept knows of.
fn journal_end(kv: &dyn Kv) -> Result<u64, StoreError> {
    let mut end = journal_end_of_all(kv)?.max(meta::highest_replay_from(kv)?);
    visit_bars(kv, "bars/", &mut |bar| end = end.max(bar.covers))?;
    Ok(end)
}

/// The highest window start among the bars of one window length.
fn newest(kv: &dyn Kv, spec: &str, window: &str) -> Result<Option<i64>, StoreError> {
    let mut newest = None;
    for space in kv.spaces(&format!("bars/{spec}/{window}/")) {
        kv.scan_keys(&space, &[], None, &mut |key| {
            newest = newest.max(keys::parse_bar(key).map(|(_, start)| start));
            ControlFlow::Continue(())
        })?;
    }
    Ok(newest)
}

/// The record of a configured spec.
fn spec_record(kv: &dyn Kv, spec: &Spec, frame: &Bytes, quarantine: &Quarantine) -> Result<SpecRecord, StoreError> {
    let bars = format!("bars/{}/", spec.name);
    if let Some(record) = still_readable(frame).filter(|record| record.knows(spec)) {
        let (shapes, mut fits) = (record.shapes(), true);
        visit_bars(kv, &bars, &mut |bar| {
            fits &= shapes.get(bar.layout).is_some_and(|shape| state::fits(shape, &bar.state));
        })?;
        if fits {
            return Ok(SpecRecord::update(Some(record), spec, |_| None).0);
        }
    }
    let mut numbers: BTreeMap<usize, bool> = BTreeMap::new();
    visit_bars(kv, &bars, &mut |bar| {
        *numbers.entry(bar.layout).or_insert(true) &= state::fits(&spec.accumulators, &bar.state);
    })?;
    let highest = numbers.last_key_value().map_or((0, true), |(number, fits)| (*number, *fits));
    let present = if highest.1 { highest.0 } else { highest.0 + 1 };
    let mut foreign = Vec::new();
    visit_bars(kv, &bars, &mut |bar| {
        if bar.layout != present {
            foreign.push((bar.space.to_owned(), bar.key.to_vec(), bar.frame.clone()));
        }
    })?;
    for (space, key, frame) in foreign {
        quarantine.take(Kind::Bar, &space, &key, &frame, None);
    }
    Ok(SpecRecord::only(spec, present))
}

/// The record a damaged frame still holds, were it not for its checksum.
fn still_readable(frame: &Bytes) -> Option<SpecRecord> {
    let json = frame.get(1..frame.len().checked_sub(4)?)?;
    serde_json::from_slice(json).ok()
}

/// A sound bar.
struct Found<'a> {
    space: &'a str,
    key: &'a [u8],
    frame: &'a Bytes,
    layout: usize,
    covers: u64,
    state: Vec<u64>,
}

/// Visits every sound bar in the spaces that begin so.
fn visit_bars(kv: &dyn Kv, prefix: &str, visit: &mut dyn FnMut(Found<'_>)) -> Result<(), StoreError> {
    for space in kv.spaces(prefix).iter().filter(|space| PartitionName::parse(space).is_some()) {
        kv.scan(space, &[], None, &mut |key, frame| {
            let mut state = Vec::new();
            let bar = value::open(key, &frame).and_then(|payload| bar_bytes::decode(key, &payload, &mut state));
            if let Some((head, layout)) = bar {
                visit(Found { space, key, frame: &frame, layout, covers: head.covers, state });
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok(())
}
