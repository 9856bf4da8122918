//! A broker in memory, for simulations: it can be taken down, made slow, made to refuse records and topics, and knows
//! transactions. What it does depends on the calls alone, not on any clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Brokers, Event, Failure, Producer, Refusal, Settings};
use crate::model::Record;

/// A broker in memory; clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryBroker(Arc<Mutex<State>>);

/// How the broker behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    /// Why it cannot be reached, if so.
    pub down: Option<String>,
    /// Topics that are missing.
    pub missing: BTreeSet<String>,
    /// The largest record it takes.
    pub largest: usize,
    /// Records that may be under way at once, per producer.
    pub capacity: usize,
    /// Records it acknowledges per poll.
    pub per_poll: usize,
    /// After how many polls without the broker a record or a transaction is given up.
    pub patience: u32,
}

#[derive(Default)]
struct State {
    manner: Manner,
    topics: BTreeMap<Arc<str>, Vec<Record>>,
    /// By transactional id.
    positions: BTreeMap<String, String>,
    /// By transactional id: how many producers there were.
    epochs: BTreeMap<String, u64>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            down: None,
            missing: BTreeSet::new(),
            largest: 1_000_000,
            capacity: 10_000,
            per_poll: 10_000,
            patience: u32::MAX,
        }
    }
}

impl MemoryBroker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how it behaves.
    pub fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.lock().manner);
    }

    /// What a consumer of committed records sees of a topic.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        self.lock().topics.get(topic).cloned().unwrap_or_default()
    }

    /// The names of the topics that have records.
    pub fn topics(&self) -> Vec<String> {
        self.lock().topics.keys().map(ToString::to_string).collect()
    }

    /// The position committed last under a transactional id.
    pub fn position(&self, id: &str) -> Option<String> {
        self.lock().positions.get(id).cloned()
    }
}

impl Brokers for MemoryBroker {
    fn producer(&self, _settings: &Settings, transactional_id: Option<&str>) -> Result<Box<dyn Producer>, String> {
        let transaction = transactional_id.map(|id| {
            let mut state = self.lock();
            let epoch = state.epochs.entry(id.to_owned()).or_default();
            *epoch += 1;
            Transaction { id: id.to_owned(), epoch: *epoch, ..Transaction::default() }
        });
        let broker = self.clone();
        Ok(Box::new(MemoryProducer {
            broker,
            transaction,
            link: Link::Unknown,
            queue: VecDeque::new(),
            told: Vec::new(),
        }))
    }
}

struct MemoryProducer {
    broker: MemoryBroker,
    transaction: Option<Transaction>,
    link: Link,
    /// Handed over, its end not told.
    queue: VecDeque<UnderWay>,
    told: Vec<Event>,
}

#[derive(PartialEq, Eq)]
enum Link {
    Unknown,
    Up,
    Down(String),
}

struct UnderWay {
    token: u64,
    record: Record,
    /// Whether the broker has it.
    arrived: bool,
    polls: u32,
}

#[derive(Default)]
struct Transaction {
    id: String,
    epoch: u64,
    records: Vec<Record>,
    /// Its position, once it is to be committed.
    ending: Option<String>,
    failed: Option<String>,
    polls: u32,
}

impl Producer for MemoryProducer {
    fn send(&mut self, token: u64, record: &Record) -> Result<(), Refusal> {
        let manner = self.broker.lock().manner.clone();
        if record.bytes() > 10 * manner.largest {
            return Err(Refusal::Record(format!("{} bytes are more than this producer sends", record.bytes())));
        }
        if self.queue.len() >= manner.capacity {
            return Err(Refusal::Full);
        }
        let mut under_way = UnderWay { token, record: record.clone(), arrived: false, polls: 0 };
        if manner.down.is_none() && fault(&manner, record).is_none() {
            self.arrive(&mut under_way);
        }
        self.queue.push_back(under_way);
        Ok(())
    }

    fn poll(&mut self, events: &mut Vec<Event>) {
        events.append(&mut self.told);
        let manner = self.broker.lock().manner.clone();
        match manner.down.clone() {
            Some(reason) => self.poll_without_broker(&manner, reason, events),
            None => self.poll_with_broker(&manner, events),
        }
    }

    fn commit(&mut self, position: &str) {
        if let Some(transaction) = &mut self.transaction {
            (transaction.ending, transaction.polls) = (Some(position.to_owned()), 0);
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }
}

/// Why the broker will not have a record.
fn fault(manner: &Manner, record: &Record) -> Option<Failure> {
    if manner.missing.contains(&*record.topic) {
        return Some(Failure::Topic(format!("topic {:?} does not exist", record.topic)));
    }
    let is_too_large = record.bytes() > manner.largest;
    is_too_large.then(|| Failure::Record(format!("{} bytes, the broker takes {}", record.bytes(), manner.largest)))
}

impl MemoryProducer {
    fn arrive(&mut self, under_way: &mut UnderWay) {
        under_way.arrived = true;
        let record = under_way.record.clone();
        match &mut self.transaction {
            Some(transaction) => transaction.records.push(record),
            None => self.broker.lock().topics.entry(record.topic.clone()).or_default().push(record),
        }
    }

    fn poll_without_broker(&mut self, manner: &Manner, reason: String, events: &mut Vec<Event>) {
        if self.link != Link::Down(reason.clone()) {
            events.push(Event::Down(reason.clone()));
            self.link = Link::Down(reason.clone());
        }
        for under_way in &mut self.queue {
            under_way.polls += 1;
        }
        while self.queue.front().is_some_and(|first| first.polls > manner.patience) {
            let Some(UnderWay { token, .. }) = self.queue.pop_front() else { break };
            events.push(Event::Failed(token, Failure::Passing(reason.clone())));
            if let Some(transaction) = &mut self.transaction {
                transaction.failed = Some(reason.clone());
            }
        }
        if let Some(transaction) = self.transaction.as_mut().filter(|transaction| transaction.ending.is_some()) {
            transaction.polls += 1;
            if transaction.polls > manner.patience {
                self.abort(&reason, events);
            }
        }
    }

    fn poll_with_broker(&mut self, manner: &Manner, events: &mut Vec<Event>) {
        if self.link != Link::Up {
            self.link = Link::Up;
            let position = self.transaction.as_ref().and_then(|transaction| self.broker.position(&transaction.id));
            events.push(Event::Ready { position });
        }
        for _ in 0..manner.per_poll.min(self.queue.len()) {
            let Some(mut under_way) = self.queue.pop_front() else { break };
            let token = under_way.token;
            if under_way.arrived {
                events.push(Event::Delivered(token));
            } else if let Some(failure) = fault(manner, &under_way.record) {
                events.push(Event::Failed(token, failure));
                if let Some(transaction) = &mut self.transaction {
                    transaction.failed = Some(format!("record {token} was refused"));
                }
            } else {
                self.arrive(&mut under_way);
                events.push(Event::Delivered(token));
            }
        }
        if self.queue.is_empty() {
            self.end_transaction(events);
        }
    }

    fn end_transaction(&mut self, events: &mut Vec<Event>) {
        let Some(transaction) = self.transaction.as_mut().filter(|transaction| transaction.ending.is_some()) else {
            return;
        };
        let mut state = self.broker.lock();
        let fenced = state.epochs.get(&transaction.id) != Some(&transaction.epoch);
        let failed = if fenced { Some("fenced by another producer".to_owned()) } else { transaction.failed.clone() };
        if let Some(reason) = failed {
            drop(state);
            return self.abort(&reason, events);
        }
        for record in transaction.records.drain(..) {
            state.topics.entry(record.topic.clone()).or_default().push(record);
        }
        if let Some(position) = transaction.ending.take() {
            state.positions.insert(transaction.id.clone(), position);
        }
        events.push(Event::Committed);
    }

    /// Forgets everything since the last commit; `Ready` follows when the broker is there.
    fn abort(&mut self, reason: &str, events: &mut Vec<Event>) {
        self.queue.clear();
        if let Some(transaction) = &mut self.transaction {
            let (id, epoch) = (std::mem::take(&mut transaction.id), transaction.epoch);
            *transaction = Transaction { id, epoch, ..Transaction::default() };
        }
        self.link = Link::Unknown;
        events.push(Event::Aborted(reason.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(topic: &str, value: usize) -> Record {
        Record { topic: topic.into(), value: vec![7; value], ..Record::default() }
    }

    fn poll(producer: &mut dyn Producer) -> Vec<Event> {
        let mut events = Vec::new();
        producer.poll(&mut events);
        events
    }

    #[test]
    fn what_is_handed_over_arrives_when_the_broker_is_there() {
        let broker = MemoryBroker::default();
        broker.change(|manner| manner.down = Some("gone".into()));
        let mut producer = broker.producer(&Settings::default(), None).unwrap();
        producer.send(1, &record("t", 3)).unwrap();
        assert_eq!(poll(&mut *producer), [Event::Down("gone".into())]);
        assert_eq!((poll(&mut *producer).len(), broker.records("t").len()), (0, 0));
        broker.change(|manner| manner.down = None);
        assert_eq!(poll(&mut *producer), [Event::Ready { position: None }, Event::Delivered(1)]);
        assert_eq!((broker.records("t").len(), producer.in_flight()), (1, 0));
    }

    #[test]
    fn records_and_topics_are_refused_one_by_one() {
        let broker = MemoryBroker::default();
        broker.change(|manner| (manner.largest, manner.capacity) = (10, 3));
        broker.change(|manner| _ = manner.missing.insert("none".into()));
        let mut producer = broker.producer(&Settings::default(), None).unwrap();
        let sizes = [("t", 5), ("t", 50), ("none", 5)];
        sizes.iter().enumerate().for_each(|(token, (t, size))| producer.send(token as u64, &record(t, *size)).unwrap());
        assert_eq!(producer.send(9, &record("t", 5)), Err(Refusal::Full));
        let events = poll(&mut *producer);
        assert_eq!(events[1], Event::Delivered(0));
        assert!(matches!(&events[2], Event::Failed(1, Failure::Record(_))), "{events:?}");
        assert!(matches!(&events[3], Event::Failed(2, Failure::Topic(_))), "{events:?}");
        assert!(matches!(producer.send(9, &record("t", 500)), Err(Refusal::Record(_))));
    }

    #[test]
    fn a_transaction_is_seen_whole_or_not_at_all() {
        let broker = MemoryBroker::default();
        let mut producer = broker.producer(&Settings::default(), Some("id")).unwrap();
        assert_eq!(poll(&mut *producer), [Event::Ready { position: None }]);
        producer.send(1, &record("t", 3)).unwrap();
        assert_eq!((poll(&mut *producer), broker.records("t").len()), (vec![Event::Delivered(1)], 0));
        producer.commit("here");
        assert_eq!((poll(&mut *producer), broker.records("t").len()), (vec![Event::Committed], 1));
        producer.send(2, &record("t", 3)).unwrap();
        producer.commit("there");
        // A second producer of that id fences the first.
        let mut second = broker.producer(&Settings::default(), Some("id")).unwrap();
        assert!(matches!(&poll(&mut *producer)[1], Event::Aborted(_)));
        assert_eq!(poll(&mut *second), [Event::Ready { position: Some("here".into()) }]);
        assert_eq!(broker.records("t").len(), 1);
    }
}
