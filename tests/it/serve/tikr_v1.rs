//! `tikr.v1`: what existing clients get.

use barline::model::time::SECOND;
use barline_proto::tikr::{BarData, BarQuery, Empty, IngestRequest, TickData, TickQuery};
use tonic::Code;

use super::fixture::{Fixture, START, all, dimensions};

const DAY: u64 = 86_400 * SECOND as u64;

fn bars_of(series: &str, pairs: &[(&str, &str)]) -> BarQuery {
    BarQuery { series: series.into(), dimensions: dimensions(pairs), start_ns: 0, end_ns: 0 }
}

fn ticks_of(series: &str, pairs: &[(&str, &str)]) -> TickQuery {
    TickQuery { series: series.into(), dimensions: dimensions(pairs), ..TickQuery::default() }
}

async fn bars(fixture: &Fixture, query: BarQuery) -> Vec<BarData> {
    all(fixture.tikr().await.query_bars(query).await).await.unwrap()
}

async fn ticks(fixture: &Fixture, query: TickQuery) -> Vec<TickData> {
    all(fixture.tikr().await.query_ticks(query).await).await.unwrap()
}

const A: [(&str, &str); 2] = [("symbol", "A"), ("venue", "X")];

#[tokio::test]
async fn bars_of_one_series_come_ascending_with_true_first_and_last_times() {
    let fixture = Fixture::start().await;
    let found = bars(&fixture, bars_of("market", &A)).await;
    let starts: Vec<u64> = found.iter().map(|bar| bar.bucket_ts).collect();
    assert_eq!(starts, [0, 1, 2].map(|n| (START + n * SECOND) as u64));
    let first = &found[0];
    assert_eq!((first.series.as_str(), first.dimensions.clone(), first.tick_count), ("market", dimensions(&A), 4));
    assert_eq!((first.first_timestamp, first.last_timestamp), (START as u64 + 1, START as u64 + 2));
    assert_eq!((first.metrics["open"], first.metrics["close"], first.metrics["volume"]), (11, 14, 10));
    // This wire has no unsigned values: they are clamped.
    assert_eq!(found[2].metrics["volume"], i64::MAX);
}

#[tokio::test]
async fn dimensions_are_matched_in_full_and_a_star_is_an_ordinary_value() {
    let fixture = Fixture::start().await;
    assert_eq!(bars(&fixture, bars_of("market", &[])).await.len(), 1);
    assert!(bars(&fixture, bars_of("market", &A[..1])).await.is_empty());
    assert!(bars(&fixture, bars_of("market", &[("symbol", "*"), ("venue", "*")])).await.is_empty());
    assert!(bars(&fixture, bars_of("market", &[("symbol", "never seen")])).await.is_empty());
    assert_eq!(bars(&fixture, bars_of("sensor", &[("device", "*")])).await.len(), 1);
    assert_eq!(ticks(&fixture, ticks_of("market", &[])).await.len(), 1);
}

#[tokio::test]
async fn fractions_are_rounded_half_away_from_zero() {
    let fixture = Fixture::start().await;
    let bar = &bars(&fixture, bars_of("sensor", &[("device", "*")])).await[0];
    assert_eq!((bar.metrics["mean"], bar.metrics["peak"]), (3, 5));
}

#[tokio::test]
async fn ticks_come_by_timestamp_then_sequence_then_arrival_up_to_the_limit() {
    let fixture = Fixture::start().await;
    let found = ticks(&fixture, ticks_of("market", &A)).await;
    let prices: Vec<i64> = found.iter().map(|tick| tick.fields["price"]).collect();
    assert_eq!(prices, [11, 12, 13, 14, 20, 30]);
    assert_eq!(found[2].sequence, 3);
    let query =
        TickQuery { start_ns: START as u64 + 2, end_ns: (START + SECOND) as u64, limit: 2, ..ticks_of("market", &A) };
    let prices: Vec<i64> = ticks(&fixture, query).await.iter().map(|tick| tick.fields["price"]).collect();
    assert_eq!(prices, [12, 13]);
}

#[tokio::test]
async fn every_error_has_its_own_status_code() {
    let fixture = Fixture::start().await;
    let mut client = fixture.tikr().await;
    let cases = [
        ("nonsense", 0, 0, Code::NotFound, "market, sensor"),
        ("market", 5, 5, Code::InvalidArgument, "end must be after start"),
        ("market", 5, 0, Code::InvalidArgument, "end must be after start"),
        ("market", 1, 2 + DAY, Code::OutOfRange, "max 24h"),
        ("market", 0, 1 + DAY, Code::OutOfRange, "max 24h"),
    ];
    for (series, start_ns, end_ns, code, words) in cases {
        let query = BarQuery { start_ns, end_ns, ..bars_of(series, &[]) };
        let status = all(client.query_bars(query).await).await.unwrap_err();
        assert_eq!(status.code(), code, "{series} {start_ns} {end_ns}: {status}");
        assert!(status.message().contains(words), "{status}");
        let query = TickQuery { start_ns, end_ns, ..ticks_of(series, &[]) };
        assert_eq!(all(client.query_ticks(query).await).await.unwrap_err().code(), code);
    }
    let long = "x".repeat(5000);
    let status = all(client.query_bars(bars_of("market", &[("symbol", &long)])).await).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn times_beyond_the_clock_are_clamped_and_a_full_day_is_allowed() {
    let fixture = Fixture::start().await;
    let query = BarQuery { start_ns: u64::MAX - DAY, end_ns: u64::MAX, ..bars_of("market", &A) };
    assert!(bars(&fixture, query).await.is_empty());
    let query = BarQuery { start_ns: START as u64, end_ns: START as u64 + DAY, ..bars_of("market", &A) };
    assert_eq!(bars(&fixture, query).await.len(), 3);
    let query = BarQuery { start_ns: START as u64 + 1, end_ns: START as u64 + SECOND as u64, ..bars_of("market", &A) };
    assert!(bars(&fixture, query).await.is_empty(), "the range is about window starts");
}

#[tokio::test]
async fn specs_are_listed_in_order_with_their_finest_window_as_written() {
    let fixture = Fixture::start().await;
    let mut client = fixture.tikr().await;
    let series = client.list_series(Empty {}).await.unwrap().into_inner().series;
    let shown: Vec<_> = series.iter().map(|s| (s.name.as_str(), s.rollup.as_str())).collect();
    assert_eq!(shown, [("market", "1s"), ("sensor", "1s")]);
    assert_eq!(series[0].dimensions, ["symbol", "venue"]);
    assert_eq!(series[0].metrics, ["open", "close", "volume", "ticks"]);
    let info = client.get_info(Empty {}).await.unwrap().into_inner();
    assert_eq!((info.version.as_str(), info.uptime_seconds), (env!("CARGO_PKG_VERSION"), 3600));
    assert_eq!(info.series, series);
}

#[tokio::test]
async fn ingest_without_an_ingest_stage_is_unimplemented() {
    let fixture = Fixture::start().await;
    let requests = tokio_stream::iter([IngestRequest::default()]);
    let status = fixture.tikr().await.ingest_ticks(requests).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "this server has no grpc_ingest stage"));
}
