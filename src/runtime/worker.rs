//! The life of a stage instance: receive, call, send, settle. `intake` is how input comes and is settled, `failure` what
//! happens when a call fails; what a change of the number of instances is to one, `rescale.rs` beside this tells.

mod failure;
mod intake;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::chaos::{Chaos, Moment};
use super::clock::Clock;
use super::drain::Exit;
use super::mailbox::Mailbox;
use super::meter::{InstanceState, Meter};
use super::outlet::Outlet;
use super::phases::Phase;
use super::rescale::Share;
use super::scaling::Scaling;
use super::stage::{Output, Severity, Stage, StageError, StageFactory, Start};
use super::trace::{Started, Trace, Tracing};
use crate::model::{Envelope, Ledger, Signal};
use crate::store::Store;
use failure::{FIRST_PAUSE, PANICS_ALLOWED, panic_message};

/// Everything a hosted stage instance needs.
pub struct Worker {
    /// Makes the stage.
    pub factory: StageFactory,
    /// The way in.
    pub mailbox: Mailbox,
    /// The way out.
    pub outlet: Outlet,
    /// What can be seen of it.
    pub meter: Arc<Meter>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Its share in the work of its stage.
    pub share: Share,
    /// What it passes changes of on to the instances behind it, if it is a router before a stage that changes.
    pub router_of: Option<Arc<Scaling>>,
    /// Where ticks given up are counted.
    pub ledger: Arc<Ledger>,
    /// Where ticks of the journal that were given up are remembered; absent where they are in no journal.
    pub journal: Option<Store>,
    /// Who breaks it, in simulations.
    pub chaos: Option<Arc<dyn Chaos>>,
    /// Inputs not settled yet: what the stage holds back, and what is still to be handed to it.
    pub pending: VecDeque<Pending>,
    /// The arrival number up to which input is settled.
    pub handled: u64,
    /// Whether the last call was a wake that was due.
    pub woken: bool,
    /// Where traced batches are followed.
    pub tracing: Option<Tracing>,
    /// The trace that goes on with what the stage gives next.
    pub carried: Option<Trace>,
}

/// An input that is not settled yet.
pub struct Pending {
    lane: usize,
    envelope: Envelope,
    panics: u32,
    /// When it was put into the lane.
    at: Instant,
    span: Option<Started>,
}

/// One call of a stage.
#[derive(Clone)]
enum Call {
    Handle(Envelope),
    Wake,
    Finish,
}

/// How a call went.
enum Outcome {
    Done,
    Failed(StageError),
    Panicked(String),
}

impl Worker {
    /// Runs the instance to its end.
    pub async fn run(mut self) -> Exit {
        let exit = match self.live().await {
            Ok(()) => {
                self.outlet.end().await;
                Exit::Completed
            }
            Err(exit) => exit,
        };
        self.share.end();
        self.meter.phases.enter(Phase::Idle);
        let state = if exit == Exit::Completed { InstanceState::Completed } else { InstanceState::Failed };
        self.meter.set_state(state);
        exit
    }

    async fn live(&mut self) -> Result<(), Exit> {
        let mut stage = self.make().await?;
        // How many of `pending` the present stage has been given.
        let mut given = 0;
        let mut panics_outside_input = 0;
        loop {
            let call = match self.pending.get(given) {
                Some(pending) => Call::Handle(pending.envelope.clone()),
                None => self.receive(stage.as_ref()).await?,
            };
            if let Call::Handle(Envelope::Signal(Signal::Scale(change))) = call {
                // A stage that scales holds nothing back.
                stage = self.rescale(stage, change).await?;
                self.settle(1);
                continue;
            }
            match self.perform(stage.as_mut(), &call, given).await? {
                Outcome::Done => {
                    if matches!(call, Call::Finish) {
                        return self.linger(stage.as_mut()).await;
                    }
                    given += usize::from(matches!(call, Call::Handle(_)));
                    given -= self.settle(given.saturating_sub(stage.held()));
                }
                Outcome::Failed(error) => {
                    // Only poison comes here: the input is skipped, whatever the stage held before it stays.
                    self.poison(given, &error.message);
                }
                Outcome::Panicked(message) => {
                    self.after_panic(&call, given, &mut panics_outside_input, &message)?;
                    drop(stage);
                    stage = self.make().await?;
                    given = 0;
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Wakes a stage whose input has ended, until nothing of it is under way.
    async fn linger(&mut self, stage: &mut dyn Stage) -> Result<(), Exit> {
        while stage.lingers() {
            let pause = stage.next_wake().map_or(Duration::ZERO, |time| self.clock.until(time));
            tokio::time::sleep(pause).await;
            if let Outcome::Panicked(message) = self.perform(stage, &Call::Wake, 0).await? {
                self.note(&format!("panicked: {message}"));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the stage, retrying what may work later. After a failure it first waits until everything sent has been
    /// settled downstream, so that what is stored is all there is to know.
    pub(super) async fn make(&mut self) -> Result<Box<dyn Stage>, Exit> {
        if self.meter.state() != InstanceState::Scaling {
            self.meter.set_state(InstanceState::Starting);
        }
        let mut pause = FIRST_PAUSE;
        let mut panics = 0;
        self.settled().await;
        loop {
            let (instance, instances) = (self.meter.instance, self.share.instances);
            let start = Start { instance, instances, now: self.clock.now(), handled: self.handled };
            let active = start.is_active();
            let error = match catch_unwind(AssertUnwindSafe(|| (self.factory)(start))) {
                Ok(Ok(stage)) => {
                    self.meter.set_state(if active { InstanceState::Running } else { InstanceState::Standby });
                    return Ok(stage);
                }
                Ok(Err(error)) => error,
                Err(panic) => {
                    panics += 1;
                    let message = format!("panicked while starting: {}", panic_message(panic.as_ref()));
                    let give_up = panics >= PANICS_ALLOWED;
                    if give_up { StageError::fatal(message) } else { StageError::transient(message) }
                }
            };
            self.retry_later(&error, &mut pause).await?;
        }
    }

    /// Waits until everything sent has been settled downstream.
    pub(super) async fn settled(&self) {
        while !self.outlet.meters().all(|lane| lane.is_settled()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Calls the stage until it succeeds or fails for good, and sends what it gave.
    async fn perform(&mut self, stage: &mut dyn Stage, call: &Call, given: usize) -> Result<Outcome, Exit> {
        let mut pause = FIRST_PAUSE;
        let mut output = Output::default();
        loop {
            let panic_at = self.interfere(given).await;
            let since = Instant::now();
            let outcome = {
                let _belongs = self.span_of(call, given).map(Started::enter);
                self.call(stage, call.clone(), &mut output, panic_at)
            };
            self.count(call, given, since.elapsed());
            match outcome {
                Outcome::Done => {
                    if self.meter.state() == InstanceState::Retrying {
                        self.meter.set_state(InstanceState::Running);
                    }
                    self.carried = self.span_of(call, given).map(Started::trace).or(self.carried);
                    let sent = self.outlet.flush(&mut output, self.carried).await.map_err(|_| Exit::Severed)?;
                    self.carried = self.carried.filter(|_| !sent);
                    return Ok(Outcome::Done);
                }
                Outcome::Failed(error) if error.severity == Severity::Poison && matches!(call, Call::Handle(_)) => {
                    return Ok(Outcome::Failed(error));
                }
                Outcome::Failed(error) => {
                    output.clear();
                    self.retry_later(&error, &mut pause).await?;
                }
                panicked @ Outcome::Panicked(_) => return Ok(panicked),
            }
        }
    }

    /// The span of the input that a call is about, if that is traced.
    fn span_of(&self, call: &Call, given: usize) -> Option<&Started> {
        self.pending.get(given).filter(|_| matches!(call, Call::Handle(_)))?.span.as_ref()
    }

    fn call(&self, stage: &mut dyn Stage, call: Call, output: &mut Output, panic_at: Option<Moment>) -> Outcome {
        let now = self.clock.now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            assert!(panic_at != Some(Moment::Before), "made to panic before the call");
            let result = match call {
                Call::Handle(envelope) => stage.handle(envelope, now, output),
                Call::Wake => stage.wake(now, output),
                Call::Finish => stage.finish(now, output),
            };
            assert!(panic_at != Some(Moment::After), "made to panic after the call");
            result
        }));
        match result {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(error)) => Outcome::Failed(error),
            Err(panic) => Outcome::Panicked(panic_message(panic.as_ref())),
        }
    }

    /// Counts the time a call took for the input it was about.
    fn count(&mut self, call: &Call, given: usize, worked: Duration) {
        if let Call::Handle(_) = call {
            self.meter.handling.record(worked);
            if let Some(span) = self.pending.get_mut(given).and_then(|pending| pending.span.as_mut()) {
                span.worked += worked;
            }
        }
    }
}
