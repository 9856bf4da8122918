//! L3: what operators do to a store, running or not: derive bars again, check every value, repair, copy, restore.
//!
//! Nothing here knows how it was asked for: a tool takes a store, tells its progress to a [`watch::Watch`] and gives a
//! report. [`job`] lists what there is; [`mod@replay`] derives bars from the journal and compares or installs them;
//! [`mod@backup`] copies everything and [`mod@restore`] brings it back; [`mod@verify`] checks and repairs values; [`mod@stat`] adds up what is kept.

pub mod backup;
pub mod job;
pub mod replay;
pub mod restore;
pub mod stat;
pub mod verify;
pub mod watch;

pub use backup::BackupReport;
pub use job::{Job, Report};
pub use replay::{Replay, ReplayReport, replay};
pub use verify::VerifyReport;
pub use watch::{Step, ToolError, Watch};
