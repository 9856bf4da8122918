//! How many instances a stage should have, from what is seen of it. Pure: time is an argument.
//!
//! It grows when the lag has been above the target for a while and waits for nobody downstream: to twice as many, for lag
//! hurts at once. It shrinks when one instance fewer would still be idle for half of its time, and has been able to for
//! long: by one, for a wrong guess costs a change back.

use crate::model::time::SECOND;
use crate::model::{DurationNs, TimeNs};
use crate::topology::ScalePlan;

/// How long the lag must have been above the target.
const GROW_AFTER: DurationNs = 3 * SECOND;
/// How long one instance fewer must have been enough.
const SHRINK_AFTER: DurationNs = 30 * SECOND;
/// How long after a change nothing is decided: its own pause is no sign of load.
const REST: DurationNs = 5 * SECOND;
/// How busy fewer instances may be.
const MOST_BUSY: f64 = 0.5;
/// How much of their time instances may wait for room downstream before more of them would only wait too.
const MOST_BLOCKED: f64 = 0.5;
/// The weight of a look among those before it.
const WEIGHT: f64 = 0.2;

/// What was seen of the active instances since the last look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// How many there are.
    pub active: u16,
    /// The longest lag of any.
    pub lag: DurationNs,
    /// The mean share of the time they worked.
    pub busy: f64,
    /// The mean share of the time they waited for room downstream.
    pub blocked: f64,
}

/// Decides from look to look.
#[derive(Debug, Clone)]
pub struct Controller {
    plan: ScalePlan,
    target: DurationNs,
    lag: f64,
    busy: f64,
    blocked: f64,
    over_since: Option<TimeNs>,
    idle_since: Option<TimeNs>,
    rests_until: TimeNs,
}

impl Controller {
    /// A controller that holds the lag below `target` within the bounds of `plan`.
    pub fn new(plan: ScalePlan, target: DurationNs) -> Self {
        let (lag, busy, blocked) = (0.0, 0.0, 0.0);
        Self { plan, target, lag, busy, blocked, over_since: None, idle_since: None, rests_until: TimeNs::MIN }
    }

    /// Forgets what it has seen: the number has changed, or somebody else decides.
    pub fn rest(&mut self, now: TimeNs) {
        *self = Self { rests_until: now.saturating_add(REST), ..Self::new(self.plan, self.target) };
    }

    /// Takes in what is seen now; gives the number of instances there should be, if it is another.
    pub fn look(&mut self, now: TimeNs, seen: Seen) -> Option<u16> {
        if now < self.rests_until {
            return None;
        }
        self.lag += WEIGHT * (seen.lag as f64 - self.lag);
        self.busy += WEIGHT * (seen.busy - self.busy);
        self.blocked += WEIGHT * (seen.blocked - self.blocked);
        let (active, target) = (f64::from(seen.active), self.target as f64);
        let grows = seen.active < self.plan.max && self.lag > target && self.blocked < MOST_BLOCKED;
        let fewer_do = self.busy * active < MOST_BUSY * (active - 1.0);
        let shrinks = seen.active > self.plan.min && fewer_do && self.lag < target / 2.0;
        if holds_for(&mut self.over_since, grows, now, GROW_AFTER) {
            return Some(seen.active.saturating_mul(2).min(self.plan.max));
        }
        holds_for(&mut self.idle_since, shrinks, now, SHRINK_AFTER).then(|| seen.active - 1)
    }
}

/// Whether something holds and has for so long.
fn holds_for(since: &mut Option<TimeNs>, holds: bool, now: TimeNs, long: DurationNs) -> bool {
    *since = since.or(Some(now)).filter(|_| holds);
    since.is_some_and(|since| now.saturating_sub(since) >= long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::MILLISECOND;

    const QUIET: Seen = Seen { active: 1, lag: 0, busy: 0.0, blocked: 0.0 };
    const LOADED: Seen = Seen { lag: SECOND, busy: 1.0, ..QUIET };

    fn controller() -> Controller {
        let target = 500 * MILLISECOND;
        Controller::new(ScalePlan { min: 1, max: 6, target_lag: Some(target) }, target)
    }

    /// Looks four times a second for so many seconds, following every decision; gives when it decided what.
    fn follow(controller: &mut Controller, from: i64, seconds: i64, seen: impl Fn(u16) -> Seen) -> Vec<(i64, u16)> {
        let (mut active, mut decided) = (seen(0).active, Vec::new());
        for look in 0..seconds * 4 {
            let now = from * SECOND + look * SECOND / 4;
            if let Some(number) = controller.look(now, Seen { active, ..seen(active) }) {
                decided.push((now / SECOND, number));
                active = number;
                controller.rest(now);
            }
        }
        decided
    }

    #[test]
    fn lag_that_stays_above_the_target_doubles_the_instances_up_to_the_most() {
        let decided = follow(&mut controller(), 0, 60, |_| LOADED);
        assert_eq!(decided, [(3, 2), (12, 4), (21, 6)]);
    }

    #[test]
    fn a_short_burst_and_a_lag_near_the_target_change_nothing() {
        let mut controller = controller();
        assert_eq!(follow(&mut controller, 0, 2, |_| LOADED), []);
        assert_eq!(follow(&mut controller, 2, 20, |_| Seen { active: 2, lag: 400 * MILLISECOND, ..QUIET }), []);
        assert_eq!(follow(&mut controller, 22, 60, |_| Seen { active: 2, busy: 0.3, ..QUIET }), []);
    }

    #[test]
    fn instances_that_only_wait_for_room_downstream_are_not_joined_by_others() {
        assert_eq!(follow(&mut controller(), 0, 60, |_| Seen { busy: 0.1, blocked: 0.9, ..LOADED }), []);
    }

    #[test]
    fn idle_instances_go_one_by_one_and_never_below_the_fewest() {
        let decided = follow(&mut controller(), 0, 200, |_| Seen { active: 3, ..QUIET });
        assert_eq!(decided.iter().map(|(_, number)| *number).collect::<Vec<_>>(), [2, 1]);
        assert!(decided[0].0 >= 29 && decided[1].0 >= decided[0].0 + 30, "{decided:?}");
    }

    #[test]
    fn as_many_as_the_load_needs_are_neither_joined_nor_sent_away() {
        // One of them is worth 0.7 of an instance's time in all: half of two, more than the half of one.
        let seen = |active: u16| Seen { active: active.max(2), busy: 0.7 / f64::from(active.max(1)), ..QUIET };
        assert_eq!(follow(&mut controller(), 0, 300, seen), []);
    }
}
