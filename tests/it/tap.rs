//! `barline tap` against the built binary: every kind of stage shows what it is given, and nobody is held up by that.

use std::process::Output;

use barline_proto::barline::barline_client::BarlineClient;
use barline_proto::barline::{TapRequest, TapSample};
use serde_json::Value;
use tonic::{Code, Streaming};

use crate::harness::{Server, barline};
use crate::load::{Load, MIXED};

fn tap(server: &Server, arguments: &[&str]) -> Output {
    let addr = format!("http://{}", server.grpc);
    barline(&[&["tap"], arguments, &["--addr", &addr]].concat()).output().unwrap()
}

/// What is printed with `--format json`, a sample a line.
fn samples(server: &Server, arguments: &[&str]) -> Vec<Value> {
    let output = tap(server, &[arguments, &["--format", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows of samples, each `ticks` or `bars`.
fn rows(samples: &[Value], what: &str) -> Vec<Value> {
    let rows = |sample: &Value| sample[what].as_array().cloned().unwrap_or_else(|| panic!("no {what}: {sample}"));
    samples.iter().flat_map(rows).collect()
}

async fn open(server: &Server, request: TapRequest) -> Result<Streaming<TapSample>, tonic::Status> {
    let client = BarlineClient::connect(format!("http://{}", server.grpc)).await.unwrap();
    Ok(client.max_decoding_message_size(64 << 20).tap(request).await?.into_inner())
}

#[test]
fn every_kind_of_stage_shows_what_it_is_given_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("edge.yaml", &dir.path().join("data"), &["aggregate.instances=2"]);
    let load = Load::start(&server, "market", MIXED);
    for (stage, what) in [
        ("ingest", "ticks"),
        ("journal", "ticks"),
        ("route", "ticks"),
        ("aggregate", "ticks"),
        ("write", "bars"),
        ("reap", "bars"),
    ] {
        let samples = samples(&server, &[stage, "market_ticks", "--limit", "12", "--rows", "5"]);
        let shown = rows(&samples, what);
        assert_eq!(shown.len(), 12, "{stage}");
        for sample in &samples {
            assert_eq!((&sample["stage"], &sample["spec"]), (&stage.into(), &"market_ticks".into()), "{sample}");
            let of = rows(std::slice::from_ref(sample), what).len();
            assert!(of <= 5 && of as u64 <= sample["rows"].as_u64().unwrap(), "{sample}");
            assert!(sample["time_ns"].as_i64().unwrap() > 1_700_000_000_000_000_000, "{sample}");
        }
        for row in &shown {
            assert!(row["dimensions"]["symbol"].is_string(), "{stage}: {row}");
            let value = if what == "ticks" { &row["fields"]["price"] } else { &row["metrics"]["close"] };
            assert!(value.as_i64().is_some_and(|price| price > 0), "{stage}: {row}");
        }
    }
    let one = samples(&server, &["aggregate", "--instance", "1", "--limit", "3"]);
    assert!(one.iter().all(|sample| sample["instance"] == 1), "{one:?}");

    let table = String::from_utf8(tap(&server, &["write", "--limit", "2"]).stdout).unwrap();
    assert!(table.starts_with("write 0 · ") && table.contains("bars of market_ticks · "), "{table}");
    assert!(table.contains("granularity") && table.contains("symbol") && table.contains("close"), "{table}");
    let csv = String::from_utf8(tap(&server, &["ingest", "--limit", "2", "--format", "csv"]).stdout).unwrap();
    let header = csv.lines().next().unwrap();
    assert!(
        header.starts_with("timestamp,symbol,") && header.contains("instance") && csv.lines().count() == 3,
        "{csv}"
    );
    load.end();
}

#[test]
fn a_filter_shows_its_series_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("edge.yaml", &dir.path().join("data"), &[]);
    let load = Load::start(&server, "market", MIXED);
    let any = rows(&samples(&server, &["ingest", "--limit", "1"]), "ticks");
    let symbol = any[0]["dimensions"]["symbol"].as_str().unwrap();
    let only = format!("symbol={symbol}");
    for (stage, what) in [("ingest", "ticks"), ("aggregate", "ticks"), ("write", "bars")] {
        let samples = samples(&server, &[stage, &only, "--every", "10ms", "--limit", "6"]);
        let shown = rows(&samples, what);
        assert!(
            shown.len() == 6 && shown.iter().all(|row| row["dimensions"]["symbol"] == symbol),
            "{stage}: {shown:?}"
        );
        assert!(samples.iter().any(|sample| sample["rows"].as_u64() > Some(1)), "nothing was left out: {samples:?}");
    }
    load.end();
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("edge.yaml", &dir.path().join("data"), &[]);
    for (arguments, told) in [
        (&["agregate"][..], "no stage \"agregate\", there are: ingest, journal, route, aggregate, write, reap"),
        (&["aggregate", "--instance", "2"], "no instance 2 of aggregate, there are: 0 to 1"),
        (&["aggregate", "market"], "market_ticks"),
        (&["aggregate", "market_ticks", "AAPL"], "NAME=VALUE"),
        (&["aggregate", "--every", "1ms"], "10ms or more"),
        (&["aggregate", "--rows", "1001"], "1..=1000"),
    ] {
        let refused = tap(&server, arguments);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && error.contains(told), "{arguments:?}: {error}");
    }
}

#[test]
fn taps_are_bounded_in_number_and_one_that_goes_away_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("edge.yaml", &dir.path().join("data"), &[]);
    let load = Load::start(&server, "market", MIXED);
    let request = || TapRequest { stage: "write".into(), ..TapRequest::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut open_taps: Vec<_> = (0..8).map(|_| runtime.block_on(open(&server, request())).unwrap()).collect();
    let refused = runtime.block_on(open(&server, request())).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("8 taps are open"), "{refused}");
    // Of those that are open, each sees the same.
    for samples in &mut open_taps {
        assert!(!runtime.block_on(samples.message()).unwrap().unwrap().bars.is_empty());
    }
    open_taps.pop();
    server.until("the place is free", |server| runtime.block_on(open(server, request())).is_ok());
    drop(open_taps);
    load.end();
}

#[test]
fn a_stop_ends_taps_and_is_not_held_up_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("edge.yaml", &dir.path().join("data"), &[]);
    let load = Load::start(&server, "market", MIXED);
    let mut printing = barline(&["tap", "aggregate", "--format", "csv", "--addr", &format!("http://{}", server.grpc)]);
    printing.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let printing = printing.spawn().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let request = TapRequest { stage: "ingest".into(), every_ns: 10_000_000, rows: 1000, ..TapRequest::default() };
    let mut samples = runtime.block_on(open(&server, request)).unwrap();
    let (begun, begins) = std::sync::mpsc::channel();
    let reading = runtime.spawn(async move {
        samples.message().await.unwrap().unwrap();
        begun.send(()).unwrap();
        loop {
            if let Err(status) = samples.message().await {
                return status;
            }
        }
    });
    begins.recv().unwrap();
    load.end();
    server.signal("TERM");
    let ended = runtime.block_on(reading).unwrap();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "stopping"));
    assert!(server.wait().success(), "{}", server.output());
    assert!(!server.output().contains("still open"), "{}", server.output());
    let printed = printing.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&printed.stderr).into_owned();
    assert!(printed.status.code() == Some(1) && told.contains("stopping"), "{told}");
}

#[test]
fn a_tap_that_nobody_reads_holds_up_neither_ticks_nor_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("edge.yaml", &dir.path().join("data"), &[]);
    let load = Load::start(&server, "market", MIXED);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let request = TapRequest { stage: "ingest".into(), every_ns: 10_000_000, rows: 1000, ..TapRequest::default() };
    let unread = runtime.block_on(open(&server, request)).unwrap();
    // Far more than what client and server hold ready.
    let accepted = |server: &Server| {
        let (_, ledger) = server.get("/api/v1/ledger?spec=market_ticks").unwrap_or_default();
        serde_json::from_str::<Value>(&ledger).map_or(0, |ledger| ledger["specs"][0]["accepted"].as_u64().unwrap_or(0))
    };
    server.until("ticks have come", |server| accepted(server) > 60_000);
    load.end();
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    drop(unread);
}
