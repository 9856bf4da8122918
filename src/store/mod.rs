//! L2: what is kept, typed, over a port that keeps bytes.
//!
//! [`Store`] is the way in: series, journal blocks, bars and checkpoints go in by a [`StoreBatch`], all or
//! nothing, and come out by scans. Read in this order: [`kv`] (the port) with its sides [`fjall`] (`log_scrub` and
//! `mend` for what a damaged log has cost), [`memory`] and, for simulations, [`sim_disk`]; [`hooked`] stands before any of
//! them. Then [`value`], [`keys`], [`bar_bytes`] and `outbox_bytes` (bytes); [`partition`] (data that ages is cut by time,
//! so that it can be dropped whole); [`types`] (questions and answers); [`open`] (with `heal` for what is damaged),
//! [`batch`] (with [`commits`], what they cost), [`bars`], [`ticks`] and [`reap`] (the doing); [`sorted`] and [`cluster`] (the journal clustered by series);
//! [`meta`], [`ledger`] and [`quarantine`] (what is remembered, what is counted, what is put aside); `producers` (whose
//! batches are in the journal), [`inbox`] (what is claimed and not in the journal yet), [`outbox`] (the bars in the order
//! they were stored), [`cursor`], [`fate`] and [`follower`] (who follows them, and what became of them) and `upkeep` (what
//! the operators' tools need).

pub mod bar_bytes;
pub mod bars;
pub mod batch;
mod budget;
pub mod cluster;
pub mod commits;
pub mod cursor;
mod dir_check;
mod disk_options;
pub mod doom;
mod expired;
pub mod fate;
pub mod fjall;
pub mod follower;
mod heal;
pub mod hooked;
pub mod inbox;
pub mod keys;
pub mod kv;
pub mod ledger;
mod log_scrub;
pub mod memory;
mod mend;
pub mod meta;
mod moment;
pub mod open;
pub mod outbox;
mod outbox_bytes;
mod outbox_read;
pub mod partition;
pub mod producers;
pub mod quarantine;
mod readonly;
pub mod reap;
mod run;
pub mod sim_disk;
pub mod sim_mount;
pub mod sorted;
pub mod ticks;
pub mod types;
mod upkeep;
pub mod value;

pub use batch::StoreBatch;
pub use cluster::{Clustering, Step};
pub use cursor::Cursor;
pub use fate::{Fate, FollowerCounts, GivenUp, Refused, Settled};
pub use fjall::Fjall;
pub use follower::{Follower, Following, Spool, WhenSpent};
pub use heal::is_sound_record;
pub use hooked::Hooked;
pub use kv::{Durability, Kv, KvError, Op, Snapshot};
pub use ledger::{Counted, Journaled, Poisoned};
pub use memory::{Fault, FaultPlan, Memory};
pub use open::{Convert, Store};
pub use outbox::Keep;
pub use outbox_read::{Commit, OutboxError, Stretch};
pub use quarantine::Kind;
pub use readonly::ReadOnly;
pub use run::RunSize;
pub use sim_disk::{Crash, Order, SimDisk};
pub use sim_mount::{Faults, Mount};
pub use sorted::SortedKey;
pub use ticks::TickView;
pub use types::{
    BarScan, BlockFacts, Budget, Cutoff, DropReason, Dropped, Expired, ExpiredCounts, Family, OnFull, Reaped,
    SpecUsage, StoreError, TickScan, Usage,
};
pub use upkeep::Holes;
