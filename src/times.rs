//! Histograms of spans of time, recorded once per batch and read from outside.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest span told apart from longer ones, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;
/// Significant decimal digits kept of a span.
const DIGITS: u8 = 2;

/// A histogram of spans of time. Its lock is taken once per batch by the one who records, and by readers.
#[derive(Debug)]
pub struct Times(Mutex<Recorded>);

#[derive(Debug)]
struct Recorded {
    spans: Option<Histogram<u64>>,
    nanoseconds: u128,
}

/// What a histogram holds at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recording {
    /// How many spans.
    pub count: u64,
    /// Their sum in seconds.
    pub seconds: f64,
    /// (a span in nanoseconds to two digits, how many there were), ascending; those that never occurred are left out.
    pub spans: Vec<(u64, u64)>,
}

impl Times {
    /// Nothing recorded.
    pub fn new() -> Self {
        // The bounds are constants that hdrhistogram takes; without a histogram nothing would be recorded.
        let spans = Histogram::new_with_bounds(1, LONGEST, DIGITS).ok();
        Self(Mutex::new(Recorded { spans, nanoseconds: 0 }))
    }

    /// Records a span.
    pub fn record(&self, span: Duration) {
        self.record_many(span, 1);
    }

    /// Records the same span for each of `count`.
    pub fn record_many(&self, span: Duration, count: u64) {
        let nanoseconds = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.nanoseconds += u128::from(nanoseconds) * u128::from(count);
        if let Some(spans) = &mut recorded.spans {
            spans.saturating_record_n(nanoseconds.max(1), count);
        }
    }

    /// What has been recorded.
    pub fn read(&self) -> Recording {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(spans) = &recorded.spans else { return Recording::default() };
        let span = |at: hdrhistogram::iterators::IterationValue<u64>| (at.value_iterated_to(), at.count_at_value());
        Recording {
            count: spans.len(),
            seconds: recorded.nanoseconds as f64 / 1e9,
            spans: spans.iter_recorded().map(span).collect(),
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_kept_to_two_digits_and_their_sum_exactly() {
        let times = Times::new();
        for span in [Duration::ZERO, Duration::from_millis(5), Duration::from_secs(7200)] {
            times.record(span);
        }
        times.record_many(Duration::from_micros(3), 10);
        let read = times.read();
        assert_eq!((read.count, read.seconds), (13, 7_200.005_03));
        let near = |span: u64, to: u64| span.abs_diff(to) * 100 <= to;
        assert!(near(read.spans[1].0, 3_000) && read.spans[1].1 == 10, "{read:?}");
        assert!(near(read.spans[2].0, 5_000_000) && near(read.spans[3].0, LONGEST), "{read:?}");
    }
}
