//! L3: what operators do to a store, running or not: derive bars again, check every value, repair, copy, restore.
//!
//! Nothing here knows how it was asked for: a tool takes a store, tells its progress to a [`watch::Watch`] and gives a
//! report. [`mod@replay`] derives bars from the journal and compares or installs them.

pub mod replay;
pub mod watch;

pub use replay::{Replay, ReplayReport, replay};
pub use watch::{Step, ToolError, Watch};
