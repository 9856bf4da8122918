//! What is read for a query, the same for every protocol: plain rows, handed one by one to whoever asked.
//!
//! Read in this order: [`error`] (why not), [`select`] (names and matches become numbers), [`bars`] and [`ticks`]
//! (rows out of the store), [`specs`] and [`state`] (specs; ledger and topology), [`outlet`] (from a blocking scan to an async stream).

pub mod bars;
pub mod error;
pub mod outlet;
pub mod select;
pub mod sinks;
pub mod specs;
pub mod state;
pub mod ticks;

pub use bars::{BarQuery, BarRow};
pub use error::ReadError;
pub use outlet::{Outlet, scan};
pub use ticks::{TickQuery, TickRow};
