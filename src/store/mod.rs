//! L2: what is kept, typed, over a port that keeps bytes.
//!
//! [`Store`] is the way in: series, journal blocks, bars and checkpoints go in by a [`StoreBatch`], all or
//! nothing, and come out by scans. Read in this order: [`kv`] (the port) with its two sides [`fjall`] and
//! [`memory`]; [`value`], [`keys`] and [`bar_bytes`] (bytes); [`partition`] (data that ages is cut by time, so that it can
//! be dropped whole); [`types`] (questions and answers); [`open`], [`batch`], [`bars`], [`ticks`] and
//! [`reap`] (the doing); [`sorted`] and [`cluster`] (the journal clustered by series); [`meta`], [`ledger`] and
//! [`quarantine`] (what is remembered, what is counted, what is put aside); `producers` (whose batches are in the journal)
//! and [`outbox`] (the bars in the order they were stored).

pub mod bar_bytes;
pub mod bars;
pub mod batch;
mod budget;
pub mod cluster;
mod disk_options;
mod doom;
mod expired;
pub mod fjall;
pub mod keys;
pub mod kv;
pub mod ledger;
pub mod memory;
pub mod meta;
pub mod open;
pub mod outbox;
pub mod partition;
mod producers;
pub mod quarantine;
pub mod reap;
mod run;
pub mod sorted;
pub mod ticks;
pub mod types;
pub mod value;

pub use batch::StoreBatch;
pub use cluster::{Clustering, Step};
pub use fjall::Fjall;
pub use kv::{Durability, Kv, KvError, Op};
pub use ledger::{Counted, Journaled, Poisoned};
pub use memory::{Fault, FaultPlan, Memory};
pub use open::{Convert, Store};
pub use outbox::{Commit, Keep, OutboxError, Stretch};
pub use quarantine::Kind;
pub use run::RunSize;
pub use ticks::TickView;
pub use types::{
    BarScan, BlockFacts, Budget, Cutoff, DropReason, Dropped, Expired, ExpiredCounts, Family, OnFull, Reaped,
    SpecUsage, StoreError, TickScan, Usage,
};
