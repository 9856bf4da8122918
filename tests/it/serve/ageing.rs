//! Expired data: what is older than its spec keeps it is hidden from every query at once, although no reaper ran.

use barline::model::time::{DAY, SECOND};
use barline_proto::barline::{QueryBarsRequest, QueryTicksRequest};
use barline_proto::tikr::{BarQuery, TickQuery};

use super::fixture::{Fixture, START, all, dimensions, trade};

const A: [(&str, &str); 1] = [("symbol", "A")];

/// `market` keeps ticks for a day and bars for seven: one tick within both, one whose bar alone is kept, one beyond both.
async fn aged() -> Fixture {
    let fixture = Fixture::empty().await;
    for (days, price) in [(0, 1), (2, 2), (8, 3)] {
        fixture.put("market", &[trade(&A, START - days * DAY + SECOND, price, 1)], false);
    }
    fixture
}

#[tokio::test]
async fn barline_v1_hides_expired_bars() {
    let fixture = aged().await;
    let request = QueryBarsRequest { spec: "market".into(), ..QueryBarsRequest::default() };
    let chunks = all(fixture.barline().await.query_bars(request).await).await.unwrap();
    let starts: Vec<i64> = chunks.iter().flat_map(|chunk| &chunk.bars).map(|bar| bar.start_ns).collect();
    assert_eq!(starts, [START - 2 * DAY + SECOND, START + SECOND]);
}

#[tokio::test]
async fn barline_v1_hides_expired_ticks() {
    let fixture = aged().await;
    let request = QueryTicksRequest { spec: "market".into(), ..QueryTicksRequest::default() };
    let chunks = all(fixture.barline().await.query_ticks(request).await).await.unwrap();
    let times: Vec<i64> = chunks.iter().flat_map(|chunk| &chunk.ticks).map(|tick| tick.timestamp_ns).collect();
    assert_eq!(times, [START + SECOND]);
}

#[tokio::test]
async fn tikr_v1_hides_expired_bars() {
    let fixture = aged().await;
    let query = BarQuery { series: "market".into(), dimensions: dimensions(&A), ..BarQuery::default() };
    let bars = all(fixture.tikr().await.query_bars(query).await).await.unwrap();
    assert_eq!(bars.iter().map(|bar| bar.metrics["open"]).collect::<Vec<_>>(), [2, 1]);
}

#[tokio::test]
async fn tikr_v1_hides_expired_ticks() {
    let fixture = aged().await;
    let query = TickQuery { series: "market".into(), dimensions: dimensions(&A), ..TickQuery::default() };
    let ticks = all(fixture.tikr().await.query_ticks(query).await).await.unwrap();
    assert_eq!(ticks.iter().map(|tick| tick.fields["price"]).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn http_hides_expired_bars_and_ticks() {
    let paths = [("bars", 2), ("bars?granularity=1m", 2), ("ticks", 1)];
    for (path, kept) in paths {
        // A store of its own each, so that no query hides anything for the next.
        let fixture = aged().await;
        let separator = if path.contains('?') { '&' } else { '?' };
        let (status, reply) = fixture.get(&format!("/api/v1/{path}{separator}spec=market")).await;
        let rows = reply.as_object().unwrap().values().find_map(|value| value.as_array()).unwrap();
        assert_eq!((status, rows.len()), (200, kept), "{path}: {reply}");
    }
}
