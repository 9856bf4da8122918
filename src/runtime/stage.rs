//! A stage: a synchronous state machine, `(state, input, now) → emitted envelopes`.
//!
//! It never awaits, reads no clock and opens no socket, so a stage test is a plain function call.

use std::sync::Arc;

use crate::model::{Envelope, TimeNs};

/// One instance of a stage.
pub trait Stage: Send + 'static {
    /// Takes one envelope. What it puts into `out` is sent only when it returns `Ok`.
    fn handle(&mut self, input: Envelope, now: TimeNs, out: &mut Output) -> Result<(), StageError>;

    /// Called when the time [`Stage::next_wake`] named has come.
    fn wake(&mut self, _now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        Ok(())
    }

    /// When [`Stage::wake`] has something to do next; `None` when only input can change anything.
    fn next_wake(&self) -> Option<TimeNs> {
        None
    }

    /// How many of the latest inputs the stage still holds back (a group commit): they are given to it again
    /// when it is restarted.
    fn held(&self) -> usize {
        0
    }

    /// After [`Stage::finish`]: whether something is still under way, so that it is to be woken until there is not.
    fn lingers(&self) -> bool {
        false
    }

    /// Every input has ended: give away what is left.
    fn finish(&mut self, _now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        Ok(())
    }
}

/// Makes a stage instance, at launch and again after each failure.
pub type StageFactory = Box<dyn Fn(Start) -> Result<Box<dyn Stage>, StageError> + Send>;

/// What a stage instance has to know when it begins.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Which instance of its stage it is, from 0.
    pub instance: u16,
    /// How many instances of its stage are active: the first so many.
    pub instances: u16,
    /// The wall clock's time.
    pub now: TimeNs,
    /// The arrival number up to which a failed predecessor had handled what it was sent, 0 where there was none: what is
    /// below must be restored, what is above will be sent.
    pub handled: u64,
}

impl Start {
    /// Whether the instance is one of those that work.
    pub fn is_active(&self) -> bool {
        self.instance < self.instances
    }
}

/// What a stage gives away during one call, in order.
#[derive(Debug, Default)]
pub struct Output {
    items: Vec<(Target, Envelope)>,
}

/// Whom an envelope is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Every stage downstream.
    All,
    /// One instance of the n-th stage downstream.
    Instance {
        /// Index into the plan's `to` of this stage.
        stage: usize,
        /// The instance.
        instance: u16,
    },
}

impl Output {
    /// Sends `envelope` to every stage downstream.
    pub fn emit(&mut self, envelope: Envelope) {
        self.items.push((Target::All, envelope));
    }

    /// Sends `envelope` to one instance of the `stage`-th stage downstream.
    pub fn route(&mut self, stage: usize, instance: u16, envelope: Envelope) {
        self.items.push((Target::Instance { stage, instance }, envelope));
    }

    /// Takes everything, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (Target, Envelope)> + '_ {
        self.items.drain(..)
    }

    /// Forgets everything: the call failed.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// A failed stage call, and what is to become of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StageError {
    /// What the shell does about it.
    pub severity: Severity,
    /// What happened, for the log.
    pub message: Arc<str>,
}

/// What the shell does about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The input is at fault: skip it, count it, keep it for inspection.
    Poison,
    /// It may work later: call again with backoff.
    Transient,
    /// What takes its output has no room for it: call again with backoff; until then the instance is backpressured.
    NoRoom,
    /// Nothing helps: drain the topology and exit non-zero.
    Fatal,
}

impl StageError {
    /// The input is at fault.
    pub fn poison(message: impl std::fmt::Display) -> Self {
        Self { severity: Severity::Poison, message: message.to_string().into() }
    }

    /// It may work later.
    pub fn transient(message: impl std::fmt::Display) -> Self {
        Self { severity: Severity::Transient, message: message.to_string().into() }
    }

    /// What takes the output has no room for it.
    pub fn no_room(message: impl std::fmt::Display) -> Self {
        Self { severity: Severity::NoRoom, message: message.to_string().into() }
    }

    /// Nothing helps.
    pub fn fatal(message: impl std::fmt::Display) -> Self {
        Self { severity: Severity::Fatal, message: message.to_string().into() }
    }
}
