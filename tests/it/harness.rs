//! The built binary, driven from outside.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use barline_proto::barline::barline_client::BarlineClient;
use barline_proto::barline::{Bar, GetLedgerRequest, QueryBarsRequest, SpecLedger};
use barline_proto::tikr::tikr_client::TikrClient;
use tonic::transport::Channel;

/// How long a condition may take to come true before the test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `barline run`, killed when dropped.
pub struct Server {
    child: Child,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    log: PathBuf,
}

/// A port nobody listens on at the moment, and no other test was given.
pub fn free_port() -> SocketAddr {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        if given.insert(address.port()) {
            return address;
        }
    }
}

/// Says on the process's stderr, past the test runner, that a test was skipped; where the variable `required` is set, that
/// is a failure.
pub fn skip(required: &str, reason: &str) {
    assert!(std::env::var_os(required).is_none(), "{required} is set, but: {reason}");
    let thread = std::thread::current();
    let _ = writeln!(std::io::stderr(), "skipped: {}: {reason}", thread.name().unwrap_or("a test"));
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The binary with these arguments, run in the repository without any `BARLINE_` or `OTEL_` variable.
pub fn barline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_barline"));
    command.args(arguments).current_dir(root());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BARLINE_") || name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

impl Server {
    /// Starts a topology, a shipped one or one by its whole path, on free ports with its data in `data`, and waits until it is ready.
    pub fn start(topology: &str, data: &Path, overrides: &[&str]) -> Self {
        let mut server = Self::spawn(topology, data, overrides);
        server.until_ready();
        server
    }

    /// As [`Server::start`], with these variables in its environment.
    pub fn start_in(environment: &[(&str, &str)], topology: &str, data: &Path, overrides: &[&str]) -> Self {
        let mut server = Self::launch(free_port(), environment, topology, data, overrides);
        server.until_ready();
        server
    }

    /// Waits until it is ready.
    pub fn until_ready(&mut self) {
        self.until("it is ready", |server| {
            if let Some(status) = server.child.try_wait().unwrap() {
                panic!("barline ended with {status} before it was ready:\n{}", server.output());
            }
            server.get("/ready").is_some_and(|(status, _)| status == 200)
        });
    }

    /// As [`Server::start`], without waiting.
    pub fn spawn(topology: &str, data: &Path, overrides: &[&str]) -> Self {
        Self::spawn_at(free_port(), topology, data, overrides)
    }

    /// As [`Server::spawn`], at a given address: clients that were connected to its predecessor find it.
    pub fn spawn_at(grpc: SocketAddr, topology: &str, data: &Path, overrides: &[&str]) -> Self {
        Self::launch(grpc, &[], topology, data, overrides)
    }

    fn launch(grpc: SocketAddr, environment: &[(&str, &str)], topology: &str, data: &Path, overrides: &[&str]) -> Self {
        let (http, metrics) = (free_port(), free_port());
        let log = data.with_extension("log");
        let topology = Path::new("topologies").join(topology);
        let mut command = barline(&["run", topology.to_str().unwrap(), "--quiet"]);
        command.args(["--data-dir", data.to_str().unwrap()]);
        command.args(["--set", &format!("ingest.listen={grpc}"), "--set", &format!("http.listen={http}")]);
        command.args(["--set", &format!("metrics.listen={metrics}")]);
        for change in overrides {
            command.args(["--set", change]);
        }
        command.envs(environment.iter().copied());
        Self { child: logged(command, &log), grpc, http, metrics, log }
    }

    /// Starts a topology with nothing but its data directory changed: it listens at `grpc` and `http`, and serves no metrics.
    pub fn spawn_as_written(topology: &str, data: &Path, grpc: SocketAddr, http: SocketAddr) -> Self {
        let log = data.with_extension("log");
        let command = barline(&["run", topology, "--quiet", "--data-dir", data.to_str().unwrap()]);
        Self { child: logged(command, &log), grpc, http, metrics: http, log }
    }

    /// Polls `condition` until it holds.
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !condition(self) {
            assert!(since.elapsed() < PATIENCE, "gave up waiting until {what}:\n{}", self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Status and body of a plain HTTP GET; `None` when nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        Self::get_from(self.http, path, "*/*")
    }

    /// As [`Server::get`], from any port and with an `Accept` header.
    pub fn get_from(address: SocketAddr, path: &str, accept: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(address).ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: barline\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let (head, body) = reply.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// A client of `tikr.v1`.
    pub async fn tikr(&self) -> TikrClient<Channel> {
        TikrClient::connect(format!("http://{}", self.grpc)).await.unwrap()
    }

    /// A client of `barline.v1`.
    pub async fn barline(&self) -> BarlineClient<Channel> {
        BarlineClient::connect(format!("http://{}", self.grpc)).await.unwrap()
    }

    /// Every stored bar of `spec`, of the finest granularity.
    pub async fn bars(&self, spec: &str) -> Vec<Bar> {
        let request = QueryBarsRequest { spec: spec.to_owned(), ..QueryBarsRequest::default() };
        let mut chunks = self.barline().await.query_bars(request).await.unwrap().into_inner();
        let mut bars = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            bars.extend(chunk.bars);
        }
        bars
    }

    /// The ledger of every spec.
    pub async fn ledgers(&self) -> Vec<SpecLedger> {
        let request = GetLedgerRequest { spec: String::new() };
        self.barline().await.get_ledger(request).await.unwrap().into_inner().specs
    }

    /// Sends a signal by name, `TERM` or `KILL`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut ended = None;
        self.until("it has ended", |server| {
            ended = server.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// How many files it has open, connections among them.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Resident memory in bytes.
    pub fn rss(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
}

/// Starts a command whose output goes to `log`.
fn logged(mut command: Command, log: &Path) -> Child {
    let output = std::fs::File::create(log).unwrap();
    command.stdout(output.try_clone().unwrap()).stderr(output).stdin(Stdio::null()).spawn().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        // Either is fine: it may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `body` on a runtime of its own.
pub fn block_on<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body)
}

/// A codec that sends bytes as they are, to say what no honest client would.
pub struct BytesCodec;

/// See [`BytesCodec`].
pub struct BytesHalf;

impl tonic::codec::Codec for BytesCodec {
    type Encode = bytes::Bytes;
    type Decode = bytes::Bytes;
    type Encoder = BytesHalf;
    type Decoder = BytesHalf;

    fn encoder(&mut self) -> BytesHalf {
        BytesHalf
    }

    fn decoder(&mut self) -> BytesHalf {
        BytesHalf
    }
}

impl tonic::codec::Encoder for BytesHalf {
    type Item = bytes::Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: bytes::Bytes, to: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        bytes::BufMut::put(to, item);
        Ok(())
    }
}

impl tonic::codec::Decoder for BytesHalf {
    type Item = bytes::Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<bytes::Bytes>, tonic::Status> {
        Ok(Some(bytes::Buf::copy_to_bytes(from, bytes::Buf::remaining(from))))
    }
}
