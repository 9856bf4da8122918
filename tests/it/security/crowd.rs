//! Ten thousand idle connections: they keep nobody out, and cost what the limits allow.

use std::net::{SocketAddr, TcpStream};

use super::kit::{load, refused};
use crate::harness::Server;

/// What barline opens beside connections: files of the store, sockets, pipes.
const OWN_FILES: usize = 200;

/// How many files this process may open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap_or(usize::MAX)
}

/// Connections that say nothing.
fn crowd(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect(address).unwrap()).collect()
}

#[test]
fn a_crowd_of_idle_connections_is_bounded_and_a_real_client_is_served() {
    let dir = tempfile::tempdir().unwrap();
    // Other tests of this process need files too.
    let count = 10_000.min(open_files() / 2);
    eprintln!("{count} idle connections");
    let server = Server::start("memory.yaml", &dir.path().join("data"), &["ingest.max_connections=64"]);
    let before = server.rss();
    let idle = (crowd(server.grpc, count * 4 / 5), crowd(server.http, count / 10), crowd(server.metrics, count / 10));
    assert_eq!(load(&format!("--addr http://{} --connections 4 --verify", server.grpc)), Ok(true));
    assert_eq!(server.get("/ready").unwrap().0, 200);
    let (_, scrape) = Server::get_from(server.metrics, "/metrics", "*/*").unwrap();
    let taken = |listener: &str| {
        let is_it =
            |line: &&str| line.starts_with("barline_server_connections{") && line.contains(&format!("\"{listener}\""));
        scrape.lines().find(is_it).unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    assert!(taken("ingest") <= 64.0 && taken("http") <= 128.0 && taken("metrics") <= 128.0, "{scrape}");
    assert!(refused(&scrape, "evicted") as usize >= (count * 4 / 5).saturating_sub(64), "{scrape}");
    let files = server.open_files();
    assert!(files <= 64 + 128 + 128 + OWN_FILES, "{files} open files");
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 96 << 20, "{grown} bytes more");
    assert!(server.output().matches("refused: ").count() < 20, "said at a bounded rate:\n{}", server.output());
    drop(idle);
}
