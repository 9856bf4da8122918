//! What stands around the queries: health, reflection, routes, limits, the command line's side.

use std::time::Duration;

use barline::cli::query::{QueryArgs, run};
use barline::runtime::InstanceState;
use barline_proto::tikr::{Empty, TickQuery};
use clap::Parser;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use super::fixture::{Fixture, START, dimensions, trade};

async fn channel(fixture: &Fixture) -> Channel {
    Channel::from_shared(format!("http://{}", fixture.grpc)).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn health_follows_the_topology_and_watchers_hear_of_it() {
    let fixture = Fixture::start().await;
    let mut client = HealthClient::new(channel(&fixture).await);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "tikr.v1.Tikr", "barline.v1.Barline"] {
        let reply = client.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "{service}");
    }
    assert_eq!(client.check(ask("nonsense")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    fixture.served.meters()[0].set_state(InstanceState::Failed);
    assert_eq!(client.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    fixture.served.stop();
    assert!(watch.message().await.unwrap().is_none());
}

#[tokio::test]
async fn reflection_lists_every_service_in_both_versions() {
    let fixture = Fixture::start().await;
    let channel = channel(&fixture).await;
    let known = ["tikr.v1.Tikr", "barline.v1.Barline", "grpc.health.v1.Health"];

    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut replies = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = reply else {
        panic!("{reply:?}")
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(known.iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");

    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let symbol = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol("barline.v1.Bar".into());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(symbol) };
    let mut replies = client.server_reflection_info(tokio_stream::iter([request])).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(reply, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)));
}

#[tokio::test]
async fn a_more_specific_route_takes_ingest_and_leaves_the_rest() {
    let fixture = Fixture::start().await;
    let own = axum::routing::any(|| async { ([("grpc-status", "6"), ("content-type", "application/grpc")], "") });
    let router = barline::serve::grpc(fixture.served.clone()).route("/tikr.v1.Tikr/IngestTicks", own);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let server = tonic::transport::Server::builder().add_routes(router.into());
    tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
    let mut client = barline_proto::tikr::tikr_client::TikrClient::connect(address).await.unwrap();
    let status = client.ingest_ticks(tokio_stream::iter([])).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(client.list_series(Empty {}).await.unwrap().into_inner().series.len(), 2);
}

#[tokio::test]
async fn scans_are_bounded_and_a_client_that_goes_away_gives_its_place_back() {
    let fixture = Fixture::empty().await;
    let series = [("symbol", "A")];
    for block in 0..20 {
        let ticks: Vec<_> = (0..10_000).map(|n| trade(&series, START + block * 10_000 + n, n, 1)).collect();
        fixture.put("market", &ticks, false);
    }
    let query = TickQuery { series: "market".into(), dimensions: dimensions(&series), ..TickQuery::default() };
    let mut client = fixture.tikr().await;
    let mut unread = Vec::new();
    for _ in 0..barline::topology::security::Limits::default().queries() {
        unread.push(client.query_ticks(query.clone()).await.unwrap());
    }
    let status = client.query_ticks(query.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(fixture.get("/api/v1/ticks?spec=market").await.0, 503);
    drop(unread);
    while client.query_ticks(query.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    query: QueryArgs,
}

async fn query(words: &str) -> Result<(), (u8, String)> {
    let command = Command::try_parse_from(words.split(' ')).unwrap_or_else(|error| panic!("{words}: {error}"));
    run(command.query).await.map_err(|failure| (failure.code, failure.message))
}

#[tokio::test]
async fn the_command_line_asks_for_everything_there_is() {
    let fixture = Fixture::start().await;
    let addr = fixture.grpc;
    let asked = [
        "bars market symbol=* --from 2023-11-14T22:13:00Z --to now --granularity 1m --limit 20",
        "bars market --limit 2 --format csv",
        "ticks market symbol=A --limit 0 --format json",
        "ticks sensor --late --from -9999999m",
        "series",
        "series market symbol=A",
        "values market symbol --format json",
        "ledger",
        "ledger market --format csv",
    ];
    for words in asked {
        query(&format!("query {words} --addr {addr}")).await.unwrap();
    }
}

#[tokio::test]
async fn the_command_line_tells_by_its_exit_code_who_is_wrong() {
    let fixture = Fixture::start().await;
    let addr = fixture.grpc;
    let cases = [
        ("bars nonsense", 2, "market, sensor"),
        ("bars market --granularity 5s", 2, "1s, 1m"),
        ("bars market --from soon", 2, "RFC 3339"),
        ("bars market symbol", 2, "NAME=VALUE"),
        ("ledger x", 2, "market, sensor"),
    ];
    for (words, code, said) in cases {
        let (found, message) = query(&format!("query {words} --addr {addr}")).await.unwrap_err();
        assert!(found == code && message.contains(said), "{words}: {found} {message}");
    }
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (code, message) = query(&format!("query ledger --addr {nobody}")).await.unwrap_err();
    assert!(code == 3 && message.contains("nobody answers at"), "{message}");
}
