//! One connection, from its first tick to its last acknowledgement, over as many streams as that takes.

use std::{collections::BTreeMap, ops::Range, sync::Arc, thread, thread::JoinHandle};

use tokio::sync::mpsc;

use crate::{
    connect::Channel,
    feed::{Feed, Seed, Start},
    in_flight::InFlight,
    link::{Broken, Link},
    meter::Meter,
    native,
    profile::Protocol,
    record::{Line, Recorder, Span},
    tikr,
    units::Nanos,
    wire::Frame,
};

/// Frames between the producing thread and the transport: enough to keep both busy.
const HANDED_OVER: usize = 4;

/// One connection.
pub struct Connection {
    /// What its messages depend on.
    pub seed: Seed,
    /// The most ticks of a stream of `tikr.v1`.
    pub stream_ticks: u64,
    /// Measures.
    pub meter: Arc<Meter>,
    /// Leads to the server.
    pub link: Link,
    /// Keeps what was acknowledged.
    pub record: Recorder,
    /// What came of it so far.
    pub tally: Tally,
}

/// What came of one connection.
#[derive(Debug, Default)]
pub struct Tally {
    /// Ticks sent, each counted once.
    pub sent: u64,
    /// When the last of them was handed over, since the run's beginning.
    pub sent_at: Nanos,
    /// Ticks the server took.
    pub accepted: u64,
    /// Ticks it refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Ticks of batches it had taken before.
    pub duplicate: u64,
    /// When the last word of it came, since the run's beginning.
    pub at: Nanos,
    /// How often the stream broke and was begun anew.
    pub reconnects: u64,
    /// Batches sent again, on `barline.v1`.
    pub batches_again: u64,
    /// The ticks sent again, each time one entry.
    pub again: Vec<Range<u64>>,
    /// Ticks sent again.
    pub ticks_again: u64,
    /// What another stream would begin with.
    pub start: Start,
}

impl Connection {
    /// Sends `feed` over `channel`, and over others where that breaks, until every tick is acknowledged.
    ///
    /// # Errors
    /// The server broke the stream for good or for longer than it is tried; the record cannot be written.
    pub async fn run(mut self, mut channel: Channel, mut feed: Feed) -> Result<Tally, String> {
        loop {
            let in_flight = Arc::new(InFlight::new(self.seed.plan.profile.in_flight.0 as usize));
            let from = self.tally.start.at.ticks;
            let (sender, frames) = mpsc::channel(HANDED_OVER);
            let producer = self.produce(feed, sender, in_flight.clone())?;
            let sent = match self.seed.plan.profile.protocol {
                Protocol::Tikr => tikr::send(&self, channel.clone(), frames).await.map(Some),
                Protocol::Barline => {
                    native::send(&mut self, channel.clone(), frames, in_flight.clone()).await.map(|()| None)
                }
            };
            let produced = tokio::task::spawn_blocking(move || producer.join()).await;
            (feed, self.tally.sent_at) =
                produced.map_err(|e| e.to_string())?.map_err(|_| "the generator panicked".to_owned())?;
            match sent {
                Ok(None) => {}
                Ok(Some(reply)) => self.replied(reply, from..feed.handed())?,
                Err(broken) => {
                    self.broke(&broken, &feed, &in_flight)?;
                    channel = self.link.again(broken).await?;
                    feed = self.anew().await?;
                    continue;
                }
            }
            if feed.ended() {
                self.tally.sent = feed.handed();
                self.record.write(&Line::End { connection: self.seed.connection, ticks: self.tally.sent })?;
                return Ok(self.tally);
            }
        }
    }

    /// Lets `feed` run on a thread of its own.
    fn produce(
        &self,
        mut feed: Feed,
        frames: mpsc::Sender<Frame>,
        in_flight: Arc<InFlight>,
    ) -> Result<JoinHandle<(Feed, Nanos)>, String> {
        let pacer = self.meter.pacer();
        let (in_flight, most) = match self.seed.plan.profile.protocol {
            Protocol::Tikr => (None, self.stream_ticks),
            Protocol::Barline => (Some(in_flight), u64::MAX),
        };
        // Named, so that a profiler tells generating from sending.
        let thread = thread::Builder::new().name("generate".to_owned()).spawn(move || {
            feed.run(pacer, &frames, in_flight.as_deref(), most);
            (feed, pacer.elapsed())
        });
        thread.map_err(|e| format!("cannot start a thread: {e}"))
    }

    /// Notes the reply to a stream of `tikr.v1` that had the ticks `span`.
    fn replied(&mut self, reply: tikr::Reply, span: Range<u64>) -> Result<(), String> {
        let accepted = reply.accepted;
        self.record.write(&Line::Stream(Span::new(self.seed.connection, &span), accepted))?;
        self.link.well();
        let tally = &mut self.tally;
        tally.start.at.ticks = span.end;
        tally.accepted += accepted;
        tally.at = self.meter.pacer().elapsed();
        for (reason, ticks) in reply.rejected {
            *tally.rejected.entry(reason).or_default() += ticks;
        }
        Ok(())
    }

    /// Notes that a stream broke, and what of it will be sent again.
    fn broke(&mut self, broken: &Broken, feed: &Feed, in_flight: &InFlight) -> Result<(), String> {
        let span = self.tally.start.at.ticks..feed.handed();
        let tally = &mut self.tally;
        let (batches, ticks) = match self.seed.plan.profile.protocol {
            Protocol::Tikr => (0, span.end - span.start),
            Protocol::Barline => in_flight.len(),
        };
        tally.reconnects += 1;
        tally.batches_again += batches;
        tally.ticks_again += ticks;
        tally.start.at_least = tally.start.at_least.max(span.end);
        self.meter.again(ticks);
        self.record.write(&Line::Broke(Span::new(self.seed.connection, &span), broken.why.clone()))?;
        tally.again.push(span);
        Ok(())
    }

    /// The messages from the first one on that is not acknowledged, made again.
    async fn anew(&self) -> Result<Feed, String> {
        let (seed, start) = (self.seed.clone(), self.tally.start);
        tokio::task::spawn_blocking(move || Feed::new(seed, start)).await.map_err(|e| e.to_string())
    }
}
