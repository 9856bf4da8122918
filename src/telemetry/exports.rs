//! What became of what was pushed: whoever is down costs a counted drop, a line in the log when it begins, and one when it
//! is over.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::runtime::meter::Counter;
use crate::topology::Signal;

/// Counts of pushes.
#[derive(Debug)]
pub struct Exports {
    /// To collectors, in the order of [`Signal::ALL`].
    otlp: [Outcomes; 3],
    /// Metrics to a topic.
    pub kafka: Outcomes,
}

/// Counts of pushes of one signal to one destination.
#[derive(Debug)]
pub struct Outcomes {
    signal: Signal,
    destination: &'static str,
    sent: Counter,
    dropped: Counter,
    /// Whether the last one failed.
    fails: AtomicBool,
}

impl Default for Exports {
    fn default() -> Self {
        Self {
            otlp: Signal::ALL.map(|signal| Outcomes::new(signal, "otlp")),
            kafka: Outcomes::new(Signal::Metrics, "kafka"),
        }
    }
}

impl Exports {
    /// Of `signal` to its collector.
    pub fn otlp(&self, signal: Signal) -> &Outcomes {
        &self.otlp[signal as usize]
    }

    /// (signal, destination, outcome, count) each.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str, u64)> {
        self.otlp.iter().chain([&self.kafka]).flat_map(|to| {
            let (signal, destination) = (to.signal.name(), to.destination);
            [("sent", &to.sent), ("dropped", &to.dropped)]
                .map(|(outcome, count)| (signal, destination, outcome, count.get()))
        })
    }
}

impl Outcomes {
    fn new(signal: Signal, destination: &'static str) -> Self {
        let (sent, dropped) = (Counter::default(), Counter::default());
        Self { signal, destination, sent, dropped, fails: AtomicBool::new(false) }
    }

    /// Counts a push.
    pub fn note<E: Display>(&self, pushed: Result<(), E>) {
        let (signal, destination) = (self.signal.name(), self.destination);
        let failed_before = self.fails.swap(pushed.is_err(), Relaxed);
        match pushed {
            Ok(()) => self.sent.add(1),
            Err(_) => self.dropped.add(1),
        }
        match pushed {
            Err(error) if !failed_before => {
                tracing::warn!("telemetry is dropped: {signal} to {destination} are not taken: {error}");
            }
            Ok(()) if failed_before => tracing::info!("{signal} to {destination} are taken again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_push_is_counted_where_it_went() {
        let exports = Exports::default();
        exports.otlp(Signal::Traces).note(Ok::<_, String>(()));
        (0..2).for_each(|_| exports.kafka.note(Err("gone")));
        let counted: Vec<_> = exports.counts().filter(|(.., count)| *count > 0).collect();
        assert_eq!(counted, [("traces", "otlp", "sent", 1), ("metrics", "kafka", "dropped", 2)]);
    }
}
