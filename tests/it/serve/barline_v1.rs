//! `barline.v1`: matches, limits, live bars, ledger, topology.

use barline::model::Reason;
use barline::model::time::SECOND;
use barline_proto::barline::value::Kind;
use barline_proto::barline::{
    Bar, GetLedgerRequest, GetTopologyRequest, ListDimensionValuesRequest, ListSeriesRequest, Match, QueryBarsRequest,
    QueryTicksRequest, SubscribeBarsRequest, Tick,
};
use tonic::{Code, Status};

use super::fixture::{Fixture, START, all, dimensions, trade};

const A: [(&str, &str); 2] = [("symbol", "A"), ("venue", "X")];

fn matching(pairs: &[(&str, &str)], exact: bool) -> Option<Match> {
    Some(Match { dimensions: dimensions(pairs), exact })
}

fn market(pairs: &[(&str, &str)], exact: bool) -> QueryBarsRequest {
    QueryBarsRequest { spec: "market".into(), r#match: matching(pairs, exact), ..Default::default() }
}

async fn bars(fixture: &Fixture, request: QueryBarsRequest) -> Result<Vec<Bar>, Status> {
    let chunks = all(fixture.barline().await.query_bars(request).await).await?;
    Ok(chunks.into_iter().flat_map(|chunk| chunk.bars).collect())
}

async fn ticks(fixture: &Fixture, request: QueryTicksRequest) -> Vec<Tick> {
    let chunks = all(fixture.barline().await.query_ticks(request).await).await.unwrap();
    chunks.into_iter().flat_map(|chunk| chunk.ticks).collect()
}

#[tokio::test]
async fn subsets_stars_and_exact_matches_pick_series() {
    let fixture = Fixture::start().await;
    let none: &[(&str, &str)] = &[];
    let cases = [
        (none, false, 5),
        (&[], true, 1),
        (&[("symbol", "A")], false, 3),
        (&[("symbol", "A")], true, 0),
        (&[("symbol", "*")], false, 4),
        (&[("symbol", "*"), ("venue", "Y")], true, 1),
        (&[("symbol", "C")], false, 0),
    ];
    for (pairs, exact, count) in cases {
        let found = bars(&fixture, market(pairs, exact)).await.unwrap();
        assert_eq!(found.len(), count, "{pairs:?} exact {exact}");
    }
}

#[tokio::test]
async fn bars_come_by_series_then_start_in_full() {
    let fixture = Fixture::start().await;
    let found = bars(&fixture, market(&[], false)).await.unwrap();
    let starts: Vec<i64> = found.iter().map(|bar| (bar.start_ns - START) / SECOND).collect();
    assert_eq!(starts, [0, 1, 2, 0, 1]);
    let bar = &found[2];
    assert_eq!((bar.spec.as_str(), bar.granularity.as_str(), bar.end_ns - bar.start_ns), ("market", "1s", SECOND));
    assert_eq!(bar.metrics["volume"].kind, Some(Kind::Uint(u64::MAX)));
    assert_eq!(bar.metrics["open"].kind, Some(Kind::Int(30)));
    assert_eq!((bar.tick_count, bar.late_count, bar.revision), (1, 0, 0));
    assert!(!bar.partial && !bar.overflow);
}

#[tokio::test]
async fn ranges_limits_and_granularities_are_honoured() {
    let fixture = Fixture::start().await;
    let minute = QueryBarsRequest { granularity: "60s".into(), ..market(&[("symbol", "A")], false) };
    let found = bars(&fixture, minute).await.unwrap();
    assert_eq!((found.len(), found[0].granularity.as_str(), found[0].tick_count), (1, "1m", 6));
    // Of the three ticks one alone has a volume of 2^64 - 1.
    assert!(found[0].overflow);
    let later = QueryBarsRequest { start_ns: START + 1, ..market(&[], false) };
    assert_eq!(bars(&fixture, later).await.unwrap().len(), 3);
    let earlier = QueryBarsRequest { end_ns: START + 1, limit: 1, ..market(&[], false) };
    assert_eq!(bars(&fixture, earlier).await.unwrap().len(), 1);

    let unknown = QueryBarsRequest { granularity: "5s".into(), ..market(&[], false) };
    let status = bars(&fixture, unknown).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("1s, 1m"), "{status}");
    let backwards = QueryBarsRequest { start_ns: 9, end_ns: 8, ..market(&[], false) };
    assert_eq!(bars(&fixture, backwards).await.unwrap_err().code(), Code::InvalidArgument);
    let nowhere = QueryBarsRequest { spec: "x".into(), ..Default::default() };
    assert_eq!(bars(&fixture, nowhere).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn ticks_of_all_series_are_merged_by_time_and_late_ones_are_asked_for_apart() {
    let fixture = Fixture::start().await;
    let request = |spec: &str, late| QueryTicksRequest { spec: spec.into(), late, ..Default::default() };
    let found = ticks(&fixture, request("market", false)).await;
    let times: Vec<i64> = found.iter().map(|tick| tick.timestamp_ns - START).collect();
    assert_eq!(times, [1, 2, 2, 2, 5, SECOND, SECOND + 9, 2 * SECOND]);
    assert_eq!(ticks(&fixture, request("sensor", false)).await.len(), 3);
    let late = ticks(&fixture, request("sensor", true)).await;
    assert_eq!((late.len(), late[0].fields["level"].kind), (1, Some(Kind::Float(9.0))));
}

#[tokio::test]
async fn many_ticks_in_disorder_come_back_in_order_and_once_each() {
    let fixture = Fixture::empty().await;
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let series: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("symbol", name.as_str())]).collect();
    let (blocks, rows) = (60, 4_000);
    let mut random = fastrand::Rng::with_seed(7);
    for block in 0..blocks {
        let tick = |_| {
            let time = START + block * 1_000 + random.i64(0..5_000);
            trade(&series[random.usize(0..50)], time, time, 1)
        };
        fixture.put("market", &(0..rows).map(tick).collect::<Vec<_>>(), false);
    }
    let request = QueryTicksRequest { spec: "market".into(), ..Default::default() };
    let found = ticks(&fixture, request.clone()).await;
    assert_eq!(found.len() as i64, blocks * rows);
    assert!(found.is_sorted_by_key(|tick| tick.timestamp_ns));
    for limit in [1, 3_000, 20_000] {
        let first = ticks(&fixture, QueryTicksRequest { limit, ..request.clone() }).await;
        let times = |ticks: &[Tick]| ticks.iter().map(|tick| tick.timestamp_ns).collect::<Vec<_>>();
        assert_eq!(times(&first), times(&found[..limit as usize]));
    }
    let one = QueryTicksRequest { r#match: matching(&[("symbol", "7")], false), ..request };
    let expected = found.iter().filter(|tick| tick.dimensions["symbol"] == "7").count();
    assert_eq!(ticks(&fixture, one).await.len(), expected);
}

#[tokio::test]
async fn series_and_the_values_of_a_dimension_are_listed() {
    let fixture = Fixture::start().await;
    let mut client = fixture.barline().await;
    let request = ListSeriesRequest { spec: "market".into(), r#match: matching(&[("symbol", "*")], false), limit: 0 };
    let chunks = all(client.list_series(request.clone()).await).await.unwrap();
    let symbols: Vec<_> =
        chunks.iter().flat_map(|chunk| &chunk.series).map(|s| s.dimensions["symbol"].as_str()).collect();
    assert_eq!(symbols, ["A", "B"]);
    let chunks = all(client.list_series(ListSeriesRequest { limit: 1, ..request }).await).await.unwrap();
    assert_eq!(chunks[0].series.len(), 1);
    let request =
        |limit| ListDimensionValuesRequest { spec: "market".into(), dimension: "venue".into(), r#match: None, limit };
    let all_values = client.list_dimension_values(request(0)).await.unwrap().into_inner();
    assert_eq!((all_values.values, all_values.truncated), (vec!["X".to_owned(), "Y".to_owned()], false));
    let one = client.list_dimension_values(request(1)).await.unwrap().into_inner();
    assert_eq!((one.values, one.truncated), (vec!["X".to_owned()], true));
    let many = (0..65).map(|n| (n.to_string(), "*".to_owned())).collect();
    let many =
        ListSeriesRequest { spec: "market".into(), r#match: Some(Match { dimensions: many, exact: false }), limit: 0 };
    assert_eq!(client.list_series(many).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn live_bars_are_filtered_and_end_with_unavailable_when_the_server_stops() {
    let fixture = Fixture::start().await;
    let request = SubscribeBarsRequest {
        spec: "market".into(),
        r#match: matching(&[("symbol", "A")], false),
        granularity: "1m".into(),
        position: None,
    };
    let mut live = fixture.barline().await.subscribe_bars(request).await.unwrap().into_inner();
    assert!(live.message().await.unwrap().unwrap().bars.is_empty(), "the first chunk tells the position");
    let other = [("symbol", "B")];
    fixture.put("market", &[trade(&A, START + 60 * SECOND, 1, 1), trade(&other, START + 60 * SECOND, 2, 1)], false);
    let chunk = live.message().await.unwrap().unwrap();
    assert_eq!((chunk.bars.len(), chunk.missed), (1, 0));
    assert_eq!((chunk.bars[0].granularity.as_str(), chunk.bars[0].dimensions["symbol"].as_str()), ("1m", "A"));
    fixture.served.stop();
    let status = live.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "stopping"));
}

#[tokio::test]
async fn a_subscriber_that_is_slow_misses_nothing_as_long_as_it_is_kept() {
    for kept in [u64::MAX, 0] {
        let mut fixture = Fixture::empty().await;
        fixture.keep.bytes = kept;
        let mut client = fixture.barline().await;
        let mut live = client.subscribe_bars(SubscribeBarsRequest::default()).await.unwrap().into_inner();
        live.message().await.unwrap().unwrap();
        let put = |second| fixture.put("market", &[trade(&A, START + second * SECOND, 1, 1)], false);
        put(0);
        let first = live.message().await.unwrap().unwrap();
        assert_eq!((first.bars.len(), first.missed), (1, 0));
        // Nobody takes anything while these are stored.
        (1..=300).for_each(put);
        let (mut starts, mut missed) = (vec![first.bars[0].start_ns], 0);
        while starts.last() != Some(&(START + 300 * SECOND)) {
            let chunk = live.message().await.unwrap().unwrap();
            starts.extend(chunk.bars.iter().map(|bar| bar.start_ns));
            missed += chunk.missed;
        }
        assert!(starts.is_sorted());
        if kept == 0 {
            assert!(missed > 0 && starts.len() < 301, "{missed} missed, {} seen", starts.len());
        } else {
            assert_eq!((missed, starts.len()), (0, 301));
        }
    }
}

#[tokio::test]
async fn a_subscriber_goes_on_where_it_was_and_is_told_when_that_is_not_kept() {
    let mut fixture = Fixture::empty().await;
    fixture.keep.bytes = 2_000;
    let subscribe = |position| SubscribeBarsRequest { position, ..SubscribeBarsRequest::default() };
    let mut client = fixture.barline().await;
    let mut live = client.subscribe_bars(subscribe(None)).await.unwrap().into_inner();
    let begin = live.message().await.unwrap().unwrap();
    assert!(begin.bars.is_empty());
    let ticks: Vec<_> = (0..10).map(|second| trade(&A, START + second * SECOND, 1, 1)).collect();
    fixture.put("market", &ticks, false);
    let first = live.message().await.unwrap().unwrap();
    drop(live);
    assert!(begin.next_position < first.next_position - 9, "nothing was stored before: any position below is as good");
    // Nine of the ten are shown again to who asks for that, all of what came later, and nothing twice.
    fixture.put("market", &[trade(&A, START + 10 * SECOND, 1, 1)], false);
    let ten_back = first.next_position - 10;
    let (all, nine) = ((0..11).collect(), (1..11).collect());
    for (position, expected) in [(first.next_position, vec![10]), (ten_back + 1, nine), (begin.next_position, all)] {
        let mut live = client.subscribe_bars(subscribe(Some(position))).await.unwrap().into_inner();
        let (mut seen, mut next) = (Vec::new(), 0);
        while seen.last() != Some(&10) {
            let chunk = live.message().await.unwrap().unwrap();
            assert!(chunk.next_position > next && chunk.missed == 0);
            seen.extend(chunk.bars.iter().map(|bar| (bar.start_ns - START) / SECOND));
            next = chunk.next_position;
        }
        assert_eq!(seen, expected);
    }
    (11..400).for_each(|second| fixture.put("market", &[trade(&A, START + second * SECOND, 1, 1)], false));
    for position in [first.next_position, u64::MAX] {
        let mut live = client.subscribe_bars(subscribe(Some(position))).await.unwrap().into_inner();
        let status = live.message().await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange);
        assert!(status.message().contains(&format!("position {position} is not kept: positions")), "{status}");
    }
}

#[tokio::test]
async fn a_subscription_names_what_it_cannot_have() {
    let fixture = Fixture::start().await;
    let mut client = fixture.barline().await;
    let request = |spec: &str, granularity: &str| SubscribeBarsRequest {
        spec: spec.into(),
        granularity: granularity.into(),
        ..SubscribeBarsRequest::default()
    };
    assert_eq!(client.subscribe_bars(request("x", "")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.subscribe_bars(request("sensor", "1m")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(client.subscribe_bars(request("", "1h")).await.unwrap_err().code(), Code::InvalidArgument);
    // One of the two specs has it.
    assert!(client.subscribe_bars(request("", "1m")).await.is_ok());
}

#[tokio::test]
async fn the_ledger_and_the_topology_are_what_is_counted() {
    let fixture = Fixture::start().await;
    let context = &fixture.served.context;
    let market = context.ledger.spec(context.specs.by_name("market").unwrap().id);
    market.accept(10);
    market.store(7);
    market.open(2);
    market.reject(Reason::Expired, 3);
    let mut client = fixture.barline().await;
    let ledger = client.get_ledger(GetLedgerRequest::default()).await.unwrap().into_inner().specs;
    assert_eq!(ledger.len(), 2);
    assert_eq!((ledger[0].received, ledger[0].in_bars, ledger[0].open, ledger[0].in_flight), (13, 7, 2, 1));
    assert_eq!(ledger[0].rejected["expired"], 3);
    context.ledger.unknown().reject(Reason::UnknownSeries, 4);
    let ledger = client.get_ledger(GetLedgerRequest::default()).await.unwrap().into_inner().specs;
    assert_eq!((ledger[2].spec.as_str(), ledger[2].received), ("", 4));
    let unknown = client.get_ledger(GetLedgerRequest { spec: "x".into() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);

    fixture.served.meters()[1].restarts.add(1);
    fixture.served.meters()[1].set_last_error("disk full".into());
    let topology = client.get_topology(GetTopologyRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (topology.name.as_str(), topology.stages[1].from.as_slice()),
        ("by-hand", ["ingest".to_owned()].as_slice())
    );
    let instance = &topology.stages[1].instances[0];
    assert_eq!((instance.state.as_str(), instance.restarts, instance.last_error.as_str()), ("running", 1, "disk full"));
    let ingest = fixture.barline().await.ingest(tokio_stream::iter([])).await.unwrap_err();
    assert_eq!(ingest.code(), Code::Unimplemented);
}
