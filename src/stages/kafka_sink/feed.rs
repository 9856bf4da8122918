//! The bars of one spec on their way to the broker: read from the outbox, made into records, settled.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::config::{Amendments, LANE_BYTES, OnFailure, Policy};
use super::lane::{Lane, Outbound};
use super::record::Maker;
use crate::broker::{Producer, Refusal};
use crate::model::time::{MILLISECOND, SECOND};
use crate::model::{BarHead, TimeNs};
use crate::runtime::Context;
use crate::store::{Commit, Fate, Follower, GivenUp, OutboxError, Refused, StoreError};

/// Bars read at once.
const STRETCH: usize = 2048;
/// The most bars in a lane.
const LANE_BARS: usize = 16_384;
/// More outstanding ranges than this are not made by letting new bars pass.
const RANGES: usize = 48;
/// The pause before what failed is handed over again.
const RETRY: TimeNs = 200 * MILLISECOND;
/// The pause before a topic that was missing is tried again.
const RETRY_TOPIC: TimeNs = 2 * SECOND;

/// See the module.
pub(super) struct Feed {
    pub follower: Arc<Follower>,
    pub policy: Policy,
    maker: Maker,
    /// New bars first; the others, if there are any, beside them.
    pub lanes: [Lane; 2],
    /// Everything waits until then.
    pub paused_until: TimeNs,
    /// What failed is to be handed over again, once nothing is under way.
    failed: bool,
    /// Bars of the backlog that may go now.
    allowance: f64,
    counted_at: TimeNs,
    /// Not made durable yet.
    refused: Vec<Refused>,
    /// Positions of bars that will never be taken, as long as they are not settled.
    poison: BTreeSet<u64>,
}

/// What came of handing over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handed {
    /// So many records.
    Some(usize),
    /// So many, and the producer takes no more now.
    Full(usize),
}

/// The lane of new bars, and that of the backlog beside it.
const FRESH: usize = 0;
const BACKLOG: usize = 1;

impl Feed {
    pub fn new(follower: Arc<Follower>, policy: Policy, maker: Maker) -> Self {
        let lowest = follower.cursor().lowest();
        let lanes = [Lane::new(lowest, u64::MAX), Lane::new(lowest, lowest)];
        Self {
            follower,
            policy,
            maker,
            lanes,
            paused_until: 0,
            failed: false,
            allowance: 0.0,
            counted_at: 0,
            refused: Vec::new(),
            poison: BTreeSet::new(),
        }
    }

    /// Begins anew at the cursor. With `split` everything that is stored by now becomes the backlog.
    pub fn restart(&mut self, context: &Context, split: bool) {
        self.settle();
        let cursor = self.follower.cursor();
        let (lowest, end) = (cursor.lowest(), context.store.outbox_end());
        let from = if split && cursor.ranges().len() < RANGES { end.max(lowest) } else { lowest };
        self.lanes[FRESH].restart(from, u64::MAX);
        self.lanes[BACKLOG].restart(lowest, from);
        self.failed = false;
    }

    /// Reads what there is room for; whether there was anything.
    pub fn fill(&mut self, context: &Context, now: TimeNs) -> Result<bool, StoreError> {
        let mut found = false;
        for at in [FRESH, BACKLOG] {
            found |= self.fill_lane(at, context, now)?;
        }
        Ok(found)
    }

    fn fill_lane(&mut self, at: usize, context: &Context, now: TimeNs) -> Result<bool, StoreError> {
        let lane = &mut self.lanes[at];
        let end = context.store.outbox_end().min(lane.until);
        if lane.next >= end || lane.len() >= LANE_BARS || lane.bytes() >= LANE_BYTES {
            return Ok(false);
        }
        let (from, to) = self.follower.next_outstanding(lane.next);
        lane.skip_to(from.min(end));
        if from >= end {
            return Ok(true);
        }
        let previous = self.policy.amendments == Amendments::Increment;
        match context.store.outbox_for(&self.follower, (from, to.min(end)), STRETCH, previous) {
            Ok(stretch) => {
                stretch.commits.iter().for_each(|commit| self.take(at, commit, context, now));
                self.lanes[at].pass(stretch.next, None);
            }
            // What is no longer kept was given up by whoever dropped it.
            Err(OutboxError::Outside { oldest, .. }) => self.lanes[at].pass(oldest.min(end), None),
            Err(OutboxError::Store(error)) => return Err(error),
        }
        Ok(true)
    }

    /// Takes the bars of one commit, and those of it that cannot be read, in the order of their positions.
    fn take(&mut self, at: usize, commit: &Commit, context: &Context, now: TimeNs) {
        let mut lost = commit.lost.iter().copied().peekable();
        let gone = Some(Fate::Dropped(GivenUp::Unreadable));
        for (index, (head, position)) in commit.bars.heads.iter().zip(&commit.positions).enumerate() {
            while let Some(lost) = lost.next_if(|lost| lost < position) {
                self.pass_one(at, lost, gone);
            }
            let previous = commit.previous.get(index).and_then(Option::as_ref);
            self.take_bar(at, (*position, head), commit, previous, context, now);
        }
        lost.for_each(|lost| self.pass_one(at, lost, gone));
    }

    fn take_bar(
        &mut self,
        at: usize,
        (position, head): (u64, &BarHead),
        commit: &Commit,
        previous: Option<&(BarHead, Vec<u64>)>,
        context: &Context,
        now: TimeNs,
    ) {
        let is_amendment = head.revision > 0;
        match self.policy.amendments {
            Amendments::None if is_amendment => return self.pass_one(at, position, Some(Fate::Skipped)),
            // What was added is not known: to send the whole would count it twice.
            Amendments::Increment if is_amendment && previous.is_none() => {
                return self.pass_one(at, position, Some(Fate::Dropped(GivenUp::Unreadable)));
            }
            _ if self.poison.contains(&position) => return self.pass_one(at, position, Some(Fate::Quarantined)),
            _ => {}
        }
        let key = context.catalog.key(commit.bars.spec, head.series);
        let Some(record) = self.maker.make(&self.policy, &key, head, commit.bars.state(head), previous) else {
            return self.pass_one(at, position, Some(Fate::Skipped));
        };
        let window_end = self.maker.end(head);
        let outbound = Outbound { record, series: head.series, window_end, stored_at: commit.stored_at, sent_at: now };
        let lane = &mut self.lanes[at];
        lane.pass(position, None);
        lane.push(position + 1, outbound);
    }

    /// A bar that is not sent.
    fn pass_one(&mut self, at: usize, position: u64, fate: Option<Fate>) {
        self.lanes[at].pass(position, None);
        self.lanes[at].pass(position + 1, fate);
    }

    /// Hands over up to `most` records; `token` makes the producer's token of lane and number.
    pub fn hand_over(
        &mut self,
        producer: &mut dyn Producer,
        most: usize,
        token: impl Fn(usize, u64) -> u64,
        now: TimeNs,
        sent: &mut dyn FnMut(&Outbound),
    ) -> Handed {
        let mut handed = 0;
        if self.failed || now < self.paused_until {
            return Handed::Some(0);
        }
        for at in [FRESH, BACKLOG] {
            while handed < most && (at == FRESH || self.allowance >= 1.0) {
                let Some((number, bar)) = self.lanes[at].waiting() else { break };
                match producer.send(token(at, number), &bar.record) {
                    Ok(()) => {
                        sent(bar);
                        self.lanes[at].sent(now);
                        handed += 1;
                        self.allowance -= f64::from(u8::from(at == BACKLOG));
                    }
                    Err(Refusal::Full) => return Handed::Full(handed),
                    Err(Refusal::Record(reason)) => self.refuse(at, number, &reason, now),
                    Err(Refusal::Topic(reason)) => {
                        self.topic_failed(&reason, now);
                        return Handed::Some(handed);
                    }
                }
            }
        }
        Handed::Some(handed)
    }

    /// A bar will never be taken: it is put aside, the rest goes on.
    pub fn refuse(&mut self, lane: usize, number: u64, reason: &str, at: TimeNs) {
        let Some((position, bar)) = self.lanes[lane].refused(number) else { return };
        let key = String::from_utf8_lossy(&bar.record.key).into_owned();
        let (topic, bytes) = (bar.record.topic.to_string(), bar.record.bytes());
        tracing::error!(topic, key, position, bytes, "a bar is refused for good and put aside: {reason}");
        if self.poison.insert(position) {
            self.refused.push(Refused { position, topic, key, reason: reason.to_owned(), bytes, at });
        }
    }

    /// A record may be handed over again, after what came before it.
    pub fn passing(&mut self, lane: usize, number: u64, now: TimeNs) {
        self.lanes[lane].failed(number);
        (self.failed, self.paused_until) = (true, self.paused_until.max(now + RETRY));
    }

    /// The topic is missing or may not be written to: everything waits.
    pub fn topic_failed(&mut self, reason: &str, now: TimeNs) {
        if now >= self.paused_until {
            let spec = self.maker.spec_name();
            tracing::error!(spec, "the topic takes nothing, its bars wait: {reason}");
        }
        self.paused_until = now + RETRY_TOPIC;
    }

    /// Whether nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.lanes.iter().all(|lane| lane.under_way() == 0)
    }

    /// What failed goes again, in order, once nothing is under way.
    pub fn retry(&mut self) {
        if self.failed && self.is_quiet() {
            self.lanes.iter_mut().for_each(Lane::retry);
            self.failed = false;
        }
    }

    /// Gives up what waits, under the policy that says so; what is handed over may still arrive.
    pub fn give_up(&mut self, context: &Context) -> Result<(), StoreError> {
        if self.policy.on_failure != OnFailure::Drop {
            return Ok(());
        }
        let (why, end) = (GivenUp::Unreachable, context.store.outbox_end());
        for lane in &mut self.lanes {
            lane.give_up(Fate::Dropped(why));
            let until = end.min(lane.until);
            if lane.next < until {
                context.store.give_up(&self.follower, lane.next, until, why)?;
                lane.pass(until, None);
            }
        }
        Ok(())
    }

    /// Tells the follower what is done with; whether there was anything.
    pub fn settle(&mut self) -> bool {
        let mut settled = Vec::new();
        self.lanes.iter_mut().for_each(|lane| lane.take_settled(&mut settled));
        self.follower.settle(&settled);
        if !self.poison.is_empty() {
            let cursor = self.follower.cursor();
            self.poison.retain(|position| cursor.contains(*position));
        }
        !settled.is_empty()
    }

    /// Makes the cursor durable; where nothing is outstanding any more, what was counted as such was lost.
    pub fn save(&mut self, context: &Context) -> Result<(), StoreError> {
        if self.lanes.iter().all(Lane::is_empty) {
            context.store.account_for_lost(&self.follower);
        }
        context.store.save_follower(&self.follower, &self.refused)?;
        self.refused.clear();
        Ok(())
    }

    /// Whether anything is waiting, under way or to be read.
    pub fn is_idle(&self, end: u64) -> bool {
        self.lanes.iter().all(|lane| lane.is_empty() && lane.next >= end.min(lane.until))
    }

    /// Lets so many bars of the backlog go as fit the time since the last call.
    pub fn allow(&mut self, rate: u32, now: TimeNs) {
        let passed = now.saturating_sub(std::mem::replace(&mut self.counted_at, now)).clamp(0, SECOND);
        let rate = f64::from(rate);
        self.allowance = (self.allowance + rate * passed as f64 / SECOND as f64).min(rate);
    }
}
