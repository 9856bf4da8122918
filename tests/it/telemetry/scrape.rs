//! The built binary scraped.

use std::collections::BTreeSet;

use barline::telemetry::{Snapshot, table};

use super::exposition::{Sample, parse};
use crate::harness::Server;

fn scrape(server: &Server) -> Option<String> {
    let (status, body) = Server::get_from(server.metrics, "/metrics", "*/*")?;
    (status == 200).then_some(body)
}

#[test]
fn a_scrape_has_every_family_that_can_have_points_and_parses_by_the_book() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("quickstart.yaml", &dir.path().join("data"), &[]);
    let mut samples: Vec<Sample> = Vec::new();
    server.until("bars are stored and seen in a scrape", |server| {
        samples = scrape(server).map_or_else(Vec::new, |text| parse(&text));
        samples.iter().any(|sample| sample.name == "barline_bar_stored_delay_seconds_count" && sample.value > 0.0)
    });
    let identities: BTreeSet<_> = samples.iter().map(|sample| (&sample.name, &sample.labels)).collect();
    assert_eq!(identities.len(), samples.len(), "a sample comes twice");
    assert!(samples.iter().all(|sample| sample.labels["topology"] == "quickstart"));
    let stages: BTreeSet<_> = samples.iter().filter(|s| s.name == "barline_stage_lag_seconds").collect_stages();
    assert_eq!(stages, ["aggregate", "host", "ingest", "journal", "reap", "route", "write"].map(String::from).into());
    let (_, json) = server.get("/api/v1/metrics").unwrap();
    let snapshot: Snapshot = serde_json::from_str(&json).unwrap();
    // Of what can go wrong nothing has, and there is no sink.
    let silent = ["barline.ledger.rejected", "barline.ledger.dropped", "barline.store.quarantined"];
    let of_sinks =
        |name: &str| ["barline.outbox.", "barline.spool.", "barline.sink."].iter().any(|start| name.starts_with(start));
    let may_be_empty = |name: &str| silent.contains(&name) || of_sinks(name);
    for family in snapshot.families.iter().filter(|family| !may_be_empty(&family.name)) {
        assert!(!family.points.is_empty(), "{} has no points", family.name);
        assert!(table::find(&family.name).is_some());
    }
    let (_, open) = Server::get_from(server.metrics, "/metrics", "application/openmetrics-text").unwrap();
    assert!(open.trim_end().ends_with("# EOF"), "{open}");
}

/// The stages some samples are about.
trait Stages {
    fn collect_stages(self) -> BTreeSet<String>;
}

impl<'a, I: Iterator<Item = &'a Sample>> Stages for I {
    fn collect_stages(self) -> BTreeSet<String> {
        self.map(|sample| sample.labels["stage"].clone()).collect()
    }
}
