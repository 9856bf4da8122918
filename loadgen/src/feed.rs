//! The producing side of a connection: generates, encodes and paces on a thread of its own.
//!
//! A feed knows nothing of the transport that carries its frames, only the channel into it. Where the transport breaks,
//! another feed begins where the acknowledgements ended: the ticks are a pure function of their numbers, so what must
//! be sent again is generated again, under the same batch ids.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::sync::mpsc::Sender;

use crate::{
    columnar::ColumnarEncoder,
    encode::TikrEncoder,
    generate::Stream,
    in_flight::InFlight,
    pace::Pacer,
    plan::Plan,
    profile::Protocol,
    run::Stop,
    units::Nanos,
    wire::{Encode, Frame, Pool, Position},
};

/// The messages of one connection, in order.
pub struct Feed {
    seed: Seed,
    start: Start,
    stream: Stream,
    encoder: Box<dyn Encode>,
    /// Ticks encoded so far.
    encoded: u64,
    /// Ticks up to the end of the last message that was handed over, wholly or in part.
    handed: u64,
    ended: bool,
    /// Messages encoded before the run.
    prebuilt: VecDeque<Message>,
}

/// What the messages of a connection depend on.
#[derive(Debug, Clone)]
pub struct Seed {
    /// The run.
    pub plan: Arc<Plan>,
    /// The connection's number.
    pub connection: u64,
    /// Who it says sends its batches.
    pub producer: String,
    /// Where buffers come from.
    pub pool: Pool,
    /// Ends the run early.
    pub stop: Stop,
}

/// Where a feed begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    /// Its first message.
    pub at: Position,
    /// The last batch that needs no sending any more, 0 for none: the first message may be two batches.
    pub acknowledged: u64,
    /// Ticks that were sent before, perhaps in vain: even where the time is up, these are sent.
    pub at_least: u64,
}

/// A message, or two where some of its ticks name another spec.
#[derive(Debug)]
struct Message {
    frames: Vec<Frame>,
    /// Ticks up to its end.
    end: u64,
    due: Nanos,
}

impl Feed {
    /// The messages of the connection of `seed` from `start` on.
    pub fn new(seed: Seed, start: Start) -> Self {
        let (plan, pool) = (&seed.plan, seed.pool.clone());
        let encoder: Box<dyn Encode> = match plan.profile.protocol {
            Protocol::Tikr => Box::new(TikrEncoder::new(plan, pool)),
            Protocol::Barline => Box::new(ColumnarEncoder::new(plan, pool, &seed.producer, start)),
        };
        let mut stream = Stream::new(plan, seed.connection);
        for _ in 0..start.at.ticks {
            stream.next();
        }
        Self {
            seed,
            start,
            stream,
            encoder,
            encoded: start.at.ticks,
            handed: start.at.ticks,
            ended: false,
            prebuilt: VecDeque::new(),
        }
    }

    /// What its messages depend on.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// Encodes every message now, so that the run measures the server rather than the generator.
    pub fn prebuild(&mut self) {
        while let Some(mut message) = self.encode() {
            message.frames.iter_mut().for_each(Frame::shrink);
            self.prebuilt.push_back(message);
        }
    }

    /// Ticks of the connection that were handed over to a transport, those before the feed's start among them.
    pub fn handed(&self) -> u64 {
        self.handed
    }

    /// Whether there is nothing left to send.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Sends every message when it is due, until at least `most` ticks are sent, there are no more, the time is up or
    /// the transport is gone.
    pub fn run(&mut self, pacer: Pacer, frames: &Sender<Frame>, in_flight: Option<&InFlight>, most: u64) {
        let until = self.handed.saturating_add(most);
        while self.handed < until {
            if self.time_is_up(pacer) {
                self.ended = true;
                return;
            }
            let Some(message) = self.prebuilt.pop_front().or_else(|| self.encode()) else {
                self.ended = true;
                return;
            };
            // Flat out a message is due as soon as it is there.
            let due = if self.seed.plan.paced { message.due } else { pacer.elapsed() };
            pacer.wait(due);
            self.handed = message.end;
            for mut frame in message.frames {
                frame.due = due;
                let entered = in_flight.is_none_or(|in_flight| in_flight.enter(&frame));
                if !entered || frames.blocking_send(frame).is_err() {
                    return;
                }
            }
        }
    }

    fn time_is_up(&self, pacer: Pacer) -> bool {
        let limited = self.seed.plan.ticks.is_none() && pacer.elapsed() >= self.seed.plan.stop_after;
        (limited || self.seed.stop.load(Relaxed)) && self.handed >= self.start.at_least
    }

    /// Encodes the next message; due when its last tick happens.
    fn encode(&mut self) -> Option<Message> {
        let left = self.seed.plan.ticks_of(self.seed.connection).saturating_sub(self.encoded);
        let ticks = self.seed.plan.message_ticks().min(left);
        if ticks == 0 {
            return None;
        }
        let mut frames = Vec::with_capacity(2);
        let start = Position { ticks: self.encoded, batch: self.encoder.next_batch() };
        self.encoder.encode(&mut self.stream, ticks, &mut frames);
        frames.iter_mut().for_each(|frame| frame.start = start);
        self.encoded += ticks;
        let last = self.seed.plan.index(self.seed.connection, self.encoded - 1);
        Some(Message { frames, end: self.encoded, due: self.seed.plan.schedule.offset(last) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Limit, profile::Profile, units::SECOND};
    use barline_proto::barline::IngestBatch;
    use prost::Message as _;
    use std::collections::HashMap;
    use tokio::sync::mpsc;

    fn seed(plan: &Arc<Plan>, connection: u64) -> Seed {
        let (plan, producer) = (plan.clone(), "me".to_owned());
        Seed { plan, connection, producer, pool: Pool::default(), stop: Stop::default() }
    }

    fn sent(overrides: &[&str], ticks: u64, prebuild: bool) -> Vec<Vec<u8>> {
        let overrides: Vec<String> = overrides.iter().map(|o| (*o).to_owned()).collect();
        let profile = Profile::load("market", &overrides).unwrap();
        let plan = Arc::new(Plan::new(profile, Limit::Ticks(ticks), 1_700_000_000 * SECOND).unwrap());
        let (sender, mut frames) = mpsc::channel(1_000);
        let mut feed = Feed::new(seed(&plan, 0), Start::default());
        if prebuild {
            feed.prebuild();
        }
        feed.run(Pacer::start(), &sender, None, u64::MAX);
        assert_eq!((feed.handed(), feed.ended()), (plan.ticks_of(0), true));
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

    /// What a batch means, however its series are numbered: its id, its spec, and the times, sequences and series of
    /// its ticks.
    type Meaning = (u64, String, Vec<(i64, u32, String)>);

    fn meaning(frames: &[Frame]) -> Vec<Meaning> {
        let mut dictionaries: HashMap<String, Vec<String>> = HashMap::new();
        let one = |frame: &Frame| {
            let batch = IngestBatch::decode(frame.bytes()).unwrap();
            let names = dictionaries.entry(batch.spec.clone()).or_default();
            names.extend(batch.new_series.iter().map(|series| series.dimensions["symbol"].clone()));
            let row = |row: usize| {
                let series = names[batch.series_index[row] as usize].clone();
                (batch.timestamps[row], batch.sequences[row], series)
            };
            (batch.batch_id, batch.spec.clone(), (0..batch.timestamps.len()).map(row).collect())
        };
        frames.iter().map(one).collect()
    }

    #[test]
    fn a_feed_that_begins_later_sends_the_same_batches_with_their_series_named_anew() {
        let overrides = ["rate=max", "batch=50", "series=9", "bad={fraction: 0.1}", "protocol=barline.v1"];
        let profile = Profile::load("market", &overrides.map(str::to_owned)).unwrap();
        let plan = Arc::new(Plan::new(profile, Limit::Ticks(2_000), 1_700_000_000 * SECOND).unwrap());
        let from = |start| {
            let (sender, mut frames) = mpsc::channel(1_000);
            let mut feed = Feed::new(seed(&plan, 1), start);
            feed.run(Pacer::start(), &sender, None, u64::MAX);
            std::iter::from_fn(|| frames.try_recv().ok()).collect::<Vec<Frame>>()
        };
        let all = from(Start::default());
        let expected = meaning(&all);
        assert!(all.iter().any(|frame| frame.batch > frame.start.batch), "no message is two batches");
        for (number, frame) in all.iter().enumerate() {
            let start = Start { at: frame.start, acknowledged: frame.batch, at_least: 0 };
            assert_eq!(meaning(&from(start)), expected[number + 1..], "after batch {}", frame.batch);
        }
    }

    #[test]
    fn a_feed_that_is_told_to_stop_sends_what_was_sent_before_and_no_more() {
        let profile = Profile::load("market", &["batch=100".to_owned(), "rate=max".to_owned()]).unwrap();
        let plan = Arc::new(Plan::new(profile, Limit::Ticks(5_000), 1_700_000_000 * SECOND).unwrap());
        let (sender, _frames) = mpsc::channel(1_000);
        let seed = seed(&plan, 0);
        seed.stop.store(true, Relaxed);
        let mut feed = Feed::new(seed, Start { at_least: 250, ..Start::default() });
        feed.run(Pacer::start(), &sender, None, u64::MAX);
        assert_eq!((feed.handed(), feed.ended()), (300, true));
    }
}
