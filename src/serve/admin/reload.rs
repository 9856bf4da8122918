//! The way from an operator's wish, by the socket or by SIGHUP, to whoever runs the process: one wish at a time.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::Status;

/// Asks for reloads; cheap to clone.
#[derive(Debug, Clone)]
pub struct Reloads {
    /// The one place that jobs and reloads share.
    pub(super) place: Arc<Semaphore>,
    wishes: flume::Sender<Wish>,
}

/// Somebody wants topology and specs to be read again. Until it is dropped no job begins, and no other reload.
#[derive(Debug)]
pub struct Wish {
    answer: oneshot::Sender<Result<ReloadReport, Refused>>,
    _place: OwnedSemaphorePermit,
}

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Which generation is at work, the one the process started with being 1.
    pub generation: u64,
    /// Names of specs that are new.
    pub specs_added: Vec<String>,
    /// Names of specs that are not what they were.
    pub specs_changed: Vec<String>,
    /// Names of specs that are no more.
    pub specs_removed: Vec<String>,
    /// Names of stages that are new.
    pub stages_added: Vec<String>,
    /// Names of stages that are of another kind, size or place.
    pub stages_changed: Vec<String>,
    /// Names of stages that are no more.
    pub stages_removed: Vec<String>,
    /// Whether the topology file, or what overrides it, says anything else than before.
    pub topology_changed: bool,
    /// How long no tick was taken, in milliseconds.
    pub paused_ms: u64,
    /// Why not every instance is at work yet; empty when all are.
    pub unready: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What was read is wrong: every problem, ready to be printed.
    #[error("{0}")]
    Invalid(String),
    /// Something else is under way.
    #[error("a job or another reload is under way on this barline; wait for its end")]
    Busy,
    /// The process is stopping.
    #[error("barline is stopping")]
    Stopping,
    /// What was read could not be started; what ran before runs again.
    #[error("{0}; barline goes on with what it ran before")]
    Failed(String),
}

impl Reloads {
    /// Reloads, and where wishes for them come out.
    pub fn new() -> (Self, flume::Receiver<Wish>) {
        let (wishes, heard) = flume::bounded(1);
        (Self { place: Arc::new(Semaphore::new(1)), wishes }, heard)
    }

    /// Asks for one and waits for what came of it.
    ///
    /// # Errors
    /// Nothing has changed.
    pub async fn ask(&self) -> Result<ReloadReport, Refused> {
        let place = self.place.clone().try_acquire_owned().map_err(|_| Refused::Busy)?;
        let (answer, heard) = oneshot::channel();
        let wish = Wish { answer, _place: place };
        self.wishes.send_async(wish).await.map_err(|_| Refused::Stopping)?;
        heard.await.unwrap_or(Err(Refused::Stopping))
    }
}

impl Wish {
    /// Tells what came of it, and lets others ask.
    pub fn answer(self, answer: Result<ReloadReport, Refused>) {
        // Nobody waiting for it any more is fine.
        let _ = self.answer.send(answer);
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Invalid(_) => Self::invalid_argument(message),
            Refused::Busy => Self::failed_precondition(message),
            Refused::Stopping => Self::unavailable(message),
            Refused::Failed(_) => Self::internal(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_wish_is_told_to_wait_until_the_first_is_answered() {
        let (reloads, wishes) = Reloads::new();
        let first = tokio::spawn({
            let reloads = reloads.clone();
            async move { reloads.ask().await }
        });
        let wish = wishes.recv_async().await.unwrap();
        assert_eq!(reloads.ask().await, Err(Refused::Busy));
        wish.answer(Ok(ReloadReport::default()));
        assert_eq!(first.await.unwrap(), Ok(ReloadReport::default()));
        drop(wishes);
        assert_eq!(reloads.ask().await, Err(Refused::Stopping));
    }
}
