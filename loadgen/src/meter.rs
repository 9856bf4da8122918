//! What a run measures while it runs, shared by its threads and touched once per message.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{pace::Pacer, units::Nanos};

/// Counters and latencies of one run.
#[derive(Debug)]
pub struct Meter {
    pacer: Pacer,
    ticks: AtomicU64,
    again: AtomicU64,
    bytes: AtomicU64,
    send: Mutex<Histogram<u64>>,
    ack: Mutex<Histogram<u64>>,
}

/// Some quantiles of a latency, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_us: f64,
    /// 90 % are no longer.
    pub p90_us: f64,
    /// 99 % are no longer.
    pub p99_us: f64,
    /// 99.9 % are no longer.
    pub p99_9_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Longer latencies are recorded as this.
const LONGEST: u64 = 3_600_000_000_000;

impl Meter {
    /// A meter of a run that began with `pacer`.
    pub fn new(pacer: Pacer) -> Self {
        Self {
            pacer,
            ticks: AtomicU64::new(0),
            again: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            send: Mutex::new(histogram()),
            ack: Mutex::new(histogram()),
        }
    }

    /// The run's clock.
    pub fn pacer(&self) -> Pacer {
        self.pacer
    }

    /// Counts a message that the transport has taken, and how long after `due`.
    pub fn sent(&self, ticks: u64, bytes: usize, due: Nanos) {
        self.ticks.fetch_add(ticks, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.record(&self.send, due);
    }

    /// Counts an acknowledgement of a batch that was due at `due`.
    pub fn acknowledged(&self, due: Nanos) {
        self.record(&self.ack, due);
    }

    /// Says that `ticks` ticks the transport has taken will be sent again.
    pub fn again(&self, ticks: u64) {
        self.again.fetch_add(ticks, Relaxed);
    }

    /// Ticks the transport has taken and that will not be sent again.
    pub fn progress(&self) -> u64 {
        self.ticks().saturating_sub(self.again.load(Relaxed))
    }

    /// Ticks the transport has taken, each time one was sent.
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Relaxed)
    }

    /// Bytes of messages the transport has taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// From when a message was due until the transport took it.
    pub fn send_latency(&self) -> Option<Latency> {
        latency(&self.send)
    }

    /// From when a batch was due until it was acknowledged; `None` where batches are not.
    pub fn ack_latency(&self) -> Option<Latency> {
        latency(&self.ack)
    }

    fn record(&self, histogram: &Mutex<Histogram<u64>>, due: Nanos) {
        let late = (self.pacer.elapsed() - due).max(0) as u64;
        histogram.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(late.min(LONGEST));
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LONGEST, 3).expect("constant bounds that the histogram allows")
}

fn latency(histogram: &Mutex<Histogram<u64>>) -> Option<Latency> {
    let histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    (!histogram.is_empty()).then(|| Latency {
        count: histogram.len(),
        p50_us: at(0.5),
        p90_us: at(0.9),
        p99_us: at(0.99),
        p99_9_us: at(0.999),
        max_us: histogram.max() as f64 / 1e3,
    })
}

/// CPU time this process has used, user and system, in seconds; `None` where there is no `/proc`.
pub fn cpu_seconds() -> Option<f64> {
    /// Linux reports in 1/100 s on every architecture that Rust's std supports.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, and may hold blanks itself.
    let mut after_name = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (f64, f64) = (after_name.next()?.parse().ok()?, after_name.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_counts_from_when_a_message_was_due() {
        let meter = Meter::new(Pacer::start());
        meter.sent(100, 5_000, meter.pacer().elapsed() - 3_000_000_000);
        let latency = meter.send_latency().unwrap();
        assert!(latency.count == 1 && latency.p50_us >= 2_990_000.0, "{latency:?}");
        assert_eq!((meter.ticks(), meter.bytes(), meter.ack_latency()), (100, 5_000, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_knows_its_cpu_time() {
        assert!(cpu_seconds().is_some_and(|seconds| seconds >= 0.0));
    }
}
