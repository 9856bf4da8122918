//! What was refused, by reason: counted always, said in the log now and then.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A reason is said in the log at most this often, so that whoever knocks cannot fill a disk.
const SAID_EVERY: Duration = Duration::from_secs(10);

/// Why a connection or a call was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A call without a token, or with an unknown one.
    Unauthenticated,
    /// A call whose token has another role.
    Forbidden,
    /// A connection while all others were busy.
    Full,
    /// An idle connection that gave way to another.
    Evicted,
    /// A connection that did not say in time what it wants.
    Slow,
    /// A connection whose TLS handshake failed.
    Handshake,
}

/// Refusals since the start.
#[derive(Default)]
pub struct Refusals([Refused; 6]);

#[derive(Default)]
struct Refused {
    count: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    last: Option<Instant>,
    /// Refusals since then.
    more: u64,
}

impl Reason {
    /// All, in the order of their declaration.
    pub const ALL: [Self; 6] =
        [Self::Unauthenticated, Self::Forbidden, Self::Full, Self::Evicted, Self::Slow, Self::Handshake];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Full => "full",
            Self::Evicted => "evicted",
            Self::Slow => "slow",
            Self::Handshake => "handshake",
        }
    }
}

impl Refusals {
    /// Counts a refusal, and says what was refused, where that is due.
    pub fn note(&self, reason: Reason, what: impl Display) {
        let Refused { count, said } = &self.0[reason as usize];
        count.fetch_add(1, Relaxed);
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.last.is_some_and(|last| last.elapsed() < SAID_EVERY) {
            said.more += 1;
            return;
        }
        let unsaid = std::mem::take(&mut said.more);
        said.last = Some(Instant::now());
        tracing::warn!(reason = reason.name(), unsaid, "refused: {what}");
    }

    /// How many there were for `reason`.
    pub fn count(&self, reason: Reason) -> u64 {
        self.0[reason as usize].count.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_refusal_is_counted_under_its_own_reason_and_few_are_said() {
        let refusals = Refusals::default();
        for _ in 0..5 {
            refusals.note(Reason::Slow, "somebody");
        }
        assert_eq!(Reason::ALL.map(|reason| refusals.count(reason)), [0, 0, 0, 0, 5, 0]);
        assert_eq!(refusals.0[Reason::Slow as usize].said.lock().unwrap().more, 4);
        tokio::time::advance(SAID_EVERY).await;
        refusals.note(Reason::Slow, "somebody");
        assert_eq!(refusals.0[Reason::Slow as usize].said.lock().unwrap().more, 0);
        assert!(Reason::ALL.iter().enumerate().all(|(index, reason)| *reason as usize == index));
    }
}
