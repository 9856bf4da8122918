//! Several lives of the whole topology over one disk that forgets what was not synced: processes die at any instant, power
//! fails, syncs and reads fail, the device fills up, clocks are set back, and every life has another number of aggregators, which
//! in every other one changes while it lasts.
//! In the end every acknowledged tick is in the journal and every bar is what the journal adds up to.

mod broken;
mod check;
mod late;
mod run;
mod scale;
mod script;
mod see;

use barline::runtime::sim::{SEED_VARIABLE, for_seeds};

use check::check;
use run::{Only, Variant, run};

/// Seeds in CI.
const SEEDS: u64 = 2000;

/// As `for_seeds`, on every core.
fn for_seeds_on_all_cores(first: u64, count: u64, test: &str, case: impl Fn(u64) + Sync) {
    let replays = std::env::var(SEED_VARIABLE).is_ok();
    let threads = if replays { 1 } else { std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64) };
    std::thread::scope(|scope| {
        let share =
            |thread: u64| (first + count * thread / threads, count * (thread + 1) / threads - count * thread / threads);
        let run = |thread| {
            let (case, (first, count)) = (&case, share(thread));
            scope.spawn(move || for_seeds(first, count, test, case))
        };
        let running: Vec<_> = (0..threads).map(run).collect();
        for thread in running {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
}

#[test]
fn two_thousand_seeds_of_crashes_lose_no_acknowledged_tick_and_leave_exact_bars() {
    for_seeds_on_all_cores(1, SEEDS, "two_thousand_seeds", |seed| {
        let wrong = check(&run(seed, Variant::SHIPPED));
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    });
}

#[test]
fn whatever_fails_at_whichever_commit_or_read_costs_nothing_acknowledged() {
    for_seeds_on_all_cores(1, 6, "whatever_fails", |seed| {
        let outcome = |only| run(seed, Variant { only: Some(only), ..Variant::SHIPPED });
        // A commit that never comes fails nothing, and shows how many there are.
        let commits = outcome(Only::Full(u64::MAX)).commits;
        assert!(commits > 5, "seed {seed}: only {commits} commits");
        for at in 1..=commits {
            let only = [Only::Full(at), Only::Sync(at), Only::Read(at), Only::Dies(at, false), Only::Dies(at, true)];
            for only in only {
                let wrong = check(&outcome(only));
                assert!(wrong.is_empty(), "seed {seed}, {only:?}: {wrong:#?}");
            }
        }
    });
}
