//! A lane: a bounded channel from one upstream instance to one downstream instance, with counters that can be
//! read from outside while both ends are busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::Envelope;

/// Counters of one lane.
#[derive(Debug, Default)]
pub struct LaneMeter {
    sent: AtomicU64,
    taken: AtomicU64,
    settled: AtomicU64,
    capacity: u64,
}

/// The sending end.
#[derive(Debug, Clone)]
pub struct LaneSender {
    channel: flume::Sender<Envelope>,
    meter: Arc<LaneMeter>,
}

/// The receiving end.
#[derive(Debug)]
pub struct LaneReceiver {
    channel: flume::Receiver<Envelope>,
    meter: Arc<LaneMeter>,
}

/// A lane for at most `capacity` envelopes.
pub fn lane(capacity: usize) -> (LaneSender, LaneReceiver) {
    let (sender, receiver) = flume::bounded(capacity);
    let meter = Arc::new(LaneMeter { capacity: capacity as u64, ..LaneMeter::default() });
    (LaneSender { channel: sender, meter: meter.clone() }, LaneReceiver { channel: receiver, meter })
}

/// Why an envelope could not be sent; gives it back.
#[derive(Debug)]
pub enum SendError {
    /// The lane is full.
    Full(Envelope),
    /// The receiving instance is gone.
    Gone,
}

impl LaneSender {
    /// Sends without waiting.
    pub fn try_send(&self, envelope: Envelope) -> Result<(), SendError> {
        match self.channel.try_send(envelope) {
            Ok(()) => {
                self.meter.sent.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(flume::TrySendError::Full(envelope)) => Err(SendError::Full(envelope)),
            Err(flume::TrySendError::Disconnected(_)) => Err(SendError::Gone),
        }
    }

    /// Sends, waiting for room.
    pub async fn send(&self, envelope: Envelope) -> Result<(), SendError> {
        match self.channel.send_async(envelope).await {
            Ok(()) => {
                self.meter.sent.fetch_add(1, Relaxed);
                Ok(())
            }
            Err(_) => Err(SendError::Gone),
        }
    }

    /// The lane's counters.
    pub fn meter(&self) -> &Arc<LaneMeter> {
        &self.meter
    }
}

impl LaneReceiver {
    /// Takes what is there; `None` when nothing is, `Some(None)` when nothing will ever be again.
    pub fn try_take(&self) -> Option<Option<Envelope>> {
        match self.channel.try_recv() {
            Ok(envelope) => {
                self.meter.taken.fetch_add(1, Relaxed);
                Some(Some(envelope))
            }
            Err(flume::TryRecvError::Empty) => None,
            Err(flume::TryRecvError::Disconnected) => Some(None),
        }
    }

    /// Waits for the next envelope; `None` when nothing will ever come again.
    pub async fn take(&self) -> Option<Envelope> {
        let envelope = self.channel.recv_async().await.ok()?;
        self.meter.taken.fetch_add(1, Relaxed);
        Some(envelope)
    }

    /// The lane's counters.
    pub fn meter(&self) -> &Arc<LaneMeter> {
        &self.meter
    }
}

impl LaneMeter {
    /// Envelopes waiting in the lane.
    pub fn depth(&self) -> u64 {
        self.sent.load(Relaxed).saturating_sub(self.taken.load(Relaxed)).min(self.capacity)
    }

    /// The most envelopes the lane holds.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Notes that the receiving stage is done with `envelopes` more, their consequences included.
    pub fn settle(&self, envelopes: u64) {
        self.settled.fetch_add(envelopes, Relaxed);
    }

    /// Whether the receiving stage is done with everything sent so far.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Relaxed) >= self.sent.load(Relaxed)
    }
}
