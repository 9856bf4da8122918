//! A barline with a topology and specs of its own, which a test may change.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use barline_proto::barline::SpecLedger;
use barline_proto::tikr::{IngestRequest, TickData};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::crash::load::Load;
use crate::crash::quiet_port;
use crate::harness::{Server, barline, block_on, root};

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module's text.
pub struct Site {
    pub dir: TempDir,
    pub server: Server,
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What a command said that ended with `code`.
pub fn failed(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

impl Site {
    /// Starts a copy of a shipped topology, with copies of the shipped specs but `asic_metrics`.
    pub fn start(topology: &str) -> Self {
        Self::start_as(topology, |text| text)
    }

    /// As [`Site::start`], of a topology that `change` has changed.
    pub fn start_as(topology: &str, change: impl FnOnce(String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let specs = dir.path().join("specs");
        fs::create_dir(&specs).unwrap();
        for name in ["market_ticks.yaml", "network_flows.yaml", "host_metrics.yaml"] {
            fs::copy(root().join("specs").join(name), specs.join(name)).unwrap();
        }
        let text = fs::read_to_string(root().join("topologies").join(topology)).unwrap();
        let text = change(text.replace("./specs", specs.to_str().unwrap()));
        let path = dir.path().join("topology.yaml");
        fs::write(&path, text).unwrap();
        let server = Server::spawn_at(quiet_port(), path.to_str().unwrap(), &dir.path().join("data"), &[]);
        let mut site = Self { dir, server };
        site.server.until_ready();
        site
    }

    /// Starts it again at the same address.
    pub fn restart(&mut self) {
        let topology = self.dir.path().join("topology.yaml");
        let data = self.dir.path().join("data");
        self.server = Server::spawn_at(self.server.grpc, topology.to_str().unwrap(), &data, &[]);
        self.server.until_ready();
    }

    /// Starts it again where its topology says that it listens.
    pub fn restart_as_written(&mut self, grpc: SocketAddr, http: SocketAddr) {
        let topology = self.dir.path().join("topology.yaml");
        let data = self.dir.path().join("data");
        self.server = Server::spawn_as_written(topology.to_str().unwrap(), &data, grpc, http);
        self.server.until_ready();
    }

    /// Where a spec file is, or would be.
    pub fn spec(&self, name: &str) -> PathBuf {
        self.dir.path().join("specs").join(name)
    }

    /// Changes a file.
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} is not in {text}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }

    /// Changes a file, or changes it back.
    pub fn toggle(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.dir.path().join(file)).unwrap();
        if text.contains(to) { self.edit(file, to, from) } else { self.edit(file, from, to) }
    }

    /// `barline reload`.
    pub fn reload(&self) -> Output {
        self.reload_command().output().unwrap()
    }

    pub fn reload_command(&self) -> std::process::Command {
        let mut command = barline(&["reload", "--format", "json"]);
        // Only the process itself reads the topology that a test may have broken.
        command.args(["--topology", "topologies/edge.yaml", "--data-dir"]).arg(self.dir.path().join("data"));
        command
    }

    /// A reload that goes well, and its report.
    pub fn reloaded(&self) -> Value {
        let output = self.reload();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{}", self.server.output());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["unready"], Value::Array(Vec::new()), "{report}");
        report
    }

    /// Waits until so many more ticks of each load are acknowledged.
    pub fn until_acknowledged(&mut self, loads: &[Load], ticks: u64) {
        let known: Vec<u64> = loads.iter().map(Load::acknowledged).collect();
        self.server.until("more ticks are acknowledged", |_| {
            loads.iter().zip(&known).all(|(load, known)| load.acknowledged() >= known + ticks)
        });
    }

    /// Every counter, by its name and labels.
    pub fn counters(&self) -> BTreeMap<String, f64> {
        let (_, text) = Server::get_from(self.server.metrics, "/metrics", "*/*").unwrap();
        let lines = text.lines().filter(|line| line.contains("_total{") || line.contains("_count{"));
        let sample = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
        lines.filter_map(sample).collect()
    }

    /// Sends ticks of `market_ticks` and waits for their acknowledgement.
    pub async fn send_ticks(&self, count: u64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let ticks = (0..count).map(|n| TickData {
            timestamp_ns: now + n,
            dimensions: HashMap::from([("symbol".to_owned(), "A".to_owned())]),
            fields: HashMap::from([("price".to_owned(), 1), ("quantity".to_owned(), 1)]),
            sequence: 0,
        });
        let request = IngestRequest { series: "market_ticks".into(), ticks: ticks.collect() };
        let reply = self.server.tikr().await.ingest_ticks(tokio_stream::iter([request])).await.unwrap();
        assert_eq!(reply.get_ref().ticks_received, count);
    }

    /// Waits until every accepted tick is in a bar or counted as dropped; gives the ledger then.
    pub fn until_at_rest(&self) -> Vec<SpecLedger> {
        let since = Instant::now();
        loop {
            let ledgers = block_on(self.server.ledgers());
            if ledgers.iter().all(|ledger| {
                let dropped: u64 = ledger.dropped.values().sum();
                ledger.open == 0 && ledger.in_flight == 0 && ledger.accepted == ledger.in_bars + dropped
            }) {
                return ledgers;
            }
            assert!(since.elapsed() < PATIENCE, "{ledgers:#?}\n{}", self.server.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the loads, holds what there is against what was acknowledged, and stops.
    pub fn end(&mut self, loads: &mut [Load], runtime: &Runtime) {
        loads.iter_mut().for_each(|load| load.end(runtime));
        for load in loads.iter() {
            let verdict = load.check(self.server.grpc, runtime);
            assert!(verdict.ok, "{}\n{}\n{}", verdict.text(), verdict.problems(), self.server.output());
            println!("{}: {}", load.spec, verdict.text());
            let ticks = verdict.ticks.unwrap();
            let ledgers = self.until_at_rest();
            let ledger = ledgers.iter().find(|ledger| ledger.spec == load.spec).unwrap();
            assert_eq!((ledger.accepted, ledger.in_bars), (ticks.stored, ticks.stored), "{ledger:#?}");
        }
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.server.signal("TERM");
        assert!(self.server.wait().success(), "{}", self.server.output());
        assert!(self.server.output().contains("ledger   balanced"), "{}", self.server.output());
    }
}
