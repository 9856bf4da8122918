//! The producing side of a connection: generates, encodes and paces on a thread of its own.
//!
//! A feed knows nothing of the transport that carries its frames, only the channel into it.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::mpsc::Sender;

use crate::{
    columnar::ColumnarEncoder,
    encode::TikrEncoder,
    generate::Stream,
    in_flight::InFlight,
    pace::Pacer,
    plan::Plan,
    profile::Protocol,
    units::Nanos,
    wire::{Encode, Frame, Pool},
};

/// The messages of one connection, in order.
pub struct Feed {
    plan: Arc<Plan>,
    connection: u64,
    stream: Stream,
    encoder: Box<dyn Encode>,
    /// Ticks encoded so far.
    encoded: u64,
    /// Messages encoded before the run.
    prebuilt: VecDeque<Message>,
}

/// A message, or two where some of its ticks name another spec.
#[derive(Debug)]
struct Message {
    frames: Vec<Frame>,
    ticks: u64,
    due: Nanos,
}

impl Feed {
    /// The messages of connection `connection`, in buffers from `pool`.
    pub fn new(plan: &Arc<Plan>, connection: u64, pool: Pool) -> Self {
        let encoder: Box<dyn Encode> = match plan.profile.protocol {
            Protocol::Tikr => Box::new(TikrEncoder::new(plan, pool)),
            Protocol::Barline => Box::new(ColumnarEncoder::new(plan, pool)),
        };
        let stream = Stream::new(plan, connection);
        Self { plan: plan.clone(), connection, stream, encoder, encoded: 0, prebuilt: VecDeque::new() }
    }

    /// Encodes every message now, so that the run measures the server rather than the generator.
    pub fn prebuild(&mut self) {
        while let Some(mut message) = self.encode() {
            message.frames.iter_mut().for_each(Frame::shrink);
            self.prebuilt.push_back(message);
        }
    }

    /// Sends every message when it is due, until there are no more, the time is up or the transport is gone.
    /// Returns how many ticks the transport has taken.
    pub fn run(mut self, pacer: Pacer, frames: &Sender<Frame>, in_flight: Option<&InFlight>) -> u64 {
        let until_time_is_up = self.plan.ticks.is_none();
        let mut sent = 0;
        while let Some(message) = self.prebuilt.pop_front().or_else(|| self.encode()) {
            if until_time_is_up && pacer.elapsed() >= self.plan.stop_after {
                break;
            }
            // Flat out a message is due as soon as it is there.
            let due = if self.plan.paced { message.due } else { pacer.elapsed() };
            pacer.wait(due);
            for mut frame in message.frames {
                frame.due = due;
                let entered = in_flight.is_none_or(|in_flight| in_flight.enter(frame.batch, due));
                if !entered || frames.blocking_send(frame).is_err() {
                    return sent;
                }
            }
            sent += message.ticks;
        }
        sent
    }

    /// Encodes the next message; due when its last tick happens.
    fn encode(&mut self) -> Option<Message> {
        let left = self.plan.ticks_of(self.connection) - self.encoded;
        let ticks = self.plan.message_ticks().min(left);
        if ticks == 0 {
            return None;
        }
        let mut frames = Vec::with_capacity(2);
        self.encoder.encode(&mut self.stream, ticks, &mut frames);
        self.encoded += ticks;
        let last = self.plan.index(self.connection, self.encoded - 1);
        Some(Message { frames, ticks, due: self.plan.schedule.offset(last) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Limit, profile::Profile, units::SECOND};
    use tokio::sync::mpsc;

    fn sent(overrides: &[&str], ticks: u64, prebuild: bool) -> Vec<Vec<u8>> {
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        let profile = Profile::load("market", &overrides).unwrap();
        let plan = Arc::new(Plan::new(profile, Limit::Ticks(ticks), 1_700_000_000 * SECOND).unwrap());
        let (sender, mut frames) = mpsc::channel(1_000);
        let mut feed = Feed::new(&plan, 0, Pool::default());
        if prebuild {
            feed.prebuild();
        }
        assert_eq!(feed.run(Pacer::start(), &sender, None), plan.ticks_of(0));
        std::iter::from_fn(|| frames.try_recv().ok()).map(|frame| frame.bytes().to_vec()).collect()
    }

    #[test]
    fn prebuilt_messages_are_the_ones_that_would_be_generated() {
        let overrides = ["rate=max", "batch=100", "connections=2", "bad={fraction: 0.1}"];
        let generated = sent(&overrides, 5_001, false);
        assert_eq!(generated, sent(&overrides, 5_001, true));
        assert!(generated.len() >= 26);
    }

    #[test]
    fn the_last_message_holds_what_is_left() {
        let messages = sent(&["rate=max", "batch=100", "connections=1"], 250, false);
        assert_eq!(messages.len(), 3);
        assert!(messages[2].len() < messages[1].len() * 6 / 10);
    }
}
