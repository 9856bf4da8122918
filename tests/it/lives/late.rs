//! Specs that put late ticks into no bar: which ticks are late is the same as if there had been one life only, and none is
//! lost or counted twice over it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{DurationNs, TimeNs};
use barline::spec::{LatePolicy, Spec, Specs};

use super::check::{check_late, ledger};
use super::for_seeds_on_all_cores;
use super::run::{Outcome, SPECS, Variant, run};
use crate::naive::Tick;

/// Seeds of each test in CI.
const SEEDS: u64 = 500;
/// No series is silent for that long.
const NEVER: DurationNs = i64::MAX / 4;

static DROP: LazyLock<Specs> = LazyLock::new(|| specs(LatePolicy::Drop, NEVER));
static ASIDE: LazyLock<Specs> = LazyLock::new(|| specs(LatePolicy::SideOutput, NEVER));
static IDLE_DROP: LazyLock<Specs> = LazyLock::new(|| specs(LatePolicy::Drop, SECOND / 2));
static IDLE_ASIDE: LazyLock<Specs> = LazyLock::new(|| specs(LatePolicy::SideOutput, SECOND / 2));

fn specs(late: LatePolicy, idle: DurationNs) -> Specs {
    let with_policy = |spec: &Arc<Spec>| {
        let mut spec = Spec::clone(spec);
        (spec.window.late, spec.window.idle) = (late, idle);
        spec
    };
    Specs::new(SPECS.iter().map(with_policy).collect())
}

/// Which ticks are late, one after the other: the whole definition, but for silence.
fn late(ticks: &[Tick]) -> Vec<bool> {
    let mut high: HashMap<u32, TimeNs> = HashMap::new();
    let judge = |tick: &Tick| {
        let high = high.entry(tick.series).or_insert(TimeNs::MIN);
        let end = (tick.time.div_euclid(SECOND) + 1) * SECOND;
        let is_late = end + 200 * MILLISECOND <= *high;
        *high = tick.time.max(*high);
        is_late
    };
    ticks.iter().map(judge).collect()
}

/// Runs the seeds of `test`, each of which must leave nothing wrong.
fn for_lives(test: &str, specs: fn() -> Specs, wrong: fn(&Outcome) -> Vec<String>) {
    for_seeds_on_all_cores(1, SEEDS, test, |seed| {
        let wrong = wrong(&run(seed, Variant { specs, ..Variant::SHIPPED }));
        assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    });
}

#[test]
fn dropped_ticks_are_those_that_one_life_would_have_dropped() {
    for_lives("dropped_ticks", || DROP.clone(), |outcome| check_late(outcome, &late(&outcome.journal)));
}

#[test]
fn ticks_aside_are_those_that_one_life_would_have_put_there() {
    let wrong = |outcome: &Outcome| {
        let is_late = late(&outcome.journal);
        let mut wrong = check_late(outcome, &is_late);
        let expected: Vec<Tick> = outcome.journal.iter().zip(is_late).filter(|of| of.1).map(|of| *of.0).collect();
        if outcome.aside != expected {
            wrong.push(format!("{} ticks are aside, {} were late", outcome.aside.len(), expected.len()));
        }
        wrong
    };
    for_lives("ticks_aside", || ASIDE.clone(), wrong);
}

#[test]
fn whatever_falls_silent_no_tick_is_both_aside_and_in_a_bar_and_none_is_neither() {
    let wrong = |outcome: &Outcome| {
        let is_late: Vec<bool> = outcome.journal.iter().map(|tick| outcome.aside.contains(tick)).collect();
        check_late(outcome, &is_late)
    };
    for_lives("whatever_falls_silent", || IDLE_ASIDE.clone(), wrong);
}

#[test]
fn whatever_falls_silent_the_ledger_knows_how_many_ticks_were_dropped() {
    let wrong = |outcome: &Outcome| {
        let in_bars: u64 = outcome.stored[0].values().map(|bar| bar.ticks).sum();
        ledger(outcome, outcome.journal.len() as u64 - in_bars).into_iter().collect()
    };
    for_lives("whatever_falls_silent_the_ledger", || IDLE_DROP.clone(), wrong);
}
