//! What became of the bars a follower was to see, counted: every one of them meets one fate.

use serde::{Deserialize, Serialize};

use crate::model::TimeNs;

/// Why a bar was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GivenUp {
    /// The spool's bytes were spent.
    SpoolFull,
    /// It had been in the spool for longer than that keeps it.
    SpoolExpired,
    /// The broker could not be reached, and the policy is not to wait for it.
    Unreachable,
    /// It could not be read any more: expired by retention, or damaged.
    Unreadable,
}

/// What became of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is where it was to go.
    Delivered,
    /// It was given up.
    Dropped(GivenUp),
    /// It will never be taken, and is put aside.
    Quarantined,
    /// It is none of those that are to be sent.
    Skipped,
}

/// A stretch of positions that is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Where it begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// The fate of the bar at its last position; `None` where none of its bars is the follower's.
    pub fate: Option<Fate>,
}

/// A bar that will never be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its position.
    pub position: u64,
    /// The topic it was for.
    pub topic: String,
    /// The record's key.
    pub key: String,
    /// Why.
    pub reason: String,
    /// How large it is, encoded.
    pub bytes: usize,
    /// When that was.
    pub at: TimeNs,
}

/// What became of the bars of a follower, since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FollowerCounts {
    /// Where they were to go.
    pub delivered: u64,
    /// Put aside.
    pub quarantined: u64,
    /// Not to be sent: amendments, where none are.
    pub skipped: u64,
    /// Given up, the spool's bytes being spent.
    pub spool_full: u64,
    /// Given up, the spool's time being over.
    pub spool_expired: u64,
    /// Given up, the broker being out of reach.
    pub unreachable: u64,
    /// Given up, as they could not be read any more.
    pub unreadable: u64,
    /// Not settled yet.
    #[serde(skip)]
    pub outstanding: u64,
}

impl FollowerCounts {
    /// All bars that were meant for it.
    pub fn named(&self) -> u64 {
        self.delivered + self.quarantined + self.skipped + self.dropped() + self.outstanding
    }

    /// All that were given up.
    pub fn dropped(&self) -> u64 {
        self.dropped_by_reason().iter().map(|(_, bars)| bars).sum()
    }

    /// What was given up, by reason.
    pub fn dropped_by_reason(&self) -> [(&'static str, u64); 4] {
        [
            ("spool_full", self.spool_full),
            ("spool_expired", self.spool_expired),
            ("unreachable", self.unreachable),
            ("unreadable", self.unreadable),
        ]
    }

    /// Counts bars that have met this fate and were outstanding.
    pub(super) fn count(&mut self, fate: Fate, bars: u64) {
        *self.of(fate) += bars;
        self.outstanding = self.outstanding.saturating_sub(bars);
    }

    /// A bar that was counted as given up has met this fate after all.
    pub(super) fn correct(&mut self, given_up: GivenUp, fate: Fate) {
        let dropped = self.of(Fate::Dropped(given_up));
        if *dropped > 0 {
            *dropped -= 1;
            *self.of(fate) += 1;
        }
    }

    fn of(&mut self, fate: Fate) -> &mut u64 {
        match fate {
            Fate::Delivered => &mut self.delivered,
            Fate::Quarantined => &mut self.quarantined,
            Fate::Skipped => &mut self.skipped,
            Fate::Dropped(GivenUp::SpoolFull) => &mut self.spool_full,
            Fate::Dropped(GivenUp::SpoolExpired) => &mut self.spool_expired,
            Fate::Dropped(GivenUp::Unreachable) => &mut self.unreachable,
            Fate::Dropped(GivenUp::Unreadable) => &mut self.unreadable,
        }
    }
}

impl std::ops::Add for FollowerCounts {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            delivered: self.delivered + more.delivered,
            quarantined: self.quarantined + more.quarantined,
            skipped: self.skipped + more.skipped,
            spool_full: self.spool_full + more.spool_full,
            spool_expired: self.spool_expired + more.spool_expired,
            unreachable: self.unreachable + more.unreachable,
            unreadable: self.unreadable + more.unreadable,
            outstanding: self.outstanding + more.outstanding,
        }
    }
}
