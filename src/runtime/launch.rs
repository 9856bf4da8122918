//! A plan becomes running actors: lanes between every pair of neighbouring instances, one arbiter per instance.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio_util::sync::CancellationToken;

use super::actor::{ExitReport, StageActor};
use super::context::Context;
use super::drain::{DrainReport, Exit};
use super::lane::{LaneReceiver, LaneSender, lane};
use super::mailbox::Mailbox;
use super::meter::{InstanceState, Meter};
use super::outlet::{Outlet, SourceOutlet};
use super::rescale::Share;
use super::source::{SourceContext, SourceFactory};
use super::stage::StageFactory;
use super::worker::Worker;
use crate::topology::{Plan, StagePlan, WhenFull};

/// A stage, ready to be launched: one factory per instance.
pub enum Built {
    /// A source.
    Source(SourceFactory),
    /// Any other stage; called once per instance.
    Worker(Box<dyn Fn() -> StageFactory>),
}

/// Where instances run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Each on an arbiter (an OS thread) of its own.
    OwnArbiter,
    /// All on the calling thread: the simulation.
    SameThread,
}

/// A running topology.
pub struct Running {
    meters: Vec<Arc<Meter>>,
    exits: flume::Receiver<(usize, Exit)>,
    stop: CancellationToken,
    arbiters: Vec<Arbiter>,
}

/// Launches every stage of `plan`, whose implementations are `built`, one per stage in the plan's order. Must be
/// called inside an actix `System`.
pub fn launch(plan: &Plan, built: Vec<Built>, context: &Context, placement: Placement) -> Running {
    let (report, exits) = flume::unbounded();
    let mut wiring = Wiring::of(plan);
    let arrivals = Arc::new(AtomicU64::new(0));
    let mut running = Running { meters: Vec::new(), exits, stop: CancellationToken::new(), arbiters: Vec::new() };
    for (index, (stage, built)) in plan.stages.iter().zip(built).enumerate() {
        for instance in 0..stage.instances {
            let meter = Meter::new(&stage.name, instance);
            let outlet = Outlet::new(wiring.out_of(stage, index, instance), meter.clone());
            let exit = ExitReport::new(report.clone(), running.meters.len());
            running.meters.push(meter.clone());
            match &built {
                Built::Source(factory) => {
                    let source = factory(instance);
                    let context = SourceContext {
                        outlet: SourceOutlet::new(outlet, drops_newest(plan, stage), arrivals.clone())
                            .traced(context.tracing(&stage.name, instance)),
                        stop: running.stop.clone(),
                        clock: context.clock.clone(),
                        meter,
                    };
                    running.start(placement, exit, move || async move {
                        context.meter.thread.adopt();
                        context.meter.set_state(InstanceState::Running);
                        let outcome = match source {
                            Ok(source) => source.run(context.clone()).await,
                            Err(error) => Err(error),
                        };
                        context.outlet.end().await;
                        let exit = outcome.map_or_else(|error| Exit::Failed(error.to_string()), |()| Exit::Completed);
                        let done = exit == Exit::Completed;
                        let state = if done { InstanceState::Completed } else { InstanceState::Failed };
                        context.meter.set_state(state);
                        exit
                    });
                }
                Built::Worker(factory) => {
                    let mailbox = Mailbox::new(wiring.lanes_into(index, instance));
                    meter.watch(mailbox.meters());
                    let worker = Worker {
                        factory: factory(),
                        mailbox,
                        outlet,
                        meter,
                        clock: context.clock.clone(),
                        share: Share::new(stage.instances, context.scaling_of(index)),
                        router_of: stage.to.iter().find_map(|to| context.scaling_of(*to)),
                        ledger: context.ledger.clone(),
                        journal: context.store_behind_journal(stage),
                        chaos: context.chaos.clone(),
                        pending: VecDeque::new(),
                        handled: 0,
                        woken: false,
                        tracing: context.tracing(&stage.name, instance),
                        carried: None,
                    };
                    running.start(placement, exit, move || worker.run());
                }
            }
        }
    }
    running
}

/// Whether a source gives batches up when a lane is full: any mailbox behind it says so.
fn drops_newest(plan: &Plan, source: &StagePlan) -> bool {
    source.to.iter().any(|to| plan.stages[*to].mailbox.when_full == WhenFull::DropNewest)
}

/// Every lane of the topology, until its two ends are handed out.
struct Wiring {
    /// By receiving stage and instance.
    receivers: Vec<Vec<Vec<LaneReceiver>>>,
    /// By receiving stage and instance: (sending stage, sending instance, lane).
    senders: Vec<Vec<Vec<(usize, u16, LaneSender)>>>,
}

impl Wiring {
    fn of(plan: &Plan) -> Self {
        let mut wiring = Self { receivers: Vec::new(), senders: Vec::new() };
        for stage in &plan.stages {
            let (mut receivers, mut senders) = (Vec::new(), Vec::new());
            for _ in 0..stage.instances {
                let upstream = stage
                    .from
                    .iter()
                    .flat_map(|from| (0..plan.stages[*from].instances).map(|instance| (*from, instance)));
                let lanes = upstream.map(|(from, instance)| {
                    let (sender, receiver) = lane(stage.mailbox.capacity);
                    ((from, instance, sender), receiver)
                });
                let (into, out): (Vec<_>, Vec<_>) = lanes.unzip();
                senders.push(into);
                receivers.push(out);
            }
            wiring.receivers.push(receivers);
            wiring.senders.push(senders);
        }
        wiring
    }

    /// The lanes out of one instance, by downstream stage and instance.
    fn out_of(&mut self, stage: &StagePlan, index: usize, instance: u16) -> Vec<Vec<LaneSender>> {
        let to_stage = |to: &usize| {
            let to_instance = |lanes: &mut Vec<(usize, u16, LaneSender)>| {
                let own = lanes.iter().position(|(from, i, _)| (*from, *i) == (index, instance));
                own.map(|own| lanes.swap_remove(own).2)
            };
            self.senders[*to].iter_mut().filter_map(to_instance).collect()
        };
        stage.to.iter().map(to_stage).collect()
    }

    /// The lanes into one instance.
    fn lanes_into(&mut self, index: usize, instance: u16) -> Vec<LaneReceiver> {
        std::mem::take(&mut self.receivers[index][instance as usize])
    }
}

impl Running {
    fn start<L>(&mut self, placement: Placement, exit: ExitReport, life: impl FnOnce() -> L + Send + 'static)
    where
        L: Future<Output = Exit> + 'static,
    {
        match placement {
            Placement::OwnArbiter => {
                let arbiter = Arbiter::new();
                StageActor::start_in_arbiter(&arbiter.handle(), move |_| StageActor::new(life(), exit));
                self.arbiters.push(arbiter);
            }
            Placement::SameThread => {
                StageActor::new(life(), exit).start();
            }
        }
    }

    /// The meters of all instances, in the plan's order.
    pub fn meters(&self) -> &[Arc<Meter>] {
        &self.meters
    }

    /// Tells the sources to stop; everything else ends because its input ended.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Cancelled when the topology begins to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits until every instance has ended. A failed instance stops the rest. Once the stop has begun it may take
    /// `deadline`; whoever is still at work then is named as overdue.
    pub async fn wait(mut self, deadline: Duration) -> DrainReport {
        let mut report = DrainReport::default();
        let mut ended = vec![false; self.meters.len()];
        let stopping = self.stop.clone();
        let overdue = async {
            stopping.cancelled().await;
            tokio::time::sleep(deadline).await;
        };
        tokio::pin!(overdue);
        let mut since = None;
        while ended.iter().any(|ended| !ended) {
            tokio::select! {
                biased;
                exit = self.exits.recv_async() => {
                    let Ok((index, exit)) = exit else { break };
                    if exit != Exit::Completed {
                        self.stop.cancel();
                    }
                    since = since.or_else(|| self.stop.is_cancelled().then(Instant::now));
                    ended[index] = true;
                    self.note(&mut report, index, exit);
                }
                () = stopping.cancelled(), if since.is_none() => since = Some(Instant::now()),
                () = &mut overdue => break,
            }
        }
        for index in (0..ended.len()).filter(|index| !ended[*index]) {
            self.note(&mut report, index, Exit::Overdue);
        }
        report.took = since.map_or(Duration::ZERO, |since| since.elapsed());
        for arbiter in self.arbiters.drain(..) {
            arbiter.stop();
        }
        report
    }

    fn note(&self, report: &mut DrainReport, index: usize, exit: Exit) {
        let meter = &self.meters[index];
        if exit == Exit::Completed {
            tracing::debug!(stage = meter.stage, instance = meter.instance, "{exit}");
        } else {
            tracing::error!(stage = meter.stage, instance = meter.instance, "{exit}");
        }
        report.exits.push((meter.stage.clone(), meter.instance, exit));
    }
}
