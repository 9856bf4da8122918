//! The top-level keys of a topology, with their defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::model::DurationNs;
use crate::model::time::SECOND;
use crate::spec::Problem;
use crate::spec::decode::decode;
use crate::spec::units::format_bytes;
use crate::spec::yaml::{Node, Place, Sources};

use super::compile::Machine;
use super::security::Security;
use super::telemetry::TelemetryPlan;
use super::written::{WrittenListener, WrittenTopology};

const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9877);
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9878);
const DRAIN: DurationNs = 30 * SECOND;
const CACHE: u64 = 64 << 20;
const MEMORY: u64 = 2 << 30;
const DISK: u64 = 50 << 30;

/// The top-level keys as they apply.
pub struct Settings {
    /// The topology's name.
    pub name: String,
    /// `None` for in memory only.
    pub data_dir: Option<PathBuf>,
    /// The directory of series specs.
    pub specs_dir: PathBuf,
    /// Where HTTP listens, and where that is written.
    pub http: Option<(SocketAddr, Place)>,
    /// Where Prometheus scrapes, and where that is written.
    pub metrics: Option<(SocketAddr, Place)>,
    /// What is pushed where.
    pub telemetry: TelemetryPlan,
    /// How long a shutdown may take.
    pub drain: DurationNs,
    /// The memory budget in bytes, and where it is written.
    pub memory: (u64, Place),
    /// The disk budget in bytes and where it is written; `None`: what the stages ask for, at least the default.
    pub disk: Option<(u64, Place)>,
    /// The store's cache, in bytes.
    pub cache_bytes: u64,
    /// Who may come in.
    pub security: Security,
}

impl Settings {
    /// Reads the top-level keys of `root`, decoded as `written`; `telemetry` has been read.
    pub fn of(
        file: &str,
        root: &Node,
        written: &WrittenTopology,
        telemetry: TelemetryPlan,
        machine: Machine,
        sources: &Sources,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let security = Security::of(root, sources, problems);
        let mut report = |place, problem| problems.push(sources.at(place, problem));
        let memory = written.budget.as_ref().and_then(|budget| budget.memory.as_ref());
        if let Some(memory) = memory.filter(|memory| memory.value.0 > machine.memory_bytes) {
            let [budget, has] = [memory.value.0, machine.memory_bytes].map(format_bytes);
            let problem = Problem::new(format!("a memory budget of {budget} on a machine that has {has}"));
            report(memory.place, problem.allowed(format!("at most {has}")).remedy("lower budget.memory"));
        }
        if let Some(drain) = written.drain.as_ref().filter(|drain| drain.value.0 == 0) {
            report(drain.place, Problem::new("a drain of 0s would cut every stage off").allowed("longer than 0s"));
        }
        let in_memory = match written.store.as_ref().map(|store| (store.value.as_str(), store.place)) {
            None | Some(("disk", _)) => false,
            Some(("memory", _)) => true,
            Some((other, place)) => {
                report(place, Problem::unknown_value("store", other, ["disk", "memory"]));
                false
            }
        };
        let directory = PathBuf::from(written.data_dir.as_deref().unwrap_or("./data"));
        Self {
            name: written.topology.as_ref().map_or_else(|| stem(file), |name| name.value.clone()),
            data_dir: (!in_memory).then_some(directory),
            specs_dir: written.specs.as_deref().unwrap_or("./specs").into(),
            http: listener("http", HTTP, root, sources, problems),
            metrics: listener("metrics", METRICS, root, sources, problems),
            telemetry,
            drain: written.drain.as_ref().map_or(DRAIN, |drain| drain.value.0),
            memory: memory.map_or((MEMORY.min(machine.memory_bytes), root.place), |m| (m.value.0, m.place)),
            disk: written.budget.as_ref().and_then(|b| b.disk.as_ref()).map(|disk| (disk.value.0, disk.place)),
            cache_bytes: written.cache.map_or(CACHE, |cache| cache.0),
            security,
        }
    }

    /// The disk budget, given what the stages ask for.
    pub fn disk_budget(&self, asked: u64) -> u64 {
        self.disk.map_or(DISK.max(asked), |(bytes, _)| bytes)
    }
}

/// `key: off`, or where it listens.
fn listener(
    key: &str,
    default: SocketAddr,
    root: &Node,
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Option<(SocketAddr, Place)> {
    let Some(node) = root.get(key) else { return Some((default, root.place)) };
    match node.text() {
        Some("off" | "false") => None,
        Some(other) => {
            let problem = Problem::new(format!("unknown value `{other}` for `{key}`"));
            problems.push(sources.at(node.place, problem.allowed(format!("off, or {{listen: {default}}}"))));
            None
        }
        None => {
            let written: Option<WrittenListener> = decode(node, sources, problems);
            let listen = written.and_then(|http| http.listen);
            Some(listen.map_or((default, node.place), |listen| (listen.value.0, listen.place)))
        }
    }
}

/// A file's name without folders and extension.
fn stem(file: &str) -> String {
    Path::new(file).file_stem().map_or_else(|| file.to_owned(), |stem| stem.to_string_lossy().into_owned())
}
