//! Several lives of the whole topology over one disk that forgets what was not synced: processes die at any instant, power
//! fails, syncs and reads fail, the device fills up, clocks are set back, and every life has another number of aggregators.
//! In the end every acknowledged tick is in the journal and every bar is what the journal adds up to.

mod check;
mod run;
mod script;

use barline::runtime::sim::{SEED_VARIABLE, for_seeds};

use check::check;
use run::{Variant, run};

/// Seeds in CI.
const SEEDS: u64 = 2000;

/// As `for_seeds`, on every core.
fn for_seeds_on_all_cores(first: u64, count: u64, test: &str, case: impl Fn(u64) + Sync) {
    let replays = std::env::var(SEED_VARIABLE).is_ok();
    let threads = if replays { 1 } else { std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64) };
    std::thread::scope(|scope| {
        let share = |thread: u64| (first + count * thread / threads, count * (thread + 1) / threads - count * thread / threads);
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
#[ignore]
fn survey() {
    let env = |name: &str| std::env::var(name).is_ok();
    let variant = Variant { reads: !env("NO_READS"), power: !env("NO_POWER"),
        order: if env("PER_SPACE") { barline::store::Order::PerSpace } else { barline::store::Order::Log }, ..Variant::SHIPPED };
    let n: u64 = std::env::var("N").map_or(400, |n| n.parse().unwrap());
    std::panic::set_hook(Box::new(|_| {}));
    let (mut bad, mut twice) = (Vec::new(), 0);
    for seed in 1..=n {
        match std::panic::catch_unwind(|| { let o = run(seed, variant); (check(&o), o.shown_twice) }) {
            Ok((wrong, shown)) => { if shown > 0 { twice += 1; } if !wrong.is_empty() { bad.push((seed, wrong[0].clone())) } }
            Err(panic) => bad.push((seed, format!("PANIC {:?}", panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|s| s.to_string()))))),
        }
    }
    println!("{} of {n} bad; shown twice after power loss in {twice}", bad.len());
    for (seed, wrong) in bad.iter().take(25) { println!("{seed}: {}", &wrong[..wrong.len().min(260)]); }
}
