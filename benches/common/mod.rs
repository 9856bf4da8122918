//! What the benchmarks of the built binary share: starting it, asking it, waiting for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A number in the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Starts the built binary, through the program `by` if there is one, on `topology` with `data` as its directory.
pub fn barline(by: &[&str], topology: &Path, data: &Path, set: &[String]) -> Child {
    let program = [by, &[env!("CARGO_BIN_EXE_barline")]].concat();
    Command::new(program[0])
        .args(&program[1..])
        .args(["run", "--quiet"])
        .arg(topology)
        .arg("--data-dir")
        .arg(data)
        .args(set.iter().flat_map(|set| ["--set", set]))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A port that nobody uses.
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// What an HTTP server answers: status and body.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// Waits until an instance is ready.
pub fn until_ready(http: SocketAddr) {
    until("barline is ready", || get(http, "/ready").is_some_and(|(status, _)| status == 200));
}

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(300), "gave up waiting until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
