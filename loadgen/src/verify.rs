//! `--verify` and `loadgen check`: every bar and the ledger against a recomputation.
//!
//! Where every tick counts once it is recomputed from what was sent, generated again. Where ticks may be there twice, or
//! a run may have been cut off, it is recomputed from the ticks that are there, and those are held against what was
//! acknowledged.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use barline_proto::barline::{QueryBarsRequest, barline_client::BarlineClient};
use serde::Serialize;

use crate::{
    audit::{self, Found},
    compare::Comparison,
    connect::Channel,
    generate::{Fate, Stream},
    ledger::{Change, Counts},
    naive::NaiveBars,
    plan::Plan,
    record::Record,
    stored::Stored,
};

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether everything is as it must be.
    pub ok: bool,
    /// What was checked.
    pub checked: Checked,
    /// Bars that must be there.
    pub bars_expected: u64,
    /// Bars of this run that are there.
    pub bars_stored: u64,
    /// Of these, how many were amended.
    pub bars_amended: u64,
    /// Bars that differ, are missing, twice there, or there without a tick.
    pub bars_wrong: u64,
    /// The first of them, in full.
    pub differences: Vec<String>,
    /// What is wrong with the ledger.
    pub ledger: Vec<String>,
    /// What was found of the raw ticks, where they were read.
    pub ticks: Option<Found>,
}

/// What the bars were held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Checked {
    /// The ticks that were sent, each once.
    Sent,
    /// The ticks that are there: every acknowledged one, some perhaps twice.
    Stored,
}

/// What was sent, regenerated.
#[derive(Debug)]
pub struct Expectation {
    bars: NaiveBars,
    accepted: u64,
    rejected: BTreeMap<String, u64>,
}

impl Fate {
    /// The reason a tick is rejected for; `None` where it is accepted.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Accepted => None,
            Self::UnknownSeries => Some("unknown_series"),
            Self::Ahead => Some("ahead"),
            Self::Expired => Some("expired"),
        }
    }
}

impl Expectation {
    /// Generates again the first `sent[c]` ticks of every connection c.
    ///
    /// # Errors
    /// A metric of the profile that cannot be computed.
    pub fn regenerate(plan: &Arc<Plan>, sent: &[u64]) -> Result<Self, String> {
        let mut expectation = Self { bars: NaiveBars::new(&plan.profile)?, accepted: 0, rejected: BTreeMap::new() };
        for (connection, ticks) in sent.iter().enumerate() {
            let mut stream = Stream::new(plan, connection as u64);
            for _ in 0..*ticks {
                let tick = stream.next();
                match tick.fate.reason() {
                    None => expectation.accepted += 1,
                    Some(reason) => *expectation.rejected.entry(reason.to_owned()).or_default() += 1,
                }
                expectation.bars.add(tick);
            }
        }
        Ok(expectation)
    }

    /// Waits up to `patience` for the server to come to rest, then compares its bars and its ledger, which
    /// stood at `before` when the run began. `again`: batches were sent again, which the ledger shows.
    ///
    /// # Errors
    /// A call that failed.
    pub async fn verify(
        &self,
        client: &mut BarlineClient<Channel>,
        plan: &Plan,
        before: &Counts,
        patience: Duration,
        again: bool,
    ) -> Result<Verdict, String> {
        let (after, mut ledger) = settled(client, &plan.profile.spec, patience).await?;
        ledger.extend(self.ledger(&after.since(before), again));
        let comparison = compare(client, plan, &self.bars).await?;
        Ok(Verdict::new(Checked::Sent, &self.bars, comparison, ledger, None))
    }

    /// What is wrong with what happened in the ledger.
    fn ledger(&self, change: &Change, again: bool) -> Vec<String> {
        let accepted = self.accepted as i64;
        let numbers = [
            ("accepted", change.accepted, accepted),
            ("in bars", change.in_bars, accepted),
            ("dropped", change.dropped, 0),
            // Sent again, ticks may have come before; how many of them, only the server knows.
            ("duplicate", change.duplicate, if again { change.duplicate } else { 0 }),
        ];
        let wrong = numbers.into_iter().filter(|(_, stands, expected)| stands != expected);
        let mut problems: Vec<String> =
            wrong.map(|(name, stands, expected)| format!("{name}: {stands} ticks, {expected} expected")).collect();
        // Refused once more with a batch of which nothing had been taken, or a duplicate with it where something had.
        if !again && change.rejected != self.rejected {
            problems.push(format!("rejected: {}, {} expected", counts(&change.rejected), counts(&self.rejected)));
        }
        problems
    }
}

impl Verdict {
    /// Waits up to `patience` for the server to come to rest, then holds the ticks it has against `record`, its bars
    /// against those ticks, and its ledger against itself.
    ///
    /// # Errors
    /// A call that failed.
    pub async fn of(client: &mut BarlineClient<Channel>, record: &Record, patience: Duration) -> Result<Self, String> {
        let (_, ledger) = settled(client, &record.plan.profile.spec, patience).await?;
        let stored = Stored::read(client, &record.plan).await?;
        let ticks = audit::audit(record, &stored.ticks);
        let comparison = compare(client, &record.plan, &stored.bars).await?;
        Ok(Self::new(Checked::Stored, &stored.bars, comparison, ledger, Some(ticks)))
    }

    fn new(
        checked: Checked,
        bars: &NaiveBars,
        comparison: Comparison<'_>,
        ledger: Vec<String>,
        ticks: Option<Found>,
    ) -> Self {
        let wrong = comparison.wrong + ticks.as_ref().map_or(0, |ticks| ticks.wrong);
        Self {
            ok: wrong == 0 && ledger.is_empty(),
            checked,
            bars_expected: bars.len() as u64,
            bars_stored: comparison.compared,
            bars_amended: comparison.amended,
            bars_wrong: comparison.wrong,
            differences: comparison.shown,
            ledger,
            ticks,
        }
    }
}

/// The ledger when it has come to rest, and what is wrong with it by itself.
async fn settled(
    client: &mut BarlineClient<Channel>,
    spec: &str,
    patience: Duration,
) -> Result<(Counts, Vec<String>), String> {
    let (counts, restless) = match Counts::at_rest(client, spec, patience).await {
        Ok(counts) => (counts, None),
        Err(problem) => (Counts::read(client, spec).await?, Some(problem)),
    };
    let problems = restless.into_iter().chain(counts.imbalance()).collect();
    Ok((counts, problems))
}

/// Compares all bars of the time of `bars`, and one window more on both sides.
async fn compare<'a>(
    client: &mut BarlineClient<Channel>,
    plan: &'a Plan,
    bars: &'a NaiveBars,
) -> Result<Comparison<'a>, String> {
    let mut comparison = Comparison::new(plan, bars);
    let Some((first, last)) = bars.range() else { return Ok(comparison) };
    let window = plan.profile.window.0;
    let request = QueryBarsRequest {
        spec: plan.profile.spec.clone(),
        r#match: None,
        start_ns: first - window,
        end_ns: last + 2 * window,
        granularity: String::new(),
        limit: 0,
    };
    let broke = |s: tonic::Status| format!("QueryBars: {:?}: {}", s.code(), s.message());
    let mut chunks = client.query_bars(request).await.map_err(broke)?.into_inner();
    while let Some(chunk) = chunks.message().await.map_err(broke)? {
        chunk.bars.iter().for_each(|bar| comparison.add(bar));
    }
    comparison.finish();
    Ok(comparison)
}

/// Counts by reason in one line.
pub fn counts(by_reason: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = by_reason.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}
