//! Ticks written to a topic in each of the formats a `kafka_source` reads, and what they come to.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use barline_proto::barline::{FieldColumn, IngestBatch, Series};
use barline_proto::tikr::{IngestRequest, TickData};
use prost::Message;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::bars::Sums;

/// The topic.
pub const TOPIC: &str = "ticks";
/// How many series there are; those of one message's key are whole in one partition.
const SERIES: u64 = 40;

/// How messages are written, and what one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An array of three ticks of a series, keyed by it.
    Json,
    /// Three ticks of a series, keyed by it.
    Tikr,
    /// Two ticks of each of four series, keyed by what they have in common.
    Barline,
}

/// One tick of `market_ticks`.
struct Tick {
    symbol: String,
    timestamp: i64,
    quantity: i64,
}

impl Format {
    /// As a topology names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Tikr => "tikr",
            Self::Barline => "barline",
        }
    }

    /// How many series share a key, and how many ticks of each are in a message.
    fn shape(self) -> (u64, u64) {
        match self {
            Self::Json | Self::Tikr => (1, 3),
            Self::Barline => (4, 2),
        }
    }

    fn encode(self, ticks: &[Tick]) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(&ticks.iter().map(json).collect::<Vec<_>>()).unwrap(),
            Self::Tikr => request(ticks).encode_to_vec(),
            Self::Barline => batch(ticks).encode_to_vec(),
        }
    }
}

fn json(tick: &Tick) -> serde_json::Value {
    serde_json::json!({
        "series": "market_ticks",
        "timestamp": tick.timestamp,
        "dimensions": {"symbol": tick.symbol},
        "fields": {"price": 100, "quantity": tick.quantity},
    })
}

fn request(ticks: &[Tick]) -> IngestRequest {
    let tick = |tick: &Tick| TickData {
        timestamp_ns: tick.timestamp as u64,
        dimensions: HashMap::from([("symbol".to_owned(), tick.symbol.clone())]),
        fields: HashMap::from([("price".to_owned(), 100), ("quantity".to_owned(), tick.quantity)]),
        sequence: 0,
    };
    IngestRequest { series: "market_ticks".to_owned(), ticks: ticks.iter().map(tick).collect() }
}

fn batch(ticks: &[Tick]) -> IngestBatch {
    let mut symbols: Vec<&String> = ticks.iter().map(|tick| &tick.symbol).collect();
    symbols.sort_unstable();
    symbols.dedup();
    let series = |symbol: &&String| Series { dimensions: HashMap::from([("symbol".to_owned(), (*symbol).clone())]) };
    let column = |name: &str, of: fn(&Tick) -> i64| FieldColumn {
        name: name.to_owned(),
        ints: ticks.iter().map(of).collect(),
        ..FieldColumn::default()
    };
    IngestBatch {
        spec: "market_ticks".to_owned(),
        new_series: symbols.iter().map(series).collect(),
        timestamps: ticks.iter().map(|tick| tick.timestamp).collect(),
        series_index: ticks.iter().map(|tick| symbols.binary_search(&&tick.symbol).unwrap() as u32).collect(),
        fields: vec![column("price", |_| 100), column("quantity", |tick| tick.quantity)],
        ..IngestBatch::default()
    }
}

/// Who writes ticks, and what they come to.
pub struct Writer {
    producer: BaseProducer,
    format: Format,
    messages: u64,
    /// How many ticks it has sent.
    pub sent: u64,
    /// The bars they make.
    pub sums: Sums,
}

impl Writer {
    /// Writes to the cluster at `bootstrap`.
    pub fn new(bootstrap: &str, format: Format) -> Self {
        let producer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
        Self { producer, format, messages: 0, sent: 0, sums: Sums::new() }
    }

    /// Sends `ticks` of the present moment, or some more to fill the last message, and waits until the broker has them.
    pub fn send(&mut self, ticks: u64) {
        let until = self.sent + ticks;
        while self.sent < until {
            let (series, each) = self.format.shape();
            let key = self.messages % (SERIES / series);
            let ticks: Vec<_> = (0..series * each).map(|tick| self.tick(key * series + tick % series)).collect();
            self.write(&format!("K{key}"), &self.format.encode(&ticks));
        }
        self.producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// Hands one message over.
    pub fn write(&mut self, key: &str, value: &[u8]) {
        self.producer.send(BaseRecord::to(TOPIC).key(key).payload(value)).map_err(|(error, _)| error).unwrap();
        self.messages += 1;
    }

    /// A tick of now, that is reckoned with.
    fn tick(&mut self, series: u64) -> Tick {
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        let tick = Tick { symbol: format!("S{series}"), timestamp, quantity: (self.sent % 7 + 1) as i64 };
        let id = format!("market_ticks/1s/{}/symbol={}", timestamp - timestamp % 1_000_000_000, tick.symbol);
        let sum = self.sums.entry(id).or_default();
        *sum.entry("tick_count".to_owned()).or_default() += 1;
        *sum.entry("volume".to_owned()).or_default() += tick.quantity;
        self.sent += 1;
        tick
    }
}
