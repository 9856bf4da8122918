//! What is measured beside the shell: figures of the few stages that know more than their batches, reachable from the
//! context by whoever measures and whoever shows.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::model::{BarBatch, BarFlags, TimeNs};
use crate::spec::Spec;
use crate::times::Times;

/// Figures of one process.
#[derive(Debug, Default)]
pub struct Measures {
    /// From the time of a batch's first tick to the batch's acknowledgement.
    pub tick_to_ack: Times,
    /// From the end of a window to its bar being stored; amendments are left out.
    pub window_to_stored: Times,
    /// By aggregator instance.
    pub windows: Vec<WindowMeasures>,
}

/// Figures of one aggregator instance.
#[derive(Debug, Default)]
pub struct WindowMeasures {
    open: AtomicU64,
    series: AtomicU64,
    /// The newest event time seen; 0 before the first.
    newest: AtomicI64,
}

impl Measures {
    /// Figures of a process with so many aggregator instances.
    pub fn new(aggregators: u16) -> Self {
        Self { windows: (0..aggregators).map(|_| WindowMeasures::default()).collect(), ..Self::default() }
    }

    /// Notes that these bars of `spec` are stored by `now`: the first of them in whose window no tick came late says it
    /// for all.
    pub fn stored(&self, spec: &Spec, bars: &BarBatch, now: TimeNs) {
        let is_new = |head: &&crate::model::BarHead| head.revision == 0 && !head.flags.contains(BarFlags::PARTIAL);
        let Some(head) = bars.heads.iter().find(is_new) else { return };
        let length = spec.granularities.get(usize::from(head.granularity)).map_or(0, |granularity| granularity.length);
        self.window_to_stored.record_many(span(head.start.saturating_add(length), now), bars.len() as u64);
    }

    /// The figures of an aggregator instance.
    pub fn windows(&self, instance: u16) -> Option<&WindowMeasures> {
        self.windows.get(usize::from(instance))
    }
}

impl WindowMeasures {
    /// Notes how many windows are open, and of how many series ticks were seen.
    pub fn note(&self, open: usize, series: usize) {
        self.open.store(open as u64, Relaxed);
        self.series.store(series as u64, Relaxed);
    }

    /// Notes that the instance has no share of the series for now.
    pub fn rest(&self) {
        self.note(0, 0);
        self.newest.store(0, Relaxed);
    }

    /// Notes that ticks as young as `time` were seen.
    pub fn see(&self, time: TimeNs) {
        self.newest.fetch_max(time, Relaxed);
    }

    /// Open windows of all granularities.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Series seen since the start.
    pub fn series(&self) -> u64 {
        self.series.load(Relaxed)
    }

    /// How far the newest event time seen is behind `now`; `None` before the first tick.
    pub fn behind(&self, now: TimeNs) -> Option<Duration> {
        let newest = Some(self.newest.load(Relaxed)).filter(|newest| *newest > 0)?;
        Some(span(newest, now))
    }
}

/// From one time to a later one; zero where it is earlier.
pub fn span(from: TimeNs, to: TimeNs) -> Duration {
    Duration::from_nanos(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}
