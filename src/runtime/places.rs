//! The places of a listener: how many connections it holds, and who gives way when all are taken.
//!
//! A connection without an open call is idle. Where a further one comes and every place is taken, the idle one that matters
//! least is closed for it: those that never had a call let in first, then those that have been idle for longest. So idle
//! connections, however many, keep nobody out. Where none is idle the newcomer is closed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// The places of one listener.
pub struct Places {
    most: usize,
    began: Instant,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    seats: BTreeMap<u64, Arc<Seat>>,
}

/// What is known of one connection; its calls share it.
#[derive(Default)]
pub struct Seat {
    calls: AtomicU32,
    /// Whether a whole request has come.
    asked: AtomicBool,
    /// Whether a call was let in.
    known: AtomicBool,
    /// In nanoseconds since the listener began.
    idle_since: AtomicU64,
    evicted: AtomicBool,
    waker: AtomicWaker,
}

/// A connection's hold on its place, free again when this is dropped.
pub struct Place {
    places: Arc<Places>,
    number: u64,
    seat: Arc<Seat>,
}

/// Names the connection of a request to whoever handles the request.
#[derive(Clone)]
pub struct Peer {
    places: Arc<Places>,
    seat: Arc<Seat>,
}

/// An open call: its connection is not idle until this is dropped.
pub struct Call(Peer);

/// What came of asking for a place.
pub enum Asked {
    /// There was one.
    Free(Place),
    /// An idle connection gave way.
    Evicted(Place),
    /// Every connection is busy.
    Full,
}

impl Places {
    /// Places for `most` connections.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, began: Instant::now(), taken: Mutex::default() })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().seats.len()
    }

    /// Asks for a place.
    pub fn ask(self: &Arc<Self>) -> Asked {
        let mut taken = self.lock();
        let evicts = taken.seats.len() >= self.most;
        if evicts {
            let idle = taken.seats.iter().filter(|(_, seat)| seat.calls.load(Relaxed) == 0);
            let least = idle.min_by_key(|(_, seat)| (seat.known.load(Relaxed), seat.idle_since.load(Relaxed)));
            let Some(number) = least.map(|(number, _)| *number) else { return Asked::Full };
            if let Some(seat) = taken.seats.remove(&number) {
                seat.evicted.store(true, Relaxed);
                seat.waker.wake();
            }
        }
        let number = taken.next;
        taken.next += 1;
        let seat = Arc::new(Seat { idle_since: AtomicU64::new(self.now()), ..Seat::default() });
        taken.seats.insert(number, seat.clone());
        let place = Place { places: self.clone(), number, seat };
        if evicts { Asked::Evicted(place) } else { Asked::Free(place) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What requests on this connection are given.
    pub fn peer(&self) -> Peer {
        Peer { places: self.places.clone(), seat: self.seat.clone() }
    }

    /// Whether a whole request has come.
    pub fn has_asked(&self) -> bool {
        self.seat.asked.load(Relaxed)
    }

    /// Ready once the place was given to somebody else.
    pub fn poll_evicted(&self, context: &Context<'_>) -> Poll<()> {
        self.seat.waker.register(context.waker());
        if self.seat.evicted.load(Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().seats.remove(&self.number);
    }
}

impl Peer {
    /// Notes that a whole request has come.
    pub fn asks(&self) {
        self.seat.asked.store(true, Relaxed);
    }

    /// Notes that a call was let in; the connection is busy until it ends.
    pub fn begin(self) -> Call {
        self.seat.known.store(true, Relaxed);
        self.seat.calls.fetch_add(1, Relaxed);
        Call(self)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.seat.idle_since.store(self.0.places.now(), Relaxed);
        self.0.seat.calls.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>) -> Place {
        match places.ask() {
            Asked::Free(place) | Asked::Evicted(place) => place,
            Asked::Full => panic!("no place"),
        }
    }

    fn is_evicted(place: &Place) -> bool {
        place.poll_evicted(&Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_give_way_before_those_idle_for_longest_and_the_busy_never_do() {
        let places = Places::new(3);
        let [early, late, busy] = [0; 3].map(|_| take(&places));
        let call = busy.peer().begin();
        for known in [&early, &late] {
            tokio::time::advance(std::time::Duration::from_secs(1)).await;
            drop(known.peer().begin());
        }
        let stranger = {
            let stranger = take(&places);
            assert!(is_evicted(&early) && !is_evicted(&late));
            stranger
        };
        let _next = take(&places);
        assert!(is_evicted(&stranger) && !is_evicted(&late), "who never called gives way first");
        assert_eq!(places.taken(), 3);
        let held = [&late, &_next].map(|place| place.peer().begin());
        assert!(matches!(places.ask(), Asked::Full));
        drop((call, held));
        assert!(matches!(places.ask(), Asked::Evicted(_)));
    }

    #[test]
    fn a_place_is_free_again_with_its_connection() {
        let places = Places::new(1);
        drop(take(&places));
        assert!(matches!(places.ask(), Asked::Free(_)));
        assert_eq!(places.taken(), 0);
    }
}
