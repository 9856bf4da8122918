//! The one actix actor that hosts every stage and source: it lives one life on its arbiter and reports how it ended.

use std::pin::Pin;

use actix::prelude::*;

use super::drain::Exit;

/// An actix actor that runs one instance of a stage or source on its arbiter and reports how it ended.
pub struct StageActor {
    life: Option<Pin<Box<dyn Future<Output = Exit>>>>,
    report: ExitReport,
}

/// Sends an instance's exit to the supervisor; also when the actor dies without saying why.
pub struct ExitReport {
    sender: flume::Sender<(usize, Exit)>,
    instance: usize,
    sent: bool,
}

impl StageActor {
    /// An actor living `life`.
    pub fn new(life: impl Future<Output = Exit> + 'static, report: ExitReport) -> Self {
        Self { life: Some(Box::pin(life)), report }
    }
}

impl Actor for StageActor {
    type Context = actix::Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        if let Some(life) = self.life.take() {
            let ended = life.into_actor(self).map(|exit, actor, context| {
                actor.report.send(exit);
                context.stop();
            });
            context.spawn(ended);
        }
    }
}

impl ExitReport {
    /// A report for `instance`, to be sent once.
    pub fn new(sender: flume::Sender<(usize, Exit)>, instance: usize) -> Self {
        Self { sender, instance, sent: false }
    }

    fn send(&mut self, exit: Exit) {
        self.sent = true;
        // The supervisor may have given up waiting.
        let _ = self.sender.send((self.instance, exit));
    }
}

impl Drop for ExitReport {
    fn drop(&mut self) {
        if !self.sent {
            self.send(Exit::Failed("the actor ended without a reason, most likely by a panic".into()));
        }
    }
}
