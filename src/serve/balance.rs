//! The ledger at rest: once nothing moves, every accepted tick must be in a bar, in an open window, or counted as
//! dropped. Where it is not, that is a fault of barline's, logged and shown by `/ready`.

use std::sync::Arc;
use std::time::Duration;

use super::served::Served;
use crate::model::LedgerSnapshot;
use crate::runtime::InstanceState;

/// How long nothing must have moved.
const REST: Duration = Duration::from_secs(1);

/// Looks after the ledger until the topology stops.
pub async fn watch(served: Arc<Served>) {
    let mut before = None;
    loop {
        tokio::select! {
            () = served.stopping().cancelled() => return,
            () = tokio::time::sleep(REST) => {}
        }
        let now = at_rest(&served);
        if now.is_some() && now == before {
            served.note_imbalance(now.iter().flatten().filter_map(|(spec, counts)| wrong(spec, counts)).collect());
        }
        before = now;
    }
}

/// The counts of every spec; `None` while anything is on its way.
fn at_rest(served: &Served) -> Option<Vec<(String, LedgerSnapshot)>> {
    let settled = |meter: &crate::runtime::Meter| {
        matches!(meter.state(), InstanceState::Running | InstanceState::Standby)
            && meter.lanes().iter().all(|lane| lane.is_settled())
    };
    let context = &served.context;
    let counts = |spec: &Arc<crate::spec::Spec>| (spec.name.clone(), context.ledger.spec(spec.id).snapshot());
    served.meters().iter().all(|meter| settled(meter)).then(|| context.specs.iter().map(counts).collect())
}

/// What is wrong with a spec's counts at rest.
fn wrong(spec: &str, counts: &LedgerSnapshot) -> Option<String> {
    let what = counts.imbalance()?;
    let (LedgerSnapshot { accepted, in_bars, open, .. }, dropped) = (counts, counts.dropped_ticks());
    let sums = format!("{accepted} accepted, {in_bars} in bars, {open} open, {dropped} dropped");
    Some(format!("the ledger of {spec} does not balance: {what} ({sums})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Reason, SpecLedger};

    #[test]
    fn what_is_missing_and_what_is_too_much_is_told_and_a_balance_is_not() {
        let ledger = SpecLedger::default();
        ledger.accept(10);
        ledger.store(7);
        ledger.open(1);
        ledger.drop(Reason::Late, 2);
        assert_eq!(wrong("a", &ledger.snapshot()), None);
        ledger.accept(5);
        let told = wrong("a", &ledger.snapshot()).unwrap();
        assert!(told.contains("5 accepted ticks are in no bar") && told.contains("15 accepted, 7 in bars"), "{told}");
        ledger.store(8);
        assert!(wrong("a", &ledger.snapshot()).unwrap().contains("3 more ticks"));
    }
}
