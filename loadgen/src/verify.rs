//! `--verify`: every bar and the ledger against a recomputation from the regenerated ticks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use barline_proto::barline::{QueryBarsRequest, barline_client::BarlineClient};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    compare::Comparison,
    generate::{Fate, Stream},
    ledger::{Change, Counts},
    naive::NaiveBars,
    plan::Plan,
};

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether everything is as it must be.
    pub ok: bool,
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
    /// stood at `before` when the run began.
    ///
    /// # Errors
    /// A call that failed.
    pub async fn verify(
        &self,
        client: &mut BarlineClient<Channel>,
        plan: &Plan,
        before: &Counts,
        patience: Duration,
    ) -> Result<Verdict, String> {
        let spec = &plan.profile.spec;
        let (after, mut ledger) = match Counts::at_rest(client, spec, patience).await {
            Ok(counts) => (counts, Vec::new()),
            Err(problem) => (Counts::read(client, spec).await?, vec![problem]),
        };
        ledger.extend(self.ledger(&after.since(before)));
        let mut comparison = Comparison::new(plan, &self.bars);
        self.query(client, plan, &mut comparison).await?;
        comparison.finish();
        Ok(Verdict {
            ok: comparison.wrong == 0 && ledger.is_empty(),
            bars_expected: self.bars.len() as u64,
            bars_stored: comparison.compared,
            bars_amended: comparison.amended,
            bars_wrong: comparison.wrong,
            differences: comparison.shown,
            ledger,
        })
    }

    /// Reads all bars of the time of the run, and one window more on both sides.
    async fn query(
        &self,
        client: &mut BarlineClient<Channel>,
        plan: &Plan,
        comparison: &mut Comparison<'_>,
    ) -> Result<(), String> {
        let Some((first, last)) = self.bars.range() else { return Ok(()) };
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
        Ok(())
    }

    /// What is wrong with what happened in the ledger.
    fn ledger(&self, change: &Change) -> Vec<String> {
        let accepted = self.accepted as i64;
        let numbers = [
            ("accepted", change.accepted, accepted),
            ("in bars", change.in_bars, accepted),
            ("dropped", change.dropped, 0),
            ("duplicate", change.duplicate, 0),
        ];
        let wrong = numbers.into_iter().filter(|(_, stands, expected)| stands != expected);
        let mut problems: Vec<String> =
            wrong.map(|(name, stands, expected)| format!("{name}: {stands} ticks, {expected} expected")).collect();
        if change.rejected != self.rejected {
            problems.push(format!("rejected: {}, {} expected", counts(&change.rejected), counts(&self.rejected)));
        }
        problems
    }
}

/// Counts by reason in one line.
pub fn counts(by_reason: &BTreeMap<String, u64>) -> String {
    let parts: Vec<String> = by_reason.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}
