//! The clock of a series that is met again after a restart, as its stored bars tell it.
//!
//! A bar is stored in the order in which windows close, and a window that was closed by the watermark, or by silence, tells
//! that the clock had reached its `due` time. No tick that was on time and is in no bar yet belongs to such a window or to
//! one before it, so a clock set so far, and then moved by the ticks that are replayed, judges as the one of the last
//! process did.

use std::ops::ControlFlow;

use super::bounds::end_of;
use crate::model::{BarFlags, BarHead, TimeNs};
use crate::spec::Spec;

/// What the bars of one series tell of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    high: TimeNs,
}

impl Told {
    /// By no bar.
    pub const NOTHING: Self = Self { high: TimeNs::MIN };

    /// The highest event time of the series, or what silence made of it.
    pub fn high(self) -> TimeNs {
        self.high
    }

    /// Takes in one bar. The bars of each granularity are told from the newest on, until it breaks: older ones have nothing
    /// to add.
    pub fn hear(&mut self, spec: &Spec, head: &BarHead) -> ControlFlow<()> {
        let Some(granularity) = spec.granularities.get(usize::from(head.granularity)) else {
            return ControlFlow::Break(());
        };
        self.high = self.high.max(head.last);
        if !head.flags.contains(BarFlags::OPEN_ENDED) {
            let due = end_of(head.start, granularity.length).saturating_add(spec.window.wait);
            self.high = self.high.max(due);
            return ControlFlow::Break(());
        }
        // The window before this one was due no later than so.
        let before = head.start.saturating_add(spec.window.wait);
        if self.high >= before { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::{MILLISECOND, SECOND};
    use crate::spec::{Aggregation, LatePolicy};
    use crate::window::testing::spec;

    /// What bars (start, last, whether open-ended) tell, and how many were asked for.
    fn told(bars: &[(TimeNs, TimeNs, bool)]) -> (TimeNs, usize) {
        let spec = spec(&[SECOND], LatePolicy::Drop, &[Aggregation::Sum]);
        let (mut told, mut asked) = (Told::NOTHING, 0);
        for (start, last, open_ended) in bars {
            let mut head = BarHead { start: *start, last: *last, ..BarHead::default() };
            head.flags.set(BarFlags::OPEN_ENDED, *open_ended);
            asked += 1;
            if told.hear(&spec, &head).is_break() {
                break;
            }
        }
        (told.high(), asked)
    }

    #[test]
    fn a_window_that_closed_tells_that_its_end_had_passed_and_an_open_ended_one_only_of_its_ticks() {
        let wait = 200 * MILLISECOND;
        assert_eq!(told(&[]), (TimeNs::MIN, 0));
        assert_eq!(told(&[(SECOND, SECOND + 1, false), (0, 9, false)]), (2 * SECOND + wait, 1));
        // Silence had closed the window before; the clock is further than the last tick.
        assert_eq!(told(&[(SECOND, SECOND + 1, true), (0, 9, false)]), (SECOND + wait, 2));
        assert_eq!(told(&[(SECOND, SECOND + wait, true), (0, 9, false)]), (SECOND + wait, 1));
        assert_eq!(told(&[(SECOND, SECOND + 1, true), (0, 9, true)]), (SECOND + 1, 2));
    }
}
