//! The batches of one connection that are sent and not yet acknowledged: a bounded number.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::units::Nanos;

/// Batches sent and not yet acknowledged.
#[derive(Debug)]
pub struct InFlight {
    most: usize,
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Id and due time, in the order sent.
    batches: VecDeque<(u64, Nanos)>,
    closed: bool,
}

impl InFlight {
    /// Room for `most` batches.
    pub fn new(most: usize) -> Self {
        Self { most, state: Mutex::default(), room: Condvar::new() }
    }

    /// Adds a batch, after blocking until there is room; `false` once closed.
    pub fn enter(&self, batch: u64, due: Nanos) -> bool {
        let full = |state: &mut State| state.batches.len() >= self.most && !state.closed;
        let mut state = self.room.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        state.batches.push_back((batch, due));
        !state.closed
    }

    /// Removes a batch and returns when it was due; `None` for an id that is not in flight.
    pub fn leave(&self, batch: u64) -> Option<Nanos> {
        let mut state = self.lock();
        let place = state.batches.iter().position(|(id, _)| *id == batch)?;
        let (_, due) = state.batches.remove(place)?;
        self.room.notify_one();
        Some(due)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().batches.len()
    }

    /// Says that no acknowledgement will come any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread};

    #[test]
    fn a_full_window_waits_for_an_acknowledgement() {
        let window = Arc::new(InFlight::new(2));
        assert!(window.enter(1, 10) && window.enter(2, 20));
        let blocked = thread::spawn({
            let window = window.clone();
            move || window.enter(3, 30)
        });
        assert_eq!(window.leave(7), None);
        assert_eq!(window.leave(2), Some(20));
        assert!(blocked.join().unwrap());
        assert_eq!(window.len(), 2);
    }

    #[test]
    fn closing_frees_whoever_waits() {
        let window = Arc::new(InFlight::new(1));
        assert!(window.enter(1, 0));
        let blocked = thread::spawn({
            let window = window.clone();
            move || window.enter(2, 0)
        });
        window.close();
        assert!(!blocked.join().unwrap());
    }
}
