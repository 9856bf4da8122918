//! What the records of a topic come to, beside what is stored.

use std::collections::{BTreeMap, HashMap};

use barline_proto::barline::Bar;
use barline_proto::barline::value::Kind;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Point;
use prost::Message;

use super::consumer::Got;
use crate::harness::{Server, block_on};

/// The sums and counts of bars, by bar id.
pub type Sums = BTreeMap<String, BTreeMap<String, i64>>;

/// Metrics that may be added up, of all specs.
const SUMS: [&str; 9] = [
    "volume",
    "bytes_total",
    "packets_total",
    "avg_latency_numerator",
    "flow_count",
    "temp_avg_numerator",
    "crc_errors_total",
    "packet_drops_total",
    "sample_count",
];

/// What a consumer that adds delta sums up comes to.
pub fn added_up<'a>(records: impl IntoIterator<Item = &'a Got>) -> Sums {
    let mut sums = Sums::new();
    for record in records {
        let request = ExportMetricsServiceRequest::decode(&record.value[..]).unwrap();
        let bar = sums.entry(record.header("barline.bar_id").to_owned()).or_default();
        for metric in &request.resource_metrics[0].scope_metrics[0].metrics {
            let Some(Data::Sum(sum)) = &metric.data else { continue };
            let [point] = &sum.data_points[..] else { panic!("{metric:?}") };
            let Some(Point::AsInt(value)) = point.value else { panic!("{metric:?}") };
            let (_, name) = metric.name.split_once('.').unwrap();
            *bar.entry(name.to_owned()).or_default() += value;
        }
    }
    sums
}

/// The stored bars of `spec` in the same words.
pub fn stored(server: &Server, spec: &str) -> Sums {
    block_on(server.bars(spec)).iter().map(|bar| (id(bar), sums(bar))).collect()
}

fn id(bar: &Bar) -> String {
    let dimensions: BTreeMap<_, _> = bar.dimensions.iter().collect();
    let key: Vec<_> = dimensions.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}/{}/{}/{}", bar.spec, bar.granularity, bar.start_ns, key.join("|"))
}

fn sums(bar: &Bar) -> BTreeMap<String, i64> {
    let value = |name: &&str| match bar.metrics.get(*name)?.kind? {
        Kind::Int(value) => Some(((*name).to_owned(), value)),
        Kind::Uint(value) => Some(((*name).to_owned(), value as i64)),
        Kind::Float(value) => panic!("{name} is {value}"),
    };
    SUMS.iter().filter_map(value).chain([("tick_count".to_owned(), bar.tick_count as i64)]).collect()
}

/// The ticks of all bars.
pub fn ticks(sums: &Sums) -> i64 {
    sums.values().map(|bar| bar["tick_count"]).sum()
}

/// The records without those that repeat a bar's revision, and how many do. A repetition says the same.
pub fn once(records: &[Got]) -> (Vec<&Got>, usize) {
    let (mut seen, mut firsts) = (HashMap::new(), Vec::new());
    for record in records {
        let first = *seen.entry((record.header("barline.bar_id"), record.header("barline.revision"))).or_insert(record);
        assert_eq!(first, record, "one revision in two words");
        if std::ptr::eq(first, record) {
            firsts.push(record);
        }
    }
    (firsts, records.len() - seen.len())
}

/// Holds that the records of every series come in the order of their windows, and those of a bar in the order of their
/// revisions.
pub fn check_order(records: &[&Got]) {
    let place = |record: &Got| -> (i64, u32) {
        let number = |name| record.header(name).parse::<i64>().unwrap();
        (number("barline.window_start_ns"), number("barline.revision") as u32)
    };
    let mut last = HashMap::new();
    for record in records {
        if let Some(before) = last.insert(&record.key, *record) {
            assert!(place(before) < place(record), "{before:?}\ncomes before\n{record:?}");
        }
    }
}

/// Holds that the revisions of every bar come in their order, wherever late ticks make bars amended long after.
pub fn check_revisions(records: &[&Got]) {
    let mut last = HashMap::new();
    for record in records {
        let revision: u32 = record.header("barline.revision").parse().unwrap();
        let before = last.insert(record.header("barline.bar_id"), revision);
        assert!(before.is_none_or(|before| before < revision), "{before:?} comes before {record:?}");
    }
}
