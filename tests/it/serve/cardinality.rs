//! Series beyond their spec's limit: the ledger says how many there were and which dimensions made them, on both protocols.

use barline::codec::Interner;
use barline::model::{Reason, SeriesKey};
use barline_proto::barline::{GetLedgerRequest, Offender};
use serde_json::json;

use super::fixture::Fixture;

#[tokio::test]
async fn series_beyond_the_limit_are_counted_and_their_dimensions_named() {
    let fixture = Fixture::start().await;
    let context = &fixture.served.context;
    let sensor = context.specs.by_name("sensor").unwrap().id;
    // Its limit is 2, and there is one.
    let intern = |device| context.catalog.intern(sensor, &SeriesKey::new([("device", device)]).unwrap());
    assert!(intern("b").is_ok());
    assert_eq!(intern("c").unwrap_err().reason, Reason::Cardinality);
    let request = GetLedgerRequest { spec: "sensor".into() };
    let ledger = fixture.barline().await.get_ledger(request).await.unwrap().into_inner().specs;
    assert_eq!(ledger[0].refused_series, 1);
    let offender = Offender { dimension: "device".into(), distinct: 1, values: vec!["c".into()] };
    assert_eq!(ledger[0].offenders, [offender]);
    let specs = &fixture.get("/api/v1/ledger").await.1["specs"];
    assert_eq!((&specs[0]["refused_series"], &specs[0]["offenders"]), (&json!(0), &json!([])));
    let named = json!([{ "dimension": "device", "distinct": 1, "values": ["c"] }]);
    assert_eq!((&specs[1]["refused_series"], &specs[1]["offenders"]), (&json!(1), &named));
}
