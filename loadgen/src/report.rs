//! The result of a run: an aligned table for people, JSON for programs.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    meter::Latency,
    plan::Plan,
    units::Rate,
    verify::{Verdict, counts},
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
    /// Neither said to be taken nor to be refused.
    pub unaccounted: i64,
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
        let mut text: String = table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        for difference in self.verify.iter().flat_map(|v| v.ledger.iter().chain(&v.differences)) {
            text += "\n";
            text += difference.trim_end();
            text += "\n";
        }
        text
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

impl Latency {
    fn text(&self) -> String {
        let ms = |us: f64| format!("{:.2}", us / 1e3);
        let [p50, p90, p99, p99_9, max] = [self.p50_us, self.p90_us, self.p99_us, self.p99_9_us, self.max_us].map(ms);
        format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p99_9}  max {max} ms")
    }
}

impl Verdict {
    fn text(&self) -> String {
        let bars = format!(
            "{} of {} bars, {} amended",
            grouped(self.bars_stored),
            grouped(self.bars_expected),
            grouped(self.bars_amended)
        );
        if self.ok {
            format!("ok: {bars}, all equal, ledger balanced")
        } else {
            format!("FAILED: {bars}, {} wrong, {} problems in the ledger", grouped(self.bars_wrong), self.ledger.len())
        }
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
