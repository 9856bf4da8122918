//! `kafka_sink`: reads the outbox, sends its bars to a broker, and moves its cursors on when they have arrived.
//!
//! What it is sent only tells it that there is something to read: a sink whose broker is gone takes its input as fast as
//! one whose broker is not, and everything else happens in bounded steps when it is woken. Read `config` (what a
//! topology says), `lane` (bars in a row), `record` (what a bar becomes), `feed` (the bars of one spec) and then
//! this (the producer, transactions, time).

mod config;
mod feed;
mod lane;
mod record;
mod transaction;

use std::sync::Arc;

use crate::broker::{Event, Failure, Producer};
use crate::model::time::{MILLISECOND, SECOND};
use crate::model::{DurationNs, Envelope, TimeNs};
use crate::runtime::sinks::took;
use crate::runtime::{Built, Context, Link, Output, Sink, Stage, StageError, StageFactory};
use crate::spec::{Problem, Spec, Specs};
use crate::store::{Follower, Following};
use crate::topology::{Flow, Kind, Plan, Role, StagePlan, parse_config};

pub use config::{Amendments, Config, OnFailure, Order, StartAt};
use config::{DROP_AFTER, Policy};
use feed::{Feed, Handed};
use lane::Outbound;
use record::Maker;
use transaction::Transaction;

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "kafka_sink",
    summary: "sends stored bars to Kafka, through a durable outbox",
    role: Role::Worker,
    takes: Some(Flow::Bars),
    gives: None,
    max_instances: 1,
    unique: false,
    parse: parse_config::<Config>,
};

/// The pause while something is under way.
const SOON: TimeNs = 4 * MILLISECOND;
/// The pause while the broker is gone.
const WHILE_DOWN: TimeNs = 50 * MILLISECOND;
/// The pause while there is nothing to do.
const IDLE: TimeNs = SECOND;
/// How often cursors are made durable.
const SAVE_EVERY: TimeNs = 100 * MILLISECOND;
/// Records handed over in one step.
const STEP: usize = 4096;

/// Makes the stage.
pub fn build(context: &Context, plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let mut followers = Vec::new();
    for spec in context.specs.iter() {
        let Some(policy) = config.policy(spec).map_err(StageError::fatal)? else { continue };
        let following = Following {
            sink: stage.name.clone(),
            spec: spec.id,
            granularities: policy.topics.iter().map(Option::is_some).collect(),
            spool: policy.spool,
            from_earliest: config.start == StartAt::Earliest,
        };
        // From here on nothing it has to see is dropped.
        followers.push((context.store.follow(following).map_err(super::store_failed)?, policy));
    }
    if config.exactly_once {
        let specs: Vec<_> =
            followers.iter().map(|(follower, _)| &*context.specs.get(follower.following.spec).name).collect();
        transaction::check(&specs).map_err(|why| StageError::fatal(why.replace('\n', "; ")))?;
    }
    if followers.is_empty() {
        let name = &stage.name;
        let message = format!(
            "sink {name:?} has nothing to send: no spec it may take has output.kafka.topic; set the sink's topic"
        );
        return Err(StageError::fatal(message));
    }
    let seen = followers
        .iter()
        .map(|(follower, _)| (context.specs.get(follower.following.spec).name.clone(), follower.clone()));
    let sink = Arc::new(Sink::new(stage.name.clone(), seen.collect()));
    context.sinks.add(sink.clone());
    let parts =
        Parts { context: context.clone(), config, sink, followers, topology: plan.name.clone(), drain: plan.drain };
    let parts = Arc::new(parts);
    Ok(Built::Worker(Box::new(move || factory(parts.clone()))))
}

/// What a sink of `plan` cannot do with these specs.
pub fn check_specs(plan: &Plan, specs: &Specs) -> Vec<Problem> {
    let sinks = plan.stages.iter().filter(|stage| stage.kind.name == KIND.name);
    let problem = |stage: &StagePlan| {
        let config: Arc<Config> = super::config_of(stage).ok()?;
        let sent = |spec: &&Arc<Spec>| config.policy(spec).is_ok_and(|policy| policy.is_some());
        let names: Vec<_> = specs.iter().filter(sent).map(|spec| &*spec.name).collect();
        let why = transaction::check(&names).err().filter(|_| config.exactly_once)?;
        Some(Problem::of_lines(&format!("sink `{}`: {why}", stage.name)))
    };
    sinks.filter_map(problem).collect()
}

/// What every life of the stage is made of.
struct Parts {
    context: Context,
    config: Arc<Config>,
    sink: Arc<Sink>,
    followers: Vec<(Arc<Follower>, Policy)>,
    topology: String,
    drain: DurationNs,
}

impl Parts {
    /// A name that no other producer of the cluster has, and this one has after every restart on this data directory.
    fn transactional_id(&self) -> Result<String, StageError> {
        let store = self.context.store.identity(self.context.clock.now()).map_err(super::store_failed)?;
        Ok(format!("barline-{}-{}-{store:016x}", self.topology, self.sink.name))
    }
}

fn factory(parts: Arc<Parts>) -> StageFactory {
    Box::new(move |start| {
        let Parts { context, config, .. } = &*parts;
        let feed = |(follower, policy): &(Arc<Follower>, Policy)| {
            let spec = context.specs.get(follower.following.spec).clone();
            Feed::new(follower.clone(), policy.clone(), Maker::new(spec, &config.service_name, policy))
        };
        let mut topics: Vec<Arc<str>> = parts
            .followers
            .iter()
            .flat_map(|(_, policy)| policy.topics.iter().flatten().map(|topic| Arc::from(&**topic)))
            .collect();
        topics.sort_unstable();
        topics.dedup();
        let id = config.exactly_once.then(|| parts.transactional_id()).transpose()?;
        let producer = context.brokers.producer(&config.settings(topics), id.as_deref());
        Ok(Box::new(KafkaSink {
            producer: producer.map_err(StageError::fatal)?,
            feeds: parts.followers.iter().map(feed).collect(),
            transaction: config.exactly_once.then(Transaction::default),
            parts: parts.clone(),
            link: Link::Connecting,
            down_since: Some(start.now),
            wake: start.now,
            saved_at: start.now,
            unsaved: false,
            ends_by: None,
            split: config.order == Order::FreshFirst,
            turn: 0,
        }))
    })
}

struct KafkaSink {
    parts: Arc<Parts>,
    producer: Box<dyn Producer>,
    feeds: Vec<Feed>,
    /// With `exactly_once`.
    transaction: Option<Transaction>,
    link: Link,
    /// Since when the broker has been out of reach.
    down_since: Option<TimeNs>,
    wake: TimeNs,
    saved_at: TimeNs,
    /// Whether a cursor has moved on since.
    unsaved: bool,
    /// Once the input has ended: until when what is under way is waited for.
    ends_by: Option<TimeNs>,
    /// With `fresh_first`: the link came back, and what is outstanding then becomes the backlog.
    split: bool,
    /// Which feed hands over first, so that none keeps the others from it.
    turn: usize,
}

impl Stage for KafkaSink {
    fn handle(&mut self, _input: Envelope, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        if self.link == Link::Up {
            self.wake = self.wake.min(now);
        }
        Ok(())
    }

    fn wake(&mut self, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        self.step(now)
    }

    fn next_wake(&self) -> Option<TimeNs> {
        Some(self.wake)
    }

    fn finish(&mut self, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        // The rest of the deadline is for those who end after this one.
        self.ends_by = Some(now + self.parts.drain / 2);
        self.step(now)
    }

    fn lingers(&self) -> bool {
        let (Some(ends_by), Link::Up) = (self.ends_by, &self.link) else { return false };
        self.wake < ends_by && !self.is_idle()
    }
}

impl KafkaSink {
    /// Hears what became of the records of earlier steps, then hands over more: so that `now` tells the two apart.
    fn step(&mut self, now: TimeNs) -> Result<(), StageError> {
        self.poll(now)?;
        self.split_backlog();
        let is_out = self.down_since.is_some_and(|since| now - since > DROP_AFTER);
        let rate = self.parts.config.backlog_rate;
        for feed in &mut self.feeds {
            if is_out {
                feed.give_up(&self.parts.context).map_err(super::store_failed)?;
            }
            feed.retry();
            feed.allow(rate, now);
        }
        let handed = if self.may_send() { self.hand_over(now)? } else { 0 };
        self.commit_if_due(now);
        self.feeds.iter_mut().for_each(|feed| self.unsaved |= feed.settle());
        self.save_if_due(now)?;
        self.tell();
        self.wake = now + self.pause(handed);
        Ok(())
    }

    /// Whether records may be handed over.
    fn may_send(&self) -> bool {
        self.link == Link::Up && !self.split && self.transaction.as_ref().is_none_or(Transaction::is_open)
    }

    /// Takes what the producer tells.
    fn poll(&mut self, now: TimeNs) -> Result<(), StageError> {
        let mut events = Vec::new();
        self.producer.poll(&mut events);
        for event in events {
            match event {
                Event::Ready { position } => self.ready(position)?,
                Event::Down(reason) => self.down(reason, now),
                Event::Delivered(token) => self.delivered(token, now),
                Event::Failed(token, failure) => self.failed(token, &failure, now),
                Event::Committed => self.committed(),
                Event::Aborted(reason) => self.aborted(&reason),
            }
        }
        Ok(())
    }

    fn ready(&mut self, position: Option<String>) -> Result<(), StageError> {
        let was_gone = self.link != Link::Up;
        (self.link, self.down_since) = (Link::Up, None);
        self.split |= was_gone && self.parts.config.order == Order::FreshFirst;
        if self.transaction.as_ref().is_some_and(Transaction::is_unknown) {
            self.begin(position)?;
        }
        Ok(())
    }

    fn down(&mut self, reason: String, now: TimeNs) {
        tracing::warn!(sink = self.parts.sink.name, "the broker is out of reach, bars wait in the outbox: {reason}");
        self.down_since = self.down_since.or(Some(now));
        self.parts.sink.seen().last_error = Some(reason.clone());
        self.link = Link::Down(reason);
    }

    /// What is outstanding becomes the backlog, once nothing is under way.
    fn split_backlog(&mut self) {
        if self.split && self.link == Link::Up && self.feeds.iter().all(Feed::is_quiet) {
            self.split = false;
            self.feeds.iter_mut().for_each(|feed| feed.restart(&self.parts.context, true));
        }
    }

    fn delivered(&mut self, token: u64, now: TimeNs) {
        let (feed, lane, number) = split_token(token);
        let visible = self.transaction.is_none();
        let Some(lane) = self.feeds.get_mut(feed).and_then(|feed| feed.lanes.get_mut(lane)) else { return };
        if let Some(bar) = lane.delivered(number, visible) {
            let mut seen = self.parts.sink.seen();
            took(&mut seen.latencies.sent_to_acked, now - bar.sent_at);
            took(&mut seen.latencies.window_to_acked, now - bar.window_end);
        }
    }

    fn failed(&mut self, token: u64, failure: &Failure, now: TimeNs) {
        let (feed, lane, number) = split_token(token);
        let Some(feed) = self.feeds.get_mut(feed) else { return };
        let (Failure::Record(reason) | Failure::Topic(reason) | Failure::Passing(reason)) = failure;
        match failure {
            Failure::Record(reason) => feed.refuse(lane, number, reason, now),
            Failure::Topic(reason) => {
                feed.topic_failed(reason, now);
                feed.passing(lane, number, now);
            }
            Failure::Passing(_) => feed.passing(lane, number, now),
        }
        self.parts.sink.seen().last_error = Some(reason.clone());
    }

    /// Reads and hands over what a step may.
    fn hand_over(&mut self, now: TimeNs) -> Result<usize, StageError> {
        let (mut handed, mut progress) = (0, true);
        let feeds = self.feeds.len();
        self.turn = (self.turn + 1) % feeds.max(1);
        while progress && handed < STEP {
            progress = false;
            for at in (0..feeds).map(|at| (at + self.turn) % feeds) {
                let feed = &mut self.feeds[at];
                progress |= feed.fill(&self.parts.context, now).map_err(super::store_failed)?;
                let most = (STEP - handed).min(self.transaction.as_ref().map_or(STEP, Transaction::room));
                let mut seen = self.parts.sink.seen();
                let sent = &mut |bar: &Outbound| {
                    took(&mut seen.latencies.window_to_commit, bar.stored_at - bar.window_end);
                    took(&mut seen.latencies.commit_to_sent, now - bar.stored_at);
                };
                let token = |lane, number| token(at, lane, number);
                let outcome = feed.hand_over(&mut *self.producer, most, token, now, sent);
                if let Some(reason) = feed.trouble.take() {
                    seen.last_error = Some(reason);
                }
                let (Handed::Some(bars) | Handed::Full(bars)) = outcome;
                handed += bars;
                progress |= bars > 0;
                self.transaction.iter_mut().for_each(|transaction| transaction.add(bars, now));
                if matches!(outcome, Handed::Full(_)) {
                    return Ok(handed);
                }
            }
        }
        Ok(handed)
    }

    fn save_if_due(&mut self, now: TimeNs) -> Result<(), StageError> {
        if now < self.saved_at + SAVE_EVERY && self.ends_by.is_none() {
            return Ok(());
        }
        (self.saved_at, self.unsaved) = (now, false);
        for feed in &mut self.feeds {
            feed.save(&self.parts.context).map_err(super::store_failed)?;
        }
        Ok(())
    }

    /// Lets others see how it is.
    fn tell(&self) {
        let mut seen = self.parts.sink.seen();
        seen.in_flight = self.producer.in_flight();
        if seen.link != self.link {
            seen.link = self.link.clone();
        }
    }

    /// Whether everything there is has been settled.
    fn is_idle(&self) -> bool {
        let end = self.parts.context.store.outbox_end();
        self.feeds.iter().all(|feed| feed.is_idle(end)) && self.transaction.as_ref().is_none_or(Transaction::is_empty)
    }

    fn pause(&self, handed: usize) -> DurationNs {
        match self.link {
            _ if handed >= STEP => 0,
            Link::Up if self.is_idle() && self.unsaved => SAVE_EVERY,
            Link::Up if self.is_idle() => IDLE,
            Link::Up => SOON,
            Link::Connecting | Link::Down(_) => WHILE_DOWN,
        }
    }
}

/// The producer's token of a bar: feed, lane, number.
fn token(feed: usize, lane: usize, number: u64) -> u64 {
    (feed as u64) << 48 | (lane as u64) << 47 | number & ((1 << 47) - 1)
}

/// The inverse of [`token`].
fn split_token(token: u64) -> (usize, usize, u64) {
    ((token >> 48) as usize, (token >> 47 & 1) as usize, token & ((1 << 47) - 1))
}
