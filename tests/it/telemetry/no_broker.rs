//! A sink without a broker, seen with everything that looks: each names the sink, and who waits for it.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::exposition::{Sample, parse};
use crate::harness::{Server, barline};
use crate::held_up;

/// Who waits, from the sink back to the source.
const HELD_UP: [&str; 5] = ["write", "aggregate", "route", "journal", "ingest"];

/// What a command that looks at `server` prints.
fn look(server: &Server, command: &[&str]) -> String {
    let output = barline(command).args(["--http", &format!("http://{}", server.http)]).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn top(server: &Server) -> Value {
    serde_json::from_str(&look(server, &["top", "--once", "--json"])).unwrap()
}

/// A figure of a stage's first instance.
fn figure(top: &Value, stage: &str, name: &str) -> f64 {
    let stage = top["stages"].as_array().unwrap().iter().find(|found| found["name"] == stage).unwrap();
    stage["instances"][0][name].as_f64().unwrap()
}

/// What the page is sent, line by line.
fn live(server: &Server) -> impl Iterator<Item = String> {
    let mut stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET /live HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    BufReader::new(stream).lines().map_while(Result::ok)
}

fn scrape(server: &Server) -> Vec<Sample> {
    parse(&Server::get_from(server.metrics, "/metrics", "*/*").unwrap().1)
}

fn scraped(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let is_it =
        |sample: &&Sample| sample.name == name && labels.iter().all(|(key, value)| sample.labels[*key] == *value);
    samples.iter().find(is_it).unwrap_or_else(|| panic!("no {name} of {labels:?}")).value
}

#[test]
fn a_sink_without_a_broker_is_named_by_top_prometheus_doctor_and_the_page_with_all_that_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = held_up::without_a_broker(&dir.path().join("data"));
    let sending = held_up::load(server.grpc);
    server.until("everybody waits for the sink", |server| {
        let top = top(server);
        HELD_UP.iter().all(|stage| figure(&top, stage, "backpressured") > 0.9)
    });
    let (first, first_scraped) = (top(&server), scrape(&server));

    let doctor = look(&server, &["doctor", "--for", "3s"]);
    let mut lines = doctor.lines();
    let (limit, remedy) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(limit.starts_with("publish (instance 0) limits the pipeline"), "{doctor}");
    assert!(limit.contains("its lag grows by 1.0 s per second"), "{doctor}");
    assert!(HELD_UP.iter().all(|stage| limit.contains(&format!(" {stage} 0 ("))), "{doctor}");
    assert!(remedy.contains("see to the broker") && remedy.contains("publish.spool.bytes"), "{doctor}");
    assert!(doctor.contains("publish falls behind") && doctor.contains("the broker does not answer"), "{doctor}");
    assert!(!doctor.contains("not at work"), "{doctor}");

    let table = look(&server, &["top", "--once"]);
    let state = |stage: &str| {
        let row = table.lines().find(|line| line.starts_with(stage)).unwrap_or_else(|| panic!("{stage}: {table}"));
        row.split_whitespace().nth(2).unwrap().to_owned()
    };
    assert_eq!(state("publish"), "limits", "{table}");
    assert!(HELD_UP.iter().all(|stage| state(stage) == "waits"), "{table}");
    assert_eq!(state("reap"), "ok", "{table}");

    let verdict = "publish is the bottleneck; ingest, journal, route, aggregate, write wait for it";
    assert!(live(&server).take(100).any(|line| line.contains(verdict)), "the page does not say so");

    // Lag and the time of each look are the server's own.
    let (last, last_scraped) = (top(&server), scrape(&server));
    let seconds = (last["at_ns"].as_f64().unwrap() - first["at_ns"].as_f64().unwrap()) / 1e9;
    for stage in ["publish", "write", "aggregate", "route", "journal"] {
        let grown = figure(&last, stage, "lag") - figure(&first, stage, "lag");
        assert!((grown / seconds - 1.0).abs() < 0.1, "{stage}: {grown} s in {seconds} s");
        let lag = |samples| scraped(samples, "barline_stage_lag_seconds", &[("stage", stage), ("instance", "0")]);
        let grown = lag(&last_scraped) - lag(&first_scraped);
        assert!(grown > 0.9 * 3.0, "{stage}: {grown} s, while the doctor looked for 3 s");
    }
    let sink = [("stage", "publish"), ("spec", "market_ticks")];
    assert!(scraped(&last_scraped, "barline_spool_utilization", &sink) >= 1.0);
    assert_eq!(scraped(&last_scraped, "barline_sink_up", &sink[..1]), 0.0);
    sending.shutdown_background();
}
