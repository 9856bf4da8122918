//! The one home of window arithmetic: epoch-aligned windows `[start, end)`, correct below zero.
//!
//! At the two ends of time a window is cut off instead of overflowing: the lowest starts at [`TimeNs::MIN`], the
//! highest ends at [`TimeNs::MAX`].

use crate::model::{DurationNs, TimeNs};

/// The start of the window of length `length` (positive) that holds `time`.
pub fn start_of(time: TimeNs, length: DurationNs) -> TimeNs {
    time.saturating_sub(time.rem_euclid(length))
}

/// The end, exclusive, of the window of length `length` (positive) that starts at `start`.
pub fn end_of(start: TimeNs, length: DurationNs) -> TimeNs {
    start.saturating_add(length - start.rem_euclid(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_half_open_and_aligned_on_both_sides_of_the_epoch() {
        assert_eq!((start_of(0, 10), start_of(9, 10), start_of(10, 10)), (0, 0, 10));
        assert_eq!((start_of(-1, 10), start_of(-10, 10), start_of(-11, 10)), (-10, -10, -20));
        assert_eq!((end_of(0, 10), end_of(-10, 10)), (10, 0));
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        assert_eq!(start_of(TimeNs::MIN, 1_000), TimeNs::MIN);
        assert_eq!(end_of(TimeNs::MIN, 1_000), start_of(TimeNs::MIN + 1_000, 1_000));
        assert_eq!(end_of(start_of(TimeNs::MAX, 1_000), 1_000), TimeNs::MAX);
    }

    proptest::proptest! {
        #[test]
        fn every_time_lies_in_its_window(time: i64, length in 1..i64::MAX) {
            let start = start_of(time, length);
            let end = end_of(start, length);
            proptest::prop_assert!(start <= time && (time < end || end == TimeNs::MAX));
            proptest::prop_assert_eq!(start_of(start, length), start);
        }
    }
}
