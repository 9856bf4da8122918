//! The built binary under load, its aggregators changed by hand and by the controller; `loadgen` verifies every bar.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::harness::{Server, barline};
use crate::load::{Load, MIXED};

const TOPOLOGY: &str = "autoscale.yaml";

fn scale(change: &str, data: &Path) -> Output {
    let topology = format!("topologies/{TOPOLOGY}");
    let mut command = barline(&["scale", change, "--topology", &topology, "--format", "json"]);
    command.args(["--data-dir", data.to_str().unwrap()]).output().unwrap()
}

fn aggregate(server: &Server) -> Value {
    let Some((200, body)) = server.get("/api/v1/topology") else { return Value::Null };
    let topology: Value = serde_json::from_str(&body).unwrap();
    let stages = topology["stages"].as_array().cloned().unwrap_or_default();
    stages.into_iter().find(|stage| stage["name"] == "aggregate").unwrap_or_default()
}

fn accepted(server: &Server) -> u64 {
    let Some((200, body)) = server.get("/api/v1/ledger?spec=market_ticks") else { return 0 };
    let ledger: Value = serde_json::from_str(&body).unwrap();
    ledger["specs"][0]["accepted"].as_u64().unwrap()
}

/// Waits until so many more ticks have come.
fn flow(server: &mut Server, ticks: u64) {
    let before = accepted(server);
    server.until("more ticks have come", |server| accepted(server) >= before + ticks);
}

#[test]
fn changes_by_hand_up_and_down_under_load_leave_every_bar_exact() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start(TOPOLOGY, &data, &["aggregate.instances={min: 1, max: 4}"]);
    assert_eq!(aggregate(&server)["active"], 1, "{}", aggregate(&server));
    let load = Load::start(&server, "market", MIXED);
    let mut before = 1;
    for instances in [4, 2, 3, 1, 2, 4, 1, 3] {
        flow(&mut server, 8_000);
        let told = scale(&format!("aggregate={instances}"), &data);
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
        let reply: Value = serde_json::from_slice(&told.stdout).unwrap();
        assert_eq!((&reply["before"], &reply["instances"]), (&before.into(), &instances.into()), "{reply}");
        assert!(reply["took_ns"].as_u64().unwrap() > 0 && reply["follows_load"] == false, "{reply}");
        assert_eq!(aggregate(&server)["active"], instances);
        before = instances;
    }
    flow(&mut server, 8_000);
    let states: Vec<String> = (0..4).map(|i| aggregate(&server)["instances"][i]["state"].to_string()).collect();
    assert_eq!(states, ["\"running\"", "\"running\"", "\"running\"", "\"standby\""]);
    assert_eq!(server.get("/ready").unwrap().0, 200, "one on standby is no problem");
    let (_, metrics) = Server::get_from(server.metrics, "/metrics", "*/*").unwrap();
    let active = |instance: u8, is: u8| {
        format!("barline_stage_active{{topology=\"autoscale\",instance=\"{instance}\",stage=\"aggregate\"}} {is}")
    };
    assert!(metrics.contains(&active(2, 1)) && metrics.contains(&active(3, 0)), "{metrics}");
    assert!(server.get("/").unwrap().1.contains("×3 of 4"));
    load.end();
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let nobody = scale("aggregate=2", &data);
    assert_eq!(nobody.status.code(), Some(3));
    let _server = Server::start(TOPOLOGY, &data, &["aggregate.instances={min: 2, max: 4}"]);
    for (change, told) in [
        ("aggregate=5", "5 instances of `aggregate`; allowed: 2 to 4"),
        ("aggregate=1", "allowed: 2 to 4"),
        ("aggregate=auto", "has no target_lag"),
        ("write=2", "those of `aggregate` can"),
        ("agregate=2", "no stage \"agregate\", there are: ingest"),
        ("aggregate", "STAGE=N"),
    ] {
        let refused = scale(change, &data);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && error.contains(told), "{change}: {error}");
    }
    assert!(scale("aggregate=2", &data).status.success(), "as many as there are");
}

#[test]
fn instances_grow_while_the_lag_is_above_the_target_and_a_number_given_by_hand_holds() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // Any lag there is, is above this.
    let target = "aggregate.instances={min: 1, max: 3, target_lag: 1ns}";
    let mut server = Server::start(TOPOLOGY, &data, &[target]);
    let load = Load::start(&server, "market", MIXED);
    server.until("instances grew", |server| aggregate(server)["active"] == 2);
    server.until("instances grew to the most", |server| aggregate(server)["active"] == 3);
    assert!(scale("aggregate=1", &data).status.success());
    flow(&mut server, 20_000);
    assert_eq!(aggregate(&server)["active"], 1);
    let followed = scale("aggregate=auto", &data);
    let reply: Value = serde_json::from_slice(&followed.stdout).unwrap();
    assert_eq!((&reply["instances"], &reply["follows_load"]), (&1.into(), &true.into()));
    server.until("instances grew again", |server| aggregate(server)["active"] == 2);
    load.end();
    assert!(server.output().contains("scaled to the load"), "{}", server.output());
}

#[test]
fn instances_grow_under_load_and_go_one_by_one_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // A batch takes longer than this just to be handed over; without batches there is no lag at all.
    let target = "aggregate.instances={min: 1, max: 4, target_lag: 10us}";
    let mut server = Server::start(TOPOLOGY, &data, &[target]);
    let load = Load::start(&server, "market", MIXED);
    server.until("instances grew", |server| aggregate(server)["active"] == 2);
    server.until("instances grew to the most", |server| aggregate(server)["active"] == 4);
    load.end();
    server.until("one went", |server| aggregate(server)["active"] == 3);
    // Those that stay have the whole of it.
    let load = Load::start(&server, "market", MIXED);
    flow(&mut server, 20_000);
    load.end();
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    let scaled = server.output().matches("scaled to the load").count();
    assert!(scaled >= 3, "1 to 2, 2 to 4, 4 to 3: {}", server.output());
}
