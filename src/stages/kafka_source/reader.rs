//! The thread that polls: gathers a round of messages, keeps it in the inbox, commits it (`settling.rs`), hands it over.
//!
//! It always goes on polling, also while the pipeline or the broker makes it wait: who does not poll is put out of the
//! group. What it gathered and did not claim is dropped with the partition it came from; the next holder reads it again.

mod settling;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flume::{Sender, TrySendError};

use super::claim::Claim;
use super::ownership::{Chain, Owner};
use super::shared::Shared;
use crate::broker::consumer::{Consumer, Happening, Partition};
use crate::runtime::{InstanceState, StageError};
use crate::store::{Durability, Store};
use settling::Unsettled;

/// How long a poll waits when nothing comes.
const IDLE: Duration = Duration::from_millis(100);

/// How much is gathered and handed over.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the first message of a round waits.
    pub every: Duration,
    /// Bytes of a round.
    pub bytes: usize,
    /// Bytes handed over that are not in the journal.
    pub outstanding: usize,
}

/// A partition that is held.
#[derive(Default)]
struct Held {
    /// What was committed last; `None` while it is not known.
    committed: Option<(Option<i64>, Chain)>,
}

/// See the module's text.
pub struct Reader {
    consumer: Box<dyn Consumer>,
    store: Store,
    stage: String,
    limits: Limits,
    claims: Sender<Vec<Claim>>,
    shared: Arc<Shared>,
    owner: Owner,
    /// Claims made in this run.
    made: u32,
    held: BTreeMap<Partition, Held>,
    gathered: BTreeMap<Partition, Claim>,
    unsettled: Vec<Unsettled>,
    joined: u64,
    paused: bool,
    down: Option<String>,
    fatal: Option<String>,
}

impl Reader {
    /// Takes up what lies in the inbox of `stage`.
    pub fn open(
        consumer: Box<dyn Consumer>,
        store: Store,
        stage: &str,
        limits: Limits,
        claims: Sender<Vec<Claim>>,
        shared: Arc<Shared>,
    ) -> Result<Self, StageError> {
        let owner = store.begin_inbox(stage, fastrand::u64(..)).map_err(StageError::fatal)?;
        let mut unsettled = Vec::new();
        let loaded = store.load_inbox(stage, &mut |number, bytes| {
            let claim = Claim::from_bytes(number, &bytes);
            unsettled.extend(claim.map(|claim| Unsettled { claim, lost: Some(0) }));
        });
        loaded.map_err(StageError::fatal)?;
        if !unsettled.is_empty() {
            tracing::info!(
                stage,
                claims = unsettled.len(),
                "claims of an earlier run are settled once the group is joined"
            );
        }
        Ok(Self {
            consumer,
            store,
            stage: stage.to_owned(),
            limits,
            claims,
            shared,
            owner,
            made: 0,
            held: BTreeMap::new(),
            gathered: BTreeMap::new(),
            unsettled,
            joined: 0,
            paused: false,
            down: None,
            fatal: None,
        })
    }

    /// Reads until the topology stops.
    pub fn run(mut self) -> Result<(), StageError> {
        self.settle()?;
        while !self.shared.stop.is_cancelled() {
            self.forget_finished();
            if self.shared.outstanding() >= self.limits.outstanding {
                self.wait(IDLE)?;
                continue;
            }
            self.gather()?;
            self.claim()?;
            self.settle()?;
        }
        Ok(())
    }

    /// Polls until a round is full or its first message has waited long enough.
    fn gather(&mut self) -> Result<(), StageError> {
        self.learn();
        if self.held.values().all(|held| held.committed.is_some()) {
            self.pause(false);
        }
        let (mut until, mut bytes) = (None, 0);
        while !self.shared.stop.is_cancelled() && bytes < self.limits.bytes {
            let now = Instant::now();
            let wait = until.map_or(IDLE, |until: Instant| until.saturating_duration_since(now));
            if wait.is_zero() {
                break;
            }
            match self.poll(wait)? {
                true => until = until.or(Some(now + self.limits.every)),
                false if self.gathered.is_empty() => break,
                false => {}
            }
            bytes = self.gathered.values().map(Claim::bytes).sum();
        }
        Ok(())
    }

    /// Keeps what was gathered in the inbox.
    fn claim(&mut self) -> Result<(), StageError> {
        if self.gathered.is_empty() || self.gathered.keys().any(|partition| !self.knows(partition)) {
            return Ok(());
        }
        let mut batch = self.store.batch();
        for claim in self.gathered.values_mut() {
            self.made += 1;
            claim.number = u64::from(self.owner.run) << 32 | u64::from(self.made);
            batch.put_inbox(&self.stage, claim.number, &claim.to_bytes());
        }
        match batch.commit(Durability::Synced) {
            Ok(()) => {
                let claims = std::mem::take(&mut self.gathered).into_values();
                self.unsettled.extend(claims.map(|claim| Unsettled { claim, lost: None }));
                Ok(())
            }
            Err(error) if error.may_pass() => {
                self.say(format!("the inbox cannot be written: {error}"));
                self.wait(IDLE)
            }
            Err(error) => Err(StageError::fatal(error)),
        }
    }

    /// Hands claims to the source, polling while it is busy.
    fn hand_over(&mut self, mut claims: Vec<Claim>) -> Result<(), StageError> {
        if claims.is_empty() {
            return Ok(());
        }
        self.shared.begin(claims.iter().map(Claim::bytes).sum());
        loop {
            match self.claims.try_send(claims) {
                Ok(()) => return Ok(()),
                // Stopping: the next run finds them in the inbox.
                Err(_) if self.shared.stop.is_cancelled() => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(StageError::fatal("the source has ended")),
                Err(TrySendError::Full(back)) => claims = back,
            }
            self.wait(Duration::from_millis(5))?;
        }
    }

    /// Lets the inbox forget what the journal has.
    fn forget_finished(&mut self) {
        let finished = self.shared.take_finished();
        let mut batch = self.store.batch();
        finished.iter().for_each(|number| batch.remove_inbox(&self.stage, *number));
        if !batch.is_empty()
            && let Err(error) = batch.commit(Durability::Process)
        {
            // They are judged again by the next run, and known to the journal.
            tracing::warn!(stage = self.stage, %error, "the inbox was not emptied");
        }
    }

    /// Polls without taking messages.
    fn wait(&mut self, wait: Duration) -> Result<(), StageError> {
        self.pause(true);
        self.learn();
        self.poll(wait).map(drop)
    }

    fn pause(&mut self, paused: bool) {
        if self.paused != paused {
            self.paused = paused;
            self.consumer.pause(paused);
        }
    }

    /// Polls once; whether a message came.
    fn poll(&mut self, wait: Duration) -> Result<bool, StageError> {
        let happening = self.consumer.poll(wait);
        let is_message = matches!(happening, Some(Happening::Message(..)));
        match happening {
            None => {}
            Some(Happening::Message(partition, offset, value)) => self.add(partition, offset, &value),
            Some(Happening::Assigned(partitions)) => self.assigned(partitions),
            Some(Happening::Revoked(partitions)) => self.revoked(&partitions),
            Some(Happening::Down(reason)) => self.say(reason),
            Some(Happening::Fatal(reason)) => self.fatal = Some(reason),
        }
        self.fatal.take().map_or(Ok(is_message), |reason| Err(StageError::fatal(reason)))
    }

    fn add(&mut self, partition: Partition, offset: i64, value: &[u8]) {
        let Some(held) = self.held.get(&partition) else { return };
        let committed = held.committed.as_ref().and_then(|(offset, _)| *offset);
        let from = committed.filter(|committed| *committed <= offset).unwrap_or(offset);
        let owner = self.owner;
        self.gathered
            .entry(partition)
            .or_insert_with_key(|key| Claim::new(owner, key.clone(), from))
            .push(offset, value);
    }

    fn assigned(&mut self, partitions: Vec<Partition>) {
        self.joined += 1;
        self.up();
        tracing::info!(stage = self.stage, partitions = partitions.len(), "group joined");
        self.held.extend(partitions.into_iter().map(|partition| (partition, Held::default())));
        // A partition that was held back when it was lost comes back so.
        self.consumer.pause(self.paused);
        self.learn();
    }

    fn revoked(&mut self, partitions: &[Partition]) {
        tracing::info!(stage = self.stage, partitions = partitions.len(), "partitions given away");
        for partition in partitions {
            self.held.remove(partition);
            self.gathered.remove(partition);
        }
        let joined = self.joined;
        let lost = self.unsettled.iter_mut().filter(|of| of.lost.is_none() && partitions.contains(&of.claim.partition));
        lost.for_each(|of| of.lost = Some(joined));
    }

    fn knows(&self, partition: &Partition) -> bool {
        self.held.get(partition).is_some_and(|held| held.committed.is_some())
    }

    /// Asks what is committed of partitions that have just come; until that is known nothing of them is claimed.
    fn learn(&mut self) {
        let unknown: Vec<_> = self.held.keys().filter(|partition| !self.knows(partition)).cloned().collect();
        if unknown.is_empty() {
            return;
        }
        match self.consumer.committed(&unknown) {
            Ok(positions) => {
                for partition in unknown {
                    let found = positions.iter().find(|position| position.partition == partition);
                    let committed = found.map_or((None, Chain::default()), |p| (Some(p.offset), Chain::parse(&p.note)));
                    self.held.insert(partition, Held { committed: Some(committed) });
                }
            }
            Err(error) => {
                self.say(format!("committed offsets cannot be read: {error}"));
                self.pause(true);
            }
        }
    }

    /// Says once what is wrong, and again when that changes.
    fn say(&mut self, reason: String) {
        if self.down.as_ref() != Some(&reason) {
            tracing::warn!(stage = self.stage, "kafka: {reason}");
            self.shared.meter.set_last_error(reason.clone());
            self.shared.meter.set_state(InstanceState::Retrying);
            self.down = Some(reason);
        }
    }

    fn up(&mut self) {
        if self.down.take().is_some() {
            self.shared.meter.set_state(InstanceState::Running);
            tracing::info!(stage = self.stage, "kafka: reached again");
        }
    }
}
