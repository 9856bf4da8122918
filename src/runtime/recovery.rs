//! What a start finds of what the last process left: whether every tick it had accepted is accounted for.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::context::Context;
use crate::model::{Ledger, Reason, TimeNs};
use crate::spec::{Spec, Specs};
use crate::store::{Durability, Kind, Store, StoreError};

/// Gathers what the aggregator instances find when they replay the journal at the start of the process; the last one
/// to report settles the account.
///
/// Ticks accepted earlier are in stored bars, or counted as dropped, or replayed. Where they are not, a part of the
/// journal is missing (damaged, or dropped over budget), and those ticks are counted as dropped by it. Without such
/// evidence nothing is done: the imbalance is a fault and shows.
#[derive(Default)]
pub struct Recovery(Mutex<State>);

#[derive(Default)]
struct State {
    /// Per spec: ticks that the replays must find.
    missing: Vec<i64>,
    /// Per spec: whether its counts are incomplete.
    damaged: Vec<bool>,
    found: BTreeMap<u16, Found>,
    settled: bool,
}

/// What one aggregator instance found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Per spec: replayed ticks that were in no stored bar.
    pub replayed: Vec<u64>,
    /// Whether arrival numbers are missing from what it replayed.
    pub gap: bool,
}

impl Recovery {
    /// Puts the counts of earlier processes into `ledger`.
    ///
    /// # Errors
    /// The store fails.
    pub fn begin(store: &Store, specs: &Specs, ledger: &Ledger) -> Result<Self, StoreError> {
        let mut state = State::default();
        for spec in specs.iter() {
            let counted = store.counted(Some(spec.id))?;
            ledger.spec(spec.id).restore(&counted.counts, counted.journaled);
            state.missing.push(counted.counts.in_flight());
            state.damaged.push(counted.damaged);
        }
        ledger.unknown().restore(&store.counted(None)?.counts, 0);
        Ok(Self(Mutex::new(state)))
    }

    /// Takes one instance's report; the last of `instances` settles.
    pub fn report(&self, instance: u16, instances: u16, found: Found, context: &Context) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.found.insert(instance, found);
        if state.settled || state.found.len() < usize::from(instances) {
            return;
        }
        state.settled = true;
        let gap = state.found.values().any(|found| found.gap);
        for (spec, (missing, damaged)) in context.specs.iter().zip(state.missing.iter().zip(&state.damaged)) {
            let replayed = |found: &Found| found.replayed.get(spec.id.0 as usize).copied().unwrap_or(0) as i64;
            let left = missing - state.found.values().map(replayed).sum::<i64>();
            settle(left, gap, *damaged, spec, context);
        }
    }
}

/// Accounts for `left` ticks, where there is evidence of what became of them.
fn settle(left: i64, gap: bool, damaged: bool, spec: &Spec, context: &Context) {
    let Context { store, ledger, .. } = context;
    let (counts, ticks) = (ledger.spec(spec.id), left.unsigned_abs());
    let bars_damaged = || store.usage().quarantined.iter().any(|(kind, _)| matches!(kind, Kind::Bar | Kind::Log));
    if left > 0 && (gap || damaged) {
        counts.drop(Reason::JournalGap, ticks);
        let mut batch = store.batch();
        batch.put_gap(spec.id, counts.snapshot().dropped_for(Reason::JournalGap));
        if let Err(error) = batch.commit(Durability::Process) {
            tracing::error!(spec = spec.name, "the count of ticks lost with the journal is not stored: {error}");
        }
        tracing::error!(spec = spec.name, ticks, "accepted ticks are missing from the journal, counted as journal_gap");
    } else if left < 0 && damaged {
        counts.accept(ticks);
        counts.journal(ticks);
        tracing::warn!(spec = spec.name, ticks, "the damaged count of accepted ticks is made good from the bars");
    } else if left < 0 && bars_damaged() {
        counts.unstore(ticks);
        tracing::warn!(spec = spec.name, ticks, "ticks of damaged bars are put into bars again");
    } else if left < 0 && has_new_windows(spec, context) {
        counts.unstore(ticks);
        tracing::info!(
            spec = spec.name,
            ticks,
            "ticks of bars of the old window length are put into bars of the new one"
        );
    }
}

/// Whether the finest windows of a spec had another length when ticks that may be replayed came.
fn has_new_windows(spec: &Spec, context: &Context) -> bool {
    let changed_at = context.store.complete_from(spec.id).first().copied().unwrap_or(TimeNs::MIN);
    changed_at > context.clock.now().saturating_sub(spec.retention.ticks)
}
