//! The sending side of an instance: try first, start the clock only when a lane is full, count the wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::lane::{LaneMeter, LaneSender, SendError};
use super::meter::Meter;
use super::stage::{Output, Target};
use crate::model::{Envelope, Signal, TickBatch, TickSlice};

/// The lanes out of one instance.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// By downstream stage, then by its instance.
    stages: Vec<Vec<LaneSender>>,
    meter: Arc<Meter>,
}

/// A downstream instance is gone; nothing can be sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownstreamGone;

impl Outlet {
    /// An outlet into these lanes, by downstream stage and instance.
    pub fn new(stages: Vec<Vec<LaneSender>>, meter: Arc<Meter>) -> Self {
        Self { stages, meter }
    }

    /// Sends all of `output`, in order, waiting for room.
    pub async fn flush(&self, output: &mut Output) -> Result<(), DownstreamGone> {
        for (target, envelope) in output.drain() {
            self.meter.batches_out.add(1);
            self.meter.rows_out.add(envelope.rows() as u64);
            match target {
                Target::All => self.send_all(envelope).await?,
                Target::Instance { stage, instance } => {
                    if let Some(lane) = self.stages.get(stage).and_then(|lanes| lanes.get(instance as usize)) {
                        self.send(lane, envelope).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Tells everyone downstream that nothing follows.
    pub async fn end(&self) {
        // Whoever is gone need not be told.
        let _ = self.send_all(Envelope::Signal(Signal::End)).await;
    }

    /// The counters of every lane.
    pub fn meters(&self) -> impl Iterator<Item = &Arc<LaneMeter>> {
        self.stages.iter().flatten().map(LaneSender::meter)
    }

    async fn send_all(&self, envelope: Envelope) -> Result<(), DownstreamGone> {
        for lane in self.stages.iter().flatten() {
            self.send(lane, envelope.clone()).await?;
        }
        Ok(())
    }

    async fn send(&self, lane: &LaneSender, envelope: Envelope) -> Result<(), DownstreamGone> {
        match lane.try_send(envelope) {
            Ok(()) => Ok(()),
            Err(SendError::Gone) => Err(DownstreamGone),
            Err(SendError::Full(envelope)) => {
                let since = Instant::now();
                let sent = lane.send(envelope).await;
                self.meter.backpressured_ns.add_time(since.elapsed());
                sent.map_err(|_| DownstreamGone)
            }
        }
    }
}

/// The way out of a source: shared by all its connections.
#[derive(Debug, Clone)]
pub struct SourceOutlet {
    outlet: Outlet,
    drop_newest: bool,
    /// One batch at a time, so that batches leave in the order in which they were sealed.
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Numbers arrivals over all sources of the process; a `journal` stage numbers them anew.
    arrivals: Arc<AtomicU64>,
}

/// A turn to send out of a source.
pub struct Turn<'a> {
    outlet: &'a SourceOutlet,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Sends one batch, waiting for room, or gives it up where the topology says `drop_newest`.
    pub async fn send(&self, batch: TickBatch) -> Result<Sent, DownstreamGone> {
        let SourceOutlet { outlet, drop_newest, arrivals, .. } = self.outlet;
        if *drop_newest && outlet.meters().any(|lane| lane.depth() >= lane.capacity()) {
            return Ok(Sent::Dropped);
        }
        outlet.meter.batches_out.add(1);
        outlet.meter.rows_out.add(batch.len() as u64);
        let offset = arrivals.fetch_add(batch.len() as u64, Relaxed);
        outlet.send_all(Envelope::Ticks(TickSlice::whole(Arc::new(batch), offset))).await?;
        Ok(Sent::Delivered)
    }
}

/// What became of a batch a source sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is in every lane.
    Delivered,
    /// A lane was full under `when_full: drop_newest`: it went nowhere.
    Dropped,
}

impl SourceOutlet {
    /// The outlet of a source; `drop_newest` gives a batch up when a lane is full instead of waiting.
    pub fn new(outlet: Outlet, drop_newest: bool, arrivals: Arc<AtomicU64>) -> Self {
        Self { outlet, drop_newest, gate: Arc::default(), arrivals }
    }

    /// Waits for this caller's turn to send: what one caller sends during its turn leaves together, in order.
    pub async fn turn(&self) -> Turn<'_> {
        Turn { outlet: self, _turn: self.gate.lock().await }
    }

    /// Sends one batch.
    pub async fn send(&self, batch: TickBatch) -> Result<Sent, DownstreamGone> {
        self.turn().await.send(batch).await
    }

    /// Tells everyone downstream that nothing follows.
    pub async fn end(&self) {
        let _turn = self.gate.lock().await;
        self.outlet.end().await;
    }
}
