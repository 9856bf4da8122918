//! `kafka_sink`: follows the outbox and sends the bars in it to a broker.
//!
//! Its input only tells it that there is something new: the bars themselves it reads from the store, in order, from its
//! durable cursor on, which advances when the broker has acknowledged them. So it takes its input at once whatever the
//! broker does, and slows nobody down until its spool is spent. Read [`config`] (what a topology says), `maker` (a bar
//! becomes a record), `lane` and `feed` (bars on their way, per spec), then this file: the link, the pace, transactions.

pub mod config;
mod feed;
mod lane;
mod maker;
mod position;

use std::sync::Arc;

use self::config::{Config, DROP_AFTER, Order};
use self::feed::{Feed, Pace, Stopped, Token};
use self::maker::Maker;
use crate::broker::{Event, Failure, Producer};
use crate::model::time::{MILLISECOND, SECOND};
use crate::model::{Envelope, TimeNs};
use crate::runtime::{Built, Context, Link, Output, Sink, Stage, StageError};
use crate::spec::Spec;
use crate::store::Following;
use crate::topology::{Flow, Kind, Plan, Role, StagePlan, parse_config};

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "kafka_sink",
    summary: "sends stored bars to Kafka, from a durable outbox",
    role: Role::Worker,
    takes: Some(Flow::Bars),
    gives: None,
    max_instances: 1,
    unique: false,
    parse: parse_config::<Config>,
};

/// How soon it looks again while bars are under way.
const SOON: TimeNs = 5 * MILLISECOND;
/// How soon it looks again while the broker is out of reach.
const LATER: TimeNs = 100 * MILLISECOND;
/// How soon it looks again when there is nothing to do.
const IDLE: TimeNs = SECOND;
/// How often cursors are saved.
const SAVE_EVERY: TimeNs = 100 * MILLISECOND;
/// The most bars, and the longest time, of a transaction.
const TRANSACTION_BARS: usize = 10_000;
const TRANSACTION_TIME: TimeNs = 100 * MILLISECOND;
/// How long the last bars may take at the end of the process.
const LAST_BARS: TimeNs = 5 * SECOND;

/// Makes the stage.
pub fn build(context: &Context, plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let mut makers = Vec::new();
    for spec in context.specs.iter() {
        let policy = config.policy(spec).map_err(StageError::fatal)?;
        makers.extend(policy.map(|policy| (spec.clone(), policy)));
    }
    if makers.is_empty() {
        let name = &stage.name;
        return Err(StageError::fatal(format!(
            "stage {name:?} has no bars to send: give a spec an output.kafka.topic, or the stage a topic"
        )));
    }
    let mut followers = Vec::new();
    for (spec, policy) in &makers {
        let following = Following {
            sink: stage.name.clone(),
            spec: spec.id,
            granularities: policy.topics.iter().map(Option::is_some).collect(),
            spool: policy.spool,
            from_earliest: config.start == config::StartAt::Earliest,
        };
        followers.push((spec.name.clone(), context.store.follow(following).map_err(super::store_failed)?));
    }
    let mut topics: Vec<_> = makers.iter().flat_map(|(_, policy)| policy.topics.iter().flatten().cloned()).collect();
    topics.sort_unstable();
    topics.dedup();
    let settings = config.settings(topics);
    let id = config.exactly_once.then(|| position::id(context, plan, stage)).transpose()?;
    let sink = Arc::new(Sink::new(stage.name.clone(), followers.clone()));
    context.sinks.add(sink.clone());
    let context = context.clone();
    Ok(Built::Worker(Box::new(move || {
        let (context, config, sink) = (context.clone(), config.clone(), sink.clone());
        let (makers, followers, settings, id) = (makers.clone(), followers.clone(), settings.clone(), id.clone());
        Box::new(move |start| {
            let maker = |(spec, policy): &(Arc<Spec>, config::Policy)| Maker {
                spec: spec.clone(),
                policy: policy.clone(),
                service: config.service_name.clone(),
            };
            let feeds = makers.iter().map(maker).zip(&followers);
            let producer = context.brokers.producer(&settings, id.as_deref()).map_err(StageError::fatal)?;
            Ok(Box::new(KafkaSink {
                feeds: feeds.map(|(maker, (_, follower))| Feed::new(maker, follower.clone())).collect(),
                context: context.clone(),
                config: config.clone(),
                sink: sink.clone(),
                producer,
                transaction: id.as_ref().map(|_| Transaction::default()),
                link: Link::Connecting,
                down_since: None,
                // Backlog may go at once for what a second allows.
                paid_until: start.now - SECOND,
                saved: start.now,
                told: None,
                wake: start.now,
                end: None,
                over: false,
            }))
        })
    })))
}

struct KafkaSink {
    context: Context,
    config: Arc<Config>,
    sink: Arc<Sink>,
    producer: Box<dyn Producer>,
    feeds: Vec<Feed>,
    /// Where everything is sent in transactions.
    transaction: Option<Transaction>,
    link: Link,
    down_since: Option<TimeNs>,
    /// Up to when the backlog has used what its rate allows.
    paid_until: TimeNs,
    saved: TimeNs,
    /// The last error logged, and when.
    told: Option<(String, TimeNs)>,
    wake: TimeNs,
    /// Until when the last bars may take.
    end: Option<TimeNs>,
    /// Nothing more will come of waiting.
    over: bool,
}

/// The open transaction.
#[derive(Default)]
struct Transaction {
    /// Whether the broker has said from where to go on.
    ready: bool,
    /// When its first bar was handed over.
    began: Option<TimeNs>,
    bars: usize,
    committing: bool,
}

impl Stage for KafkaSink {
    fn handle(&mut self, _input: Envelope, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        // While the link is down, or bars are under way, it wakes soon enough anyway.
        if self.link == Link::Up && self.wake > now + SOON {
            self.wake = now;
        }
        Ok(())
    }

    fn wake(&mut self, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        self.listen(now)?;
        self.feeds.iter_mut().for_each(|feed| feed.settle(now));
        if self.down_since.is_some_and(|since| now - since >= DROP_AFTER) {
            self.feeds.iter_mut().try_for_each(|feed| feed.give_up(&self.context))?;
        }
        self.send(now)?;
        self.commit(now);
        self.save(now)?;
        self.report(now);
        self.plan_wake(now);
        Ok(())
    }

    fn next_wake(&self) -> Option<TimeNs> {
        Some(self.wake)
    }

    fn finish(&mut self, now: TimeNs, _out: &mut Output) -> Result<(), StageError> {
        self.end = Some(now + LAST_BARS);
        self.wake = now;
        Ok(())
    }

    fn lingers(&self) -> bool {
        !self.over
    }
}

impl KafkaSink {
    /// Hears what has become of what was handed over.
    fn listen(&mut self, now: TimeNs) -> Result<(), StageError> {
        let mut events = Vec::new();
        self.producer.poll(&mut events);
        let sink = self.sink.clone();
        let mut seen = sink.seen();
        let visible = self.transaction.is_none();
        for event in events {
            match event {
                Event::Delivered(token) => {
                    let token = Token::read(token);
                    if let Some(feed) = self.feeds.get_mut(token.feed) {
                        feed.delivered(token, visible, now, &mut seen);
                    }
                }
                Event::Failed(token, failure) => seen.last_error = Some(self.failed(Token::read(token), failure, now)),
                Event::Ready { position } => self.ready(position)?,
                Event::Down(reason) => {
                    self.down_since.get_or_insert(now);
                    self.link = Link::Down(reason);
                }
                Event::Committed => {
                    self.feeds.iter_mut().for_each(Feed::committed);
                    self.transaction = Some(Transaction { ready: true, ..Transaction::default() });
                }
                Event::Aborted(reason) => {
                    seen.last_error = Some(format!("transaction aborted: {reason}"));
                    self.feeds.iter_mut().for_each(Feed::restart);
                    self.transaction = Some(Transaction::default());
                }
            }
        }
        Ok(())
    }

    fn failed(&mut self, token: Token, failure: Failure, now: TimeNs) -> String {
        let (Failure::Record(reason) | Failure::Topic(reason) | Failure::Passing(reason)) = &failure;
        if let Some(feed) = self.feeds.get_mut(token.feed) {
            match &failure {
                Failure::Record(reason) => feed.quarantine(token, reason, now),
                Failure::Topic(_) => {
                    feed.failed(token);
                    feed.topic_refused(now);
                }
                Failure::Passing(_) => feed.failed(token),
            }
        }
        reason.clone()
    }

    /// The broker can be reached. Where it holds a position, what is settled there is settled.
    fn ready(&mut self, position: Option<String>) -> Result<(), StageError> {
        if let Some(transaction) = self.transaction.as_mut().filter(|transaction| !transaction.ready) {
            transaction.ready = true;
            for feed in &mut self.feeds {
                position::adopt(&self.context, feed, position.as_deref())?;
            }
        }
        if self.config.order == Order::FreshFirst {
            let end = self.context.store.outbox_end();
            self.feeds.iter_mut().for_each(|feed| feed.split(end));
        }
        if let Link::Down(_) = self.link {
            tracing::info!(sink = self.sink.name, "the broker can be reached again");
        }
        (self.link, self.down_since) = (Link::Up, None);
        Ok(())
    }

    /// Hands over what may go.
    fn send(&mut self, now: TimeNs) -> Result<(), StageError> {
        let room = match &self.transaction {
            Some(open) if open.ready && !open.committing => TRANSACTION_BARS.saturating_sub(open.bars),
            Some(_) => 0,
            None => usize::MAX,
        };
        if self.link != Link::Up || room == 0 {
            return Ok(());
        }
        let rate = i64::from(self.config.backlog_rate);
        self.paid_until = self.paid_until.max(now - SECOND);
        let backlog = ((now - self.paid_until).saturating_mul(rate) / SECOND).max(0) as u64;
        let sink = self.sink.clone();
        let mut seen = sink.seen();
        let fresh_first = self.config.order == Order::FreshFirst;
        let mut pace = Pace { now, fresh_first, room, backlog, seen: &mut seen };
        for (at, feed) in self.feeds.iter_mut().enumerate() {
            if feed.send(&self.context, at, &mut *self.producer, &mut pace)? == Stopped::Full {
                break;
            }
        }
        let (used, sent) = (backlog - pace.backlog, room - pace.room);
        self.paid_until += used as TimeNs * SECOND / rate;
        if let Some(open) = self.transaction.as_mut().filter(|_| sent > 0) {
            open.began.get_or_insert(now);
            open.bars += sent;
        }
        Ok(())
    }

    /// Ends the open transaction when it is large or old enough.
    fn commit(&mut self, now: TimeNs) {
        let Some(open) = &mut self.transaction else { return };
        let Some(began) = open.began.filter(|_| !open.committing) else { return };
        if open.bars >= TRANSACTION_BARS || now - began >= TRANSACTION_TIME || self.end.is_some() {
            open.committing = true;
            self.producer.commit(&position::write(&self.feeds));
        }
    }

    /// Saves cursors and counts now and then, and at the end.
    fn save(&mut self, now: TimeNs) -> Result<(), StageError> {
        let refused = self.feeds.iter().any(|feed| !feed.refused.is_empty());
        if now - self.saved < SAVE_EVERY && !refused && self.end.is_none() {
            return Ok(());
        }
        for feed in &mut self.feeds {
            let saved = self.context.store.save_follower(&feed.follower, &feed.refused);
            saved.map_err(super::store_failed)?;
            feed.refused.clear();
        }
        self.saved = now;
        Ok(())
    }

    /// Shows how things stand, and tells what is wrong: when that changes, and every half minute.
    fn report(&mut self, now: TimeNs) {
        let mut seen = self.sink.seen();
        seen.in_flight = self.producer.in_flight();
        seen.link = self.link.clone();
        let wrong = match &self.link {
            Link::Down(reason) => Some(reason),
            _ if self.feeds.iter().any(|feed| feed.topic_again.is_some()) => seen.last_error.as_ref(),
            _ => None,
        };
        let Some(wrong) = wrong else { return self.told = None };
        if self.told.as_ref().is_none_or(|(told, at)| told != wrong || now - at >= 30 * SECOND) {
            tracing::error!(sink = self.sink.name, "bars wait: {wrong}");
            self.told = Some((wrong.clone(), now));
        }
    }

    fn plan_wake(&mut self, now: TimeNs) {
        let end = self.context.store.outbox_end();
        let is_waiting = |feed: &Feed| feed.under_way() == 0 && (feed.is_done(end) || feed.topic_again.is_some());
        let is_quiet =
            self.feeds.iter().all(is_waiting) && self.transaction.as_ref().is_none_or(|open| open.began.is_none());
        self.over = self.end.is_some_and(|end| is_quiet || self.link != Link::Up || now >= end);
        let pause = match (&self.link, is_quiet) {
            (Link::Up, false) => SOON,
            (Link::Up, true) if self.feeds.iter().all(|feed| feed.is_done(end)) && now - self.saved < SAVE_EVERY => {
                SAVE_EVERY
            }
            (Link::Up, true) if self.feeds.iter().all(|feed| feed.is_done(end)) => IDLE,
            _ => LATER,
        };
        self.wake = now + pause;
    }
}
