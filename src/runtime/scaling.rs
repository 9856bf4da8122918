//! How many instances of a stage are active, and how that changes while ticks flow.
//!
//! All instances are launched; an idle one waits at no cost. A change is a barrier: the router sends every instance a
//! [`Scale`] behind everything it has routed by the old number. An instance that comes to it drops what it holds and waits
//! until everything it gave is settled downstream, then until all others have come as far: from there on stored bars and
//! journal are all there is to know, and each restores its new share from them as after a failure. So no tick is in two
//! windows or in none, whatever fails meanwhile.

mod controller;
mod drive;

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::model::Scale;
use crate::topology::{Plan, ScalePlan};

pub use controller::{Controller, Seen};
pub use drive::drive;

/// The one stage of a topology whose number of active instances changes.
#[derive(Debug)]
pub struct Scaling {
    /// The stage's name.
    pub stage: String,
    /// Its index in the plan.
    pub index: usize,
    /// Between which numbers, and what for.
    pub plan: ScalePlan,
    state: watch::Sender<State>,
    /// Tells the router that there is something to pass on.
    router: Notify,
}

#[derive(Debug)]
struct State {
    /// The last change asked for; its position is for the router to say.
    asked: Scale,
    /// Instances that have come to it with everything settled.
    arrived: u16,
    /// Instances that have restored their share.
    restored: u16,
    /// Whether somebody's number is kept against what the load would say.
    held: bool,
    /// An instance has ended: no change comes to its end any more.
    ended: bool,
}

/// Why the number of active instances does not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// It is out of bounds.
    #[error(
        "{instances} instances of `{stage}`; allowed: {min} to {max}, as instances.min and instances.max of the topology say"
    )]
    Bounds {
        /// The stage.
        stage: String,
        /// How many were asked for.
        instances: u16,
        /// The fewest.
        min: u16,
        /// The most.
        max: u16,
    },
    /// Another change is under way.
    #[error("`{stage}` is changing to {instances} instances; ask again when it has")]
    Busy {
        /// The stage.
        stage: String,
        /// To how many.
        instances: u16,
    },
    /// Nothing follows the load.
    #[error("`{stage}` has no target_lag to follow; give a number, or write instances.target_lag into the topology")]
    NoTarget {
        /// The stage.
        stage: String,
    },
    /// The stage has ended.
    #[error("`{stage}` has ended or is about to")]
    Ended {
        /// The stage.
        stage: String,
    },
}

impl Scaling {
    /// The scaling of the stage of `plan` that has bounds, if there is one: it begins with the fewest instances.
    pub fn of(plan: &Plan) -> Option<Arc<Self>> {
        let (index, stage) = plan.stages.iter().enumerate().find(|(_, stage)| stage.scale.is_some())?;
        let plan = stage.scale?;
        let asked = Scale { number: 0, instances: plan.min, position: 0 };
        let state = State { asked, arrived: plan.max, restored: plan.max, held: false, ended: false };
        let (state, router) = (watch::Sender::new(state), Notify::new());
        Some(Arc::new(Self { stage: stage.name.clone(), index, plan, state, router }))
    }

    /// How many instances are active, or are about to be.
    pub fn active(&self) -> u16 {
        self.state.borrow().asked.instances
    }

    /// Whether a change is under way.
    pub fn is_changing(&self) -> bool {
        self.state.borrow().restored < self.plan.max
    }

    /// Whether the number is one that somebody gave, which the load does not change.
    pub fn is_held(&self) -> bool {
        self.state.borrow().held
    }

    /// Asks for so many active instances; gives the change's number for [`Scaling::done`].
    ///
    /// # Errors
    /// There cannot be so many, or not now.
    pub fn ask(&self, instances: u16) -> Result<u64, ScaleError> {
        let ScalePlan { min, max, .. } = self.plan;
        let stage = self.stage.clone();
        if !(min..=max).contains(&instances) {
            return Err(ScaleError::Bounds { stage, instances, min, max });
        }
        let mut answer = Err(ScaleError::Ended { stage: stage.clone() });
        self.state.send_if_modified(|state| {
            let changes = !state.ended && state.restored == max && state.asked.instances != instances;
            if changes {
                state.asked = Scale { number: state.asked.number + 1, instances, position: 0 };
                (state.arrived, state.restored) = (0, 0);
            }
            if !state.ended {
                let is_it = state.asked.instances == instances;
                let busy = || ScaleError::Busy { stage, instances: state.asked.instances };
                answer = if is_it { Ok(state.asked.number) } else { Err(busy()) };
            }
            changes
        });
        self.router.notify_one();
        answer
    }

    /// Keeps the number that somebody gave, or lets it follow the load again.
    ///
    /// # Errors
    /// There is nothing to follow.
    pub fn hold(&self, held: bool) -> Result<(), ScaleError> {
        if !held && self.plan.target_lag.is_none() {
            return Err(ScaleError::NoTarget { stage: self.stage.clone() });
        }
        self.state.send_modify(|state| state.held = held);
        Ok(())
    }

    /// Waits until a change has come to its end.
    ///
    /// # Errors
    /// It never will: the stage has ended.
    pub async fn done(&self, number: u64) -> Result<(), ScaleError> {
        self.until(|state| state.asked.number > number || state.restored == self.plan.max).await
    }

    /// The change that holds for what is routed next.
    pub fn asked(&self) -> Scale {
        self.state.borrow().asked
    }

    /// The number of the last change that every instance is known to have been told of.
    pub fn told(&self) -> u64 {
        let state = self.state.borrow();
        if state.arrived == self.plan.max { state.asked.number } else { state.asked.number - 1 }
    }

    /// Waits until the router has something to pass on.
    pub async fn knocked(&self) {
        self.router.notified().await;
    }

    /// Notes that one more instance has come to the present change, and waits for the others.
    pub(super) async fn arrive(&self) -> Result<(), ScaleError> {
        self.state.send_modify(|state| state.arrived += 1);
        self.until(|state| state.arrived == self.plan.max).await
    }

    /// Notes that one more instance has restored its share.
    pub(super) fn restored(&self) {
        self.state.send_modify(|state| state.restored += 1);
    }

    /// Notes that an instance has ended.
    pub(super) fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }

    async fn until(&self, holds: impl Fn(&State) -> bool) -> Result<(), ScaleError> {
        let ended = || ScaleError::Ended { stage: self.stage.clone() };
        let mut states = self.state.subscribe();
        // The sender is this; it is not gone.
        let state = states.wait_for(|state| holds(state) || state.ended).await.map_err(|_| ended())?;
        if holds(&state) { Ok(()) } else { Err(ended()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaling(target_lag: Option<i64>) -> Scaling {
        let plan = ScalePlan { min: 1, max: 3, target_lag };
        let asked = Scale { number: 0, instances: plan.min, position: 0 };
        let state = State { asked, arrived: plan.max, restored: plan.max, held: false, ended: false };
        Scaling { stage: "agg".into(), index: 0, plan, state: watch::Sender::new(state), router: Notify::new() }
    }

    #[tokio::test]
    async fn a_change_is_done_when_every_instance_has_restored_and_until_then_there_is_no_other() {
        let scaling = scaling(None);
        let number = scaling.ask(3).unwrap();
        scaling.knocked().await;
        assert_eq!((scaling.ask(3), scaling.told(), scaling.is_changing()), (Ok(number), number - 1, true));
        assert_eq!(scaling.ask(2), Err(ScaleError::Busy { stage: "agg".into(), instances: 3 }));
        let instance = async || {
            scaling.arrive().await.unwrap();
            assert_eq!(scaling.told(), number);
            scaling.restored();
        };
        let (done, ..) = tokio::join!(scaling.done(number), instance(), instance(), instance());
        assert_eq!((done, scaling.active(), scaling.is_changing()), (Ok(()), 3, false));
        assert_eq!(scaling.ask(2), Ok(number + 1));
    }

    #[tokio::test]
    async fn an_instance_that_ends_leaves_nobody_waiting() {
        let scaling = scaling(None);
        let number = scaling.ask(2).unwrap();
        let end = async { scaling.end() };
        let ended = Err(ScaleError::Ended { stage: "agg".into() });
        let (arrived, done, ()) = tokio::join!(scaling.arrive(), scaling.done(number), end);
        assert_eq!((arrived, done), (ended.clone(), ended));
        assert!(matches!(scaling.ask(1), Err(ScaleError::Ended { .. })));
    }

    #[test]
    fn a_number_out_of_bounds_and_a_load_without_target_are_refused() {
        let told = |error: ScaleError| error.to_string();
        let bounds = scaling(None).ask(4).map_err(told).unwrap_err();
        assert!(bounds.starts_with("4 instances of `agg`; allowed: 1 to 3"), "{bounds}");
        assert!(scaling(None).hold(false).map_err(told).unwrap_err().contains("no target_lag"));
        assert_eq!(scaling(Some(1)).hold(false), Ok(()));
    }
}
