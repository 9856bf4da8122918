//! Taps over the wire, of instances whose batches the test makes itself.

use std::sync::Arc;

use barline::model::{BarBatch, BarHead, Column, Envelope, ExtraField, SeriesId, SeriesKey, TickBatch, TickSlice};
use barline_proto::barline::value::Kind;
use barline_proto::barline::{Match, TapRequest};
use tonic::Code;

use super::fixture::{Fixture, START, dimensions};
use barline::codec::Interner;

/// A tick of each of these symbols: price 7 and no quantity, and a field that the spec does not declare.
fn ticks(fixture: &Fixture, symbols: &[&str]) -> Envelope {
    let context = &fixture.served.context;
    let spec = context.specs.by_name("market").unwrap();
    let mut batch = TickBatch::new(spec.id, 2);
    for (row, symbol) in symbols.iter().enumerate() {
        let key = SeriesKey::new([("symbol", *symbol)]).unwrap();
        batch.series.push(context.catalog.intern(spec.id, &key).ok().unwrap().0);
        batch.timestamps.push(START + row as i64);
        batch.sequences.push(row as u32);
        batch.extras.push(ExtraField { row: row as u32, name: "flag".into(), value: row as i64 });
    }
    let rows = symbols.len();
    batch.fields[0].bits = vec![7; rows];
    batch.fields[1] = Column { bits: vec![0; rows], absent: vec![u64::MAX] };
    Envelope::Ticks(TickSlice::whole(Arc::new(batch), 0))
}

fn request(stage: &str) -> TapRequest {
    TapRequest { stage: stage.into(), ..TapRequest::default() }
}

#[tokio::test]
async fn ticks_come_with_their_names_and_only_those_asked_for() {
    let fixture = Fixture::empty().await;
    let of_b = Match { dimensions: dimensions(&[("symbol", "B")]), exact: true };
    let asked = TapRequest { spec: "market".into(), r#match: Some(of_b), rows: 1, ..request("ingest") };
    let mut client = fixture.barline().await;
    let mut samples = client.tap(asked).await.unwrap().into_inner();
    let [ingest, write] = fixture.served.meters() else { panic!("two instances") };
    // A tap begins a moment after it was answered; what passes until then is not seen.
    let sample = loop {
        write.tap.offer(&ticks(&fixture, &["B"]));
        ingest.tap.offer(&ticks(&fixture, &["A", "B", "C", "B"]));
        tokio::select! {
            biased;
            sample = samples.message() => break sample.unwrap().unwrap(),
            () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
        }
    };
    assert_eq!((sample.stage.as_str(), sample.spec.as_str(), sample.instance), ("ingest", "market", 0));
    assert_eq!((sample.rows, sample.ticks.len(), sample.bars.len()), (4, 1, 0));
    let tick = &sample.ticks[0];
    assert_eq!((tick.timestamp_ns, tick.sequence, &tick.dimensions), (START + 1, 1, &dimensions(&[("symbol", "B")])));
    let kinds: Vec<_> = ["price", "quantity", "flag"].map(|name| tick.fields.get(name).and_then(|v| v.kind)).to_vec();
    assert_eq!(kinds, [Some(Kind::Int(7)), None, Some(Kind::Int(1))]);
}

#[tokio::test]
async fn bars_come_whole_and_a_stop_ends_it() {
    let fixture = Fixture::start().await;
    let context = &fixture.served.context;
    let spec = context.specs.by_name("market").unwrap();
    let mut bars = BarBatch::new(spec.id);
    let scan = barline::store::BarScan { spec: spec.id, granularity: 0, series: None, from: i64::MIN, to: i64::MAX };
    let visit = &mut |head: &BarHead, words: &[u64]| {
        bars.push(*head, words);
        std::ops::ControlFlow::Continue(())
    };
    context.store.scan_bars(&scan, visit).unwrap();
    let (stored, first) = (bars.len(), bars.heads[0]);
    assert_eq!(context.catalog.key(spec.id, SeriesId(first.series.0)).get("symbol"), Some("A"));
    let envelope = Envelope::Bars(Arc::new(bars));
    let mut samples = fixture.barline().await.tap(request("write")).await.unwrap().into_inner();
    let sample = loop {
        fixture.served.meters()[1].tap.offer(&envelope);
        tokio::select! {
            biased;
            sample = samples.message() => break sample.unwrap().unwrap(),
            () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
        }
    };
    assert_eq!((sample.rows as usize, sample.bars.len(), sample.ticks.len()), (stored, stored, 0));
    let bar = &sample.bars[0];
    assert_eq!((bar.granularity.as_str(), bar.tick_count, bar.dimensions["symbol"].as_str()), ("1s", 4, "A"));
    assert_eq!(bar.metrics["open"].kind, Some(Kind::Int(11)));
    fixture.served.stop();
    let ended = samples.message().await.unwrap_err();
    assert_eq!((ended.code(), ended.message()), (Code::Unavailable, "stopping"));
}

#[tokio::test]
async fn what_is_out_of_bounds_is_refused_with_the_bounds() {
    let fixture = Fixture::empty().await;
    for (asked, code, told) in [
        (request("nowhere"), Code::NotFound, "there are: ingest, write"),
        (TapRequest { instance: Some(1), ..request("write") }, Code::NotFound, "0 to 0"),
        (TapRequest { spec: "markt".into(), ..request("write") }, Code::NotFound, "market"),
        (TapRequest { every_ns: 1, ..request("write") }, Code::InvalidArgument, "10ms or more"),
        (TapRequest { rows: 1001, ..request("write") }, Code::InvalidArgument, "at most 1000"),
    ] {
        let refused = fixture.barline().await.tap(asked).await.unwrap_err();
        assert!(refused.code() == code && refused.message().contains(told), "{refused}");
    }
}
