//! The life of a producer: sessions, one after the other, until it is dropped.
//!
//! A session is one librdkafka client. It ends when the client is beyond repair, when a transaction was aborted, or when
//! records have to go one by one for a while; then the next begins, and tells from where to go on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flume::{Receiver, Sender};
use rdkafka::producer::{BaseProducer, Producer as _};

use super::topics::Topics;
use super::transaction::{Left, Transactions};
use super::watcher::Watcher;
use crate::broker::{Event, Settings, client_config, words};
use crate::model::time::MILLISECOND;

/// A client of one session.
pub type Client = BaseProducer<Watcher>;

/// How long callbacks are served before anything else is looked at.
const SLICE: Duration = Duration::from_millis(5);
/// The longest call to the cluster.
pub const CALL: Duration = Duration::from_secs(2);
/// The pause between two questions about whether the cluster can be reached, or a topic used.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long records go one by one after a batch was too large.
const ALONE_FOR: Duration = Duration::from_secs(60);

/// What the thread and the port share.
#[derive(Default)]
pub struct Shared {
    /// Set when the port is dropped.
    pub stop: AtomicBool,
    /// The client of the present session, and the session's number.
    producer: Mutex<Option<(u64, Arc<Client>)>>,
    /// Topics that cannot be used, and why.
    refused: Mutex<BTreeMap<Arc<str>, String>>,
    any_refused: AtomicBool,
}

impl Shared {
    /// The client of the present session, and the session's number.
    pub fn producer(&self) -> Option<(u64, Arc<Client>)> {
        lock(&self.producer).clone()
    }

    /// Why `topic` cannot be used, if it cannot.
    pub fn refused(&self, topic: &str) -> Option<String> {
        self.any_refused.load(Relaxed).then(|| lock(&self.refused).get(topic).cloned()).flatten()
    }

    /// Notes that `topic` cannot be used until it is found to be usable again.
    pub fn refuse(&self, topic: &Arc<str>, why: String) {
        lock(&self.refused).insert(topic.clone(), why);
        self.any_refused.store(true, Relaxed);
    }

    /// Notes which topics cannot be used.
    pub fn set_refused(&self, refused: BTreeMap<Arc<str>, String>) {
        self.any_refused.store(!refused.is_empty(), Relaxed);
        *lock(&self.refused) = refused;
    }

    /// The topics that cannot be used.
    pub fn all_refused(&self) -> Vec<Arc<str>> {
        lock(&self.refused).keys().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A transaction that is to be committed.
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// The session it was filled in.
    pub session: u64,
    /// What becomes visible with it.
    pub position: String,
}

/// How a session ended.
pub enum End {
    /// The producer was dropped.
    Dropped,
    /// For this reason; the next one may follow at once.
    Over(String),
    /// The client is beyond repair, for this reason; the next one may fare no better, so not at once.
    Fatal(String),
    /// Records have to go one by one.
    TooLarge,
}

/// See the module's text.
pub struct Life {
    settings: Arc<Settings>,
    transactional_id: Option<String>,
    shared: Arc<Shared>,
    events: Sender<Event>,
    commits: Receiver<Commit>,
    /// The number of the present session: as many as were told ready.
    session: u64,
    /// What the last one left at the cluster.
    left: Left,
    /// Until when records go one by one.
    alone_until: Option<Instant>,
    told_down: Option<String>,
}

impl Life {
    /// A life not begun yet.
    ///
    /// # Errors
    /// librdkafka does not take the settings.
    pub fn new(
        settings: Settings,
        transactional_id: Option<&str>,
        shared: Arc<Shared>,
        events: Sender<Event>,
        commits: Receiver<Commit>,
    ) -> Result<Self, String> {
        let transactional_id = transactional_id.map(str::to_owned);
        let settings = Arc::new(settings);
        let life = Self {
            settings,
            transactional_id,
            shared,
            events,
            commits,
            session: 0,
            left: Left::Unknown,
            alone_until: None,
            told_down: None,
        };
        life.client(false)?;
        Ok(life)
    }

    /// A client; `alone` where every batch is to have one record.
    fn client(&self, alone: bool) -> Result<Client, String> {
        let Settings { connection, producing, patience, .. } = &*self.settings;
        let config = client_config::producer(connection, producing, self.transactional_id.as_deref());
        let mut config = config.map_err(|(_, reason)| reason.replace('\n', " "))?;
        if let (Some(patience), None) = (patience, &self.transactional_id) {
            config.set("message.timeout.ms", (patience / MILLISECOND).max(1).to_string());
        }
        if alone {
            config.set("batch.num.messages", "1");
        }
        config.create_with_context(Watcher::new(self.events.clone(), alone)).map_err(|error| error.to_string())
    }

    /// Lives it to its end.
    pub fn live(mut self) {
        while !self.is_dropped() {
            let end = self.session();
            *lock(&self.shared.producer) = None;
            match end {
                Ok(End::Dropped) => return,
                Ok(End::TooLarge) => self.alone_until = Some(Instant::now() + ALONE_FOR),
                Ok(End::Over(reason)) => tracing::debug!("session with kafka ended: {reason}"),
                Ok(End::Fatal(reason)) | Err(reason) => {
                    self.tell_down(reason);
                    self.pause(ASK_EVERY);
                }
            }
        }
    }

    /// One session, from connecting to its end; an error where it could not begin.
    fn session(&mut self) -> Result<End, String> {
        let alone = self.alone_until.is_some_and(|until| until > Instant::now());
        let client = Arc::new(self.client(alone)?);
        if !self.reach(&client) {
            return Ok(End::Dropped);
        }
        // What was missed on the way here is over.
        client.context().down.store(false, Relaxed);
        let topics = Topics::new(self.settings.clone());
        self.shared.set_refused(topics.look(&client, &self.settings.topics));
        let (transactions, position) = match &self.transactional_id {
            None => (None, None),
            Some(id) => {
                let transactions = Transactions::new(client.clone(), &self.settings, id)?;
                let position = transactions.begin(&self.left, &self.shared)?;
                (Some(transactions), position)
            }
        };
        client.context().failed.store(false, Relaxed);
        client.context().delivered.store(false, Relaxed);
        self.left = position.clone().map_or(Left::Open, Left::Committed);
        self.session += 1;
        *lock(&self.shared.producer) = Some((self.session, client.clone()));
        self.told_down = None;
        self.tell(Event::Ready { position });
        let end = self.serve(&client, &topics, transactions.as_ref());
        if client.context().delivered.load(Relaxed) {
            self.left = Left::Open;
        }
        Ok(end)
    }

    /// Waits until a broker can be reached; tells in the meantime why not. False where the producer is dropped first.
    fn reach(&mut self, client: &Client) -> bool {
        loop {
            if self.is_dropped() {
                return false;
            }
            if is_reached(client) {
                return true;
            }
            self.tell_down(client.context().reason());
            self.pause(ASK_EVERY);
        }
    }

    fn serve(&mut self, client: &Client, topics: &Topics, transactions: Option<&Transactions>) -> End {
        let mut asked = Instant::now();
        loop {
            client.poll(SLICE);
            if self.is_dropped() {
                return End::Dropped;
            }
            if let Some((_, reason)) = client.client().fatal_error() {
                return self.fatal(reason);
            }
            if let (Some(transactions), Some(position)) = (transactions, self.asked_to_commit()) {
                let shared = self.shared.clone();
                match transactions.commit(&position, &shared, |reason| self.tell_down(reason)) {
                    Ok(()) => self.committed(position),
                    Err(reason) => return self.aborted(client, reason),
                }
            }
            if client.context().too_large.load(Relaxed) && transactions.is_none() {
                return self.settle_then(client, End::TooLarge);
            }
            if self.alone_until.is_some_and(|until| until <= Instant::now()) {
                self.alone_until = None;
                if transactions.is_none() {
                    return self.settle_then(client, End::Over("records go in batches again".into()));
                }
            }
            if asked.elapsed() >= ASK_EVERY {
                if transactions.is_some() && client.context().down.load(Relaxed) {
                    // How far an open transaction came is told by the broker alone.
                    return self.over(client.context().reason());
                }
                self.look(client, topics);
                asked = Instant::now();
            }
        }
    }

    /// The position to commit. One of an earlier session is of records that session took with it: its end is told.
    fn asked_to_commit(&self) -> Option<String> {
        self.commits.try_iter().find(|commit| commit.session == self.session).map(|commit| commit.position)
    }

    /// Looks whether a broker can be reached again, and topics used.
    fn look(&mut self, client: &Client, topics: &Topics) {
        let down = &client.context().down;
        if down.load(Relaxed) {
            if is_reached(client) {
                down.store(false, Relaxed);
                self.told_down = None;
                self.tell(Event::Ready { position: None });
            } else {
                self.tell_down(client.context().reason());
            }
        }
        let refused = self.shared.all_refused();
        if !refused.is_empty() {
            self.shared.set_refused(topics.look(client, &refused));
        }
    }

    fn committed(&mut self, position: String) {
        self.left = Left::Committed(position);
        self.tell(Event::Committed);
        if self.told_down.take().is_some() {
            self.tell(Event::Ready { position: None });
        }
    }

    /// Takes no more records, waits for the ends of those under way, and ends.
    fn settle_then(&self, client: &Client, end: End) -> End {
        *lock(&self.shared.producer) = None;
        while client.in_flight_count() > 0 {
            if self.is_dropped() {
                return End::Dropped;
            }
            client.poll(SLICE);
        }
        end
    }

    /// Ends without transaction or with one that is gone: the next session tells how far it came.
    fn over(&self, reason: String) -> End {
        if self.transactional_id.is_some() {
            self.tell(Event::Aborted(reason.clone()));
        }
        End::Over(reason)
    }

    /// As [`Self::over`], of a client beyond repair.
    fn fatal(&self, reason: String) -> End {
        let reason = words::translate(&reason);
        self.over(reason.clone());
        End::Fatal(reason)
    }

    fn aborted(&self, client: &Client, reason: String) -> End {
        let too_large = client.context().too_large.load(Relaxed);
        self.tell(Event::Aborted(reason.clone()));
        match client.client().fatal_error() {
            Some((_, fatal)) => End::Fatal(fatal),
            None if too_large => End::TooLarge,
            None => End::Over(reason),
        }
    }

    fn tell_down(&mut self, reason: String) {
        if self.told_down.as_ref() != Some(&reason) {
            self.told_down = Some(reason.clone());
            self.tell(Event::Down(reason));
        }
    }

    fn tell(&self, event: Event) {
        // Whoever no longer listens has been dropped.
        let _ = self.events.send(event);
    }

    fn is_dropped(&self) -> bool {
        self.shared.stop.load(Relaxed)
    }

    fn pause(&self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end && !self.is_dropped() {
            std::thread::sleep(SLICE * 4);
        }
    }
}

/// Whether a broker answers.
fn is_reached(client: &Client) -> bool {
    let reached = client.client().fetch_metadata(None, CALL).is_ok_and(|metadata| !metadata.brokers().is_empty());
    // Log lines and errors come only while callbacks are served.
    client.poll(SLICE * 4);
    reached
}
