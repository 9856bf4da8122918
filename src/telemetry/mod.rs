//! What barline tells of itself, measured by the shell and told in the tools operators already use.
//!
//! Read in this order: [`table`] (every instrument), [`distribution`] and [`snapshot`] (figures at one moment),
//! [`collect`] (where they are read), [`prometheus`] (scraped), [`exports`] (what became of what was pushed).

pub mod collect;
pub mod distribution;
pub mod exports;
pub mod prometheus;
pub mod snapshot;
pub mod table;

pub use collect::Observed;
pub use distribution::Distribution;
pub use exports::Exports;
pub use snapshot::{Family, Point, Snapshot, Value};
