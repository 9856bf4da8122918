//! The batches of one stream that are sent and not yet acknowledged: a bounded number, acknowledged in their order.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use crate::{
    units::Nanos,
    wire::{Frame, Position},
};

/// Batches sent and not yet acknowledged.
#[derive(Debug)]
pub struct InFlight {
    most: usize,
    state: Mutex<State>,
    room: Condvar,
}

/// A batch that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub batch: u64,
    /// Ticks in it.
    pub ticks: u64,
    /// Where the ticks it was made of begin.
    pub start: Position,
    /// When it was due.
    pub due: Nanos,
}

#[derive(Debug, Default)]
struct State {
    /// In the order sent.
    batches: VecDeque<Sent>,
    closed: bool,
}

impl InFlight {
    /// Room for `most` batches.
    pub fn new(most: usize) -> Self {
        Self { most, state: Mutex::default(), room: Condvar::new() }
    }

    /// Adds a batch, after blocking until there is room; `false` once closed.
    pub fn enter(&self, frame: &Frame) -> bool {
        let full = |state: &mut State| state.batches.len() >= self.most && !state.closed;
        let mut state = self.room.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        let Frame { batch, ticks, start, due, .. } = *frame;
        state.batches.push_back(Sent { batch, ticks, start, due });
        !state.closed
    }

    /// Removes the oldest batch, which must be `batch`.
    ///
    /// # Errors
    /// Another one is the oldest, or there is none.
    pub fn leave(&self, batch: u64) -> Result<Sent, String> {
        let mut state = self.lock();
        match state.batches.front().copied() {
            Some(sent) if sent.batch == batch => {
                state.batches.pop_front();
                self.room.notify_one();
                Ok(sent)
            }
            Some(sent) => Err(format!("the server acknowledged batch {batch}, the oldest in flight is {}", sent.batch)),
            None => Err(format!("the server acknowledged batch {batch}, which was not in flight")),
        }
    }

    /// How many batches there are, and ticks in them.
    pub fn len(&self) -> (u64, u64) {
        let state = self.lock();
        (state.batches.len() as u64, state.batches.iter().map(|sent| sent.ticks).sum())
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

    fn frame(batch: u64) -> Frame {
        Frame { buffer: Vec::new(), len: 0, ticks: 5, batch, due: 10, start: Position::default() }
    }

    #[test]
    fn a_full_window_waits_for_an_acknowledgement() {
        let window = Arc::new(InFlight::new(2));
        assert!(window.enter(&frame(1)) && window.enter(&frame(2)));
        let blocked = thread::spawn({
            let window = window.clone();
            move || window.enter(&frame(3))
        });
        assert_eq!(window.leave(1).map(|sent| sent.due), Ok(10));
        assert!(blocked.join().unwrap());
        assert_eq!(window.len(), (2, 10));
    }

    #[test]
    fn an_acknowledgement_out_of_order_is_an_error() {
        let window = InFlight::new(2);
        assert!(window.leave(7).unwrap_err().contains("not in flight"));
        assert!(window.enter(&frame(1)) && window.enter(&frame(2)));
        assert!(window.leave(2).unwrap_err().contains("oldest in flight is 1"));
    }

    #[test]
    fn closing_frees_whoever_waits() {
        let window = Arc::new(InFlight::new(1));
        assert!(window.enter(&frame(1)));
        let blocked = thread::spawn({
            let window = window.clone();
            move || window.enter(&frame(2))
        });
        window.close();
        assert!(!blocked.join().unwrap());
    }
}
