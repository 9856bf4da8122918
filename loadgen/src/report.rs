//! The result of a run: an aligned table for people, JSON for programs.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    audit::Found,
    meter::Latency,
    plan::Plan,
    profile::Protocol,
    units::Rate,
    verify::{Checked, Verdict, counts},
};

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The spec ticks were sent to.
    pub spec: String,
    /// The run's name, a part of its series' dimensions.
    pub run: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Event time of the first tick, nanoseconds since the Unix epoch.
    pub base_ns: i64,
    /// `tikr.v1` or `barline.v1`.
    pub protocol: &'static str,
    /// Connections.
    pub connections: u64,
    /// Series over all connections.
    pub series: u64,
    /// The rate asked for in ticks per second; `None` for flat out.
    pub rate_asked: Option<f64>,
    /// What was sent and what became of it.
    pub ticks: Ticks,
    /// What was sent more than once.
    pub again: Again,
    /// From the first message to the server's last word.
    pub seconds: f64,
    /// Accepted ticks per second.
    pub ticks_per_second: f64,
    /// Megabytes (10^6) of messages per second.
    pub megabytes_per_second: f64,
    /// Bytes per tick on the wire, without HTTP/2.
    pub bytes_per_tick: f64,
    /// From when a message was due until HTTP/2 took it: backpressure.
    pub send_latency: Option<Latency>,
    /// From when a batch was due until its acknowledgement, on `barline.v1`.
    pub ack_latency: Option<Latency>,
    /// From the end of the last connection's sending to the server's last word, in milliseconds.
    pub final_ack_ms: f64,
    /// CPU time this process used.
    pub generator_cpu: Option<Cpu>,
    /// What `--verify` found.
    pub verify: Option<Verdict>,
}

/// What was sent and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ticks {
    /// Sent.
    pub sent: u64,
    /// Taken, as the server said.
    pub accepted: u64,
    /// Refused, as the server said, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Of batches sent again that had been taken: acknowledged once, refused ticks among them.
    pub duplicate: u64,
    /// Neither said to be taken nor to be refused.
    pub unaccounted: i64,
}

/// What was sent more than once, because a stream broke.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Again {
    /// How often a stream broke and was begun anew.
    pub reconnects: u64,
    /// Batches, on `barline.v1`: there once all the same.
    pub batches: u64,
    /// Ticks; on `tikr.v1` they may be there as often as they were sent.
    pub ticks: u64,
}

/// CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cpu {
    /// In seconds, over all threads.
    pub seconds: f64,
    /// In nanoseconds per tick sent.
    pub ns_per_tick: f64,
}

impl Report {
    /// A report of `plan` with nothing measured yet.
    pub fn of(plan: &Plan, ticks: Ticks) -> Self {
        let profile = &plan.profile;
        Self {
            spec: profile.spec.clone(),
            run: plan.run.clone(),
            seed: profile.seed,
            base_ns: plan.base,
            protocol: profile.protocol.name(),
            connections: profile.connections.0,
            series: profile.series.0,
            rate_asked: match profile.rate {
                Rate::Max => None,
                Rate::PerSecond(rate) => Some(rate),
            },
            ticks,
            again: Again::default(),
            seconds: 0.0,
            ticks_per_second: 0.0,
            megabytes_per_second: 0.0,
            bytes_per_tick: 0.0,
            send_latency: None,
            ack_latency: None,
            final_ack_ms: 0.0,
            generator_cpu: None,
            verify: None,
        }
    }

    /// The report as an aligned table, and the differing bars below it.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        for (name, value) in self.rows() {
            table.add_row([name, value]);
        }
        let text: String = table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        text + &self.verify.as_ref().map_or_else(String::new, Verdict::problems)
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows: Vec<(&str, String)> = vec![
            ("run", format!("{} of {}, seed {}", self.run, self.spec, self.seed)),
            ("load", self.load()),
            ("sent", format!("{} ticks in {:.3} s", grouped(self.ticks.sent), self.seconds)),
            ("accepted", format!("{} ticks", grouped(self.ticks.accepted))),
            ("rejected", counts(&self.ticks.rejected)),
        ];
        if self.ticks.unaccounted != 0 {
            rows.push(("unaccounted", format!("{} ticks", self.ticks.unaccounted)));
        }
        if self.again.reconnects > 0 {
            rows.push(("reconnects", self.again.text(self.protocol, self.ticks.duplicate)));
        }
        let rate = grouped(self.ticks_per_second as u64);
        rows.push((
            "rate",
            format!("{rate} ticks/s, {:.1} MB/s, {:.1} bytes/tick", self.megabytes_per_second, self.bytes_per_tick),
        ));
        rows.extend(self.send_latency.map(|latency| ("send delay", latency.text())));
        rows.extend(self.ack_latency.map(|latency| ("ack latency", latency.text())));
        rows.push(("final ack", format!("{:.1} ms", self.final_ack_ms)));
        rows.extend(
            self.generator_cpu
                .map(|cpu| ("generator", format!("{:.2} s CPU, {:.1} ns/tick", cpu.seconds, cpu.ns_per_tick))),
        );
        rows.extend(self.verify.as_ref().map(|verdict| ("verify", verdict.text())));
        rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn load(&self) -> String {
        let rate =
            self.rate_asked.map_or_else(|| "flat out".to_owned(), |rate| format!("{} ticks/s", grouped(rate as u64)));
        format!("{rate}, {} series, {} connections, {}", grouped(self.series), self.connections, self.protocol)
    }
}

impl Again {
    fn text(&self, protocol: &str, duplicate: u64) -> String {
        let Self { reconnects, batches, ticks } = *self;
        let (batches, ticks, duplicate) = (grouped(batches), grouped(ticks), grouped(duplicate));
        if protocol == Protocol::Barline.name() {
            format!("{reconnects}, {batches} batches of {ticks} ticks sent again, {duplicate} ticks had been taken")
        } else {
            format!("{reconnects}, {ticks} ticks sent again, which may be there twice")
        }
    }
}

impl Latency {
    fn text(&self) -> String {
        let ms = |us: f64| format!("{:.2}", us / 1e3);
        let [p50, p90, p99, p99_9, max] = [self.p50_us, self.p90_us, self.p99_us, self.p99_9_us, self.max_us].map(ms);
        format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p99_9}  max {max} ms")
    }
}

impl Verdict {
    /// What was found, in one line.
    pub fn text(&self) -> String {
        let bars = format!(
            "{} of {} bars, {} amended",
            grouped(self.bars_stored),
            grouped(self.bars_expected),
            grouped(self.bars_amended)
        );
        let ticks = self.ticks.as_ref().map_or_else(String::new, |ticks| format!("; {}", ticks.text()));
        let of = match self.checked {
            Checked::Sent => "",
            Checked::Stored => " to the ticks that are there",
        };
        if self.ok {
            format!("ok: {bars}, all equal{of}, ledger balanced{ticks}")
        } else {
            let wrong = grouped(self.bars_wrong);
            format!("FAILED: {bars}, {wrong} not equal{of}, {} problems in the ledger{ticks}", self.ledger.len())
        }
    }

    /// What is wrong, in full.
    pub fn problems(&self) -> String {
        let ticks = self.ticks.iter().flat_map(|ticks| &ticks.problems);
        let all = self.ledger.iter().chain(ticks).chain(&self.differences);
        all.map(|problem| format!("\n{}\n", problem.trim_end())).collect()
    }
}

impl Found {
    fn text(&self) -> String {
        let Self { acknowledged, stored, unacknowledged, again, wrong, .. } = self;
        let mut text = format!("{} ticks acknowledged, {} there", grouped(*acknowledged), grouped(*stored));
        for (number, what) in [(unacknowledged, "not acknowledged"), (again, "once more"), (wrong, "wrong")] {
            if *number > 0 {
                text += &format!(", {} {what}", grouped(*number));
            }
        }
        text
    }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let group = |(i, digit): (usize, char)| {
        let comma = i > 0 && (digits.len() - i).is_multiple_of(3);
        [comma.then_some(','), Some(digit)].into_iter().flatten()
    };
    digits.chars().enumerate().flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
