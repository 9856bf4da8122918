//! How a tool tells what it is doing, and how it is told to stop.

use std::ops::ControlFlow;

use crate::store::{KvError, StoreError};

/// Where a tool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// What it does at the moment.
    pub what: &'a str,
    /// How much of it is done.
    pub done: u64,
    /// How much there is; 0 where nobody knows.
    pub total: u64,
}

/// Is told of every step, and breaks to stop the tool.
pub type Watch<'a> = dyn FnMut(Step<'_>) -> ControlFlow<()> + 'a;

/// Why a tool did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Whoever asked has gone, or the process is stopping.
    #[error("stopped before the end; what was written until then is whole")]
    Stopped,
    /// What was asked for makes no sense here.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or directory cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: String,
        /// What the operating system said.
        error: std::io::Error,
    },
}

impl From<KvError> for ToolError {
    fn from(error: KvError) -> Self {
        Self::Store(error.into())
    }
}

/// Tells a step.
///
/// # Errors
/// The tool is to stop.
pub(super) fn tell(watch: &mut Watch<'_>, what: &str, done: u64, total: u64) -> Result<(), ToolError> {
    match watch(Step { what, done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ToolError::Stopped),
    }
}
