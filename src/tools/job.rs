//! What can be asked for, one job at a time, in one place: a running process and a command without one do the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::backup::{BackupReport, backup};
use super::replay::{Grounds, Replay, ReplayReport, replay};
use super::stat::{StatReport, stat};
use super::verify::{VerifyReport, verify};
use super::watch::{ToolError, Watch};

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Job {
    /// Derive bars again.
    Replay(Box<Replay>),
    /// Copy everything.
    Backup {
        /// Into this directory.
        directory: PathBuf,
    },
    /// Check every value.
    Verify {
        /// And repair what can be.
        repair: bool,
    },
    /// Tell what is kept.
    Stat,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Of a replay.
    Replay(ReplayReport),
    /// Of a copy.
    Backup(BackupReport),
    /// Of a check.
    Verify(VerifyReport),
    /// What is kept.
    Stat(StatReport),
}

/// Does a job.
///
/// # Errors
/// It makes no sense here, `watch` breaks, or something fails.
pub fn run(grounds: Grounds<'_>, job: &Job, watch: &mut Watch<'_>) -> Result<Report, ToolError> {
    match job {
        Job::Replay(job) => replay(grounds, job, watch).map(Report::Replay),
        Job::Backup { directory } => backup(&**grounds.store.kv(), directory, watch).map(Report::Backup),
        Job::Verify { repair } => verify(grounds, *repair, watch).map(Report::Verify),
        Job::Stat => Ok(Report::Stat(stat(grounds))),
    }
}
