//! What an instance does when the number of active instances of its stage changes: see [`Scaling`].

use std::sync::Arc;

use super::drain::Exit;
use super::meter::InstanceState;
use super::phases::Phase;
use super::scaling::Scaling;
use super::stage::Stage;
use super::worker::Worker;
use crate::model::Scale;

/// The share of an instance in the work of its stage.
pub struct Share {
    /// How many instances of the stage are active.
    pub instances: u16,
    /// The last change of that number it has come to.
    pub number: u64,
    /// What changes it, if anything does.
    pub scaling: Option<Arc<Scaling>>,
}

impl Share {
    /// The share of an instance of a stage that has `instances`, or begins with those that `scaling` says are active.
    pub fn new(instances: u16, scaling: Option<Arc<Scaling>>) -> Self {
        let instances = scaling.as_ref().map_or(instances, |scaling| scaling.active());
        Self { instances, number: 0, scaling }
    }

    /// Notes that the instance has ended.
    pub fn end(&self) {
        if let Some(scaling) = &self.scaling {
            scaling.end();
        }
    }
}

impl Worker {
    /// Gives up `stage` for one with another share, once every instance has come to the change. One that was told twice,
    /// because the router failed after telling it, has the stage go on.
    pub(super) async fn rescale(&mut self, stage: Box<dyn Stage>, change: Scale) -> Result<Box<dyn Stage>, Exit> {
        let Some(scaling) = self.share.scaling.clone().filter(|_| change.number > self.share.number) else {
            return Ok(stage);
        };
        self.meter.set_state(InstanceState::Scaling);
        self.meter.phases.enter(Phase::Idle);
        drop(stage);
        self.settled().await;
        scaling.arrive().await.map_err(|_| Exit::Severed)?;
        self.meter.phases.enter(Phase::Busy);
        (self.share.number, self.share.instances) = (change.number, change.instances);
        self.handled = self.handled.max(change.position);
        let stage = self.make().await?;
        scaling.restored();
        Ok(stage)
    }
}
