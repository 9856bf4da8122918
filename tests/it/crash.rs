//! The built binary is killed with SIGKILL at random instants, again and again on the same data: every acknowledged tick is
//! there afterwards, and every bar is what the ticks that are there add up to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use barline_proto::barline::barline_client::BarlineClient;
use barline_proto::barline::value::Kind;
use barline_proto::barline::{Bar, FieldColumn, IngestBatch, QueryBarsRequest, QueryTicksRequest, Series, Tick, Value};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::harness::{Server, block_on};

/// How often the process is killed; `BARLINE_KILLS` says otherwise.
const KILLS: u64 = 6;
const SERIES: u32 = 16;
const ROWS: u32 = 200;

/// A tick of the test, by series and sequence number: unique, since every batch has a second of event time to itself.
type Id = (u32, i64, u32);

/// What `first` and `last` go by, and the price.
type Place = (i64, u32, i64);

/// What a sender knows when the connection breaks: which ticks were acknowledged.
#[derive(Default)]
struct Acknowledged {
    ticks: BTreeSet<Id>,
    batches: u64,
}

/// The ticks of one batch, a few of them late.
fn ticks(batch: u64, base: i64, random: &mut fastrand::Rng) -> Vec<Id> {
    let time = base + (batch as i64) * 10_000_000;
    (0..ROWS).map(|row| (row % SERIES, time - behind(random), (batch as u32) * ROWS + row)).collect()
}

/// How far behind the batch's time a tick is: within `wait`, and one in fifty late.
fn behind(random: &mut fastrand::Rng) -> i64 {
    let most = if random.u8(0..50) == 0 { 3_000_000_000 } else { 9_000_000 };
    random.i64(0..most)
}

fn price(tick: &Id) -> i64 {
    i64::from(tick.2 % 997) - 400
}

fn columns(batch_id: u64, ticks: &[Id], name_series: bool) -> IngestBatch {
    let dimensions = |series| HashMap::from([("symbol".to_owned(), format!("K{series}"))]);
    let column = |name: &str, ints| FieldColumn { name: name.into(), ints, ..FieldColumn::default() };
    let named = 0..if name_series { SERIES } else { 0 };
    IngestBatch {
        batch_id,
        spec: "market_ticks".into(),
        new_series: named.map(|series| Series { dimensions: dimensions(series) }).collect(),
        timestamps: ticks.iter().map(|tick| tick.1).collect(),
        series_index: ticks.iter().map(|tick| tick.0).collect(),
        sequences: ticks.iter().map(|tick| tick.2).collect(),
        fields: vec![column("price", ticks.iter().map(price).collect()), column("quantity", vec![1; ticks.len()])],
        ..IngestBatch::default()
    }
}

/// Sends batches until the connection breaks, and notes every acknowledgement.
async fn send(mut client: BarlineClient<Channel>, base: i64, seed: u64, acknowledged: &mut Acknowledged) {
    let (batches, stream) = tokio::sync::mpsc::channel(8);
    let Ok(acks) = client.ingest(ReceiverStream::new(stream)).await else { return };
    let mut acks = acks.into_inner();
    let mut random = fastrand::Rng::with_seed(seed);
    let first = acknowledged.batches;
    let mut sent: BTreeMap<u64, Vec<Id>> = BTreeMap::new();
    let mut next = first;
    loop {
        tokio::select! {
            biased;
            ack = acks.message() => {
                let Ok(Some(ack)) = ack else { break };
                let ticks = sent.remove(&ack.batch_id).unwrap_or_default();
                assert_eq!(ack.accepted, ticks.len() as u64, "{:?}", ack.rejected);
                acknowledged.ticks.extend(ticks);
            }
            room = batches.reserve() => {
                let Ok(room) = room else { break };
                let ticks = ticks(next, base, &mut random);
                room.send(columns(next, &ticks, next == first));
                sent.insert(next, ticks);
                next += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    // Batches that were never acknowledged may be there or not; their numbers are not used again.
    acknowledged.batches = next;
}

async fn kept_ticks(client: &mut BarlineClient<Channel>) -> Vec<Tick> {
    let request = QueryTicksRequest { spec: "market_ticks".into(), ..QueryTicksRequest::default() };
    let mut chunks = client.query_ticks(request).await.unwrap().into_inner();
    let mut kept = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        kept.extend(chunk.ticks);
    }
    kept
}

async fn kept_bars(client: &mut BarlineClient<Channel>) -> Vec<Bar> {
    let request = QueryBarsRequest { spec: "market_ticks".into(), ..QueryBarsRequest::default() };
    let mut chunks = client.query_bars(request).await.unwrap().into_inner();
    let mut kept = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        kept.extend(chunk.bars);
    }
    kept
}

fn int(value: &Value) -> i64 {
    match value.kind {
        Some(Kind::Int(value)) => value,
        Some(Kind::Uint(value)) => value as i64,
        _ => panic!("no integer: {value:?}"),
    }
}

/// Open, high, low, close, volume and tick count of every bar the kept ticks add up to, by series and second.
fn expected(kept: &[Tick]) -> BTreeMap<(String, i64), [i64; 6]> {
    let mut windows: BTreeMap<(String, i64), Vec<Place>> = BTreeMap::new();
    for tick in kept {
        let start = tick.timestamp_ns.div_euclid(1_000_000_000) * 1_000_000_000;
        let place = (tick.timestamp_ns, tick.sequence, int(&tick.fields["price"]));
        windows.entry((tick.dimensions["symbol"].clone(), start)).or_default().push(place);
    }
    let bar = |mut places: Vec<Place>| {
        places.sort_unstable();
        let prices = || places.iter().map(|place| place.2);
        let count = places.len() as i64;
        [places[0].2, prices().max().unwrap(), prices().min().unwrap(), places[places.len() - 1].2, count, count]
    };
    windows.into_iter().map(|(key, places)| (key, bar(places))).collect()
}

fn shown(bar: &Bar) -> ((String, i64), [i64; 6]) {
    let metric = |name: &str| int(&bar.metrics[name]);
    let metrics = [metric("open"), metric("high"), metric("low"), metric("close"), metric("volume")];
    let [open, high, low, close, volume] = metrics;
    ((bar.dimensions["symbol"].clone(), bar.start_ns), [open, high, low, close, volume, bar.tick_count as i64])
}

#[test]
fn sigkill_at_any_instant_loses_no_acknowledged_tick_and_leaves_exact_bars() {
    let kills = std::env::var("BARLINE_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let seed = std::env::var("BARLINE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("seed {seed}, {kills} kills");
    let mut random = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64 - 3_600_000_000_000;
    let mut acknowledged = Acknowledged::default();
    for kill in 0..kills {
        let instances = format!("aggregate.instances={}", random.u32(1..5));
        let mut server = Server::start("scaled.yaml", &data, &[&instances]);
        let life = Duration::from_millis(random.u64(0..1500));
        block_on(async {
            let client = server.barline().await;
            let killer = async {
                tokio::time::sleep(life).await;
                server.signal("KILL");
            };
            tokio::join!(send(client, base, seed * 1000 + kill, &mut acknowledged), killer);
        });
        server.wait();
        if random.bool() {
            // Once more while it recovers.
            drop(Server::spawn("scaled.yaml", &data, &[]).after(Duration::from_millis(random.u64(0..300))));
        }
    }
    let mut server = Server::start("scaled.yaml", &data, &[]);
    server.signal("TERM");
    assert!(server.wait().success(), "{}", server.output());
    drop(server);
    let server = Server::start("scaled.yaml", &data, &[]);
    block_on(async {
        let mut client = server.barline().await;
        let kept = kept_ticks(&mut client).await;
        let id = |tick: &Tick| {
            let series = tick.dimensions["symbol"][1..].parse().unwrap();
            (series, tick.timestamp_ns, tick.sequence)
        };
        let ids: BTreeSet<Id> = kept.iter().map(id).collect();
        assert_eq!(ids.len(), kept.len(), "a tick is kept twice");
        let lost: Vec<_> = acknowledged.ticks.difference(&ids).take(5).collect();
        assert!(lost.is_empty(), "acknowledged and gone: {lost:?}, of {}", acknowledged.ticks.len());
        assert!(acknowledged.ticks.len() > 1000, "only {} ticks were acknowledged", acknowledged.ticks.len());
        let expected = expected(&kept);
        let stored: BTreeMap<_, _> = kept_bars(&mut client).await.iter().map(shown).collect();
        let wrong = |key: &&(String, i64)| stored.get(*key) != expected.get(*key);
        let wrong: Vec<_> = expected.keys().chain(stored.keys()).filter(wrong).collect();
        let first = wrong.first().map(|key| (key, stored.get(*key), expected.get(*key)));
        assert!(wrong.is_empty(), "{} of {} bars are wrong: {first:?}", wrong.len(), expected.len());
    });
}
