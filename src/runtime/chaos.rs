//! The seam through which the simulator stalls and breaks stages.

use std::time::Duration;

/// Decides, before and after every stage call, whether something goes wrong. Production has none.
pub trait Chaos: Send + Sync {
    /// What happens at this moment in this instance.
    fn act(&self, stage: &str, instance: u16, moment: Moment) -> Act;
}

/// When the decision is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the stage is called.
    Before,
    /// When the stage has been called and nothing was sent yet.
    After,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Pass,
    /// The instance stalls for this long. Only before a call.
    Stall(Duration),
    /// The call panics.
    Panic,
}
