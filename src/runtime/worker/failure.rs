//! What happens when a call fails: again later, given up, or the end.

use std::any::Any;
use std::time::Duration;

use super::{Call, Pending, Worker};
use crate::model::{Envelope, Reason, Rows, TickSlice};
use crate::runtime::chaos::{Act, Moment};
use crate::runtime::drain::Exit;
use crate::runtime::meter::InstanceState;
use crate::runtime::phases::Phase;
use crate::runtime::stage::{Severity, StageError};
use crate::runtime::trace::Started;
use crate::store::Poisoned;

/// A call that panics this often on the same input is poisoned by it.
pub(super) const PANICS_ALLOWED: u32 = 3;
/// The pause before the first retry; it doubles up to [`LONGEST_PAUSE`].
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Worker {
    /// Lets the simulator stall this call; says when it is to panic. An input that is one panic short of being taken
    /// for poison is left alone, so that simulated failures never cost ticks.
    pub(super) async fn interfere(&self, given: usize) -> Option<Moment> {
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
    pub(super) fn after_panic(
        &mut self,
        call: &Call,
        given: usize,
        outside: &mut u32,
        message: &str,
    ) -> Result<(), Exit> {
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
    pub(super) fn poison(&mut self, given: usize, message: &str) {
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

    pub(super) async fn retry_later(&self, error: &StageError, pause: &mut Duration) -> Result<(), Exit> {
        self.note(&error.message);
        if error.severity == Severity::Fatal {
            return Err(Exit::Failed(error.message.to_string()));
        }
        self.meter.set_state(InstanceState::Retrying);
        let waits = error.severity == Severity::NoRoom;
        self.meter.phases.enter(if waits { Phase::Backpressured } else { Phase::Busy });
        tokio::time::sleep(*pause).await;
        self.meter.phases.enter(Phase::Busy);
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    pub(super) fn note(&self, message: &str) {
        let traced = self.pending.iter().find_map(|pending| pending.span.as_ref()).map(Started::trace);
        let trace_id = traced.map(|trace| format!("{:032x}", trace.id));
        let span_id = traced.map(|trace| format!("{:016x}", trace.parent));
        tracing::error!(stage = self.meter.stage, instance = self.meter.instance, trace_id, span_id, "{message}");
        self.meter.set_last_error(message.to_owned());
    }
}

/// The text of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}
