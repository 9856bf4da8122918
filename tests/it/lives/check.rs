//! What must hold when the last life is over, whatever happened in the others.

use std::collections::BTreeMap;

use barline::model::time::SECOND;
use barline::model::{Reason, TimeNs};

use super::run::Outcome;
use crate::naive::{self, Tick};

/// Everything that is wrong with an outcome.
pub fn check(outcome: &Outcome) -> Vec<String> {
    let mut wrong = outcome.complaints.clone();
    wrong.extend(journal(outcome));
    wrong.extend(bars(outcome, &outcome.journal));
    wrong.extend(ledger(outcome, 0));
    wrong
}

/// Everything that is wrong with the outcome of a variant that puts late ticks into no bar; `is_late` says which are, in
/// the order of the journal.
pub fn check_late(outcome: &Outcome, is_late: &[bool]) -> Vec<String> {
    let mut wrong = outcome.complaints.clone();
    wrong.extend(journal(outcome));
    let on_time = outcome.journal.iter().zip(is_late).filter(|(_, is_late)| !**is_late);
    wrong.extend(bars(outcome, &on_time.map(|(tick, _)| *tick).collect::<Vec<_>>()));
    wrong.extend(ledger(outcome, is_late.iter().filter(|is_late| **is_late).count() as u64));
    wrong
}

/// Every batch is in the journal wholly and once, or not at all; those acknowledged are there.
fn journal(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let script = &outcome.sending.script;
    let mut found: BTreeMap<i64, Vec<Tick>> = BTreeMap::new();
    outcome.journal.iter().for_each(|tick| found.entry(tick.quantity).or_default().push(*tick));
    let mut is_there = vec![false; script.len()];
    for (at, (_, ticks)) in script.iter().enumerate() {
        let stored: Vec<Tick> = ticks.iter().filter_map(|tick| found.remove(&tick.quantity)).flatten().collect();
        is_there[at] = stored == *ticks;
        if !stored.is_empty() && stored != *ticks {
            wrong.push(format!("batch {at} of {} ticks is not in the journal as it was sent: {stored:?}", ticks.len()));
        }
    }
    if let Some(tick) = found.first_key_value() {
        wrong.push(format!("a tick that was never sent is in the journal: {tick:?}"));
    }
    let acknowledged = outcome.sending.acknowledged.lock().unwrap();
    let lost: Vec<usize> = acknowledged.iter().copied().filter(|at| !is_there[*at]).collect();
    if !lost.is_empty() {
        wrong.push(format!("acknowledged and lost: batches {lost:?} of {}", script.len()));
    }
    wrong
}

/// Every bar is what the `ticks` add up to.
fn bars(outcome: &Outcome, ticks: &[Tick]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (stored, seconds) in outcome.stored.iter().zip([1, 5, 20]) {
        let expected = naive::bars(ticks, seconds * SECOND);
        let differs = |key: &&(u32, TimeNs)| stored.get(key) != expected.get(key);
        let keys: Vec<_> = expected.keys().chain(stored.keys()).filter(differs).collect();
        if let Some(key) = keys.first() {
            let shown = (stored.get(key), expected.get(key));
            wrong.push(format!("{} bars of {seconds} s are wrong, first {key:?}: {shown:?}", keys.len()));
        }
    }
    wrong
}

/// Over all lives together the ledger knows every tick of the journal, and has it in a bar or as one of so many `late` ones.
pub fn ledger(outcome: &Outcome, late: u64) -> Option<String> {
    let (ticks, ledger) = (outcome.journal.len() as u64, &outcome.ledger);
    let dropped: u64 = ledger.dropped.iter().map(|(_, ticks)| ticks).sum();
    let counted = [ledger.accepted, ledger.in_bars + late, dropped];
    let is_reason = |reason: &Reason| matches!(reason, Reason::Late | Reason::SideOutput);
    let balances =
        counted == [ticks, ticks, late] && ledger.open == 0 && ledger.dropped.iter().all(|(of, _)| is_reason(of));
    (!balances).then(|| format!("{ticks} ticks are in the journal, {late} late, the ledger says {ledger:?}"))
}
