//! Exactly-once: which batches of which producers have been taken, are being taken, or are new.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::time::DAY;
use crate::model::{DurationNs, Fate, Known, Origin, Taken, TimeNs};
use crate::store::{Store, StoreBatch, StoreError};

/// How long a producer is remembered after its last batch.
pub const REMEMBERED: DurationNs = 7 * DAY;
/// The most producers remembered.
pub const MOST: usize = 16_384;
/// The longest id, in bytes.
pub const LONGEST_ID: usize = 128;

/// Every producer that named itself.
#[derive(Default)]
pub struct Producers(Mutex<HashMap<Arc<str>, Producer>>);

struct Producer {
    last: TimeNs,
    taken: Taken,
    /// Batches under way, and who waits to hear of them.
    pending: HashMap<u64, watch::Sender<Option<Fate>>>,
}

/// What is to be done with a batch.
pub enum Admission {
    /// Take it; [`Producers::settle`] must hear what became of it.
    Fresh(Origin),
    /// It has been taken before.
    Taken,
    /// It was sent before and is on its way: wait, then ask again.
    Pending(watch::Receiver<Option<Fate>>),
    /// Whether it was taken is not known any more.
    Forgotten {
        /// Numbers below this are not known.
        below: u64,
    },
    /// Too many producers are remembered already.
    TooMany,
}

impl Producers {
    /// What the store remembers at `now`.
    ///
    /// # Errors
    /// The store fails.
    pub fn load(store: &Store, now: TimeNs) -> Result<Self, StoreError> {
        let mut known = HashMap::new();
        store.load_producers(now.saturating_sub(REMEMBERED), &mut |id, last, taken| {
            known.insert(id.into(), Producer { last, taken, pending: HashMap::new() });
        })?;
        Ok(Self(Mutex::new(known)))
    }

    /// Asks what is to be done with batch `batch` of `producer`.
    pub fn admit(&self, producer: &str, batch: u64, now: TimeNs) -> Admission {
        let mut known = self.lock();
        if !known.contains_key(producer) {
            if known.len() >= MOST {
                known.retain(|_, producer| producer.last >= now - REMEMBERED || !producer.pending.is_empty());
            }
            if known.len() >= MOST {
                return Admission::TooMany;
            }
            let fresh = Producer { last: now, taken: Taken::default(), pending: HashMap::new() };
            known.insert(producer.into(), fresh);
        }
        let Some((id, _)) = known.get_key_value(producer) else { return Admission::TooMany };
        let origin = Origin { producer: id.clone(), batch };
        let Some(found) = known.get_mut(producer) else { return Admission::TooMany };
        found.last = now;
        match found.taken.look_up(batch) {
            Known::Taken => Admission::Taken,
            Known::Below(below) => Admission::Forgotten { below },
            Known::New => match found.pending.get(&batch) {
                Some(pending) => Admission::Pending(pending.subscribe()),
                None => {
                    found.pending.insert(batch, watch::Sender::new(None));
                    Admission::Fresh(origin)
                }
            },
        }
    }

    /// Tells what became of batches under way.
    pub fn settle(&self, origins: &[Origin], fate: Fate) {
        let mut known = self.lock();
        for origin in origins {
            let Some(producer) = known.get_mut(&origin.producer) else { continue };
            if fate == Fate::Durable {
                producer.taken.insert(origin.batch);
            }
            if let Some(pending) = producer.pending.remove(&origin.batch) {
                pending.send_replace(Some(fate));
            }
        }
    }

    /// Adds to `batch` what holds of these producers once these batches of theirs are committed.
    pub fn put<'a>(&self, origins: impl Iterator<Item = &'a Origin>, now: TimeNs, batch: &mut StoreBatch) {
        let known = self.lock();
        let mut taken: BTreeMap<&str, Taken> = BTreeMap::new();
        for origin in origins {
            let so_far = || known.get(&origin.producer).map(|producer| producer.taken.clone()).unwrap_or_default();
            taken.entry(&origin.producer).or_insert_with(so_far).insert(origin.batch);
        }
        taken.iter().for_each(|(producer, taken)| batch.put_producer(producer, taken, now));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Producer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
