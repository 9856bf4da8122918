//! TLS and mutual TLS: who has no certificate, an expired one or somebody else's is kept out, and so is plaintext.

use std::path::Path;

use barline::runtime::tls;
use barline::telemetry::web::{Access, send};
use http::Request;

use super::kit::{ask, certificates, get, load, refused, run};
use crate::harness::{Server, block_on};

/// What the HTTPS port at `address` answers to a client that shows this certificate.
fn https(dir: &Path, address: std::net::SocketAddr, path: &str, own: Option<&str>) -> Result<(u16, String), String> {
    let own = own.map(|name| (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))));
    let own = own.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let tls = Some(std::sync::Arc::new(tls::client(Some(&dir.join("ca.pem")), own).unwrap()));
    let request = Request::get(format!("https://{address}{path}")).body(http_body_util::Full::default()).unwrap();
    let replied = block_on(send(request, &Access { authorization: None, tls }));
    let (status, body) = replied.map_err(|error| error.to_string())?;
    Ok((status.as_u16(), String::from_utf8_lossy(&body).into_owned()))
}

/// Starts a server that shows `certificate` and waits until it listens.
fn start(dir: &Path, certificate: &str, asks: bool) -> Server {
    let file = |name: String| dir.join(name).display().to_string();
    let ca = if asks { format!(", client_ca: {:?}", file("ca.pem".into())) } else { String::new() };
    let [pem, key] = ["pem", "key"].map(|ending| file(format!("{certificate}.{ending}")));
    let tls = format!("security.tls={{certificate: {pem:?}, key: {key:?}{ca}}}");
    let mut server = Server::spawn("memory.yaml", &dir.join("data"), &[&tls]);
    server.until("it listens", |server| {
        [server.grpc, server.http, server.metrics].iter().all(|port| std::net::TcpStream::connect(port).is_ok())
    });
    server
}

#[test]
fn with_a_client_ca_only_those_it_signed_come_in_and_the_others_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let server = start(dir.path(), "server", true);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (ca, shows) = (file("ca.pem"), |name: &str| format!("--cert {0}.pem --key {0}.key", file(name)));
    let query = format!("query ledger --addr https://{} --ca {ca}", server.grpc);
    let top = format!("top --once --http https://{} --ca {ca}", server.http);
    let (mut failed, mut said) = (0, Vec::new());
    for command in [&query, &top] {
        let (code, text) = run(&mut ask(&format!("{command} {}", shows("client"))));
        assert_eq!(code, Some(0), "{text}");
        for wrong in [String::new(), shows("old"), shows("stranger")] {
            let (code, text) = run(&mut ask(format!("{command} {wrong}").trim_end()));
            assert!(matches!(code, Some(1 | 3)), "{wrong}: {text}");
            failed += 1;
            said.push(text);
        }
    }
    let load_with =
        |with: &str| load(&format!("--addr https://{} --ca {ca} {with} --verify", server.grpc).replace("  ", " "));
    assert_eq!(load_with(&shows("client")), Ok(true));
    assert!(load_with(&shows("old")).is_err());
    failed += 1;
    // Plaintext gets no answer, from no port.
    let plain = run(&mut ask(&format!("query ledger --addr http://{}", server.grpc)));
    assert!(matches!(plain.0, Some(1 | 3)), "{}", plain.1);
    for port in [server.http, server.metrics] {
        assert_eq!(get(port, "/health", None), None);
    }
    failed += 3;
    for (port, path) in [(server.http, "/health"), (server.metrics, "/metrics")] {
        assert_eq!(https(dir.path(), port, path, Some("client")).unwrap().0, 200, "{path}");
        assert!(https(dir.path(), port, path, None).is_err());
        failed += 1;
    }
    let (_, scrape) = https(dir.path(), server.metrics, "/metrics", Some("client")).unwrap();
    // A client that connects again by itself is counted again.
    assert!(refused(&scrape, "handshake") >= failed, "{failed} failed: {said:?}\n{scrape}");
    let log = server.output();
    assert!(log.contains("TLS handshake") && !log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn without_a_client_ca_everybody_comes_in_who_speaks_tls_and_a_client_takes_no_expired_certificate() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let ca = dir.path().join("ca.pem").display().to_string();
    let server = start(dir.path(), "server", false);
    let (code, said) = run(&mut ask(&format!("query ledger --addr https://{} --ca {ca}", server.grpc)));
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(https(dir.path(), server.http, "/ready", None).unwrap().0, 200);
    drop(server);
    let server = start(dir.path(), "old", false);
    let (code, said) = run(&mut ask(&format!("query ledger --addr https://{} --ca {ca}", server.grpc)));
    assert!(code == Some(3) && said.contains("expired"), "{said}");
    let (code, said) = run(&mut ask(&format!("doctor --for 10ms --http https://{} --ca {ca}", server.http)));
    assert!(code == Some(1) && said.contains("expired"), "{said}");
}
