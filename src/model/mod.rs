//! L0: plain data. No I/O, no clock, no threads: what the stages hand each other.
//!
//! Read in this order: [`time`] and [`value`] (the units), [`series`] (identity), [`tick`] (columns on the
//! way in), [`origin`] (who sent them), [`bar`] and [`record`] (results on the way out), [`envelope`] (what travels in a lane), [`ledger`] (what is
//! counted).

pub mod bar;
pub mod envelope;
pub mod ledger;
pub mod origin;
pub mod record;
pub mod series;
pub mod tick;
pub mod time;
pub mod value;

pub use bar::{BarBatch, BarFlags, BarHead};
pub use envelope::{Checkpoint, Envelope, Scale, Signal};
pub use ledger::{Ledger, LedgerSnapshot, Reason, SpecLedger};
pub use origin::{Known, Origin, Taken};
pub use record::{Headers, Record};
pub use series::{DimensionError, SeriesId, SeriesKey, SpecId};
pub use tick::{Column, ExtraField, Fate, Receipt, Rows, TickBatch, TickSlice};
pub use time::{DurationNs, TimeNs};
pub use value::{FieldType, Value};
