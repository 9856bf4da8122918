//! The program itself against a server in memory: what it sends, reports, verifies and exits with.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;

use fake::{Fake, Fault};

mod fake;

/// Runs `loadgen run --profile market` with `arguments` against `address`.
fn loadgen(address: &str, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["run", "--profile", "market", "--addr", address]).args(arguments.split_whitespace());
    command.output().expect("the program was built with this test")
}

fn against(fault: Fault, arguments: &str) -> Output {
    loadgen(&format!("http://{}", Fake::start(fault).address), arguments)
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Everything a stream can have wrong.
const ODD: &str = "--set disorder.fraction=0.1 --set disorder.up_to=80ms --set late.fraction=0.02 --set late.by=3s \
                   --set duplicates.fraction=0.01 --set bad.fraction=0.03";

#[test]
fn every_bar_is_verified_on_both_wires_with_disorder_late_double_and_bad_ticks() {
    for protocol in ["tikr.v1", "barline.v1"] {
        for sharing in ["false", "true"] {
            let arguments = format!(
                "--rate max --ticks 20003 --series 60 --connections 3 --protocol {protocol} --verify --json - \
                 --set event_rate=5k --set batch=700 --set shared_series={sharing} --set skew=0.8 {ODD}"
            );
            let output = against(Fault::None, &arguments);
            let report = json(&output);
            assert_eq!(output.status.code(), Some(0), "{protocol} {report:#}");
            assert_eq!(report["verify"]["ok"], true);
            assert!(report["verify"]["bars_stored"].as_u64() > Some(200), "{report:#}");
            let ticks = &report["ticks"];
            assert_eq!((&ticks["sent"], &ticks["unaccounted"]), (&20_003.into(), &0.into()));
            for reason in ["ahead", "expired", "unknown_series"] {
                assert!(ticks["rejected"][reason].as_u64() > Some(100), "{report:#}");
            }
            assert_eq!(report["ack_latency"].is_null(), protocol == "tikr.v1");
        }
    }
}

#[test]
fn a_prebuilt_run_verifies_like_any_other() {
    let output = against(Fault::None, "--rate max --ticks 10k --prebuild --verify --json -");
    assert_eq!((output.status.code(), &json(&output)["verify"]["ok"]), (Some(0), &true.into()));
}

#[test]
fn a_paced_run_sends_its_rate_times_its_duration() {
    let output = against(Fault::None, "--rate 2k --duration 500ms --series 10 --verify --json -");
    let report = json(&output);
    assert_eq!((output.status.code(), &report["ticks"]["accepted"]), (Some(0), &1_000.into()));
}

#[test]
fn a_run_flat_out_for_a_time_verifies_what_it_sent() {
    let output = against(Fault::None, "--rate max --duration 200ms --series 10 --verify --json -");
    assert_eq!((output.status.code(), &json(&output)["verify"]["ok"]), (Some(0), &true.into()));
}

#[test]
fn a_profile_is_read_from_a_file_and_the_result_written_to_one() {
    let folder = tempfile::tempdir().unwrap();
    let (profile, result) = (folder.path().join("profile.yaml"), folder.path().join("result.json"));
    fs::write(&profile, include_str!("../profiles/market.yaml").replace("series: 1000", "series: 7")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["run", "--rate", "max", "--ticks", "100", "--addr"]);
    command.arg(format!("http://{}", Fake::start(Fault::None).address)).arg("--profile").arg(&profile);
    let output = command.arg("--json").arg(&result).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("accepted"), "the table is printed as well");
    let report: Value = serde_json::from_str(&fs::read_to_string(result).unwrap()).unwrap();
    assert_eq!(report["series"], 7);
}

#[test]
fn a_wrong_bar_is_shown_in_full_and_fails() {
    let output = against(Fault::WrongBar, "--rate max --ticks 5k --series 20 --verify");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let volume = text.lines().find(|line| line.contains("volume")).unwrap_or_else(|| panic!("{text}"));
    assert!(volume.ends_with("<- differs") && text.contains("symbol=R"), "{text}");
    assert_eq!(text.matches("<- differs").count(), 1, "{text}");
}

#[test]
fn a_missing_bar_fails() {
    let output = against(Fault::MissingBar, "--rate max --ticks 5k --series 20 --verify --json -");
    let verdict = &json(&output)["verify"];
    assert_eq!((output.status.code(), &verdict["bars_wrong"]), (Some(1), &1.into()));
    assert!(verdict["differences"][0].as_str().is_some_and(|text| text.contains("missing")), "{verdict:#}");
}

#[test]
fn a_ledger_that_does_not_come_to_rest_fails_and_says_so() {
    let output = against(Fault::Restless, "--rate max --ticks 1k --series 20 --verify --settle 300ms");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("not at rest") && text.contains("in bars: 999 ticks, 1000 expected"), "{text}");
}

#[test]
fn a_broken_stream_and_an_absent_server_exit_with_3() {
    for protocol in ["tikr.v1", "barline.v1"] {
        let broken =
            against(Fault::Breaks, &format!("--rate max --ticks 10k --reconnect-for 0s --protocol {protocol}"));
        assert_eq!(broken.status.code(), Some(3));
        let text = String::from_utf8_lossy(&broken.stderr);
        assert!(text.contains("the fake breaks") && !text.contains("gave up"), "{text}");
    }
    let absent = loadgen("http://127.0.0.1:1", "--ticks 1");
    assert_eq!(absent.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&absent.stderr).contains("cannot connect to http://127.0.0.1:1"));
}

#[test]
fn batches_are_sent_again_over_broken_streams_and_count_once() {
    for (fault, ticks) in [(Fault::Cuts, 30_003), (Fault::Restarts, 20_003)] {
        let arguments = format!(
            "--rate max --ticks {ticks} --series 60 --connections 3 --protocol barline.v1 --verify --json - \
             --set event_rate=5k --set batch=300 --set in_flight=5 --set shared_series=true {ODD}"
        );
        let output = against(fault, &arguments);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(0), "{fault:?} {report:#}");
        assert_eq!((&report["verify"]["ok"], &report["verify"]["checked"]), (&true.into(), &"sent".into()));
        let (again, ticks_said) = (&report["again"], &report["ticks"]);
        assert_eq!((&ticks_said["sent"], &ticks_said["unaccounted"]), (&ticks.into(), &0.into()));
        assert!(again["reconnects"].as_u64() >= Some(3), "{report:#}");
        assert!(again["batches"].as_u64() >= again["reconnects"].as_u64(), "{report:#}");
        assert!(fault == Fault::Restarts || ticks_said["duplicate"].as_u64() > Some(0), "{report:#}");
    }
}

#[test]
fn streams_that_cannot_say_what_came_are_sent_again_and_the_verdict_says_so() {
    for fault in [Fault::Cuts, Fault::Restarts] {
        let arguments = format!(
            "--rate max --ticks 20003 --series 60 --connections 3 --stream-ticks 600 --verify --json - \
             --set event_rate=5k --set batch=300 --set shared_series=true {ODD}"
        );
        let output = against(fault, &arguments);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(0), "{fault:?} {report:#}");
        assert_eq!((&report["verify"]["ok"], &report["verify"]["checked"]), (&true.into(), &"stored".into()));
        assert!(report["again"]["ticks"].as_u64() > Some(600), "{report:#}");
        let ticks = &report["verify"]["ticks"];
        let number = |of: &Value| of.as_u64().unwrap();
        assert_eq!(number(&ticks["stored"]), number(&ticks["acknowledged"]) + number(&ticks["again"]), "{report:#}");
    }
}

#[test]
fn a_server_that_stays_away_is_given_up_with_how_long_it_was_tried() {
    let output = against(Fault::Breaks, "--rate max --ticks 10k --protocol barline.v1 --reconnect-for 300ms");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("gave up after") && text.contains("--reconnect-for"), "{text}");
}

/// Runs against `fault` with a record, and checks that against what is held then.
fn recorded(fault: Fault, arguments: &str) -> (Output, Value, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("acks.jsonl");
    let fake = Fake::start(fault);
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["run", "--profile", "market", "--rate", "max", "--series", "30", "--set", "event_rate=5k"]);
    command.arg(format!("--addr=http://{}", fake.address)).arg("--record").arg(&record);
    let run = command.args(arguments.split_whitespace()).output().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(["check", "--settle", "300ms", "--json", "-", "--record"]).arg(&record);
    let check = command.arg(format!("--addr=http://{}", fake.healed().address)).output().unwrap();
    (run, json(&check), check.status.code())
}

#[test]
fn a_record_is_enough_to_check_a_run_that_was_cut_off() {
    for protocol in ["tikr.v1 --stream-ticks 900", "barline.v1"] {
        for fault in [Fault::None, Fault::Cuts] {
            // One connection: when one of two is cut off, the other may not have read what was acknowledged to it.
            let rest = "--connections 1 --ticks 10k --set batch=300 --reconnect-for 0s";
            let arguments = format!("--protocol {protocol} {rest}");
            let (run, verdict, code) = recorded(fault, &arguments);
            assert_eq!(run.status.code(), Some(if fault == Fault::None { 0 } else { 3 }), "{run:?}");
            assert_eq!((code, &verdict["ok"]), (Some(0), &true.into()), "{protocol} {fault:?} {verdict:#}");
            assert!(verdict["ticks"]["acknowledged"].as_u64() > Some(500), "{verdict:#}");
            assert!(verdict["ticks"]["unacknowledged"].as_u64().is_some(), "{verdict:#}");
        }
    }
}

#[test]
fn lies_about_acknowledged_and_repeated_batches_are_found() {
    let native = "--connections 1 --protocol barline.v1 --ticks 10k --set batch=300";
    for (fault, lie) in [
        (Fault::Forgets, "acknowledged and gone: of the 300 ticks of batch 3 of connection 0 0 are there"),
        (Fault::Tears, "there in part: of the 300 ticks of batch 3"),
        (Fault::TakesTwice, "there 2 times and was sent 1 times"),
    ] {
        let reconnect = if fault == Fault::Tears { "0s" } else { "10s" };
        let (_, verdict, code) = recorded(fault, &format!("{native} --reconnect-for {reconnect}"));
        assert_eq!(code, Some(1), "{fault:?} {verdict:#}");
        let problem = verdict["ticks"]["problems"][0].as_str().unwrap_or_default();
        assert!(problem.contains(lie), "{fault:?} {verdict:#}");
    }
}

#[test]
fn wrong_usage_exits_with_2_and_names_the_remedy() {
    for (arguments, remedy) in [
        ("--rate fast", "100k"),
        ("--set colour=red", "colour"),
        ("--set series=0", "1 to"),
        ("--prebuild --rate 5", "--rate max"),
        ("--rate max --ticks 1G --set event_rate=1", "raise event_rate"),
        ("--stream-ticks 0", "at least 1"),
        ("--ticks 1 --record /no/such/folder/file", "--record /no/such/folder/file"),
    ] {
        let output = against(Fault::None, arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
        assert!(text.contains(remedy), "{arguments}: {text}");
    }
}
