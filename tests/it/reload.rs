//! Topology and specs change while the built binary runs, by `barline reload` and by SIGHUP, mostly under `loadgen`'s load:
//! no tick is lost or counted twice, every bar is of one definition or says that it is not, what is wrong changes nothing.

mod ends;
pub mod site;

use std::fs;

use barline_proto::barline::Bar;
use barline_proto::barline::value::Kind;
use serde_json::Value;

use super::crash::load;
use super::harness::{barline, block_on, root};
use site::{Site, failed, runtime};

/// A metric whose state no other has: how many ticks carry a price, which all do. `loadgen` knows nothing of it.
const PRICED: &str = "  - {name: priced, field: price, type: int64, aggregation: count}\n";

fn names(report: &Value, key: &str) -> Vec<String> {
    serde_json::from_value(report[key].clone()).unwrap()
}

fn priced(bar: &Bar) -> u64 {
    match bar.metrics.get("priced").map(|value| value.kind.as_ref()) {
        Some(Some(Kind::Int(count))) => u64::try_from(*count).unwrap(),
        None => 0,
        other => panic!("{other:?}"),
    }
}

/// Every bar has all of [`PRICED`], or says that it is of an earlier definition.
fn says_so(bars: &[Bar]) {
    for bar in bars {
        assert!(bar.redefined || priced(bar) == bar.tick_count, "it lacks ticks, and nothing is said: {bar:?}");
    }
}

#[test]
fn specs_and_topology_change_under_load_and_every_bar_is_of_one_definition_or_says_so() {
    let (mut site, runtime) = (Site::start("edge.yaml"), runtime());
    let mut loads = load::start_with(site.server.grpc, site.dir.path(), 1, &runtime, &["metrics=[]"]);
    site.until_acknowledged(&loads, 2_000);

    // A new spec.
    fs::copy(root().join("specs/asic_metrics.yaml"), site.spec("asic_metrics.yaml")).unwrap();
    let report = site.reloaded();
    assert_eq!((names(&report, "specs_added"), &report["generation"]), (vec!["asic_metrics".to_owned()], &2.into()));
    assert!(names(&report, "specs_changed").is_empty() && names(&report, "stages_changed").is_empty(), "{report}");
    let (status, body) = site.server.get("/api/v1/bars?spec=asic_metrics").unwrap();
    assert_eq!(status, 200, "{body}");

    // A changed one.
    site.until_acknowledged(&loads, 2_000);
    site.edit("specs/market_ticks.yaml", "granularity:", &format!("{PRICED}granularity:"));
    let report = site.reloaded();
    assert_eq!(names(&report, "specs_changed"), ["market_ticks"], "{report}");

    // More aggregators.
    site.until_acknowledged(&loads, 2_000);
    site.edit("topology.yaml", "instances: 2", "instances: 3");
    let report = site.reloaded();
    assert_eq!(
        (names(&report, "stages_changed"), &report["topology_changed"]),
        (vec!["aggregate".into()], &true.into())
    );

    // One that is no more.
    fs::remove_file(site.spec("asic_metrics.yaml")).unwrap();
    assert_eq!(names(&site.reloaded(), "specs_removed"), ["asic_metrics"]);
    site.until_acknowledged(&loads, 2_000);
    site.end(&mut loads, &runtime);

    let bars = block_on(site.server.bars("market_ticks"));
    says_so(&bars);
    // What comes late for a bar from before has the metric; whether it was late is not known once its series has a new clock.
    for bar in bars.iter().filter(|bar| bar.redefined && bar.revision == 0) {
        assert_eq!(priced(bar), 0, "two definitions in one window: {bar:?}");
    }
    let redefined = bars.iter().filter(|bar| bar.redefined).count();
    assert!(0 < redefined && redefined < bars.len(), "{redefined} of {} bars", bars.len());
}

#[test]
fn a_new_window_length_begins_with_bars_that_say_so_and_counts_no_tick_twice() {
    let (mut site, runtime) = (Site::start("edge.yaml"), runtime());
    site.edit("specs/network_flows.yaml", "rollup: 1s", "rollup: 2s");
    site.edit("specs/market_ticks.yaml", "rollup: 1s", "rollup: 1s\n  cascade: [1m]");
    let mut loads = load::start(site.server.grpc, site.dir.path(), 1, &runtime);
    site.until_acknowledged(&loads, 6_000);
    let report = site.reloaded();
    assert_eq!(names(&report, "specs_changed"), ["market_ticks", "network_flows"]);
    site.until_acknowledged(&loads, 6_000);
    loads.iter_mut().for_each(|load| load.end(&runtime));
    // Bars of the old length are no longer queried; the ledger knows of all.
    site.until_at_rest();
    let bars = block_on(site.server.bars("network_flows"));
    let first = bars.iter().map(|bar| bar.start_ns).min().unwrap();
    assert!(bars.iter().filter(|bar| bar.start_ns == first).all(|bar| bar.redefined), "{:?}", bars[0]);
    assert!(bars.iter().any(|bar| !bar.redefined), "{:?}", bars[0]);
    site.stop();
}

#[test]
fn twenty_reloads_with_broken_files_between_lose_nothing_and_broken_files_change_nothing() {
    let (mut site, runtime) = (Site::start("edge.yaml"), runtime());
    let mut loads = load::start(site.server.grpc, site.dir.path(), 2, &runtime);
    let broken = [
        ("specs/broken.yaml", "series: broken\nmetrics: []\nrollup: 1s\n", "broken.yaml:3:1"),
        ("specs/broken.yaml", "series: market_ticks\n  what: {", "broken.yaml:2:"),
        ("topology.yaml", "stages:\n  a: {kind: nonsense}\n", "topology.yaml:2:"),
        ("topology.yaml", "data_dir: [", "topology.yaml:1:"),
    ];
    let mut before = site.counters();
    for round in 0..20 {
        site.until_acknowledged(&loads, 200);
        let (file, text, place) = broken[round % broken.len()];
        let path = site.dir.path().join(file);
        let was = fs::read_to_string(&path).ok();
        fs::write(&path, text).unwrap();
        let generation = round + 1;
        let said = failed(&site.reload(), 2);
        assert!(said.contains(place), "{said} does not name {place}");
        match was {
            Some(was) => fs::write(&path, was).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        site.toggle("specs/market_ticks.yaml", "granularity:", "window: {wait: 300ms}\ngranularity:");
        let report = site.reloaded();
        assert_eq!(report["generation"], generation + 1, "a broken file made a generation: {report}");
        let now = site.counters();
        for (name, value) in &before {
            assert!(
                now.get(name).is_some_and(|now| now >= value),
                "{name} went back from {value} to {:?}",
                now.get(name)
            );
        }
        before = now;
    }
    site.end(&mut loads, &runtime);
}

#[test]
fn sighup_reloads_also_a_topology_in_memory_and_tells_of_broken_files_in_the_log() {
    let mut site = Site::start("memory.yaml");
    block_on(site.send_ticks(100));
    fs::write(site.spec("broken.yaml"), "series: broken\nmetrics: []\nrollup: 1s\n").unwrap();
    site.server.signal("HUP");
    site.server.until("the log names the place", |server| server.output().contains("broken.yaml:3:1"));
    assert_eq!(site.server.get("/ready").unwrap().0, 200);
    fs::remove_file(site.spec("broken.yaml")).unwrap();
    fs::copy(root().join("specs/asic_metrics.yaml"), site.spec("asic_metrics.yaml")).unwrap();
    site.server.signal("HUP");
    site.server.until("the new spec is there", |server| {
        server.get("/api/v1/series").is_some_and(|(_, body)| body.contains("asic_metrics"))
    });
    site.server.until_ready();
    let ledgers = block_on(site.server.ledgers());
    assert_eq!(ledgers.iter().map(|ledger| ledger.accepted).sum::<u64>(), 100, "{ledgers:?}");
    block_on(site.send_ticks(100));
    site.until_at_rest();
    let reload = barline(&["reload", "--topology", "topologies/memory.yaml"]).output().unwrap();
    let said = failed(&reload, 2);
    assert!(said.contains("SIGHUP"), "{said}");
}

#[test]
fn without_a_journal_the_ledger_goes_on_too() {
    let mut site = Site::start("memory.yaml");
    site.stop();
    let path = site.dir.path().join("topology.yaml");
    let text = fs::read_to_string(&path).unwrap().replace("from: journal", "from: ingest");
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("kind: journal")).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    site.restart();
    block_on(site.send_ticks(100));
    site.edit("specs/market_ticks.yaml", "granularity:", &format!("{PRICED}granularity:"));
    site.server.signal("HUP");
    site.server.until("it has reloaded", |server| server.output().contains("reloaded: specs changed: market_ticks"));
    block_on(site.send_ticks(100));
    let ledgers = site.until_at_rest();
    assert_eq!(ledgers.iter().map(|ledger| ledger.in_bars).sum::<u64>(), 200, "{ledgers:?}");
    site.stop();
}

#[test]
fn what_cannot_change_is_refused_with_a_remedy_and_listening_sockets_may_move() {
    let mut site = Site::start("edge.yaml");
    let data = site.dir.path().join("data");
    site.edit("topology.yaml", "stages:", "cache: 32MiB\nstages:");
    let said = failed(&site.reload(), 2);
    assert!(said.contains("`cache` cannot change while barline runs") && said.contains("restart barline"), "{said}");
    site.edit("topology.yaml", "cache: 32MiB\n", "");
    assert_eq!(names(&site.reloaded(), "stages_changed"), Vec::<String>::new());
    site.stop();

    // With its ports in the file.
    let ports = [(); 4].map(|()| super::harness::free_port());
    site.edit("topology.yaml", "127.0.0.1:9876", &ports[0].to_string());
    let listening = format!("http: {{listen: {}}}\nmetrics: off\nstages:", ports[1]);
    site.edit("topology.yaml", "stages:", &listening);
    site.restart_as_written(ports[0], ports[1]);
    block_on(site.send_ticks(10));
    let taken = std::net::TcpListener::bind(ports[2]).unwrap();
    site.edit("topology.yaml", &ports[0].to_string(), &ports[2].to_string());
    let said = failed(&site.reload(), 2);
    assert!(said.contains(&format!("cannot listen on {}", ports[2])), "{said}");
    assert!(data.join("admin.sock").exists());
    drop(taken);
    site.edit("topology.yaml", &ports[1].to_string(), &ports[3].to_string());
    assert_eq!(names(&site.reloaded(), "stages_changed"), ["ingest"]);
    (site.server.grpc, site.server.http) = (ports[2], ports[3]);
    site.server.until_ready();
    block_on(site.send_ticks(10));
    site.server.until("the old ports are given up", |_| {
        ports[..2].iter().all(|port| std::net::TcpStream::connect(port).is_err())
    });
    site.until_at_rest();
    site.stop();
}
