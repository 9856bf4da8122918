//! What became of what was pushed: a collector that is down costs a counted drop.

use crate::runtime::meter::Counter;

/// Counts of pushes.
#[derive(Debug, Default)]
pub struct Exports {
    /// Of metrics.
    pub metrics: Outcomes,
    /// Of traces.
    pub traces: Outcomes,
}

/// Counts of pushes of one signal.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The collector took them.
    pub sent: Counter,
    /// It did not.
    pub dropped: Counter,
}

impl Exports {
    /// (signal, outcome, count) each.
    pub fn counts(&self) -> [(&'static str, &'static str, u64); 4] {
        [
            ("metrics", "sent", self.metrics.sent.get()),
            ("metrics", "dropped", self.metrics.dropped.get()),
            ("traces", "sent", self.traces.sent.get()),
            ("traces", "dropped", self.traces.dropped.get()),
        ]
    }
}
