//! L2: what is kept, typed, over a port that keeps bytes.
//!
//! [`Store`] is the way in: series, journal blocks, bars and checkpoints go in by a [`StoreBatch`], all or
//! nothing, and come out by scans. Read in this order: [`kv`] (the port) with its two sides [`fjall`] and
//! [`memory`]; [`value`], [`keys`] and [`bar_bytes`] (bytes); [`partition`] (data that ages is cut by time, so that it can
//! be dropped whole); [`types`] (questions and answers); [`open`] (with `heal` for what is damaged), [`batch`], [`bars`],
//! [`ticks`] and [`reap`] (the doing); [`meta`], [`ledger`] and [`quarantine`] (what is remembered, what is counted, what
//! is put aside); `producers` (whose batches are in the journal), [`outbox`] (the bars in the order they were stored) and
//! `upkeep` (what the operators' tools need).

pub mod bar_bytes;
pub mod bars;
pub mod batch;
mod disk_options;
pub mod fjall;
mod heal;
pub mod keys;
pub mod kv;
pub mod ledger;
pub mod memory;
pub mod meta;
mod moment;
pub mod open;
pub mod outbox;
pub mod partition;
mod producers;
pub mod quarantine;
mod readonly;
pub mod reap;
pub mod ticks;
pub mod types;
mod upkeep;
pub mod value;

pub use batch::StoreBatch;
pub use fjall::Fjall;
pub use heal::is_sound_record;
pub use kv::{Durability, Kv, KvError, Op, Snapshot};
pub use ledger::{Counted, Journaled, Poisoned};
pub use memory::{Fault, FaultPlan, Memory};
pub use open::{Convert, Store};
pub use outbox::{Commit, Keep, OutboxError, Stretch};
pub use quarantine::Kind;
pub use readonly::ReadOnly;
pub use types::{
    BarScan, BlockFacts, Budget, Cutoff, DropReason, Dropped, Family, Reaped, SpecUsage, StoreError, TickScan, Usage,
};
pub use upkeep::Holes;
