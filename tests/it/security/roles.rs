//! Tokens: right, wrong and none, for every role, over gRPC and HTTP, and from the command line.

use barline_proto::barline::{GetLedgerRequest, barline_client::BarlineClient};
use barline_proto::tikr::{IngestRequest, tikr_client::TikrClient};
use tonic::{Code, Request};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::kit::{ADMIN, BOTH, INGEST, QUERY, ask, get, load, refused, run, tokens};
use crate::harness::{Server, block_on};

const WRONG: &str = "wrong-0123456789";

fn with<M>(message: M, token: Option<&str>) -> Request<M> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// How a read and an ingest end.
async fn calls(server: &Server, token: Option<&str>) -> [Code; 2] {
    let url = format!("http://{}", server.grpc);
    let mut barline = BarlineClient::connect(url.clone()).await.unwrap();
    let mut tikr = TikrClient::connect(url).await.unwrap();
    let read = barline.get_ledger(with(GetLedgerRequest::default(), token)).await;
    let none = tokio_stream::iter(Vec::<IngestRequest>::new());
    let ingest = tikr.ingest_ticks(with(none, token)).await;
    [read.map_or_else(|status| status.code(), |_| Code::Ok), ingest.map_or_else(|status| status.code(), |_| Code::Ok)]
}

#[test]
fn a_call_without_the_right_token_is_refused_and_counted_and_no_secret_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = tokens(dir.path());
    let server = Server::start("memory.yaml", &dir.path().join("data"), &[&tokens]);
    block_on(async {
        let (ok, unknown, denied) = (Code::Ok, Code::Unauthenticated, Code::PermissionDenied);
        for (token, expected) in [
            (None, [unknown, unknown]),
            (Some(WRONG), [unknown, unknown]),
            (Some(INGEST), [denied, ok]),
            (Some(QUERY), [ok, denied]),
            (Some(BOTH), [ok, ok]),
            (Some(ADMIN), [ok, ok]),
        ] {
            assert_eq!(calls(&server, token).await, expected, "{token:?}");
        }
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
        let mut health = HealthClient::new(endpoint.connect().await.unwrap());
        health.check(HealthCheckRequest::default()).await.unwrap();
        assert_eq!(health.watch(HealthCheckRequest::default()).await.unwrap_err().code(), unknown);
    });
    let bearer = |token| format!("Bearer {token}");
    let paths = ["/", "/api", "/api/v1/bars?spec=market_ticks", "/api/v1/topology", "/api/v1/metrics", "/nowhere"];
    for path in paths {
        let status = |authorization: Option<&str>| get(server.http, path, authorization).unwrap().0;
        assert_eq!(
            (status(None), status(Some(&bearer(WRONG))), status(Some(&bearer(INGEST)))),
            (401, 401, 403),
            "{path}"
        );
        let (code, reply) = get(server.http, path, Some(&bearer(QUERY))).unwrap();
        assert_eq!(code, if path == "/nowhere" { 404 } else { 200 }, "{path}");
        assert!([INGEST, QUERY, BOTH, ADMIN].iter().all(|token| !reply.contains(token)), "{path}: {reply}");
    }
    // A browser asks for a password when it is told so, and sends it with a name: `x:query-0123456789`.
    let (_, reply) = get(server.http, "/", None).unwrap();
    assert!(reply.to_lowercase().contains("www-authenticate: basic realm=\"barline\""), "{reply}");
    let (code, page) = get(server.http, "/", Some("Basic eDpxdWVyeS0wMTIzNDU2Nzg5")).unwrap();
    let shown = format!("data-text=\"refused.forbidden\">{}<", 2 + paths.len());
    assert!(code == 200 && page.contains(&shown), "{shown} is not in {page}");
    for open in ["/health", "/ready"] {
        assert_eq!(get(server.http, open, None).unwrap().0, 200, "{open}");
    }
    assert_eq!(get(server.metrics, "/metrics", None).unwrap().0, 401);
    let (_, scrape) = get(server.metrics, "/metrics", Some(&bearer(QUERY))).unwrap();
    let paths = paths.len() as u64;
    // Two calls twice and a watch, two of HTTP per path, a page and a scrape; two calls and one of HTTP per path.
    assert_eq!(refused(&scrape, "unauthenticated"), 5 + 2 * paths + 2);
    assert_eq!(refused(&scrape, "forbidden"), 2 + paths);
    let log = server.output();
    assert!(log.contains("refused: "), "{log}");
    assert!(log.matches("refused: ").count() < 10, "said at a bounded rate:\n{log}");
    assert!([INGEST, QUERY, BOTH, ADMIN, WRONG].iter().all(|token| !log.contains(token)), "{log}");
}

#[test]
fn commands_send_the_token_they_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = tokens(dir.path());
    let server = Server::start("memory.yaml", &dir.path().join("data"), &[&tokens]);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let query = format!("query ledger --addr http://{}", server.grpc);
    let top = format!("top --once --http http://{}", server.http);
    let doctor = format!("doctor --for 10ms --http http://{}", server.http);
    for command in [&query, &top, &doctor] {
        let (code, said) = run(&mut ask(command));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("--token-file or BARLINE_TOKEN"), "{said}");
        let (code, said) = run(&mut ask(&format!("{command} --token-file {}", file("query"))));
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = run(ask(command).env("BARLINE_TOKEN", QUERY));
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = run(&mut ask(&format!("{command} --token-file {}", file("ingest"))));
        assert!(code == Some(1) && !said.contains(INGEST), "{said}");
    }
    let addr = format!("--addr http://{}", server.grpc);
    let tap = |token: &str| run(&mut ask(&format!("tap nowhere {addr} --token-file {}", file(token))));
    let (code, said) = tap("query");
    assert!(code == Some(2) && said.contains("no stage \"nowhere\""), "{said}");
    assert_eq!(tap("ingest").0, Some(1));
    assert!(load(&addr).unwrap_err().contains("no valid token"));
    assert_eq!(load(&format!("{addr} --token-file {}", file("ingest"))), Ok(true));
    let verified = format!("{addr} --protocol barline.v1 --verify --token-file {}", file("both"));
    assert_eq!(load(&verified), Ok(true));
}
