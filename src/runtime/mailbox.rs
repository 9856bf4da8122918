//! A mailbox: the bounded lanes into one instance, one per upstream instance.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::lane::{LaneMeter, LaneReceiver, Posted};
use crate::model::{Envelope, Signal};

/// The receiving side of an instance.
#[derive(Debug)]
pub struct Mailbox {
    lanes: Vec<LaneReceiver>,
    open: Vec<bool>,
    /// The lane to look at first, so that no lane starves the others.
    turn: usize,
}

/// What came out of a mailbox.
#[derive(Debug)]
pub enum Received {
    /// An envelope, and the index of its lane.
    Envelope(usize, Posted),
    /// Every lane has ended in order.
    Ended,
    /// A lane broke off without an end: its sender failed.
    Broken,
}

impl Mailbox {
    /// A mailbox of these lanes.
    pub fn new(lanes: Vec<LaneReceiver>) -> Self {
        Self { open: vec![true; lanes.len()], lanes, turn: 0 }
    }

    /// The counters of the lanes.
    pub fn meters(&self) -> Vec<Arc<LaneMeter>> {
        self.lanes.iter().map(|lane| lane.meter().clone()).collect()
    }

    /// Takes what is there, lanes in turn; `None` when nothing is.
    pub fn try_next(&mut self) -> Option<Received> {
        for step in 0..self.lanes.len() {
            let lane = (self.turn + step) % self.lanes.len();
            if !self.open[lane] {
                continue;
            }
            if let Some(taken) = self.lanes[lane].try_take() {
                self.turn = (lane + 1) % self.lanes.len();
                if let Some(received) = self.sort(lane, taken) {
                    return Some(received);
                }
            }
        }
        self.open.iter().all(|open| !open).then_some(Received::Ended)
    }

    /// Waits for the next envelope. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Received {
        loop {
            if let Some(received) = self.try_next() {
                return received;
            }
            let (lane, taken) = AnyLane::of(&self.lanes, &self.open).await;
            self.turn = (lane + 1) % self.lanes.len();
            if let Some(received) = self.sort(lane, taken) {
                return received;
            }
        }
    }

    /// Notes that `envelopes` more of `lane` are done with.
    pub fn settle(&self, lane: usize, envelopes: u64) {
        self.lanes[lane].meter().settle(envelopes);
    }

    /// Handles ends; `None` when a lane ended and others go on.
    fn sort(&mut self, lane: usize, taken: Option<Posted>) -> Option<Received> {
        match taken {
            Some(Posted { envelope: Envelope::Signal(Signal::End), .. }) => {
                self.open[lane] = false;
                self.settle(lane, 1);
                self.open.iter().all(|open| !open).then_some(Received::Ended)
            }
            Some(posted) => Some(Received::Envelope(lane, posted)),
            None => {
                self.open[lane] = false;
                Some(Received::Broken)
            }
        }
    }
}

type Taking<'a> = Pin<Box<dyn Future<Output = Option<Posted>> + 'a>>;

/// Waits for the first of several lanes, looking at them in a fixed order (no random choice, so that the
/// simulation repeats itself).
struct AnyLane<'a>(Vec<(usize, Taking<'a>)>);

impl<'a> AnyLane<'a> {
    fn of(lanes: &'a [LaneReceiver], open: &[bool]) -> Self {
        let open = lanes.iter().enumerate().filter(|(lane, _)| open[*lane]);
        Self(open.map(|(lane, receiver)| (lane, Box::pin(receiver.take()) as Taking<'a>)).collect())
    }
}

impl Future for AnyLane<'_> {
    type Output = (usize, Option<Posted>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        for (lane, taking) in &mut self.0 {
            if let Poll::Ready(taken) = pin!(taking).poll(context) {
                return Poll::Ready((*lane, taken));
            }
        }
        Poll::Pending
    }
}
