//! The summary after the drain: what was done, whether every accepted tick is accounted for, and what went wrong.

use std::fmt::Write;
use std::sync::Arc;

use super::board::Tally;
use super::human;
use crate::model::{DurationNs, Ledger, LedgerSnapshot, Reason};
use crate::runtime::{Context, DrainReport, Sink};
use crate::spec::{Spec, Specs};
use crate::store::FollowerCounts;

/// What to print when everything has ended, line by line. `ran` is how long the process was up; `tally` what
/// [`super::live`] saw, where it watched.
pub fn farewell(context: &Context, report: &DrainReport, ran: DurationNs, tally: Option<&Tally>) -> String {
    let mut text = format!("barline ran for {}, drained in {}\n", human::span(ran), human::span(nanos(report.took)));
    text += &render(&context.specs, &context.ledger, tally);
    for sink in context.sinks.all() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:<9}{}: {}", "sink", sink.name, sent(&counts(&sink)));
    }
    for (stage, instance, exit) in report.troubled() {
        let _ = writeln!(text, "  {:<9}{stage}[{instance}] {exit}", "trouble");
    }
    text
}

/// All counters of the ledger added up.
pub fn totals(specs: &Specs, ledger: &Ledger) -> LedgerSnapshot {
    let mut sum = ledger.unknown().snapshot();
    for spec in specs.iter() {
        add(&mut sum, &ledger.spec(spec.id).snapshot());
    }
    sum
}

fn add(sum: &mut LedgerSnapshot, more: &LedgerSnapshot) {
    sum.accepted += more.accepted;
    sum.duplicate += more.duplicate;
    sum.in_bars += more.in_bars;
    sum.open += more.open;
    for (into, from) in [(&mut sum.rejected, &more.rejected), (&mut sum.dropped, &more.dropped)] {
        for (reason, ticks) in from {
            match into.iter_mut().find(|(known, _)| known == reason) {
                Some((_, total)) => *total += ticks,
                None => into.push((*reason, *ticks)),
            }
        }
    }
}

fn render(specs: &Specs, ledger: &Ledger, tally: Option<&Tally>) -> String {
    let sum = totals(specs, ledger);
    let wrong = |spec: &Arc<Spec>| {
        let what = ledger.spec(spec.id).snapshot().imbalance()?;
        Some(format!("{}: {what}", spec.name))
    };
    let unbalanced: Vec<_> = specs.iter().filter_map(wrong).collect();
    let mut lines = vec![("ticks", ticks(&sum))];
    lines.extend((!sum.rejected.is_empty()).then(|| ("rejected", reasons(&sum.rejected))));
    lines.extend((!sum.dropped.is_empty()).then(|| ("dropped", reasons(&sum.dropped))));
    lines.extend(tally.map(|tally| ("bars", bars(tally))));
    lines.push(("ledger", balance(&sum, &unbalanced)));
    lines.iter().map(|(name, text)| format!("  {name:<9}{text}\n")).collect()
}

fn ticks(sum: &LedgerSnapshot) -> String {
    let mut parts = vec![("received", sum.received()), ("accepted", sum.accepted)];
    let others = [("duplicate", sum.duplicate), ("rejected", sum.rejected_ticks()), ("dropped", sum.dropped_ticks())];
    parts.extend(others.into_iter().filter(|(_, ticks)| *ticks > 0));
    let parts: Vec<_> = parts.into_iter().map(|(name, ticks)| format!("{} {name}", human::count(ticks))).collect();
    parts.join(" · ")
}

fn bars(tally: &Tally) -> String {
    let at_least = if tally.missed_batches > 0 { "at least " } else { "" };
    let (bars, amendments) = (human::count(tally.bars), human::count(tally.amendments));
    format!("{at_least}{bars} stored · {at_least}{amendments} amended by late ticks")
}

fn reasons(counts: &[(Reason, u64)]) -> String {
    let counts: Vec<_> = counts.iter().map(|(why, ticks)| format!("{} {}", human::count(*ticks), why.name())).collect();
    counts.join(" · ")
}

/// What became of the bars of all specs of a sink since it first ran.
fn counts(sink: &Sink) -> FollowerCounts {
    let counts = sink.followers.iter().map(|(_, follower)| follower.counts());
    counts.fold(FollowerCounts::default(), |sum, more| sum + more)
}

fn sent(counts: &FollowerCounts) -> String {
    let mut parts = vec![
        format!("{} delivered", human::count(counts.delivered)),
        format!("{} waiting in the outbox", human::count(counts.outstanding)),
    ];
    for (bars, what) in
        [(counts.dropped(), "dropped"), (counts.quarantined, "quarantined"), (counts.skipped, "skipped")]
    {
        parts.extend((bars > 0).then(|| format!("{} {what}", human::count(bars))));
    }
    parts.join(" · ")
}

/// At rest every accepted tick is in a bar, in an open window or counted as dropped.
fn balance(sum: &LedgerSnapshot, unbalanced: &[String]) -> String {
    if unbalanced.is_empty() {
        let (accepted, in_bars) = (human::count(sum.accepted), human::count(sum.in_bars));
        let dropped = human::count(sum.dropped_ticks());
        return format!("balanced: {accepted} accepted = {in_bars} in bars + {} open + {dropped} dropped", sum.open);
    }
    format!("NOT BALANCED: {}", unbalanced.join("; "))
}

fn nanos(took: std::time::Duration) -> DurationNs {
    DurationNs::try_from(took.as_nanos()).unwrap_or(DurationNs::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::fixtures::specs;
    use crate::model::SpecId;

    #[test]
    fn a_quiet_run_takes_two_lines() {
        let text = render(&specs(), &Ledger::new(1), None);
        assert_eq!(
            text,
            "  ticks    0 received · 0 accepted\n  ledger   balanced: 0 accepted = 0 in bars + 0 open + 0 dropped\n"
        );
    }

    #[test]
    fn every_tick_is_accounted_for_by_reason() {
        let ledger = Ledger::new(1);
        let counts = ledger.spec(SpecId(0));
        counts.accept(12_345);
        counts.store(12_300);
        counts.open(40);
        counts.drop(Reason::Late, 5);
        counts.reject(Reason::Expired, 7);
        ledger.unknown().reject(Reason::UnknownSeries, 2);
        let tally = Tally { bars: 1_200, amendments: 3, missed_batches: 0 };
        let lines = [
            "  ticks    12,354 received · 12,345 accepted · 9 rejected · 5 dropped",
            "  rejected 2 unknown_series · 7 expired",
            "  dropped  5 late",
            "  bars     1,200 stored · 3 amended by late ticks",
            "  ledger   balanced: 12,345 accepted = 12,300 in bars + 40 open + 5 dropped",
        ];
        assert_eq!(render(&specs(), &ledger, Some(&tally)).lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn what_became_of_a_sinks_bars_is_told_and_nothing_that_never_happened() {
        let counts = FollowerCounts { delivered: 4_095, outstanding: 12, ..FollowerCounts::default() };
        assert_eq!(sent(&counts), "4,095 delivered · 12 waiting in the outbox");
        let worse = FollowerCounts { spool_full: 2, unreachable: 1, quarantined: 5, skipped: 7, ..counts };
        let both = "8,190 delivered · 24 waiting in the outbox · 3 dropped · 5 quarantined · 7 skipped";
        assert_eq!(sent(&(counts + worse)), both);
    }

    #[test]
    fn a_tick_unaccounted_for_is_named_with_its_spec() {
        let ledger = Ledger::new(1);
        ledger.spec(SpecId(0)).accept(2);
        let text = render(&specs(), &ledger, Some(&Tally { missed_batches: 1, ..Tally::default() }));
        assert!(text.contains("NOT BALANCED: host_metrics: 2 accepted ticks are in no bar"), "{text}");
        assert!(text.contains("at least 0 stored"), "{text}");
    }
}
