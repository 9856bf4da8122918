//! What the fake server holds: every row, looked at anew for every bar.

use std::{
    collections::{BTreeMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use barline_proto::barline::{Bar, Tick, Value, value::Kind};

/// The only spec.
pub const SPEC: &str = "market_ticks";

const SECOND: i64 = 1_000_000_000;

/// The identity of a series.
pub type Dimensions = BTreeMap<String, String>;

/// What a window gathers: timestamp, sequence, arrival, price, quantity.
pub type Row = (i64, u32, usize, i64, i64);

/// All rows, as they came.
#[derive(Clone, Default)]
pub struct State {
    /// Rows by series and second.
    pub bars: BTreeMap<(Dimensions, i64), Vec<Row>>,
    /// Rows taken.
    pub accepted: u64,
    /// Rows refused, by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Rows that named another spec.
    pub unknown: u64,
    /// Batches taken, by producer and id.
    pub taken: HashSet<(String, u64)>,
    /// Rows of batches taken before.
    pub duplicate: u64,
    /// Messages taken.
    pub messages: u64,
}

impl State {
    /// Takes one tick, or says why not.
    pub fn take(
        &mut self,
        dimensions: Dimensions,
        at: i64,
        sequence: u32,
        price: i64,
        quantity: i64,
    ) -> Option<&'static str> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        let reason = match at {
            at if at > now + 10 * SECOND => "ahead",
            at if at < now - 86_400 * SECOND => "expired",
            _ => {
                let rows = self.bars.entry((dimensions, at.div_euclid(SECOND))).or_default();
                rows.push((at, sequence, rows.len(), price, quantity));
                self.accepted += 1;
                return None;
            }
        };
        *self.rejected.entry(reason.to_owned()).or_default() += 1;
        Some(reason)
    }
}

/// A row as a query shows it.
pub fn tick(series: &Dimensions, row: &Row) -> Tick {
    let price = Value { kind: Some(Kind::Int(row.3)) };
    let quantity = Value { kind: Some(Kind::Uint(row.4 as u64)) };
    Tick {
        dimensions: series.clone().into_iter().collect(),
        timestamp_ns: row.0,
        sequence: row.1,
        fields: [("price", price), ("quantity", quantity)].map(|(name, value)| (name.to_owned(), value)).into(),
    }
}

/// The bar of some rows, by looking at all of them for every metric.
pub fn bar(series: &Dimensions, second: i64, rows: &[Row]) -> Bar {
    let by_place = |row: &&Row| (row.0, row.1, row.2);
    let int = |value: i64| Value { kind: Some(Kind::Int(value)) };
    let uint = |value: u64| Value { kind: Some(Kind::Uint(value)) };
    let metrics = [
        ("open", int(rows.iter().min_by_key(by_place).unwrap().3)),
        ("high", int(rows.iter().map(|row| row.3).max().unwrap())),
        ("low", int(rows.iter().map(|row| row.3).min().unwrap())),
        ("close", int(rows.iter().max_by_key(by_place).unwrap().3)),
        ("volume", uint(rows.iter().map(|row| row.4 as u64).sum())),
        ("tick_count", uint(rows.len() as u64)),
    ];
    Bar {
        spec: SPEC.to_owned(),
        dimensions: series.clone().into_iter().collect(),
        granularity: "1s".to_owned(),
        start_ns: second * SECOND,
        end_ns: (second + 1) * SECOND,
        metrics: metrics.map(|(name, value)| (name.to_owned(), value)).into(),
        first_ns: rows.iter().map(|row| row.0).min().unwrap(),
        last_ns: rows.iter().map(|row| row.0).max().unwrap(),
        tick_count: rows.len() as u64,
        ..Bar::default()
    }
}
