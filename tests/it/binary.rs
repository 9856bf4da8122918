//! The built binary as producers and operators meet it.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use barline_proto::barline;
use barline_proto::tikr::{BarData, BarQuery, Empty, IngestRequest, TickData, TickQuery};
use tonic::Code;

use super::harness::{Server, block_on};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// The start of a second a little in the past.
fn recent_second() -> u64 {
    (now() / 1_000_000_000 - 5) * 1_000_000_000
}

fn tick(symbol: &str, timestamp_ns: u64, price: i64) -> TickData {
    TickData {
        timestamp_ns,
        dimensions: HashMap::from([("symbol".to_owned(), symbol.to_owned())]),
        fields: HashMap::from([("price".to_owned(), price), ("quantity".to_owned(), 10)]),
        sequence: 0,
    }
}

fn request(ticks: Vec<TickData>) -> IngestRequest {
    IngestRequest { series: "market_ticks".into(), ticks }
}

fn symbol(symbol: &str) -> HashMap<String, String> {
    HashMap::from([("symbol".to_owned(), symbol.to_owned())])
}

/// Bars of one symbol, over everything kept.
async fn bars(server: &Server, name: &str) -> Vec<BarData> {
    let query = BarQuery { series: "market_ticks".into(), dimensions: symbol(name), start_ns: 0, end_ns: 0 };
    let mut replies = server.tikr().await.query_bars(query).await.unwrap().into_inner();
    let mut bars = Vec::new();
    while let Some(bar) = replies.message().await.unwrap() {
        bars.push(bar);
    }
    bars
}

/// How many raw ticks of one symbol are kept.
async fn ticks(server: &Server, name: &str) -> usize {
    let query = TickQuery { series: "market_ticks".into(), dimensions: symbol(name), ..TickQuery::default() };
    let mut replies = server.tikr().await.query_ticks(query).await.unwrap().into_inner();
    let mut count = 0;
    while replies.message().await.unwrap().is_some() {
        count += 1;
    }
    count
}

async fn until_bars(server: &Server, name: &str, count: usize) -> Vec<BarData> {
    for _ in 0..600 {
        let bars = bars(server, name).await;
        if bars.len() >= count {
            return bars;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{name} never had {count} bars:\n{}", server.output());
}

#[test]
fn what_a_tikr_client_sends_comes_back_as_bars_and_ticks_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = recent_second();
    let mut server = Server::start("edge.yaml", &data, &[]);
    block_on(async {
        let sent = [(1, 17_520), (2, 17_550), (3, 17_480), (4, 17_510)];
        let in_window = sent.map(|(ms, price)| tick("AAPL", start + ms * 1_000_000, price));
        let reply = server.tikr().await.ingest_ticks(tokio_stream::iter([request(in_window.to_vec())])).await.unwrap();
        assert_eq!(reply.get_ref().ticks_received, 4);
        let bars = until_bars(&server, "AAPL", 1).await;
        let metrics = &bars[0].metrics;
        assert_eq!((bars[0].bucket_ts, bars[0].tick_count), (start, 4));
        assert_eq!(
            (metrics["open"], metrics["high"], metrics["low"], metrics["close"]),
            (17_520, 17_550, 17_480, 17_510)
        );
        assert_eq!((metrics["volume"], metrics["tick_count"]), (40, 4));
    });
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    drop(server);

    let server = Server::start("edge.yaml", &data, &[]);
    block_on(async {
        assert_eq!(bars(&server, "AAPL").await.len(), 1);
        assert_eq!(ticks(&server, "AAPL").await, 4);
        // A late tick amends the bar that was stored before the restart.
        let late = vec![tick("AAPL", start + 500_000_000, 17_600)];
        server.tikr().await.ingest_ticks(tokio_stream::iter([request(late)])).await.unwrap();
        for _ in 0..600 {
            let bars = bars(&server, "AAPL").await;
            if bars[0].tick_count == 5 {
                assert_eq!((bars[0].metrics["high"], bars[0].metrics["close"]), (17_600, 17_600));
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("the bar was never amended:\n{}", server.output());
    });
}

#[test]
fn bad_ticks_are_counted_in_the_trailers_and_fail_no_stream() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("memory.yaml", &dir.path().join("data"), &[]);
    block_on(async {
        let start = recent_second();
        let hour = 3_600_000_000_000;
        let ticks = vec![tick("A", start, 1), tick("A", now() + hour, 2), tick("A", 1_000, 3), tick("A", start + 1, 4)];
        let unknown = IngestRequest { series: "nonsense".into(), ticks: vec![tick("A", start, 5)] };
        let requests = tokio_stream::iter([request(ticks), unknown]);
        let reply = server.tikr().await.ingest_ticks(requests).await.unwrap();
        assert_eq!(reply.get_ref().ticks_received, 2);
        let trailer = |name: &str| reply.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(trailer("barline-accepted").as_deref(), Some("2"));
        assert_eq!(trailer("barline-rejected-ahead").as_deref(), Some("1"));
        assert_eq!(trailer("barline-rejected-expired").as_deref(), Some("1"));
        assert_eq!(trailer("barline-rejected-unknown_series").as_deref(), Some("1"));
    });
}

#[test]
fn columnar_batches_are_acknowledged_one_by_one_with_reasons() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("edge.yaml", &dir.path().join("data"), &[]);
    block_on(async {
        let start = recent_second() as i64;
        let column =
            |name: &str, ints: Vec<i64>| barline::FieldColumn { name: name.into(), ints, ..Default::default() };
        let batch = |batch_id: u64, new: &[&str], times: Vec<i64>, index: Vec<u32>| barline::IngestBatch {
            batch_id,
            spec: "market_ticks".into(),
            new_series: new.iter().map(|name| barline::Series { dimensions: symbol(name) }).collect(),
            fields: vec![column("price", vec![5; times.len()]), column("quantity", vec![1; times.len()])],
            timestamps: times,
            series_index: index,
            ..barline::IngestBatch::default()
        };
        let batches = [
            batch(7, &["X", "Y"], vec![start, start + 1, start + 2], vec![0, 1, 0]),
            batch(8, &[], vec![start + 3, 1], vec![1, 1]),
        ];
        let mut acks = server.barline().await.ingest(tokio_stream::iter(batches)).await.unwrap().into_inner();
        let first = acks.message().await.unwrap().unwrap();
        assert_eq!((first.batch_id, first.accepted, first.rejected.len()), (7, 3, 0));
        let second = acks.message().await.unwrap().unwrap();
        assert_eq!((second.batch_id, second.accepted), (8, 1));
        assert_eq!(
            (second.rejected[0].reason.as_str(), second.rejected[0].example_rows.as_slice()),
            ("expired", [1].as_slice())
        );
        assert!(acks.message().await.unwrap().is_none());
        assert_eq!(until_bars(&server, "Y", 1).await[0].tick_count, 2);
    });
}

#[test]
fn sigterm_with_an_open_stream_ends_in_order_and_keeps_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut server = Server::start("edge.yaml", &data, &[]);
    let start = recent_second();
    block_on(async {
        let (requests, stream) = tokio::sync::mpsc::channel(4);
        let mut client = server.tikr().await;
        let call =
            tokio::spawn(async move { client.ingest_ticks(tokio_stream::wrappers::ReceiverStream::new(stream)).await });
        requests.send(request(vec![tick("OPEN", start, 1), tick("OPEN", start + 1, 2)])).await.unwrap();
        // Ticks of a stream that is still open can be queried.
        while ticks(&server, "OPEN").await < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        server.signal("TERM");
        let status = call.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert_eq!(status.metadata().get("barline-accepted").unwrap(), "2");
        drop(requests);
    });
    assert!(server.wait().success(), "{}", server.output());
    assert!(server.output().contains("ledger"), "no farewell:\n{}", server.output());
    drop(server);
    let server = Server::start("edge.yaml", &data, &[]);
    block_on(async { assert_eq!(until_bars(&server, "OPEN", 1).await[0].tick_count, 2) });
}

#[test]
fn bytes_that_are_no_message_end_the_stream_and_keep_what_came_before() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("memory.yaml", &dir.path().join("data"), &[]);
    block_on(async {
        let channel = tonic::transport::Channel::from_shared(format!("http://{}", server.grpc)).unwrap();
        let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
        grpc.ready().await.unwrap();
        // A tick sent as another message of the same shape, whose one field is a length that lies.
        let good = prost::Message::encode_to_vec(&request(vec![tick("GOOD", recent_second(), 1)]));
        let messages = [good, vec![0x12, 0x7f, 0x01]].map(bytes::Bytes::from);
        let codec = super::harness::BytesCodec;
        let path = http::uri::PathAndQuery::from_static("/tikr.v1.Tikr/IngestTicks");
        let call = grpc.client_streaming(tonic::Request::new(tokio_stream::iter(messages)), path, codec);
        let status = call.await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert_eq!(status.metadata().get("barline-accepted").unwrap(), "1");
        assert_eq!(until_bars(&server, "GOOD", 1).await[0].tick_count, 1);
        let info = server.tikr().await.get_info(Empty {}).await.unwrap().into_inner();
        assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    });
}

#[test]
fn the_quickstart_shows_this_machine_and_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("quickstart.yaml", &dir.path().join("data"), &[]);
    server.until("bars of this machine are there", |server| {
        let reply = server.get("/api/v1/bars?spec=host_metrics&match=resource%3Dcpu");
        reply.is_some_and(|(status, body)| status == 200 && body.contains("usage_avg"))
    });
    let rss = server.rss();
    assert!(rss < 64 << 20, "{rss} bytes resident");
}

#[test]
fn a_second_process_on_the_same_data_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let _first = Server::start("edge.yaml", &data, &[]);
    let (grpc, http) = (super::harness::free_port(), super::harness::free_port());
    let (grpc, http) = (format!("ingest.listen={grpc}"), format!("http.listen={http}"));
    let arguments = [
        "run",
        "topologies/edge.yaml",
        "--data-dir",
        data.to_str().unwrap(),
        "--set",
        &grpc,
        "--set",
        &http,
        "--set",
        "metrics=off",
    ];
    let second = super::harness::barline(&arguments).output().unwrap();
    let error = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{error}");
    assert!(error.contains("in use by another process"), "{error}");
}
