//! Bars for the tests of the encodings.

use proptest::prelude::*;

use super::{Outgoing, Previous};
use crate::model::{BarFlags, BarHead, SeriesKey, Value};
use crate::spec::{Spec, load_texts};

/// A bar and what it refers to.
#[derive(Debug, Clone)]
pub struct Sample {
    pub spec: Spec,
    pub key: SeriesKey,
    pub head: BarHead,
    pub metrics: Vec<Option<Value>>,
    /// Ticks and metrics of the revision before.
    pub before: Option<(u64, Vec<Option<Value>>)>,
}

impl Sample {
    pub fn outgoing(&self) -> Outgoing<'_> {
        let previous = self.before.clone().map(|(ticks, metrics)| Previous { ticks, metrics });
        Outgoing { spec: &self.spec, key: &self.key, head: &self.head, metrics: self.metrics.clone(), previous }
    }
}

fn spec(text: &str) -> Spec {
    let specs = load_texts([("sample.yaml".to_owned(), text.to_owned())]).unwrap();
    specs.iter().next().unwrap().as_ref().clone()
}

/// The bar whose bytes tikr's contract gives.
pub fn sample() -> Sample {
    let start = 1_700_000_000_000_000_000;
    let head = BarHead { start, first: start + 100_000, last: start + 900_000, ticks: 5, ..BarHead::default() };
    let [open, high, low, close] = [17520, 17550, 17480, 17510].map(|value| Some(Value::Int(value)));
    Sample {
        spec: spec(include_str!("../../../specs/market_ticks.yaml")),
        key: SeriesKey::new([("symbol", "AAPL")]).unwrap(),
        head,
        metrics: vec![open, high, low, close, Some(Value::Uint(450)), Some(Value::Uint(5))],
        before: None,
    }
}

const WIDE: &str = "
series: wide
metrics:
  - {name: first, field: a, type: int64, aggregation: first}
  - {name: sum_int, field: a, type: int64, aggregation: sum, unit: By, description: all of it}
  - {name: sum_uint, field: b, type: uint64, aggregation: sum}
  - {name: sum_float, field: c, type: float64, aggregation: sum}
  - {name: carried, field: c, type: float64, aggregation: count}
  - {name: avg, field: c, type: float64, aggregation: avg}
granularity: {rollup: 1s, cascade: [1m]}
";

fn values() -> impl Strategy<Value = Vec<Option<Value>>> {
    let int = || prop::option::of(any::<i64>().prop_map(Value::Int));
    let uint = || prop::option::of(any::<u64>().prop_map(Value::Uint));
    let float = || prop::option::of(any::<f64>().prop_map(Value::Float));
    (int(), int(), uint(), float(), uint(), float()).prop_map(|(a, b, c, d, e, f)| vec![a, b, c, d, e, f])
}

/// Any bar, of a spec with metrics of every sort.
pub fn samples() -> impl Strategy<Value = Sample> {
    let head = (any::<i64>(), any::<i64>(), any::<i64>(), any::<u64>(), any::<u32>(), 0..2_u8, 0..4_u8);
    let head = head.prop_map(|(start, first, last, ticks, revision, granularity, flags)| BarHead {
        start,
        first,
        last,
        ticks,
        revision,
        granularity,
        flags: BarFlags(flags),
        ..BarHead::default()
    });
    let dimensions = prop::collection::btree_map("[a-z=|\\\\]{0,4}", "\\PC{0,6}", 0..4);
    (head, dimensions, values(), prop::option::of((any::<u64>(), values()))).prop_map(
        |(head, dimensions, metrics, before)| {
            let pairs = dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            Sample { spec: spec(WIDE), key: SeriesKey::new(pairs).unwrap(), head, metrics, before }
        },
    )
}

proptest! {
    #[test]
    fn no_two_series_share_a_record_key(one in samples(), other in samples()) {
        let same = super::record_key(&one.key) == super::record_key(&other.key);
        prop_assert_eq!(same, one.key == other.key);
    }
}

#[test]
fn headers_name_the_bar_and_its_revision() {
    let mut bar = sample();
    (bar.head.revision, bar.head.flags) = (2, BarFlags::PARTIAL);
    let headers = super::headers(&bar.outgoing(), &super::record_key(&bar.key));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name, str::from_utf8(value).unwrap())).collect();
    assert_eq!(
        headers,
        [
            ("barline.series", "market_ticks"),
            ("barline.granularity", "1s"),
            ("barline.window_start_ns", "1700000000000000000"),
            ("barline.revision", "2"),
            ("barline.bar_id", "market_ticks/1s/1700000000000000000/symbol=AAPL"),
            ("barline.flags", "partial"),
        ]
    );
}
