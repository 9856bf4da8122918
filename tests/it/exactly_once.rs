//! A producer that says who it is may send a batch again, on any connection and after any crash: it counts once.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use barline_proto::barline::{Durability, FieldColumn, IngestAck, IngestBatch, Series, SpecLedger};
use tonic::Code;

use super::harness::{Server, block_on};

/// A second ten seconds ago, so that its window closes at once.
fn recent_second() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 * 1_000_000_000 - 10_000_000_000
}

/// Three ticks of one series.
fn batch(producer: &str, batch_id: u64, start: i64) -> IngestBatch {
    let column = |name: &str, ints| FieldColumn { name: name.into(), ints, ..FieldColumn::default() };
    IngestBatch {
        batch_id,
        producer_id: producer.into(),
        spec: "market_ticks".into(),
        new_series: vec![Series { dimensions: HashMap::from([("symbol".to_owned(), producer.to_owned())]) }],
        timestamps: vec![start, start + 1, start + 2],
        series_index: vec![0; 3],
        fields: vec![column("price", vec![5; 3]), column("quantity", vec![1; 3])],
        ..IngestBatch::default()
    }
}

/// Sends batches over a fresh connection and gives their acknowledgements.
async fn send(server: &Server, batches: Vec<IngestBatch>) -> Vec<IngestAck> {
    let mut acks = server.barline().await.ingest(tokio_stream::iter(batches)).await.unwrap().into_inner();
    let mut received = Vec::new();
    while let Some(ack) = acks.message().await.unwrap() {
        received.push(ack);
    }
    received
}

fn counts(acks: &[IngestAck]) -> Vec<(u64, u64, u64)> {
    acks.iter().map(|ack| (ack.batch_id, ack.accepted, ack.duplicate)).collect()
}

/// The ledger of `market_ticks` once nothing is on its way or open.
async fn ledger_at_rest(server: &Server) -> SpecLedger {
    loop {
        let mut ledgers = server.ledgers().await.into_iter();
        let ledger = ledgers.find(|ledger| ledger.spec == "market_ticks").unwrap();
        if ledger.in_flight == 0 && ledger.open == 0 {
            return ledger;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn ticks_in_bars(server: &Server) -> u64 {
    server.bars("market_ticks").await.iter().map(|bar| bar.tick_count).sum()
}

#[test]
fn a_batch_sent_again_counts_once_over_connections_and_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = recent_second();
    let mut server = Server::start("edge.yaml", &data, &[]);
    let before = block_on(async {
        let acks = send(&server, vec![batch("P", 1, start), batch("P", 1, start), batch("P", 3, start)]).await;
        assert_eq!(counts(&acks), [(1, 3, 0), (1, 0, 3), (3, 3, 0)]);
        assert!(acks.iter().all(|ack| ack.durability() == Durability::Synced));
        // The same numbers of another producer are other batches; without a producer nothing is remembered.
        let anonymous = IngestBatch { producer_id: String::new(), ..batch("N", 1, start) };
        let acks = send(&server, vec![batch("Q", 1, start), anonymous.clone(), anonymous]).await;
        assert_eq!(counts(&acks), [(1, 3, 0), (1, 3, 0), (1, 3, 0)]);
        ledger_at_rest(&server).await
    });
    assert_eq!((before.accepted, before.duplicate, before.received, before.in_bars), (15, 3, 18, 15));
    server.signal("KILL");
    server.wait();
    drop(server);
    server = Server::start("scaled.yaml", &data, &[]);
    block_on(async {
        // What was passed over in the last milliseconds before the crash may be forgotten, no more.
        let after = ledger_at_rest(&server).await;
        assert_eq!((after.accepted, after.in_bars, after.dropped.len()), (15, 15, 0), "{after:?}");
        // The number between two that were taken is free; the dictionary is learned from a batch passed over.
        let last = IngestBatch { new_series: Vec::new(), ..batch("P", 2, start) };
        assert_eq!(counts(&send(&server, vec![batch("P", 3, start), last]).await), [(3, 0, 3), (2, 3, 0)]);
        assert_eq!(ledger_at_rest(&server).await.accepted, 18);
    });
    server.signal("TERM");
    server.wait();
    drop(server);
    let server = Server::start("edge.yaml", &data, &[]);
    block_on(async {
        assert_eq!(counts(&send(&server, vec![batch("P", 2, start)]).await), [(2, 0, 3)]);
        let ledger = ledger_at_rest(&server).await;
        assert_eq!((ledger.accepted, ledger.in_bars, ledger.received), (18, 18, 18 + ledger.duplicate));
        assert!(ledger.duplicate >= 6, "an orderly stop forgets no count: {ledger:?}");
        assert_eq!(ticks_in_bars(&server).await, 18);
    });
}

#[test]
fn the_same_batch_over_many_connections_at_once_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("edge.yaml", &dir.path().join("data"), &["ingest.instances=2"]);
    let start = recent_second();
    block_on(async {
        let all = (0..8).map(|_| send(&server, (1..=20).map(|id| batch("P", id, start)).collect()));
        let acks = futures_util::future::join_all(all).await;
        let mut accepted = [0; 21];
        for ack in acks.iter().flatten() {
            assert_eq!(ack.accepted + ack.duplicate, 3, "{ack:?}");
            accepted[ack.batch_id as usize] += ack.accepted;
        }
        assert!(accepted[1..].iter().all(|ticks| *ticks == 3), "{accepted:?}");
        let ledger = ledger_at_rest(&server).await;
        assert_eq!((ledger.accepted, ledger.duplicate, ledger.in_bars), (60, 7 * 60, 60));
    });
}

#[test]
fn producers_that_cannot_be_remembered_are_told_why() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start("memory.yaml", &dir.path().join("data"), &[]);
    let start = recent_second();
    block_on(async {
        let long = batch(&"x".repeat(129), 1, start);
        let mut acks = server.barline().await.ingest(tokio_stream::iter([long])).await.unwrap().into_inner();
        let status = acks.message().await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("129 bytes, 128 are allowed"), "{status}");
        // Numbers all over the place: the lowest are forgotten, and that is said.
        let acks = send(&server, (0..300).map(|n| batch("S", 10 + 2 * n, start)).collect()).await;
        assert_eq!(acks.len(), 300);
        assert!(acks.iter().all(|ack| ack.accepted == 3 && ack.durability() == Durability::Accepted));
        let old = tokio_stream::iter([batch("S", 11, start)]);
        let mut acks = server.barline().await.ingest(old).await.unwrap().into_inner();
        let status = acks.message().await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("batch_id 11 of producer \"S\" lies below"), "{status}");
    });
}
