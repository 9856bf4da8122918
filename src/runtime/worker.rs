//! The life of a stage instance: receive, call, send, settle; and what happens when a call fails.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::chaos::{Act, Chaos, Moment};
use super::clock::Clock;
use super::drain::Exit;
use super::lane::Posted;
use super::mailbox::{Mailbox, Received};
use super::meter::{InstanceState, Meter};
use super::outlet::Outlet;
use super::phases::Phase;
use super::rescale::Share;
use super::scaling::Scaling;
use super::stage::{Output, Severity, Stage, StageError, StageFactory, Start};
use super::trace::{Started, Trace, Tracing};
use crate::model::{Envelope, Ledger, Reason, Rows, Signal, TickSlice};
use crate::store::{Poisoned, Store};

/// A call that panics this often on the same input is poisoned by it.
const PANICS_ALLOWED: u32 = 3;
/// The pause before the first retry; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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

    /// Waits for input, for the time the stage asked to be woken, or for the end. A wake that is due comes before input
    /// that waits, but not twice in a row.
    async fn receive(&mut self, stage: &dyn Stage) -> Result<Call, Exit> {
        let wake_in = stage.next_wake().map(|time| self.clock.until(time));
        self.woken = wake_in == Some(Duration::ZERO) && !self.woken;
        if self.woken {
            return Ok(Call::Wake);
        }
        let received = match (wake_in, self.mailbox.try_next()) {
            (Some(Duration::ZERO), None) => return Ok(Call::Wake),
            (_, Some(received)) => received,
            (pause, None) => match self.wait(pause).await {
                Some(received) => received,
                None => return Ok(Call::Wake),
            },
        };
        match received {
            Received::Envelope(lane, posted) => Ok(Call::Handle(self.take(lane, posted))),
            Received::Ended => {
                self.meter.set_state(InstanceState::Draining);
                Ok(Call::Finish)
            }
            Received::Broken => Err(Exit::Severed),
        }
    }

    /// Waits for input, at most so long, or until a router is told of a change.
    async fn wait(&mut self, pause: Option<Duration>) -> Option<Received> {
        self.meter.phases.enter(Phase::Idle);
        let knocked = async {
            match &self.router_of {
                Some(scaling) => scaling.knocked().await,
                None => std::future::pending().await,
            }
        };
        let passed = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let received = tokio::select! {
            biased;
            received = self.mailbox.next() => Some(received),
            () = knocked => None,
            () = passed => None,
        };
        self.meter.phases.enter(Phase::Busy);
        received
    }

    /// Counts an envelope in and keeps it until it is settled.
    fn take(&mut self, lane: usize, posted: Posted) -> Envelope {
        let Posted { envelope, at, trace } = posted;
        self.meter.batches_in.add(1);
        self.meter.rows_in.add(envelope.rows() as u64);
        self.meter.queue.record(at.elapsed());
        let span = self.tracing.as_ref().zip(trace).map(|(tracing, trace)| tracing.follow(trace, at));
        self.pending.push_back(Pending { lane, envelope: envelope.clone(), panics: 0, at, span });
        self.hold();
        envelope
    }

    /// Lets it be seen from outside how old the input in hand is.
    fn hold(&self) {
        self.meter.hold(self.pending.front().map(|pending| pending.at));
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

    /// Lets the simulator stall this call; says when it is to panic. An input that is one panic short of being taken
    /// for poison is left alone, so that simulated failures never cost ticks.
    async fn interfere(&self, given: usize) -> Option<Moment> {
        let chaos = self.chaos.as_ref()?;
        let last_chance = self.pending.get(given).is_some_and(|pending| pending.panics + 1 >= PANICS_ALLOWED);
        for moment in [Moment::Before, Moment::After] {
            match chaos.act(&self.meter.stage, self.meter.instance, moment) {
                Act::Stall(pause) => tokio::time::sleep(pause).await,
                Act::Panic if !last_chance => return Some(moment),
                Act::Panic | Act::Pass => {}
            }
        }
        None
    }

    /// Notes a panic; an input that caused too many is given up, a call without input fails the instance.
    fn after_panic(&mut self, call: &Call, given: usize, outside: &mut u32, message: &str) -> Result<(), Exit> {
        self.meter.restarts.add(1);
        self.note(&format!("panicked: {message}"));
        let panics = match self.pending.get_mut(given) {
            Some(pending) if matches!(call, Call::Handle(_)) => &mut pending.panics,
            _ => outside,
        };
        *panics += 1;
        if *panics < PANICS_ALLOWED {
            return Ok(());
        }
        match call {
            Call::Handle(_) => {
                self.poison(given, message);
                Ok(())
            }
            Call::Wake | Call::Finish if self.chaos.is_some() => Ok(()),
            Call::Wake | Call::Finish => Err(Exit::Failed(format!("panicked again and again: {message}"))),
        }
    }

    /// Gives up the input at `given`: its ticks are counted as dropped.
    fn poison(&mut self, given: usize, message: &str) {
        let Some(Pending { lane, envelope, .. }) = self.pending.remove(given) else { return };
        self.hold();
        self.meter.poisoned.add(1);
        self.note(&format!("batch of {} rows given up: {message}", envelope.rows()));
        if let Envelope::Ticks(slice) = &envelope {
            self.remember(slice);
            self.ledger.spec(slice.batch.spec).drop(Reason::Poison, slice.len() as u64);
        }
        self.mailbox.settle(lane, 1);
    }

    /// Sees to it that no replay meets these ticks again.
    fn remember(&self, slice: &TickSlice) {
        let Some(store) = &self.journal else { return };
        let (instances, instance) =
            if slice.rows == Rows::All { (1, 0) } else { (self.share.instances, self.meter.instance) };
        let rows = slice.batch.len() as u64;
        let poisoned = Poisoned { offset: slice.offset, rows, instances, instance, ticks: slice.len() as u64 };
        if let Err(error) = store.poison(slice.batch.spec, poisoned) {
            self.note(&format!("the batch given up is remembered until the process ends only: {error}"));
        }
    }

    /// Settles the first `count` pending inputs.
    fn settle(&mut self, count: usize) -> usize {
        for Pending { lane, envelope, span, .. } in self.pending.drain(..count) {
            if let Envelope::Ticks(slice) = &envelope {
                self.handled = self.handled.max(slice.end_offset());
            }
            if let (Some(tracing), Some(span)) = (&self.tracing, span) {
                tracing.end(span, envelope.rows() as u64);
            }
            self.mailbox.settle(lane, 1);
        }
        self.hold();
        count
    }

    async fn retry_later(&self, error: &StageError, pause: &mut Duration) -> Result<(), Exit> {
        self.note(&error.message);
        if error.severity == Severity::Fatal {
            return Err(Exit::Failed(error.message.to_string()));
        }
        self.meter.set_state(InstanceState::Retrying);
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn note(&self, message: &str) {
        let traced = self.pending.iter().find_map(|pending| pending.span.as_ref()).map(Started::trace);
        let trace_id = traced.map(|trace| format!("{:032x}", trace.id));
        let span_id = traced.map(|trace| format!("{:016x}", trace.parent));
        tracing::error!(stage = self.meter.stage, instance = self.meter.instance, trace_id, span_id, "{message}");
        self.meter.set_last_error(message.to_owned());
    }
}

/// The text of a panic.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
