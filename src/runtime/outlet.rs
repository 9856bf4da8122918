//! The sending side of an instance: try first, start the clock only when a lane is full, count the wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::lane::{LaneMeter, LaneSender, SendError};
use super::meter::Meter;
use super::phases::Phase;
use super::stage::{Output, Target};
use super::trace::{Started, Trace, Tracing};
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

    /// Sends all of `output`, in order, waiting for room. The first batch for each target carries `trace` on; tells
    /// whether any did.
    pub async fn flush(&self, output: &mut Output, trace: Option<Trace>) -> Result<bool, DownstreamGone> {
        let mut told: Vec<Target> = Vec::new();
        for (target, envelope) in output.drain() {
            let rows = envelope.rows() as u64;
            self.meter.batches_out.add(1);
            self.meter.rows_out.add(rows);
            let trace = trace.filter(|_| rows > 0 && !told.contains(&target));
            told.extend(trace.map(|_| target));
            match target {
                Target::All => self.send_all(envelope, trace).await?,
                Target::Instance { stage, instance } => {
                    if let Some(lane) = self.stages.get(stage).and_then(|lanes| lanes.get(instance as usize)) {
                        self.send(lane, envelope, trace).await?;
                    }
                }
            }
        }
        Ok(!told.is_empty())
    }

    /// Tells everyone downstream that nothing follows.
    pub async fn end(&self) {
        // Whoever is gone need not be told.
        let _ = self.send_all(Envelope::Signal(Signal::End), None).await;
    }

    /// The counters of every lane.
    pub fn meters(&self) -> impl Iterator<Item = &Arc<LaneMeter>> {
        self.stages.iter().flatten().map(LaneSender::meter)
    }

    async fn send_all(&self, envelope: Envelope, trace: Option<Trace>) -> Result<(), DownstreamGone> {
        for lane in self.stages.iter().flatten() {
            self.send(lane, envelope.clone(), trace).await?;
        }
        Ok(())
    }

    async fn send(&self, lane: &LaneSender, envelope: Envelope, trace: Option<Trace>) -> Result<(), DownstreamGone> {
        match lane.try_send(envelope, trace) {
            Ok(()) => Ok(()),
            Err(SendError::Gone) => Err(DownstreamGone),
            Err(SendError::Full(envelope)) => {
                self.meter.phases.enter(Phase::Backpressured);
                self.meter.thread.begin_wait();
                let sent = lane.send(envelope, trace).await;
                self.meter.thread.end_wait();
                self.meter.phases.enter(Phase::Busy);
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
    /// Where batches are traced.
    tracing: Option<Tracing>,
}

/// A turn to send out of a source.
pub struct Turn<'a> {
    outlet: &'a SourceOutlet,
    _turn: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Sends one batch, waiting for room, or gives it up where the topology says `drop_newest`.
    pub async fn send(&self, batch: TickBatch) -> Result<Sent, DownstreamGone> {
        let SourceOutlet { outlet, drop_newest, arrivals, tracing, .. } = self.outlet;
        if *drop_newest && outlet.meters().any(|lane| lane.depth() >= lane.capacity()) {
            return Ok(Sent::Dropped);
        }
        outlet.meter.batches_out.add(1);
        outlet.meter.rows_out.add(batch.len() as u64);
        let rows = batch.len() as u64;
        let offset = arrivals.fetch_add(rows, Relaxed);
        let span = tracing.as_ref().and_then(Tracing::begin);
        let trace = span.as_ref().map(Started::trace);
        let envelope = Envelope::Ticks(TickSlice::whole(Arc::new(batch), offset));
        outlet.meter.tap.offer(&envelope);
        outlet.send_all(envelope, trace).await?;
        if let (Some(tracing), Some(span)) = (tracing, span) {
            tracing.end(span, rows);
        }
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
        Self { outlet, drop_newest, gate: Arc::default(), arrivals, tracing: None }
    }

    /// As it is, with some of its batches traced.
    pub fn traced(self, tracing: Option<Tracing>) -> Self {
        Self { tracing, ..self }
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
