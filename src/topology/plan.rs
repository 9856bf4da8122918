//! A checked topology: what is launched, and what it may take of the machine.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::model::DurationNs;
use crate::spec::units::{format_bytes, format_duration};

use super::kind::{AnyConfig, Facts, Kind, Role};
use super::security::Security;
use super::telemetry::TelemetryPlan;

/// The most memory one query takes, about.
const QUERY_BYTES: u64 = 14 << 20;
/// The most memory all taps take, about: eight, each with 17 samples of at most 1000 rows that wait for its client.
const TAPS: u64 = 16 << 20;
/// The most bytes of the write-ahead log of a store on disk.
pub const STORE_LOG: u64 = 192 << 20;

/// A checked topology.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Where data is kept; `None` for in memory only.
    pub data_dir: Option<PathBuf>,
    /// The directory of series specs.
    pub specs_dir: PathBuf,
    /// Where HTTP listens, if it does.
    pub http: Option<SocketAddr>,
    /// Where Prometheus scrapes, if it may.
    pub metrics: Option<SocketAddr>,
    /// What is pushed where.
    pub telemetry: TelemetryPlan,
    /// How long a shutdown may take.
    pub drain: DurationNs,
    /// What the whole process may take.
    pub budget: Budget,
    /// The store's cache, in bytes.
    pub cache_bytes: u64,
    /// Who may come in.
    pub security: Security,
    /// The stages, upstream first, otherwise in the file's order.
    pub stages: Vec<StagePlan>,
}

/// What the whole process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Memory, in bytes.
    pub memory: u64,
    /// Disk, in bytes.
    pub disk: u64,
}

/// One stage.
#[derive(Clone)]
pub struct StagePlan {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static Kind,
    /// Indices of the stages it takes from, in the order written.
    pub from: Vec<usize>,
    /// Indices of the stages that take from it, ascending.
    pub to: Vec<usize>,
    /// How many there are, at least 1; where their number changes, the most.
    pub instances: u16,
    /// Where the number of those that are active changes: between which bounds.
    pub scale: Option<ScalePlan>,
    /// The mailbox of each instance; without meaning for a source.
    pub mailbox: MailboxPlan,
    /// The kind's own config type.
    pub config: Arc<dyn AnyConfig>,
    /// What it asks of the machine.
    pub facts: Facts,
    /// The largest envelope it sends, in bytes: its own claim, or else the largest it receives.
    pub batch_bytes: u64,
}

/// Between which bounds the number of a stage's active instances changes, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScalePlan {
    /// The fewest, and as many as there are at the start; at least 1.
    pub min: u16,
    /// The most.
    pub max: u16,
    /// The lag above which there should be more; `None`: the number changes only when somebody asks for it.
    pub target_lag: Option<DurationNs>,
}

/// The mailbox of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxPlan {
    /// How many envelopes each of its lanes holds.
    pub capacity: usize,
    /// What becomes of an envelope for a full lane.
    pub when_full: WhenFull,
}

/// What becomes of an envelope for a full lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// Its sender waits.
    Block,
    /// Its sender, a source, drops it and counts its ticks.
    DropNewest,
}

impl Plan {
    /// The lanes into all instances of a stage: one per instance and upstream instance.
    pub fn lanes(&self, stage: &StagePlan) -> u64 {
        let upstream: u64 = stage.from.iter().map(|from| u64::from(self.stages[*from].instances)).sum();
        upstream * u64::from(stage.instances)
    }

    /// The most memory a stage takes, in bytes: its instances' state and every lane into them full of the largest
    /// envelopes. Batches that several lanes share are counted in each. Without a disk, what it keeps is memory too.
    pub fn stage_memory(&self, stage: &StagePlan) -> u64 {
        let kept = if self.data_dir.is_none() { stage.facts.disk } else { 0 };
        let state = stage.facts.memory.saturating_mul(u64::from(stage.instances)).saturating_add(kept);
        let envelopes = (stage.mailbox.capacity as u64).saturating_mul(u64::from(stage.instances));
        let lane_bytes = stage.from.iter().map(|from| {
            let upstream = &self.stages[*from];
            upstream.batch_bytes.saturating_mul(u64::from(upstream.instances)).saturating_mul(envelopes)
        });
        lane_bytes.fold(state, u64::saturating_add)
    }

    /// The most memory all stages, the store, the queries and what is pushed take, in bytes. Open windows and the catalog grow with the
    /// number of series, which each spec's cardinality limit bounds.
    pub fn memory_bound(&self) -> u64 {
        let shared = self.cache_bytes.saturating_add(self.buffer_bytes()).saturating_add(self.reading_bytes());
        let shared = shared.saturating_add(self.telemetry.memory());
        self.stages.iter().map(|stage| self.stage_memory(stage)).fold(shared, u64::saturating_add)
    }

    /// The most memory all queries and taps take together, in bytes.
    pub fn reading_bytes(&self) -> u64 {
        self.security.limits.queries() as u64 * QUERY_BYTES + TAPS
    }

    /// The most bytes in the store's log, on disk, and in its write buffers, in memory: what is in these is in that.
    pub fn buffer_bytes(&self) -> u64 {
        if self.data_dir.is_some() { STORE_LOG } else { 0 }
    }

    /// The most disk the stages say they keep, with the store's log, in bytes.
    pub fn disk_bound(&self) -> u64 {
        let stages = self.data_dir.iter().flat_map(|_| &self.stages);
        stages.map(|stage| stage.facts.disk).fold(self.buffer_bytes(), u64::saturating_add)
    }

    /// The stage with this name.
    pub fn stage(&self, name: &str) -> Option<&StagePlan> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    /// What a person should know: (stage or listener, line) each.
    pub fn warnings(&self) -> impl Iterator<Item = (&str, String)> {
        let of_stages = self
            .stages
            .iter()
            .flat_map(|stage| stage.facts.warnings.iter().map(|line| (stage.name.as_str(), line.clone())));
        let overheard = self.listeners().filter(|(_, address)| self.security.can_be_overheard(*address));
        let remedy = "without TLS a token can be overheard: add security.tls";
        of_stages
            .chain(overheard.map(move |(name, at)| (name, format!("listens at {at} beyond this machine; {remedy}"))))
    }

    /// Whoever listens, and where.
    fn listeners(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let http = [("http", self.http), ("metrics", self.metrics)];
        let http = http.into_iter().filter_map(|(name, address)| Some((name, address?)));
        let stages = self.stages.iter();
        http.chain(stages.flat_map(|stage| stage.facts.listens.iter().map(|at| (stage.name.as_str(), *at))))
    }

    /// One row of the table in [`Plan`]'s `Display`.
    fn row(&self, stage: &StagePlan) -> [String; 7] {
        let names: Vec<&str> = stage.from.iter().map(|from| self.stages[*from].name.as_str()).collect();
        let source = stage.kind.role == Role::Source;
        let or_dash = |text: String| if source { "-".to_owned() } else { text };
        [
            stage.name.clone(),
            stage.kind.name.to_owned(),
            or_dash(names.join(", ")),
            stage.count(),
            or_dash(self.lanes(stage).to_string()),
            or_dash(format!("{} {}", stage.mailbox.capacity, stage.mailbox.when_full.name())),
            format_bytes(self.stage_memory(stage)),
        ]
    }
}

impl StagePlan {
    /// How many instances there are, or between which bounds: `4` or `1–8`.
    pub fn count(&self) -> String {
        self.scale.map_or_else(|| self.instances.to_string(), |ScalePlan { min, max, .. }| format!("{min}–{max}"))
    }
}

/// How the number of active instances changes, in words.
impl fmt::Display for ScalePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, max, target_lag } = self;
        write!(f, "begins with {min} of {max} instances active; ")?;
        match target_lag {
            Some(lag) => write!(f, "more while its lag is above {}, fewer while they are idle", format_duration(*lag)),
            None => f.write_str("their number changes by `barline scale`"),
        }
    }
}

impl WhenFull {
    /// The name in topology files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropNewest => "drop_newest",
        }
    }
}

impl fmt::Debug for StagePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind, from, instances, mailbox, .. } = self;
        write!(f, "StagePlan({name}: {kind:?} × {instances}, from {from:?}, {mailbox:?})")
    }
}

/// The resolved plan as an aligned table, then the totals against the budget.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = self.data_dir.as_ref().map_or("in memory".to_owned(), |dir| dir.display().to_string());
        let [http, metrics] =
            [self.http, self.metrics].map(|listen| listen.map_or("off".to_owned(), |address| address.to_string()));
        writeln!(f, "topology {}", self.name)?;
        writeln!(
            f,
            "data {data} · specs {} · http {http} · metrics {metrics} · drain {}",
            self.specs_dir.display(),
            format_duration(self.drain)
        )?;
        if !self.security.is_empty() {
            writeln!(f, "security {}", self.security)?;
        }
        writeln!(f)?;
        let header = ["STAGE", "KIND", "FROM", "INSTANCES", "LANES", "MAILBOX", "MEMORY ≤"].map(str::to_owned);
        let rows: Vec<[String; 7]> = std::iter::once(header).chain(self.stages.iter().map(|s| self.row(s))).collect();
        write_table(f, &rows)?;
        writeln!(f)?;
        for (stage, scale) in self.stages.iter().filter_map(|stage| Some((stage, stage.scale?))) {
            writeln!(f, "{} {scale}", stage.name)?;
        }
        let [cache, buffers, queries] = [self.cache_bytes, self.buffer_bytes(), self.reading_bytes()].map(format_bytes);
        let [memory, disk] = [self.memory_bound(), self.disk_bound()].map(format_bytes);
        let [memory_budget, disk_budget] = [self.budget.memory, self.budget.disk].map(format_bytes);
        writeln!(
            f,
            "memory ≤ {memory} of {memory_budget} (of it the store's cache {cache} and write buffers {buffers}, queries \
             and taps {queries}; open windows come on top)"
        )?;
        writeln!(f, "disk   ≤ {disk} of {disk_budget} (of it the store's log {buffers})")?;
        self.warnings().try_for_each(|(stage, line)| writeln!(f, "warning: {stage}: {line}"))
    }
}

/// Columns two spaces apart, numbers to the right.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[[String; 7]]) -> fmt::Result {
    const RIGHT: [bool; 7] = [false, false, false, true, true, false, true];
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    for row in rows {
        let cells =
            row.iter().zip(&widths).zip(RIGHT).map(|((cell, width), right)| {
                if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
        writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fake::compile_text;

    #[test]
    fn the_resolved_plan_is_shown_with_its_bounds() {
        let text = "{topology: small, store: memory, http: off, metrics: off, stages: {in: {kind: host_metrics, instances: 2}, agg: \
                    {kind: aggregator, from: in, mailbox: {capacity: 4, when_full: drop_newest}}}}";
        let shown = "topology small\ndata in memory · specs ./specs · http off · metrics off · drain 30s\n\n\
                     STAGE  KIND          FROM  INSTANCES  LANES  MAILBOX        MEMORY ≤\n\
                     in     host_metrics  -             2      -  -                   0 B\n\
                     agg    aggregator    in            1      2  4 drop_newest    32 KiB\n\n\
                     memory ≤ 304 MiB of 2 GiB (of it the store's cache 64 MiB and write buffers 0 B, queries and taps 240 MiB; \
                     open windows come on top)\n\
                     disk   ≤ 0 B of 50 GiB (of it the store's log 0 B)\n";
        assert_eq!(compile_text(text).unwrap().to_string(), shown);
    }
}
