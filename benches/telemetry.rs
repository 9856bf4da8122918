//! What telemetry costs: ingest throughput with everything on, over that with telemetry off.
//!
//! Both are the built binary on `topologies/edge.yaml`, sent ticks as fast as it takes them. They run at the same time on
//! one core, of which the scheduler gives half to each (they are sessions of their own: `sched_autogroup`), so that
//! whatever the machine does meanwhile happens to both; who sends to them, collects, scrapes and looks is on the other
//! cores. On means: OTLP pushed every second, one batch of a hundred traced, Prometheus scraped every second, a page open.
//! Beside the ticks per second taken it gives the CPU time of a tick.
//!
//! `cargo bench --bench telemetry`; `SECONDS` (10) and `PAIRS` (8) in the environment. Needs Linux with `taskset`,
//! `setsid` and two cores.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use common::{barline, free_port, get, number, until_ready};
use serde_json::Value;
use tokio::runtime::Runtime;

fn main() {
    let (pairs, seconds) = (number("PAIRS", 8), number("SECONDS", 10));
    let mine = std::process::id();
    pin(mine, &format!("1-{}", std::thread::available_parallelism().unwrap().get() - 1));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let collector = collect(&runtime);
    let pairs: Vec<_> = (0..pairs).map(|pair| measure(pair % 2 == 0, collector, seconds, &runtime)).collect();
    print_median("ticks/s with everything on, of those with telemetry off", pairs.iter().map(|pair| pair.rate));
    print_median("CPU time of a tick, the same", pairs.iter().map(|pair| pair.cpu));
    runtime.shutdown_background();
}

/// What one pair of instances showed: with everything on, over with telemetry off.
struct Pair {
    /// Ticks per second.
    rate: f64,
    /// CPU time of a tick.
    cpu: f64,
}

fn print_median(what: &str, ratios: impl Iterator<Item = f64>) {
    let mut ratios: Vec<_> = ratios.collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    println!("{what}: median {:.3}, {least:.3} to {most:.3}", ratios[ratios.len() / 2]);
}

/// Lets a process, and what it will start, run on these cores alone.
fn pin(process: u32, cores: &str) {
    let done = Command::new("taskset").args(["-apc", cores, &process.to_string()]).output();
    assert!(done.is_ok_and(|done| done.status.success()), "taskset cannot keep a process on cores {cores}");
}

/// How often something was pushed, scraped, and sent to the page.
static PUSHED: AtomicU64 = AtomicU64::new(0);
static SCRAPED: AtomicU64 = AtomicU64::new(0);
static SHOWN: AtomicU64 = AtomicU64::new(0);

fn count(what: &AtomicU64) {
    what.fetch_add(1, Relaxed);
}

fn counts() -> [u64; 3] {
    [&PUSHED, &SCRAPED, &SHOWN].map(|what| what.load(Relaxed))
}

/// A collector that takes everything and keeps nothing.
fn collect(runtime: &Runtime) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(listener, Router::new().fallback(|_: Bytes| async { count(&PUSHED) })).await.unwrap();
    });
    address
}

/// Runs one instance with everything on beside one with telemetry off.
fn measure(on_first: bool, collector: SocketAddr, seconds: u64, runtime: &Runtime) -> Pair {
    let on = format!("telemetry: {{otlp: {{endpoint: \"http://{collector}\", every: 1s}}, traces: {{sample: 0.01}}}}");
    let start = |is_on: bool| Instance::start(if is_on { &on } else { "metrics: off" }, is_on, runtime);
    let (first, second) = (start(on_first), start(!on_first));
    let (on, off) = if on_first { (&first, &second) } else { (&second, &first) };
    std::thread::sleep(Duration::from_secs(2));
    let (told, before) = (counts(), [on.spent(), off.spent()]);
    std::thread::sleep(Duration::from_secs(seconds));
    let after = [on.spent(), off.spent()];
    let told = std::array::from_fn::<_, 3, _>(|at| counts()[at] - told[at]);
    assert!(told.iter().all(|told| told * 2 > seconds), "pushed, scraped, shown {told:?} times in {seconds} s");
    let [on, off] =
        std::array::from_fn(|at| ((after[at].0 - before[at].0) as f64, (after[at].1 - before[at].1) as f64));
    assert!(on.1.min(off.1) > 1e5 * seconds as f64, "{} and {} ticks in {seconds} s are too few", on.1, off.1);
    let share = on.0 / off.0;
    assert!((0.97..1.03).contains(&share), "no equal shares of the core, one had {share:.3} of the other: autogroups?");
    let pair = Pair { rate: on.1 / off.1, cpu: (on.0 / on.1) / (off.0 / off.1) };
    let shown = |(cpu, ticks): (f64, f64)| (ticks / seconds as f64 / 1e6, cpu / ticks);
    let ((on_rate, on_cpu), (off_rate, off_cpu)) = (shown(on), shown(off));
    println!(
        "on {on_rate:.3} M ticks/s, {on_cpu:.1} ns of CPU each; off {off_rate:.3}, {off_cpu:.1}: {:.3}, {:.3}",
        pair.rate, pair.cpu
    );
    pair
}

/// A running barline that is sent ticks as fast as it takes them.
struct Instance {
    server: Child,
    http: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Instance {
    fn start(telemetry: &str, is_on: bool, runtime: &Runtime) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let topology = written(dir.path(), telemetry);
        let (grpc, http, metrics) = (free_port(), free_port(), free_port());
        let mut set = vec![format!("ingest.listen={grpc}"), format!("http.listen={http}")];
        set.push(format!("specs={}/specs", env!("CARGO_MANIFEST_DIR")));
        set.extend(is_on.then(|| format!("metrics.listen={metrics}")));
        let server = barline(&["setsid"], &topology, &dir.path().join("data"), &set);
        pin(server.id(), "0");
        until_ready(http);
        if is_on {
            std::thread::spawn(move || scrape(metrics));
            std::thread::spawn(move || look(http));
        }
        runtime.spawn(load(grpc));
        Self { server, http, _dir: dir }
    }

    /// CPU time in nanoseconds, and ticks taken.
    fn spent(&self) -> (u64, u64) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.server.id())).unwrap();
        let of = |task: std::io::Result<std::fs::DirEntry>| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        let cpu = tasks.filter_map(of).sum();
        let (_, body) = get(self.http, "/api/v1/ledger").unwrap();
        let ledger: Value = serde_json::from_str(&body).unwrap();
        let specs = ledger["specs"].as_array().unwrap();
        (cpu, specs.iter().filter_map(|spec| spec["accepted"].as_u64()).sum())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

/// `edge.yaml` with other telemetry.
fn written(dir: &Path, telemetry: &str) -> PathBuf {
    let edge = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/edge.yaml")).unwrap();
    let path = dir.join("edge.yaml");
    std::fs::write(&path, edge.replacen("\nstages:", &format!("\n{telemetry}\nstages:"), 1)).unwrap();
    path
}

/// Market ticks of 5 000 series until the other side ends.
async fn load(grpc: SocketAddr) {
    let overrides = ["series=5k", "rate=max", "connections=2"].map(str::to_owned);
    let profile = loadgen::profile::Profile::load("market", &overrides).unwrap();
    let (server, limit) = (format!("http://{grpc}"), loadgen::plan::Limit::Ticks(1 << 30));
    let options = loadgen::run::Options {
        reconnect: Duration::ZERO,
        ..loadgen::run::Options::new(loadgen::connect::Server::open(server), limit)
    };
    let _ended_with_the_server = loadgen::run::run(profile, &options).await;
}

/// Asks for the figures every second for as long as there is somebody to ask.
fn scrape(metrics: SocketAddr) {
    while get(metrics, "/metrics").is_some_and(|(status, _)| status == 200) {
        count(&SCRAPED);
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Reads what the page is sent for as long as it comes.
fn look(http: SocketAddr) {
    let mut stream = TcpStream::connect(http).unwrap();
    write!(stream, "GET /live HTTP/1.1\r\nhost: bench\r\n\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.filter(|line| line.starts_with("data:")).for_each(|_| count(&SHOWN));
}
