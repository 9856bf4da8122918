//! Ticks sent by hand: batches whose series and windows a test chooses.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use barline_proto::barline::{FieldColumn, IngestBatch, Series};

use crate::harness::{Server, block_on};

/// One tick of each of `symbols` in each of `windows` seconds, one batch a second, the last one ten seconds ago.
pub fn batches(symbols: &[String], windows: i64) -> Vec<IngestBatch> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let series = |symbol: &String| Series { dimensions: HashMap::from([("symbol".to_owned(), symbol.clone())]) };
    let column = |name: &str| FieldColumn { name: name.into(), ints: vec![1; symbols.len()], ..FieldColumn::default() };
    let batch = |window: i64| IngestBatch {
        batch_id: window as u64 + 1,
        spec: "market_ticks".into(),
        new_series: if window == 0 { symbols.iter().map(series).collect() } else { Vec::new() },
        timestamps: vec![(now - 10 - windows + window) * 1_000_000_000; symbols.len()],
        series_index: (0..symbols.len() as u32).collect(),
        fields: vec![column("price"), column("quantity")],
        ..IngestBatch::default()
    };
    (0..windows).map(batch).collect()
}

/// Sends them over one connection, and waits until all are acknowledged.
pub fn send(server: &Server, batches: Vec<IngestBatch>) {
    let (sent, mut taken) = (batches.len(), 0);
    block_on(async {
        let mut acks = server.barline().await.ingest(tokio_stream::iter(batches)).await.unwrap().into_inner();
        while let Some(ack) = acks.message().await.unwrap() {
            assert!(ack.rejected.is_empty(), "{ack:?}");
            taken += 1;
        }
    });
    assert_eq!(taken, sent);
}
