//! What the store remembers about itself, in the space `meta`.
//!
//! ```text
//! format                   u32: the version of everything here
//! spec/<spec>              JSON: how long it keeps, and every layout its bars were ever written in
//! journal_end              u64: no offset below may be given again
//! newest/<spec>/<window>   i64: the highest window start stored
//! cutoff/<spec>            i64 i64: older ticks and bars stay hidden
//! checkpoint/<instances>/<instance>   from where that instance of so many can be rebuilt
//! side/<spec>              u64 by shard: late ticks that arrived before are kept aside already
//! doomed/<space>           a space about to be dropped, see [`doom`](super::doom)
//! expired/<spec>           JSON: what was dropped because of its age or the budget
//! cursor/<sink>/<spec>     JSON: what a follower of the outbox has settled, see [`follower`](super::follower)
//! refused/<sink>/<spec>/…  JSON: bars a broker will never take
//! ledger/<spec>/…          what is counted, see [`ledger`](super::ledger)
//! ```

use std::ops::ControlFlow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Kv, KvError, Op, StoreError, keys, value};
use crate::model::{Checkpoint, DurationNs, FieldType};
use crate::spec::{Accumulator, AccumulatorKind, Field, Spec};

/// The format written, and the only one that can be read.
pub const FORMAT: u32 = 2;

/// The record of one spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecRecord {
    /// How long ticks are kept, in nanoseconds.
    pub keep_ticks: DurationNs,
    /// How long bars are kept, in nanoseconds.
    pub keep_bars: DurationNs,
    /// How far ahead of their arrival ticks may be, in nanoseconds.
    pub max_ahead: DurationNs,
    /// Every layout of accumulators, by number; bars carry the number.
    pub layouts: Vec<Vec<Slot>>,
}

/// One accumulator of a layout, its field by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    kind: u8,
    field: String,
    #[serde(rename = "type")]
    ty: String,
}

impl SpecRecord {
    /// Brings the record of a spec up to date; also gives the number of its present layout.
    pub fn update(found: Option<Self>, spec: &Spec) -> (Self, usize) {
        let mut layouts = found.map(|record| record.layouts).unwrap_or_default();
        let present = layout_of(spec);
        let number = layouts.iter().position(|layout| *layout == present).unwrap_or_else(|| {
            layouts.push(present);
            layouts.len() - 1
        });
        let (keep_ticks, keep_bars) = (spec.retention.ticks, spec.retention.bars);
        (Self { keep_ticks, keep_bars, max_ahead: spec.window.max_ahead, layouts }, number)
    }

    /// The layouts in terms of `spec`: a field it no longer has gets an index that matches none.
    pub fn resolve(&self, spec: &Spec) -> Vec<Vec<Accumulator>> {
        self.layouts
            .iter()
            .map(|layout| layout.iter().filter_map(|slot| slot.resolve(&spec.fields)).collect())
            .collect()
    }
}

impl SpecRecord {
    /// The record of a spec of which only one layout, the present one, is known, and its number.
    pub fn only(spec: &Spec, number: usize) -> Self {
        let mut layouts = vec![Vec::new(); number];
        layouts.push(layout_of(spec));
        let (keep_ticks, keep_bars) = (spec.retention.ticks, spec.retention.bars);
        Self { keep_ticks, keep_bars, max_ahead: spec.window.max_ahead, layouts }
    }

    /// Whether the present layout of a spec is among its layouts.
    pub fn knows(&self, spec: &Spec) -> bool {
        self.layouts.contains(&layout_of(spec))
    }

    /// The layouts without any spec: what it takes to know the words of a bar, not what they are about.
    pub fn shapes(&self) -> Vec<Vec<Accumulator>> {
        self.layouts.iter().map(|layout| layout.iter().filter_map(|slot| slot.resolve(&[])).collect()).collect()
    }
}

impl Slot {
    fn resolve(&self, fields: &[Field]) -> Option<Accumulator> {
        use AccumulatorKind::{Count, First, Last, Max, Mean, Min, Moments, Sketch, Sum};
        let kinds = [First, Last, Min, Max, Sum, Count, Mean, Moments, Sketch];
        let types = [FieldType::Int64, FieldType::Uint64, FieldType::Float64];
        let field = fields.iter().position(|field| field.name == self.field).unwrap_or(usize::MAX);
        let kind = kinds.into_iter().find(|kind| *kind as u8 == self.kind)?;
        let ty = types.into_iter().find(|ty| ty.name() == self.ty)?;
        Some(Accumulator { kind, field, ty })
    }
}

fn layout_of(spec: &Spec) -> Vec<Slot> {
    let slot = |accumulator: &Accumulator| Slot {
        kind: accumulator.kind as u8,
        field: spec.fields[accumulator.field].name.clone(),
        ty: accumulator.ty.name().into(),
    };
    spec.accumulators.iter().map(slot).collect()
}

/// The payload of a record.
///
/// # Errors
/// The port fails, or the record is corrupt.
pub fn get(kv: &dyn Kv, record: &str) -> Result<Option<Bytes>, StoreError> {
    let Some(frame) = kv.get(keys::META, record.as_bytes())? else { return Ok(None) };
    value::open(record.as_bytes(), &frame).map(Some).ok_or_else(|| damaged(record))
}

/// A record that is one number.
///
/// # Errors
/// As [`get`].
pub fn get_u64(kv: &dyn Kv, record: &str) -> Result<Option<u64>, StoreError> {
    let Some(bytes) = get(kv, record)? else { return Ok(None) };
    let bytes = bytes.as_ref().try_into().map_err(|_| damaged(record))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// The write that sets a record.
pub fn put(record: &str, payload: &[u8]) -> Op {
    let key = Bytes::copy_from_slice(record.as_bytes());
    Op::Put { space: keys::META.into(), value: value::frame(&key, payload), key }
}

/// The write that removes a record.
pub fn remove(record: &str) -> Op {
    Op::Delete { space: keys::META.into(), key: Bytes::copy_from_slice(record.as_bytes()) }
}

/// Visits every record whose name begins with `prefix`, which ends in `/`: its whole name, and its frame.
///
/// # Errors
/// The port fails.
pub fn scan(kv: &dyn Kv, prefix: &str, visit: &mut dyn FnMut(&[u8], Bytes)) -> Result<(), KvError> {
    // `0` follows `/`.
    let end = prefix.strip_suffix('/').map(|name| format!("{name}0"));
    kv.scan(keys::META, prefix.as_bytes(), end.as_ref().map(String::as_bytes), &mut |key, frame| {
        visit(key, frame);
        ControlFlow::Continue(())
    })
}

/// What the names of all checkpoints begin with.
pub const CHECKPOINT: &str = "checkpoint/";

/// The record of the checkpoint of an instance of so many.
pub fn checkpoint_record(instances: u16, instance: u16) -> String {
    format!("{CHECKPOINT}{instances}/{instance}")
}

/// The highest arrival number below which any checkpoint says that all is accounted for.
///
/// # Errors
/// The port fails.
pub fn highest_replay_from(kv: &dyn Kv) -> Result<u64, KvError> {
    let mut highest = 0;
    scan(kv, CHECKPOINT, &mut |key, frame| {
        highest = read_checkpoint(key, &frame).map_or(0, |told| told.replay_from).max(highest);
    })?;
    Ok(highest)
}

/// The write that sets a checkpoint, but for what it says of late ticks: replay_from u64 · cascade_from i64.
pub fn put_checkpoint(checkpoint: &Checkpoint) -> Op {
    let mut payload = checkpoint.replay_from.to_be_bytes().to_vec();
    payload.extend(checkpoint.cascade_from.to_be_bytes());
    put(&checkpoint_record(checkpoint.instances, checkpoint.instance), &payload)
}

/// Reads what [`put_checkpoint`] wrote; `None` where it is corrupt.
pub fn read_checkpoint(key: &[u8], frame: &Bytes) -> Option<Checkpoint> {
    let record = std::str::from_utf8(key).ok()?.strip_prefix(CHECKPOINT)?;
    let (instances, instance) = record.split_once('/')?;
    let payload = value::open(key, frame)?;
    let (replay_from, cascade_from) = payload.split_first_chunk()?;
    Some(Checkpoint {
        instance: instance.parse().ok()?,
        instances: instances.parse().ok()?,
        replay_from: u64::from_be_bytes(*replay_from),
        cascade_from: i64::from_be_bytes(cascade_from.try_into().ok()?),
        late: Vec::new(),
    })
}

/// The record of a spec.
///
/// # Errors
/// As [`get`].
pub fn spec_record(kv: &dyn Kv, spec: &str) -> Result<Option<SpecRecord>, StoreError> {
    let name = format!("spec/{spec}");
    let Some(bytes) = get(kv, &name)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|_| damaged(&name))
}

/// The write that sets the record of a spec.
pub fn put_spec_record(spec: &str, record: &SpecRecord) -> Op {
    // Numbers and strings always have a JSON form.
    put(&format!("spec/{spec}"), &serde_json::to_vec(record).unwrap_or_default())
}

/// Checks the format of what is there, and marks an empty store with the present one.
///
/// # Errors
/// Another format, or data without a mark.
pub fn check_format(kv: &dyn Kv) -> Result<Option<Op>, StoreError> {
    match get(kv, "format")? {
        None if kv.spaces("").is_empty() => Ok(Some(put("format", &FORMAT.to_be_bytes()))),
        None => Err(damaged("format")),
        Some(bytes) => {
            let found = u32::from_be_bytes(bytes.as_ref().try_into().map_err(|_| damaged("format"))?);
            match found.cmp(&FORMAT) {
                std::cmp::Ordering::Less => Err(StoreError::Older { found, supported: FORMAT }),
                std::cmp::Ordering::Equal => Ok(None),
                std::cmp::Ordering::Greater => Err(StoreError::Newer { found, supported: FORMAT }),
            }
        }
    }
}

fn damaged(record: &str) -> StoreError {
    StoreError::Damaged { record: record.into() }
}
