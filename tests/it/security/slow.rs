//! Clients that never come to the point: cut off and counted, over HTTP, gRPC and TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::kit::{certificates, refused};
use crate::harness::Server;

/// Says `text` byte by byte, again and again; true when the server closes the connection before the time is up.
fn is_cut_off(address: SocketAddr, text: &str) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let since = Instant::now();
    let mut bytes = text.bytes();
    while since.elapsed() < Duration::from_secs(60) {
        let said = bytes.next().map_or(Ok(()), |byte| stream.write_all(&[byte]));
        match said.and_then(|()| stream.read(&mut [0; 64])) {
            Ok(0) => return true,
            // HTTP/2 begins with the server's settings.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return true,
        }
    }
    false
}

#[test]
fn a_slow_loris_is_cut_off_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("memory.yaml", &dir.path().join("data"), &["security.limits.handshake=1s"]);
    let header = format!("GET / HTTP/1.1\r\nhost: barline\r\nx: {}", "y".repeat(4096));
    let lorises =
        [(server.http, header.as_str()), (server.metrics, ""), (server.grpc, "PRI * HTTP/2.0\r\n"), (server.grpc, "")];
    std::thread::scope(|scope| {
        let cut: Vec<_> = lorises.iter().map(|(port, text)| scope.spawn(|| is_cut_off(*port, text))).collect();
        for (cut, (port, text)) in cut.into_iter().zip(lorises) {
            assert!(cut.join().unwrap(), "{port} {text:.20}");
        }
    });
    let (_, scrape) = Server::get_from(server.metrics, "/metrics", "*/*").unwrap();
    assert!(refused(&scrape, "slow") >= 4, "{scrape}");
    assert_eq!(refused(&scrape, "full") + refused(&scrape, "evicted"), 0);
    assert!(server.output().contains("it did not say in time what it wants"), "{}", server.output());
}

#[test]
fn a_handshake_that_does_not_end_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!("security.tls={{certificate: {:?}, key: {:?}}}", file("server.pem"), file("server.key"));
    let mut server = Server::spawn("memory.yaml", &dir.path().join("data"), &[&tls, "security.limits.handshake=1s"]);
    server.until("it listens", |server| [server.grpc, server.http].iter().all(|port| TcpStream::connect(port).is_ok()));
    // The beginning of a record that is longer than what comes.
    for port in [server.grpc, server.http] {
        assert!(is_cut_off(port, "\x16\x03\x01\x02"), "{port}");
    }
}
