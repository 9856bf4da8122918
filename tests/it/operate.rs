//! The operators' commands of the built binary, while barline runs and while it does not.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use barline_proto::barline::admin_client::AdminClient;
use barline_proto::barline::job_event::Event;
use barline_proto::barline::{BackupRequest, VerifyRequest};
use barline_proto::tikr::{IngestRequest, TickData};
use serde_json::Value;

use super::harness::{Server, barline, block_on};

/// Runs a command on the data directory.
fn run(arguments: &[&str], data: &Path) -> Output {
    let mut command = barline(arguments);
    command.args(["--topology", "topologies/edge.yaml", "--data-dir", data.to_str().unwrap()]);
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(output)))
}

/// Sends three seconds of ticks of two symbols that lie a little in the past, and waits for their bars.
async fn fill(server: &Server) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 20;
    let ticks = (0..60u64).map(|n| TickData {
        timestamp_ns: second * 1_000_000_000 + n * 50_000_000,
        dimensions: HashMap::from([("symbol".to_owned(), format!("S{}", n % 2))]),
        fields: HashMap::from([("price".to_owned(), n as i64), ("quantity".to_owned(), 1)]),
        sequence: 0,
    });
    let request = IngestRequest { series: "market_ticks".into(), ticks: ticks.collect() };
    server.tikr().await.ingest_ticks(tokio_stream::iter([request])).await.unwrap();
    while server.bars("market_ticks").await.len() < 6 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

const REPLAY: &[&str] = &["replay", "--spec", "specs/market_ticks.yaml", "--diff", "--format", "json"];

#[test]
fn every_command_does_the_same_with_and_without_a_running_process() {
    let dir = tempfile::tempdir().unwrap();
    let (data, copy) = (dir.path().join("data"), dir.path().join("copy"));
    let mut server = Server::start("edge.yaml", &data, &[]);
    block_on(fill(&server));
    // Running.
    let backup = run(&["backup", copy.to_str().unwrap(), "--format", "json"], &data);
    assert_eq!(json(&backup)["unreadable"], 0);
    let verify = run(&["store", "verify", "--format", "json"], &data);
    assert_eq!((verify.status.code(), &json(&verify)["left"]), (Some(0), &Value::from(0)));
    let stat = run(&["store", "stat", "--format", "json"], &data);
    assert_eq!(json(&stat)["journal_end"], 60);
    let replayed = run(REPLAY, &data);
    assert_eq!(replayed.status.code(), Some(0), "{}", stderr(&replayed));
    assert_eq!(json(&replayed)["ticks"], 60);
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    assert!(!data.join("admin.sock").exists());
    // Not running.
    let replayed = run(REPLAY, &data);
    assert_eq!(json(&replayed)["granularities"][0]["same"], 6);
    assert_eq!(json(&run(&["store", "stat", "--format", "json"], &data))["journal_end"], 60);
    let verify = run(&["store", "verify"], &data);
    assert!(String::from_utf8_lossy(&verify.stdout).contains("every value is sound"), "{}", stderr(&verify));
    // Restored.
    let restored = dir.path().join("restored");
    let (from, to) = (copy.to_str().unwrap(), restored.to_str().unwrap());
    let restore = barline(&["restore", from, "--data-dir", to, "--format", "json"]).output().unwrap();
    assert_eq!(json(&restore)["journal_end"], 60);
    let server = Server::start("edge.yaml", &restored, &[]);
    assert_eq!(block_on(server.bars("market_ticks")).len(), 6);
}

#[test]
fn a_new_spec_is_derived_from_recorded_ticks_and_installed_only_where_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let (data, specs) = (dir.path().join("data"), dir.path().join("specs"));
    std::fs::create_dir(&specs).unwrap();
    std::fs::copy(super::harness::root().join("specs/market_ticks.yaml"), specs.join("market_ticks.yaml")).unwrap();
    let new = "series: spans\ndimensions: [{name: symbol}]\nmetrics:\n  - {name: widest, field: price, type: int64, aggregation: max}\ngranularity: {rollup: 3s}\n";
    let file = dir.path().join("spans.yaml");
    std::fs::write(&file, new).unwrap();
    let with_specs = format!("specs={}", specs.display());
    let replay = |more: &[&str]| {
        let mut arguments = vec!["replay", "--spec", file.to_str().unwrap(), "--ticks-of", "market_ticks"];
        arguments.extend(["--format", "json", "--set", &with_specs]);
        arguments.extend(more);
        run(&arguments, &data)
    };
    let mut server = Server::start("edge.yaml", &data, &[&with_specs]);
    block_on(fill(&server));
    let refused = replay(&["--install"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("not among the configured specs"), "{}", stderr(&refused));
    server.signal("TERM");
    assert!(server.wait().success());
    drop(server);
    let dry = json(&replay(&["--dry-run"]));
    let derived = dry["granularities"][0]["derived"].as_u64().unwrap();
    assert!((2..=4).contains(&derived) && dry["configured"] == false, "{dry}");
    std::fs::copy(&file, specs.join("spans.yaml")).unwrap();
    // Into a running process, which knows the spec by now; a second time there is nothing left to do.
    let server = Server::start("edge.yaml", &data, &[&with_specs]);
    assert_eq!(json(&replay(&["--install"]))["granularities"][0]["installed"], derived);
    assert_eq!(json(&replay(&["--install"]))["granularities"][0]["installed"], 0);
    assert_eq!(replay(&["--diff"]).status.code(), Some(0));
    let (status, found) = server.get("/api/v1/bars?spec=spans&match=symbol%3DS1").unwrap();
    assert!(status == 200 && found.contains("widest"), "{found}");
}

#[test]
fn a_changed_spec_shows_what_would_change_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start("edge.yaml", &data, &[]);
    block_on(fill(&server));
    server.signal("TERM");
    assert!(server.wait().success());
    let shipped = std::fs::read_to_string(super::harness::root().join("specs/market_ticks.yaml")).unwrap();
    let file = dir.path().join("changed.yaml");
    std::fs::write(&file, shipped.replace("aggregation: max", "aggregation: min")).unwrap();
    let changed = run(&["replay", "--spec", file.to_str().unwrap(), "--diff"], &data);
    let shown = String::from_utf8_lossy(&changed.stdout);
    assert_eq!(changed.status.code(), Some(1), "{shown}");
    assert!(shown.contains("high") && shown.contains("symbol=S0"), "{shown}");
    let refused = run(&["replay", "--spec", file.to_str().unwrap(), "--install"], &data);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("configured differently"), "{}", stderr(&refused));
}

#[test]
fn the_socket_is_its_owners_only_replaces_a_stale_one_and_does_job_after_job() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    drop(std::os::unix::net::UnixListener::bind(data.join("admin.sock")).unwrap());
    let server = Server::start("edge.yaml", &data, &[]);
    block_on(fill(&server));
    let mode = std::fs::metadata(data.join("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(format!("unix:{}/admin.sock", data.display())).unwrap();
        let mut client = AdminClient::new(channel.connect().await.unwrap());
        let relative = client.backup(BackupRequest { directory: "somewhere".into() }).await.unwrap();
        let status = relative.into_inner().message().await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        let mut reports = 0;
        for _ in 0..5 {
            let mut events = client.verify(VerifyRequest { repair: false }).await.unwrap().into_inner();
            while let Some(event) = events.message().await.unwrap() {
                reports += usize::from(matches!(event.event, Some(Event::Report(_))));
            }
        }
        assert_eq!(reports, 5);
    });
}

#[test]
fn a_path_too_long_for_a_socket_is_told_and_barline_runs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a".repeat(120));
    let server = Server::start("edge.yaml", &data, &[]);
    assert!(server.output().contains("no operator command reaches this process"), "{}", server.output());
    let locked = run(&["store", "stat"], &data);
    assert_eq!(locked.status.code(), Some(3));
    assert!(stderr(&locked).contains("in use by another process"), "{}", stderr(&locked));
}

#[test]
fn a_database_whose_own_files_are_damaged_is_told_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start("edge.yaml", &data, &[]);
    server.signal("TERM");
    assert!(server.wait().success());
    std::fs::write(data.join("version"), "no version").unwrap();
    let failed = run(&["store", "verify"], &data);
    assert_eq!(failed.status.code(), Some(3));
    let error = stderr(&failed);
    assert!(error.contains(data.to_str().unwrap()) && error.contains("restore a backup"), "{error}");
}

#[test]
fn nothing_to_work_on_is_told_clearly() {
    let dir = tempfile::tempdir().unwrap();
    let missing = run(&["store", "stat"], &dir.path().join("nothing"));
    assert_eq!(missing.status.code(), Some(3));
    assert!(stderr(&missing).contains("there is no data directory"), "{}", stderr(&missing));
    assert!(!dir.path().join("nothing").exists());
    let memory = barline(&["store", "stat", "--topology", "topologies/memory.yaml"]).output().unwrap();
    assert_eq!(memory.status.code(), Some(2));
    assert!(stderr(&memory).contains("in memory"), "{}", stderr(&memory));
}
