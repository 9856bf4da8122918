//! Dashboards and alert rules name metrics that exist.

use std::collections::BTreeSet;
use std::path::Path;

use barline::telemetry::prometheus;
use barline::telemetry::table::{Instrument, Kind, TABLE};

/// Every name that an instrument has in a scrape.
fn names(instrument: &Instrument) -> Vec<String> {
    let name = prometheus::name(instrument.name, instrument.unit);
    match instrument.kind {
        Kind::Counter => vec![name + "_total"],
        Kind::Gauge => vec![name],
        Kind::Histogram => ["_bucket", "_sum", "_count"].map(|ending| format!("{name}{ending}")).to_vec(),
    }
}

/// Every word of `text` that begins as barline's metrics do.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("barline_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_a_panel_or_rule_names_exists() {
    let names: BTreeSet<_> = TABLE.iter().flat_map(names).collect();
    for file in ["barline.json", "alerts.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards").join(file);
        let mentioned = mentioned(&std::fs::read_to_string(path).unwrap());
        assert!(mentioned.len() > 5, "{file} names only {mentioned:?}");
        let unknown: Vec<_> = mentioned.difference(&names).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

#[test]
fn every_instrument_is_on_the_dashboard() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/barline.json");
    let shown = mentioned(&std::fs::read_to_string(path).unwrap());
    let is_shown = |instrument: &&Instrument| names(instrument).iter().any(|name| shown.contains(name));
    let missing: Vec<_> = TABLE.iter().filter(|instrument| !is_shown(instrument)).map(|one| one.name).collect();
    assert!(missing.is_empty(), "no panel shows {missing:?}");
}

#[test]
fn the_dashboard_is_json_and_no_two_panels_lie_on_each_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/barline.json");
    let dashboard: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        for cell in (at("y")..at("y") + at("h")).flat_map(|y| (at("x")..at("x") + at("w")).map(move |x| (x, y))) {
            assert!(taken.insert(cell), "{} lies on another panel at {cell:?}", panel["title"]);
        }
    }
}
