//! The server's ledger, read over `barline.v1`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use barline_proto::barline::{GetLedgerRequest, SpecLedger, barline_client::BarlineClient};

use crate::connect::Channel;

/// How often the ledger is read while it is not at rest.
const POLL: Duration = Duration::from_millis(100);

/// The ledger of the profile's spec at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ticks that came.
    pub received: u64,
    /// Ticks taken.
    pub accepted: u64,
    /// Ticks of batches taken before.
    pub duplicate: u64,
    /// Ticks in stored bars.
    pub in_bars: u64,
    /// Ticks in open windows.
    pub open: u64,
    /// Ticks on their way.
    pub in_flight: i64,
    /// Ticks taken and given up, over all reasons.
    pub dropped: u64,
    /// Ticks refused, by reason; ticks that named no known spec among them.
    pub rejected: BTreeMap<String, u64>,
    /// Of these, ticks that named this spec.
    pub rejected_own: u64,
}

/// What happened between two moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Ticks taken.
    pub accepted: i64,
    /// Ticks of batches taken before.
    pub duplicate: i64,
    /// Ticks that came into stored bars.
    pub in_bars: i64,
    /// Ticks given up.
    pub dropped: i64,
    /// Ticks refused, by reason; reasons that did not occur are left out.
    pub rejected: BTreeMap<String, u64>,
}

impl Counts {
    /// Reads the ledger of `spec`.
    ///
    /// # Errors
    /// The call failed, or the server has no such spec.
    pub async fn read(client: &mut BarlineClient<Channel>, spec: &str) -> Result<Self, String> {
        let ledger = client.get_ledger(GetLedgerRequest { spec: String::new() }).await;
        let specs = ledger.map_err(|s| format!("GetLedger: {:?}: {}", s.code(), s.message()))?.into_inner().specs;
        let Some(own) = specs.iter().find(|s| s.spec == spec) else {
            let known: Vec<&str> = specs.iter().map(|s| s.spec.as_str()).collect();
            return Err(format!("the server has no spec {spec:?}, its specs are {}", known.join(", ")));
        };
        Ok(Self::new(own, &specs))
    }

    /// Reads the ledger until two readings in a row are the same and at rest, for at most `patience`.
    ///
    /// # Errors
    /// As [`Counts::read`], and a ledger that did not come to rest.
    pub async fn at_rest(client: &mut BarlineClient<Channel>, spec: &str, patience: Duration) -> Result<Self, String> {
        let deadline = Instant::now() + patience;
        let mut before = Self::read(client, spec).await?;
        loop {
            tokio::time::sleep(POLL).await;
            let now = Self::read(client, spec).await?;
            if now.open == 0 && now.in_flight == 0 && now == before {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the ledger of {spec} is not at rest after {} s: {} ticks in open windows, {} in flight",
                    patience.as_secs_f64(),
                    now.open,
                    now.in_flight
                ));
            }
            before = now;
        }
    }

    /// Where ticks are missing or too many: everything that came was taken, refused or a duplicate, and everything taken
    /// is in bars, open, on its way or dropped.
    pub fn imbalance(&self) -> Vec<String> {
        let Self { received, accepted, rejected_own, duplicate, in_bars, open, in_flight, dropped, .. } = self;
        let mut problems = Vec::new();
        if *received != accepted + rejected_own + duplicate {
            problems.push(format!(
                "{received} ticks received are not {accepted} accepted + {rejected_own} rejected + {duplicate} duplicate"
            ));
        }
        if *accepted as i64 != (in_bars + open + dropped) as i64 + in_flight {
            problems.push(format!(
                "{accepted} ticks accepted are not {in_bars} in bars + {open} open + {in_flight} in flight + {dropped} dropped"
            ));
        }
        problems
    }

    /// What happened since `before`.
    pub fn since(&self, before: &Self) -> Change {
        let change = |now: u64, before: u64| now as i64 - before as i64;
        let count = |reason: &str| before.rejected.get(reason).copied().unwrap_or(0);
        let rejected = self.rejected.iter().map(|(reason, n)| (reason.clone(), n.saturating_sub(count(reason))));
        Change {
            accepted: change(self.accepted, before.accepted),
            duplicate: change(self.duplicate, before.duplicate),
            in_bars: change(self.in_bars, before.in_bars),
            dropped: change(self.dropped, before.dropped),
            rejected: rejected.filter(|(_, n)| *n > 0).collect(),
        }
    }

    fn new(own: &SpecLedger, all: &[SpecLedger]) -> Self {
        let mut rejected: BTreeMap<String, u64> = own.rejected.clone().into_iter().filter(|(_, n)| *n > 0).collect();
        let unknown: u64 = all.iter().filter_map(|s| s.rejected.get("unknown_series")).sum();
        if unknown > 0 {
            rejected.insert("unknown_series".to_owned(), unknown);
        }
        Self {
            received: own.received,
            rejected_own: own.rejected.values().sum(),
            accepted: own.accepted,
            duplicate: own.duplicate,
            in_bars: own.in_bars,
            open: own.open,
            in_flight: own.in_flight,
            dropped: own.dropped.values().sum(),
            rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imbalance_is_told_with_its_numbers() {
        let balanced = Counts {
            received: 10,
            accepted: 6,
            rejected_own: 3,
            duplicate: 1,
            in_bars: 3,
            open: 1,
            in_flight: 1,
            dropped: 1,
            ..Counts::default()
        };
        assert_eq!(balanced.imbalance(), Vec::<String>::new());
        let problems = Counts { in_bars: 4, received: 9, ..balanced }.imbalance();
        assert_eq!(problems[0], "9 ticks received are not 6 accepted + 3 rejected + 1 duplicate");
        assert_eq!(problems[1], "6 ticks accepted are not 4 in bars + 1 open + 1 in flight + 1 dropped");
    }

    #[test]
    fn only_what_happened_in_between_counts() {
        let rejected = |n: u64| BTreeMap::from([("expired".to_owned(), n), ("ahead".to_owned(), 4)]);
        let before = Counts { accepted: 10, in_bars: 10, rejected: rejected(5), ..Counts::default() };
        let after = Counts { accepted: 30, in_bars: 29, dropped: 1, rejected: rejected(7), ..Counts::default() };
        let expected = Change {
            accepted: 20,
            duplicate: 0,
            in_bars: 19,
            dropped: 1,
            rejected: BTreeMap::from([("expired".to_owned(), 2)]),
        };
        assert_eq!(after.since(&before), expected);
    }
}
