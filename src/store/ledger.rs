//! The ledger across restarts: what is counted is written in the same commit as what it counts.
//!
//! ```text
//! ledger/<spec>/journal                               JSON: what came in up to a commit of the journal
//! ledger/<spec>/bars                                  u64: ticks in stored bars of the finest granularity
//! ledger/<spec>/gap                                   u64: ticks the journal lost before they were in bars
//! ledger/<spec>/late/<reason>/<instances>/<instance>  u64: late ticks, with that instance's checkpoint
//! ledger/<spec>/late/<reason>/0/0                     u64: late ticks of numbers of instances that are no more
//! ledger/<spec>/poison/<offset>/<instances>/<instance> JSON: a batch given up
//! ```
//! `<spec>` is empty for ticks that named none of this server's.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::meta::{self, put};
use super::{Durability, Kind, Store, StoreBatch, StoreError, keys, value};
use crate::model::{Checkpoint, LedgerSnapshot, Reason, SpecId};
use crate::routing;
use crate::spec::{LatePolicy, Spec};

/// What came in of one spec up to a commit of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Journaled {
    /// Ticks in the journal, ever.
    pub accepted: u64,
    /// Ticks of batches already taken before.
    pub duplicate: u64,
    /// Ticks refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Ticks dropped before the journal because a lane was full.
    pub mailbox_full: u64,
}

/// Ticks of the journal that were given up because a stage failed on them again and again: a replay passes them over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poisoned {
    /// The arrival number of the batch's first tick.
    pub offset: u64,
    /// Ticks of the whole batch.
    pub rows: u64,
    /// Of these, only the series of one instance among so many were given up.
    pub instances: u16,
    /// That instance.
    pub instance: u16,
    /// How many ticks those are.
    pub ticks: u64,
}

/// What earlier processes counted of one spec.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// The counts; nothing is open.
    pub counts: LedgerSnapshot,
    /// Ticks in the journal, ever.
    pub journaled: u64,
    /// A record was damaged: the counts are not complete.
    pub damaged: bool,
}

impl Journaled {
    /// What `counts` say, with `accepted` ticks in the journal.
    pub fn of(counts: &LedgerSnapshot, accepted: u64) -> Self {
        Self {
            accepted,
            duplicate: counts.duplicate,
            rejected: counts.rejected.iter().map(|(reason, ticks)| (reason.name().to_owned(), *ticks)).collect(),
            mailbox_full: counts.dropped_for(Reason::MailboxFull),
        }
    }
}

impl Poisoned {
    /// The first arrival number after the batch.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.rows)
    }

    /// Whether the tick `number` of a series of `shard` is one of them.
    pub fn includes(&self, number: u64, shard: u32) -> bool {
        (self.offset..self.end()).contains(&number) && routing::instance_of(shard, self.instances) == self.instance
    }
}

impl StoreBatch {
    /// Sets what came in of a spec; `None` stands for ticks that named none.
    pub fn put_journaled(&mut self, spec: Option<SpecId>, counts: &Journaled) {
        let record = format!("ledger/{}/journal", self.store().name_of(spec));
        // Numbers and strings always have a JSON form.
        self.put_record(put(&record, &serde_json::to_vec(counts).unwrap_or_default()));
    }

    /// Sets the ticks in stored bars of a spec's finest granularity.
    pub fn put_in_bars(&mut self, spec: SpecId, ticks: u64) {
        let record = format!("ledger/{}/bars", self.store().name_of(Some(spec)));
        self.put_record(put(&record, &ticks.to_be_bytes()));
    }

    /// Sets the ticks of a spec that the journal lost before they were in bars.
    pub fn put_gap(&mut self, spec: SpecId, ticks: u64) {
        let record = format!("ledger/{}/gap", self.store().name_of(Some(spec)));
        self.put_record(put(&record, &ticks.to_be_bytes()));
    }

    /// Sets up to where late ticks of a spec are kept aside, by shard.
    pub fn put_side_marks(&mut self, spec: SpecId, marks: &[u64]) {
        let record = format!("side/{}", self.store().name_of(Some(spec)));
        let bytes: Vec<u8> = marks.iter().flat_map(|mark| mark.to_be_bytes()).collect();
        self.put_record(put(&record, &bytes));
    }

    /// Sets the late ticks a checkpoint tells of.
    pub(super) fn put_late(&mut self, checkpoint: &Checkpoint) {
        let store = self.store().clone();
        for (spec, ticks) in store.inner.specs.iter().zip(&checkpoint.late).filter(|(_, ticks)| **ticks > 0) {
            let record = late_record(&spec.spec, checkpoint.instances, checkpoint.instance);
            self.put_record(put(&record, &ticks.to_be_bytes()));
        }
    }

    /// Adds what the checkpoints of these numbers of instances told of late ticks to that of earlier ones: should there
    /// be as many instances again, they begin at none.
    pub(super) fn settle_late(&mut self, numbers: &[u16]) -> Result<(), StoreError> {
        let store = self.store().clone();
        let of_numbers = |told: &Checkpoint| numbers.contains(&told.instances);
        let gone: Vec<_> = store.checkpoints().into_iter().filter(of_numbers).collect();
        for (index, spec) in store.inner.specs.iter().enumerate() {
            let late: u64 = gone.iter().filter_map(|told| told.late.get(index)).sum();
            if late == 0 {
                continue;
            }
            let settled = late_record(&spec.spec, 0, 0);
            let before = match meta::get_u64(&*store.inner.kv, &settled) {
                // It is put aside where the counts are read.
                Err(StoreError::Damaged { .. }) => 0,
                read => read?.unwrap_or(0),
            };
            self.put_record(put(&settled, &(before + late).to_be_bytes()));
            gone.iter().for_each(|told| {
                self.put_record(meta::remove(&late_record(&spec.spec, told.instances, told.instance)));
            });
        }
        Ok(())
    }
}

impl Store {
    /// By shard: late ticks of a spec that arrived before this are kept aside already.
    ///
    /// # Errors
    /// The port fails.
    pub fn side_marks(&self, spec: SpecId) -> Result<Vec<u64>, StoreError> {
        let record = format!("side/{}", self.name_of(Some(spec)));
        let stored = match meta::get(&*self.inner.kv, &record) {
            Err(StoreError::Damaged { .. }) => None,
            read => read?,
        };
        let (marks, _) = stored.as_deref().unwrap_or_default().as_chunks::<8>();
        let mut marks: Vec<_> = marks.iter().map(|mark| u64::from_be_bytes(*mark)).collect();
        marks.resize(routing::SHARDS as usize, 0);
        Ok(marks)
    }

    /// What earlier processes counted of a spec; `None` stands for ticks that named none. A damaged record is put
    /// aside and counts nothing.
    ///
    /// # Errors
    /// The port fails.
    pub fn counted(&self, spec: Option<SpecId>) -> Result<Counted, StoreError> {
        let (mut found, mut corrupt) = (Tally::default(), Vec::new());
        let prefix = format!("ledger/{}/", self.name_of(spec));
        meta::scan(&*self.inner.kv, &prefix, &mut |key, frame| {
            let record = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&prefix));
            let read = record.zip(value::open(key, &frame)).and_then(|(record, payload)| found.add(record, &payload));
            if read.is_none() {
                corrupt.push((key.to_vec(), frame));
            }
        })?;
        let damaged = !corrupt.is_empty();
        self.inner.quarantine.take_all(Kind::Meta, keys::META, corrupt);
        Ok(found.counted(damaged))
    }

    /// Remembers a batch given up, durably where `ticks` of it are in the journal.
    ///
    /// # Errors
    /// The port fails; until the process ends it is remembered all the same.
    pub fn poison(&self, spec: SpecId, poisoned: Poisoned) -> Result<(), StoreError> {
        self.inner.poisoned.lock().unwrap_or_else(PoisonError::into_inner).push((spec, poisoned));
        let Poisoned { offset, instances, instance, .. } = poisoned;
        let record = format!("ledger/{}/poison/{offset}/{instances}/{instance}", self.name_of(Some(spec)));
        let write = put(&record, &serde_json::to_vec(&poisoned).unwrap_or_default());
        Ok(self.inner.kv.commit(vec![write], Durability::Process)?)
    }

    /// The batches of the journal that were given up.
    pub fn poisoned(&self) -> Vec<(SpecId, Poisoned)> {
        self.inner.poisoned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the batches given up, once, at the opening.
    pub(super) fn load_poisoned(&self) -> Result<(), StoreError> {
        for spec in &self.inner.specs {
            let prefix = format!("ledger/{}/poison/", spec.spec.name);
            meta::scan(&*self.inner.kv, &prefix, &mut |key, frame| {
                let read = value::open(key, &frame).and_then(|payload| serde_json::from_slice(&payload).ok());
                let mut poisoned = self.inner.poisoned.lock().unwrap_or_else(PoisonError::into_inner);
                poisoned.extend(read.map(|read: Poisoned| (spec.spec.id, read)));
            })?;
        }
        Ok(())
    }

    /// Per spec, the late ticks stored with the checkpoints of an instance of so many.
    pub(super) fn load_late(&self, checkpoint: &Checkpoint) -> Result<Vec<u64>, StoreError> {
        let late = |spec: &Spec| match meta::get_u64(
            &*self.inner.kv,
            &late_record(spec, checkpoint.instances, checkpoint.instance),
        ) {
            // It is put aside where the counts are read.
            Err(StoreError::Damaged { .. }) => Ok(0),
            read => read.map(Option::unwrap_or_default),
        };
        self.inner.specs.iter().map(|spec| late(&spec.spec)).collect()
    }

    fn name_of(&self, spec: Option<SpecId>) -> &str {
        spec.map_or("", |spec| &self.spec(spec).spec.name)
    }
}

fn late_record(spec: &Spec, instances: u16, instance: u16) -> String {
    format!("ledger/{}/late/{}/{instances}/{instance}", spec.name, late_reason(spec).name())
}

/// As what late ticks that go into no bar are counted.
pub fn late_reason(spec: &Spec) -> Reason {
    if spec.window.late == LatePolicy::SideOutput { Reason::SideOutput } else { Reason::Late }
}

/// The records of one spec, read so far.
#[derive(Default)]
struct Tally {
    journaled: Journaled,
    in_bars: u64,
    dropped: BTreeMap<Reason, u64>,
}

impl Tally {
    /// Takes in one record; `None` where it cannot be read.
    fn add(&mut self, record: &str, payload: &Bytes) -> Option<()> {
        let number = || Some(u64::from_be_bytes(payload.as_ref().try_into().ok()?));
        let (reason, ticks) = match record.split('/').next()? {
            "journal" => {
                self.journaled = serde_json::from_slice(payload).ok()?;
                (Reason::MailboxFull, self.journaled.mailbox_full)
            }
            "bars" => {
                self.in_bars = number()?;
                return Some(());
            }
            "gap" => (Reason::JournalGap, number()?),
            "late" => (named(record.split('/').nth(1)?)?, number()?),
            "poison" => (Reason::Poison, serde_json::from_slice::<Poisoned>(payload).ok()?.ticks),
            _ => return None,
        };
        *self.dropped.entry(reason).or_default() += ticks;
        Some(())
    }

    fn counted(self, damaged: bool) -> Counted {
        let Self { journaled, in_bars, dropped } = self;
        let rejected = journaled.rejected.iter().filter_map(|(reason, ticks)| Some((named(reason)?, *ticks)));
        Counted {
            counts: LedgerSnapshot {
                accepted: journaled.accepted + journaled.mailbox_full,
                duplicate: journaled.duplicate,
                rejected: rejected.collect(),
                dropped: dropped.into_iter().filter(|(_, ticks)| *ticks > 0).collect(),
                in_bars,
                open: 0,
            },
            journaled: journaled.accepted,
            damaged,
        }
    }
}

fn named(reason: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|known| known.name() == reason)
}
