//! The built binary and its disk: the journal rewritten by series while it runs, and a budget that makes ingest wait.

use std::collections::HashMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use barline_proto::barline::QueryTicksRequest;
use barline_proto::tikr::tikr_client::TikrClient;
use barline_proto::tikr::{IngestRequest, TickData, TickQuery};

use super::harness::{Server, block_on, root};

const SYMBOLS: u64 = 40;

/// The shipped spec alone, with `more` at its end.
fn specs(dir: &Path, more: &str) -> String {
    let specs = dir.join("specs");
    std::fs::create_dir(&specs).unwrap();
    let text = std::fs::read_to_string(root().join("specs/market_ticks.yaml")).unwrap();
    std::fs::write(specs.join("market_ticks.yaml"), text + more).unwrap();
    format!("specs={}", specs.display())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// Requests of random ticks from `from` on, a microsecond apart, that do not compress well.
fn requests(count: usize, from: u64) -> Vec<IngestRequest> {
    let mut random = fastrand::Rng::with_seed(from);
    let mut tick = |n: u64| TickData {
        timestamp_ns: from + n * 1_000,
        dimensions: HashMap::from([("symbol".to_owned(), format!("S{}", random.u64(..SYMBOLS)))]),
        fields: HashMap::from([("price".to_owned(), random.i64(..1 << 60)), ("quantity".to_owned(), 1)]),
        sequence: 0,
    };
    let request = |n: usize| IngestRequest {
        series: "market_ticks".into(),
        ticks: (0..1_000).map(|row| tick((n * 1_000 + row) as u64)).collect(),
    };
    (0..count).map(request).collect()
}

/// Per symbol: its ticks in order of time, and its prices.
fn expected(requests: &[IngestRequest]) -> HashMap<String, Vec<(u64, i64)>> {
    let mut expected: HashMap<String, Vec<_>> = HashMap::new();
    for tick in requests.iter().flat_map(|request| &request.ticks) {
        expected.entry(tick.dimensions["symbol"].clone()).or_default().push((tick.timestamp_ns, tick.fields["price"]));
    }
    expected
}

async fn ticks_of(server: &Server, symbol: &str) -> Vec<(u64, i64)> {
    let dimensions = HashMap::from([("symbol".to_owned(), symbol.to_owned())]);
    let query = TickQuery { series: "market_ticks".into(), dimensions, ..TickQuery::default() };
    let mut replies = server.tikr().await.query_ticks(query).await.unwrap().into_inner();
    let mut found = Vec::new();
    while let Some(tick) = replies.message().await.unwrap() {
        found.push((tick.timestamp_ns, tick.fields["price"]));
    }
    found.sort_unstable_by_key(|(time, _)| *time);
    found
}

/// The times of all ticks, in the order of the reply.
async fn times(server: &Server) -> Vec<i64> {
    let request = QueryTicksRequest { spec: "market_ticks".into(), ..QueryTicksRequest::default() };
    let mut chunks = server.barline().await.query_ticks(request).await.unwrap().into_inner();
    let mut times = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        times.extend(chunk.ticks.iter().map(|tick| tick.timestamp_ns));
    }
    times
}

#[test]
fn the_journal_is_rewritten_by_series_while_it_runs_and_reads_as_before() {
    let dir = tempfile::tempdir().unwrap();
    let (data, specs) = (dir.path().join("data"), specs(dir.path(), ""));
    // Partitions are cut at a sixteenth of the budget.
    let overrides = [specs.as_str(), "reap.budget.ticks=4MiB"];
    let sent = requests(120, now());
    let expected = expected(&sent);
    let check = |server: &Server| {
        block_on(async {
            for symbol in ["S0", "S7", "S39"] {
                assert_eq!(ticks_of(server, symbol).await, expected[symbol], "{symbol}");
            }
            let times = times(server).await;
            assert_eq!(times.len(), 120_000);
            assert!(times.is_sorted());
        });
    };
    {
        let mut server = Server::start("edge.yaml", &data, &overrides);
        block_on(async { server.tikr().await.ingest_ticks(tokio_stream::iter(sent)).await.unwrap() });
        server.until("partitions are rewritten", |server| server.output().matches("sorted by series").count() >= 3);
        check(&server);
        server.signal("KILL");
        server.wait();
    }
    check(&Server::start("edge.yaml", &data, &overrides));
}

#[test]
fn a_spent_budget_makes_ingest_wait_until_something_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let specs = specs(dir.path(), "window: {max_ahead: 1s}\nretention: {ticks: 6s, bars: 1h}\n");
    let overrides = [specs.as_str(), "reap.budget={ticks: 1MiB, on_full: block}"];
    let mut server = Server::start("edge.yaml", &dir.path().join("data"), &overrides);
    let address = format!("http://{}", server.grpc);
    let ingest = std::thread::spawn(move || {
        block_on(async {
            let mut client = TikrClient::connect(address).await.unwrap();
            client.ingest_ticks(tokio_stream::iter(requests(200, now()))).await.unwrap()
        })
    });
    let red = |server: &Server| server.get("/ready").filter(|(status, _)| *status == 503);
    server.until("ingest stands still", |server| red(server).is_some_and(|(_, body)| body.contains("journal")));
    assert!(server.output().contains("of their budget of 1 MiB and none of them has expired"), "{}", server.output());
    ingest.join().unwrap();
    server.until("it is ready again", |server| server.get("/ready").is_some_and(|(status, _)| status == 200));
    server.until("everything is accounted for", |server| {
        let (_, body) = server.get("/api/v1/ledger?spec=market_ticks").unwrap();
        let ledger: serde_json::Value = serde_json::from_str(&body).unwrap();
        let row = ledger.as_object().unwrap().values().find_map(|rows| rows.get(0)).unwrap();
        assert_eq!(row["dropped"], serde_json::json!({}), "{row}");
        // What waited in the stream longer than ticks are kept is refused, and said so.
        row["received"] == 200_000 && row["accepted"] == row["in_bars"]
    });
    assert!(server.output().contains("partition dropped"));
    assert!(!server.output().contains("OverBudget"), "only what had expired went:\n{}", server.output());
}
