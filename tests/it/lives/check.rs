//! What must hold when the last life is over, whatever happened in the others.

use std::collections::BTreeMap;

use barline::model::TimeNs;
use barline::model::time::SECOND;

use super::run::Outcome;
use crate::naive::{self, Tick};

/// Everything that is wrong with an outcome.
pub fn check(outcome: &Outcome) -> Vec<String> {
    let mut wrong = outcome.complaints.clone();
    wrong.extend(journal(outcome));
    wrong.extend(bars(outcome));
    wrong.extend(ledger(outcome));
    wrong
}

/// Every batch is in the journal wholly and once, or not at all; those acknowledged are there.
fn journal(outcome: &Outcome) -> Vec<String> {
    let mut wrong = Vec::new();
    let script = &outcome.sending.script;
    let first = |ticks: &[Tick]| ticks.first().map_or(-1, |tick| tick.quantity);
    let by_first: BTreeMap<i64, usize> = script.iter().enumerate().map(|(at, (_, ticks))| (first(ticks), at)).collect();
    let mut times = vec![0; script.len()];
    for block in &outcome.journal {
        match by_first.get(&first(block)) {
            Some(at) if script[*at].1 == *block => times[*at] += 1,
            found => wrong.push(format!("a block of {} ticks is not batch {found:?} as it was sent", block.len())),
        }
    }
    let twice = times.iter().filter(|times| **times > 1).count();
    if twice > 0 {
        wrong.push(format!("{twice} batches are in the journal more than once"));
    }
    let acknowledged = outcome.sending.acknowledged.lock().unwrap();
    let lost: Vec<usize> = acknowledged.iter().copied().filter(|at| times[*at] == 0).collect();
    if !lost.is_empty() {
        wrong.push(format!("acknowledged and lost: batches {lost:?} of {}", script.len()));
    }
    wrong
}

/// Every bar is what the ticks in the journal add up to.
fn bars(outcome: &Outcome) -> Vec<String> {
    let ticks: Vec<Tick> = outcome.journal.iter().flatten().copied().collect();
    let mut wrong = Vec::new();
    for (stored, seconds) in outcome.stored.iter().zip([1, 5, 20]) {
        let expected = naive::bars(&ticks, seconds * SECOND);
        let differs = |key: &&(u32, TimeNs)| stored.get(key) != expected.get(key);
        let keys: Vec<_> = expected.keys().chain(stored.keys()).filter(differs).collect();
        if let Some(key) = keys.first() {
            let shown = (stored.get(key), expected.get(key));
            wrong.push(format!("{} bars of {seconds} s are wrong, first {key:?}: {shown:?}", keys.len()));
        }
    }
    wrong
}

/// Over all lives together the ledger knows every tick of the journal, and has it in a bar.
fn ledger(outcome: &Outcome) -> Option<String> {
    let (ticks, ledger) = (outcome.journal.iter().flatten().count() as u64, &outcome.ledger);
    let counted = [ledger.accepted, ledger.in_bars];
    let balances = counted == [ticks; 2] && ledger.open == 0 && ledger.dropped.is_empty();
    (!balances).then(|| format!("{ticks} ticks are in the journal, the ledger says {ledger:?}"))
}
