//! How fast bars go out to a real broker, beside the same records from a bare librdkafka producer with the same settings.
//!
//! Each pair: the built binary stores `BARS` bars with the broker away and is stopped. The broker is started, and warmed up
//! with as many records of another topic. Then barline goes on, and the clock runs from the moment its first bar has arrived
//! until nothing is outstanding. Then a producer that does nothing else sends the very records that lie in the topic to another
//! one, until all are acknowledged.
//!
//! `cargo bench --bench kafka`; `BARS` (300 000) and `PAIRS` (3) in the environment. Needs Java and Maven.

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use barline::broker::client_config;
use barline::broker::settings::{Connection, Producing};
use common::{barline, free_port, get, number, until, until_ready};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, Timestamp, TopicPartitionList};
use serde_json::Value;

const TOPIC: &str = "tikr-bars-market-1s";

fn main() {
    let (bars, pairs) = (number("BARS", 300_000), number("PAIRS", 3));
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        let (ours, bare) = pair(bars);
        println!("{ours:.0} bars/s, bare producer {bare:.0} records/s, ratio {:.2}", ours / bare);
        ratios.push(ours / bare);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
}

fn pair(bars: u64) -> (f64, f64) {
    let dir = tempfile::tempdir().unwrap();
    let ports = std::array::from_fn(|_| free_port());
    let [grpc, http, _, kafka] = ports;
    let mut server = edge(dir.path(), ports);
    until_ready(http);
    load(grpc, bars);
    until("every bar is stored", || outstanding(http).is_some_and(|(_, waiting)| waiting >= bars));
    let (_, bars) = outstanding(http).unwrap();
    Command::new("kill").arg(server.id().to_string()).status().unwrap();
    server.wait().unwrap();

    let mut broker = broker(dir.path(), kafka.port());
    let bootstrap = kafka.to_string();
    send("warm", &bootstrap, &(0..bars).map(any_record).collect::<Vec<_>>());
    let mut server = edge(dir.path(), ports);
    until("the sink finds the broker", || outstanding(http).is_some_and(|(delivered, _)| delivered > 0));
    let (before, start) = (outstanding(http).unwrap().0, Instant::now());
    until("every bar is sent", || outstanding(http).is_some_and(|(_, waiting)| waiting == 0));
    let ours = (bars - before) as f64 / start.elapsed().as_secs_f64();
    server.kill().unwrap();
    server.wait().unwrap();

    let bare = send("bare", &bootstrap, &consume(&bootstrap, bars as usize));
    drop(broker.stdin.take());
    broker.wait().unwrap();
    (ours, bare)
}

/// A record about as long as a bar's.
fn any_record(number: u64) -> OwnedMessage {
    let text = |length: usize| number.to_string().into_bytes().into_iter().cycle().take(length).collect::<Vec<u8>>();
    let header = |key| Header { key, value: Some(b"a value of some length") };
    let headers = ["a", "b", "c", "d", "e"].map(header).into_iter().fold(OwnedHeaders::new(), OwnedHeaders::insert);
    OwnedMessage::new(Some(text(800)), Some(text(16)), String::new(), Timestamp::NotAvailable, 0, 0, Some(headers))
}

fn edge(dir: &Path, [grpc, http, metrics, kafka]: [SocketAddr; 4]) -> Child {
    let set = [
        format!("ingest.listen={grpc}"),
        format!("http.listen={http}"),
        format!("metrics.listen={metrics}"),
        format!("publish.brokers=[\"{kafka}\"]"),
        "publish.specs=[\"market_ticks\"]".to_owned(),
    ];
    barline(&[], Path::new("topologies/edge-kafka.yaml"), &dir.join("data"), &set)
}

/// Two ticks for each of so many bars, of 5 000 series.
fn load(grpc: SocketAddr, bars: u64) {
    let overrides = ["series=5k", "rate=max", "event_rate=10k", "connections=2"].map(str::to_owned);
    let profile = loadgen::profile::Profile::load("market", &overrides).unwrap();
    let (server, limit) = (format!("http://{grpc}"), loadgen::plan::Limit::Ticks(bars * 2 + 10_000));
    let mut options = loadgen::run::Options::new(loadgen::connect::Server::open(server), limit);
    options.reconnect = Duration::ZERO;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(loadgen::run::run(profile, &options)).unwrap();
}

fn broker(dir: &Path, port: u16) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
    let mut command = Command::new(script);
    command.arg("guard").arg(dir.join("kafka")).args(["--port", &port.to_string()]);
    let mut guard = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let ready = BufReader::new(guard.stdout.take().unwrap()).lines().any(|line| line.unwrap() == "ready");
    assert!(ready, "scripts/kafka started no broker");
    guard
}

/// Bars delivered and outstanding.
fn outstanding(http: SocketAddr) -> Option<(u64, u64)> {
    let (_, body) = get(http, "/api/v1/sinks")?;
    let sinks: Value = serde_json::from_str(&body).ok()?;
    let spec = &sinks["sinks"][0]["specs"][0];
    Some((spec["delivered"].as_u64()?, spec["outstanding"].as_u64()?))
}

fn consume(bootstrap: &str, records: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(TOPIC), Duration::from_secs(10)).unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        partitions.add_partition_offset(TOPIC, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let mut got = Vec::with_capacity(records);
    while got.len() < records {
        let message = consumer.poll(Duration::from_secs(30)).expect("fewer records than bars");
        got.push(message.unwrap().detach());
    }
    got
}

/// Sends records to a new topic, and says how many a second.
fn send(topic: &str, bootstrap: &str, records: &[OwnedMessage]) -> f64 {
    let connection = Connection { brokers: vec![bootstrap.to_owned()], ..Connection::default() };
    let config = client_config::producer(&connection, &Producing::default(), None).unwrap();
    create_topic(topic, &config);
    let producer: BaseProducer = config.create().unwrap();
    let start = Instant::now();
    for record in records {
        let headers = record.headers().into_iter().flat_map(Headers::iter);
        let headers = headers.fold(OwnedHeaders::new(), OwnedHeaders::insert);
        let (key, payload) = (record.key().unwrap_or_default(), record.payload().unwrap_or_default());
        let mut record = BaseRecord::to(topic).key(key).payload(payload).headers(headers);
        while let Err((_, full)) = producer.send(record) {
            producer.poll(Duration::from_millis(1));
            record = full;
        }
        producer.poll(Duration::ZERO);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    records.len() as f64 / start.elapsed().as_secs_f64()
}

fn create_topic(name: &str, config: &ClientConfig) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<_> = config.create().unwrap();
    let topic = NewTopic::new(name, 3, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).unwrap();
}
