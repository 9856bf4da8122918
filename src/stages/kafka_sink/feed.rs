//! The bars of one spec on their way to the broker: a lane, or several where fresh bars overtake a backlog.

use std::collections::VecDeque;
use std::sync::Arc;

use super::config::{LANE_BYTES, OnFailure};
use super::lane::Lane;
use super::maker::Maker;
use crate::broker::{Producer, Refusal};
use crate::model::TimeNs;
use crate::model::time::SECOND;
use crate::runtime::sinks::{Seen, took};
use crate::runtime::{Context, StageError};
use crate::store::{Commit, Fate, Follower, GivenUp, OutboxError, Refused};

/// Bars read from the outbox at once.
const STRETCH: usize = 512;
/// The most bars in one lane.
const LANE_BARS: usize = 20_000;
/// How long a topic that was refused is left alone.
const TOPIC_PAUSE: TimeNs = SECOND;

/// See the module's text.
pub(super) struct Feed {
    pub maker: Maker,
    pub follower: Arc<Follower>,
    /// Ascending; the last one has no end.
    runs: VecDeque<Run>,
    serial: u64,
    /// Bars that will never be taken, not noted in the store yet.
    pub refused: Vec<Refused>,
    /// Until when its topic is left alone.
    pub topic_again: Option<TimeNs>,
}

/// One lane and the number it has in tokens.
struct Run {
    serial: u64,
    lane: Lane,
    /// Something in it failed and is to be handed over again.
    failed: bool,
}

/// What a bar under way is known by: its feed, its run, and its number there.
#[derive(Clone, Copy)]
pub(super) struct Token {
    pub feed: usize,
    serial: u64,
    number: u64,
}

const SERIALS: u64 = 1 << 12;
const NUMBERS: u64 = 1 << 40;

impl Token {
    pub fn read(token: u64) -> Self {
        let feed = (token / (SERIALS * NUMBERS)) as usize;
        Self { feed, serial: token / NUMBERS % SERIALS, number: token % NUMBERS }
    }

    fn write(self) -> u64 {
        (self.feed as u64 * SERIALS + self.serial) * NUMBERS + self.number
    }
}

/// Why handing over came to an end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// Nothing waits, or may go now.
    Empty,
    /// The producer takes no more for now.
    Full,
}

impl Feed {
    /// A feed that goes on where its follower's cursor is.
    pub fn new(maker: Maker, follower: Arc<Follower>) -> Self {
        let mut feed =
            Self { maker, follower, runs: VecDeque::new(), serial: 0, refused: Vec::new(), topic_again: None };
        feed.restart();
        feed
    }

    /// Goes on where the cursor is, whatever was under way.
    pub fn restart(&mut self) {
        for run in &mut self.runs {
            let settled = run.lane.restart(0, 0);
            self.follower.settle(&settled);
        }
        self.runs.clear();
        for (from, to) in self.follower.cursor().ranges().to_vec() {
            self.begin(from, to);
        }
    }

    fn begin(&mut self, from: u64, to: u64) {
        self.runs.push_back(Run { serial: self.serial, lane: Lane::new(from, to), failed: false });
        self.serial = (self.serial + 1) % SERIALS;
    }

    /// What lies before `end` becomes a backlog, and what comes from there on goes beside it.
    pub fn split(&mut self, end: u64) {
        // Few enough that each has a range in the cursor.
        let is_room = self.runs.len() < 32;
        let last = self.runs.back_mut().filter(|last| is_room && last.lane.next < end);
        if let Some(last) = last {
            last.lane.until = end;
            self.begin(end, u64::MAX);
        }
    }

    /// Handed over, their end not told.
    pub fn under_way(&self) -> usize {
        self.runs.iter().map(|run| run.lane.under_way()).sum()
    }

    /// Whether every bar stored before `end` is settled.
    pub fn is_done(&self, end: u64) -> bool {
        self.runs.iter().all(|run| run.lane.is_empty() && run.lane.next >= run.lane.until.min(end))
    }

    /// The stretches that will be settled once the open transaction is committed.
    pub fn promised(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().flat_map(|run| run.lane.promised())
    }

    fn run(&mut self, token: Token) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| run.serial == token.serial)
    }

    /// A bar is in its topic; `visible` where that is all.
    pub fn delivered(&mut self, token: Token, visible: bool, now: TimeNs, seen: &mut Seen) {
        let Some(bar) = self.run(token).and_then(|run| run.lane.delivered(token.number, visible)) else { return };
        took(&mut seen.latencies.sent_to_acked, now - bar.sent_at);
        took(&mut seen.latencies.window_to_acked, now - bar.window_end);
    }

    /// A bar is not in its topic, and goes again.
    pub fn failed(&mut self, token: Token) {
        if let Some(run) = self.run(token) {
            run.failed = true;
            run.lane.failed(token.number);
        }
    }

    /// The topic is left alone for a while.
    pub fn topic_refused(&mut self, now: TimeNs) {
        self.topic_again = Some(now + TOPIC_PAUSE);
    }

    /// A bar will never be taken.
    pub fn quarantine(&mut self, token: Token, reason: &str, now: TimeNs) {
        let Some((position, bar)) = self.run(token).and_then(|run| run.lane.refused(token.number)) else { return };
        let (topic, key) = (bar.record.topic.to_string(), String::from_utf8_lossy(&bar.record.key).into_owned());
        let (reason, bytes) = (reason.to_owned(), bar.record.bytes());
        tracing::error!(topic, key, bytes, "bar put aside, its broker will never take it: {reason}");
        self.refused.push(Refused { position, topic, key, reason, bytes, at: now });
    }

    /// All that was handed over is visible.
    pub fn committed(&mut self) {
        self.runs.iter_mut().for_each(|run| run.lane.committed());
    }

    /// Gives up what is stored and not handed over, where that is the policy for a broker that is out of reach.
    ///
    /// # Errors
    /// The store fails.
    pub fn give_up(&mut self, context: &Context) -> Result<(), StageError> {
        if self.maker.policy.on_failure != OnFailure::Drop {
            return Ok(());
        }
        let (end, fate) = (context.store.outbox_end(), Fate::Dropped(GivenUp::Unreachable));
        for run in &mut self.runs {
            run.lane.give_up(fate);
            let to = run.lane.until.min(end);
            if run.lane.next < to {
                let settled = context.store.settle_all(&self.follower, run.lane.next, to, fate);
                settled.map_err(crate::stages::try_later)?;
                run.lane.skip_to(to);
            }
        }
        Ok(())
    }

    /// Settles what is done with, and readies what failed.
    pub fn settle(&mut self, now: TimeNs) {
        if self.topic_again.is_some_and(|again| again <= now) {
            self.topic_again = None;
        }
        let mut settled = Vec::new();
        for run in &mut self.runs {
            if run.failed && run.lane.under_way() == 0 && self.topic_again.is_none() {
                run.failed = false;
                run.lane.retry();
            }
            run.lane.take_settled(&mut settled);
        }
        self.follower.settle(&settled);
        self.runs.retain(|run| !run.lane.is_done());
    }

    /// Reads on, and hands over: the oldest first; with `fresh_first` the newest lane, and of older ones as many as
    /// `backlog` allows. At most `room` bars.
    ///
    /// # Errors
    /// The store fails.
    pub fn send(
        &mut self,
        context: &Context,
        feed: usize,
        producer: &mut dyn Producer,
        pace: &mut Pace<'_>,
    ) -> Result<Stopped, StageError> {
        let last = self.runs.len().saturating_sub(1);
        let order = if pace.fresh_first { [Some(last), (last > 0).then_some(0)] } else { [Some(0), None] };
        for at in order.into_iter().flatten() {
            let is_backlog = pace.fresh_first && at < last;
            self.fill(at, context, pace)?;
            if self.send_run(feed, at, is_backlog, producer, pace) == Stopped::Full {
                return Ok(Stopped::Full);
            }
        }
        Ok(Stopped::Empty)
    }

    /// Reads a lane's next bars from the outbox.
    fn fill(&mut self, at: usize, context: &Context, pace: &mut Pace<'_>) -> Result<(), StageError> {
        let Some(run) = self.runs.get_mut(at) else { return Ok(()) };
        let (lane, end) = (&mut run.lane, context.store.outbox_end());
        while lane.next < lane.until.min(end) && lane.bytes() < LANE_BYTES && lane.len() < LANE_BARS {
            let range = (lane.next, lane.until.min(end));
            match context.store.outbox_for(&self.follower, range, STRETCH, self.maker.wants_previous()) {
                Ok(stretch) => {
                    for commit in &stretch.commits {
                        add(lane, &self.maker, context, commit, pace.seen);
                    }
                    lane.pass(stretch.next, None);
                }
                // What was dropped there is counted.
                Err(OutboxError::Outside { oldest, .. }) if oldest > lane.next => lane.skip_to(oldest),
                Err(OutboxError::Outside { .. }) => return Ok(()),
                Err(OutboxError::Store(error)) => return Err(crate::stages::try_later(error)),
            }
        }
        Ok(())
    }

    fn send_run(
        &mut self,
        feed: usize,
        at: usize,
        is_backlog: bool,
        producer: &mut dyn Producer,
        pace: &mut Pace<'_>,
    ) -> Stopped {
        while self.topic_again.is_none() {
            let Some(run) = self.runs.get_mut(at).filter(|run| !run.failed) else { break };
            let Some((number, bar)) = run.lane.waiting() else { break };
            if pace.room == 0 || is_backlog && pace.backlog == 0 {
                break;
            }
            let token = Token { feed, serial: run.serial, number };
            match producer.send(token.write(), &bar.record) {
                Ok(()) => {
                    bar.stored_at.iter().for_each(|at| took(&mut pace.seen.latencies.commit_to_sent, pace.now - at));
                    run.lane.sent(pace.now);
                    pace.room -= 1;
                    pace.backlog -= u64::from(is_backlog);
                }
                Err(Refusal::Full) => return Stopped::Full,
                Err(Refusal::Record(reason)) => self.quarantine(token, &reason, pace.now),
                Err(Refusal::Topic(reason)) => {
                    pace.seen.last_error = Some(reason);
                    self.topic_refused(pace.now);
                }
            }
        }
        Stopped::Empty
    }
}

/// How much may be handed over in one go, and what is seen of it.
pub(super) struct Pace<'a> {
    pub now: TimeNs,
    pub fresh_first: bool,
    /// Bars.
    pub room: usize,
    /// Bars of older lanes.
    pub backlog: u64,
    pub seen: &'a mut Seen,
}

/// Adds the bars of one commit to a lane, in order of their positions.
fn add(lane: &mut Lane, maker: &Maker, context: &Context, commit: &Commit, seen: &mut Seen) {
    let mut lost = commit.lost.iter().peekable();
    let unreadable = Some(Fate::Dropped(GivenUp::Unreadable));
    for (at, (head, position)) in commit.bars.heads.iter().zip(&commit.positions).enumerate() {
        while let Some(lost) = lost.next_if(|lost| *lost < position) {
            lane.pass(lost + 1, unreadable);
        }
        let previous = commit.previous.get(at).and_then(Option::as_ref);
        match maker.make(&context.catalog, head, commit.bars.state(head), previous, commit.stored_at) {
            Some(bar) => {
                commit.stored_at.iter().for_each(|at| took(&mut seen.latencies.window_to_commit, at - bar.window_end));
                lane.push(position + 1, bar);
            }
            None => lane.pass(position + 1, Some(Fate::Withheld)),
        }
    }
    lost.for_each(|lost| lane.pass(lost + 1, unreadable));
}
