//! What barline tells of itself, measured by the shell and told in the tools operators already use.
//!
//! Read in this order: [`table`] (every instrument), [`distribution`] and [`snapshot`] (figures at one moment),
//! [`collect`] (with `sinks`; where they are read), [`prometheus`] (scraped), [`otlp`], `collector`, [`logs`] and [`push`] (pushed),
//! [`kafka`] (sent to a topic),
//! [`exports`] (what became of that), [`load`] (rates and shares between two moments), [`doctor`] (what the figures mean)
//! with [`web`].

pub mod collect;
mod collector;
pub mod distribution;
pub mod doctor;
pub mod exports;
pub mod kafka;
pub mod load;
pub mod logs;
pub mod otlp;
pub mod prometheus;
pub mod push;
mod sinks;
pub mod snapshot;
pub mod table;
pub mod web;

pub use collect::Observed;
pub use distribution::Distribution;
pub use exports::Exports;
pub use load::Load;
pub use snapshot::{Family, Point, Snapshot, Value};
