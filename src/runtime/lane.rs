//! A lane: a bounded channel from one upstream instance to one downstream instance, with counters that can be
//! read from outside while both ends are busy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::trace::Trace;
use crate::model::Envelope;

/// An envelope in a lane.
#[derive(Debug)]
pub struct Posted {
    /// What was sent.
    pub envelope: Envelope,
    /// When it was put in; for one that had to wait for room, when it came to the lane.
    pub at: Instant,
    /// The trace it belongs to, if it is followed.
    pub trace: Option<Trace>,
}

/// Counters of one lane.
#[derive(Debug)]
pub struct LaneMeter {
    origin: Instant,
    sent: AtomicU64,
    taken: AtomicU64,
    settled: AtomicU64,
    peak: AtomicU64,
    capacity: u64,
    /// When the n-th envelope was put in, in nanoseconds since the origin, at n modulo the length. One slot more than the
    /// lane has places belongs to the envelope that waits for room.
    put_in: Box<[AtomicU64]>,
}

/// The sending end; only one clone of it sends at a time.
#[derive(Debug, Clone)]
pub struct LaneSender {
    channel: flume::Sender<Posted>,
    meter: Arc<LaneMeter>,
}

/// The receiving end.
#[derive(Debug)]
pub struct LaneReceiver {
    channel: flume::Receiver<Posted>,
    meter: Arc<LaneMeter>,
}

/// A lane for at most `capacity` envelopes.
pub fn lane(capacity: usize) -> (LaneSender, LaneReceiver) {
    let (sender, receiver) = flume::bounded(capacity);
    let meter = Arc::new(LaneMeter::new(capacity));
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
    pub fn try_send(&self, envelope: Envelope, trace: Option<Trace>) -> Result<(), SendError> {
        let at = self.meter.stamp();
        match self.channel.try_send(Posted { envelope, at, trace }) {
            Ok(()) => {
                self.meter.note_sent();
                Ok(())
            }
            Err(flume::TrySendError::Full(posted)) => Err(SendError::Full(posted.envelope)),
            Err(flume::TrySendError::Disconnected(_)) => Err(SendError::Gone),
        }
    }

    /// Sends, waiting for room.
    pub async fn send(&self, envelope: Envelope, trace: Option<Trace>) -> Result<(), SendError> {
        let at = self.meter.stamp();
        match self.channel.send_async(Posted { envelope, at, trace }).await {
            Ok(()) => {
                self.meter.note_sent();
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
    pub fn try_take(&self) -> Option<Option<Posted>> {
        match self.channel.try_recv() {
            Ok(posted) => {
                self.meter.taken.fetch_add(1, Ordering::Release);
                Some(Some(posted))
            }
            Err(flume::TryRecvError::Empty) => None,
            Err(flume::TryRecvError::Disconnected) => Some(None),
        }
    }

    /// Waits for the next envelope; `None` when nothing will ever come again.
    pub async fn take(&self) -> Option<Posted> {
        let posted = self.channel.recv_async().await.ok()?;
        self.meter.taken.fetch_add(1, Ordering::Release);
        Some(posted)
    }

    /// The lane's counters.
    pub fn meter(&self) -> &Arc<LaneMeter> {
        &self.meter
    }
}

impl LaneMeter {
    fn new(capacity: usize) -> Self {
        Self {
            origin: Instant::now(),
            sent: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            capacity: capacity as u64,
            put_in: (0..=capacity).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Notes when the next envelope is put in.
    fn stamp(&self) -> Instant {
        let now = Instant::now();
        if let Some(slot) = self.slot(self.sent.load(Relaxed)) {
            slot.store(now.saturating_duration_since(self.origin).as_nanos() as u64, Relaxed);
        }
        now
    }

    fn note_sent(&self) {
        self.sent.fetch_add(1, Ordering::Release);
        self.peak.fetch_max(self.depth(), Relaxed);
    }

    fn slot(&self, number: u64) -> Option<&AtomicU64> {
        self.put_in.get((number % self.put_in.len() as u64) as usize)
    }

    /// How long the oldest waiting envelope has waited; zero when none waits.
    pub fn oldest(&self) -> Duration {
        loop {
            let taken = self.taken.load(Ordering::Acquire);
            if taken >= self.sent.load(Ordering::Acquire) {
                return Duration::ZERO;
            }
            let put_in = self.slot(taken).map_or(0, |slot| slot.load(Ordering::Acquire));
            // Where it was taken meanwhile, its slot may be another's already.
            if taken == self.taken.load(Relaxed) {
                return self.origin.elapsed().saturating_sub(Duration::from_nanos(put_in));
            }
        }
    }

    /// The most envelopes that have waited at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Signal;

    fn envelope() -> Envelope {
        Envelope::Signal(Signal::End)
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_waiting_envelope_ages_until_it_is_taken() {
        let (sender, receiver) = lane(2);
        assert_eq!(receiver.meter().oldest(), Duration::ZERO);
        for _ in 0..5 {
            let second = Duration::from_secs(1);
            sender.try_send(envelope(), None).unwrap();
            tokio::time::advance(second).await;
            sender.try_send(envelope(), None).unwrap();
            tokio::time::advance(second).await;
            assert_eq!((sender.meter().oldest(), sender.meter().peak()), (2 * second, 2));
            receiver.take().await.unwrap();
            assert_eq!(sender.meter().oldest(), second);
            receiver.take().await.unwrap();
            assert_eq!(sender.meter().oldest(), Duration::ZERO);
        }
    }
}
