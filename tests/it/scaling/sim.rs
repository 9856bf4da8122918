//! The whole of `scaled.yaml` simulated while the number of its aggregators changes at random, amid stalls, panics and
//! restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use barline::app::Launched;
use barline::model::Reason;
use barline::runtime::Scaling;
use barline::runtime::sim::{Rates, for_seeds};
use barline::spec::LatePolicy;

use crate::sim::{CALM, ROUGH, check, run_beside, run_late_beside};

/// The most aggregators.
const MOST: u16 = 5;
pub(super) const BOUNDS: &str = "{min: 1, max: 5}";

/// Changes that came to their end, and those refused because another was under way.
#[derive(Default)]
pub(super) struct Changes {
    pub done: AtomicU64,
    refused: AtomicU64,
}

/// Asks for another number of instances again and again until the topology ends; sometimes without waiting for the last
/// change.
async fn change(scaling: Arc<Scaling>, seed: u64, changes: Arc<Changes>) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5ca1e);
    loop {
        tokio::time::sleep(Duration::from_micros(random.u64(0..600_000))).await;
        match scaling.ask(random.u16(1..=MOST)) {
            Ok(number) if random.bool() => match scaling.done(number).await {
                Ok(()) => _ = changes.done.fetch_add(1, Relaxed),
                Err(_) => return,
            },
            Ok(_) => {}
            Err(_) => _ = changes.refused.fetch_add(1, Relaxed),
        }
    }
}

pub(super) fn beside(seed: u64, changes: &Arc<Changes>) -> impl Fn(&Launched) {
    let changes = changes.clone();
    move |launched| {
        let scaling = launched.context.scaling.clone().unwrap();
        tokio::task::spawn_local(change(scaling, seed, changes.clone()));
    }
}

fn check_changes(changes: &Changes, least: u64) {
    let [done, refused] = [&changes.done, &changes.refused].map(|count| count.load(Relaxed));
    assert!(done > least && refused > 0, "{done} changes came to their end, {refused} were refused");
}

#[test]
fn a_thousand_seeds_of_changes_amid_stalls_panics_and_restarts_leave_exact_bars() {
    let changes = Arc::new(Changes::default());
    for_seeds(1, 1000, "a_thousand_seeds_of_changes", |seed| {
        let rates = if seed % 4 == 0 { CALM } else { ROUGH };
        let run = run_beside(seed, "scaled.yaml", rates, |_| BOUNDS.to_owned(), beside(seed, &changes));
        check(seed, &run);
    });
    check_changes(&changes, 1000);
}

#[test]
fn late_ticks_that_go_into_no_bar_are_counted_once_however_often_the_number_changes() {
    let changes = Arc::new(Changes::default());
    for_seeds(1, 200, "late_ticks_that_go_into_no_bar_are_counted_once", |seed| {
        let rates = if seed < 40 { CALM } else { Rates { panic: 0.02, ..ROUGH } };
        for (policy, reason) in [(LatePolicy::Drop, Reason::Late), (LatePolicy::SideOutput, Reason::SideOutput)] {
            let bounds = format!("aggregate.instances={BOUNDS}");
            let (ticks, ledger, _) = run_late_beside(seed, policy, rates, &[&bounds], beside(seed, &changes));
            let dropped: u64 = ledger.dropped.iter().map(|(_, ticks)| ticks).sum();
            assert!(ledger.dropped.iter().all(|(found, _)| *found == reason), "seed {seed}: {ledger:?}");
            assert_eq!((ledger.accepted, ledger.in_bars + dropped), (ticks, ticks), "seed {seed}: {ledger:?}");
        }
    });
    check_changes(&changes, 100);
}
