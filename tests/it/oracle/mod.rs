//! The naive side of the wire oracle, shared by the property test and the fuzz targets: prost's generated
//! decoder, maps, and the admission rules written down once more without any cleverness.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use barline::codec::{Builders, Interner, Refusal, TikrDecoder};
use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{FieldType, Reason, SeriesId, SeriesKey, SpecId, TickBatch, TimeNs};
use barline::spec::{Spec, Specs, UnknownDimensions};
use barline_proto::tikr::{IngestRequest, TickData};
use prost::Message;

mod spec;
use spec::spec;

/// The moment all messages arrive.
pub const NOW: TimeNs = 1_700_000_000 * SECOND;

/// One row, independent of numbering and order.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub key: SeriesKey,
    pub time: TimeNs,
    pub sequence: u32,
    pub fields: Vec<Option<u64>>,
    pub extras: BTreeMap<String, i64>,
}

/// What a message should come to.
#[derive(Debug, PartialEq, Default)]
pub struct Outcome {
    pub spec: Option<SpecId>,
    pub rows: Vec<Row>,
    /// Count and first rows per reason.
    pub rejected: BTreeMap<Reason, (u64, Vec<u32>)>,
}

/// Numbers series in order of appearance; refuses those with a dimension value `refused`.
#[derive(Debug, Default)]
pub struct Numbers {
    keys: Mutex<(Vec<SeriesKey>, HashMap<SeriesKey, u32>)>,
}

impl Interner for Numbers {
    fn intern(&self, _: SpecId, key: &SeriesKey) -> Result<SeriesId, Refusal> {
        if is_refused(key) {
            return Err(Refusal { reason: Reason::Cardinality, message: "full".into() });
        }
        let (keys, numbers) = &mut *self.keys.lock().unwrap();
        let number = *numbers.entry(key.clone()).or_insert_with(|| {
            keys.push(key.clone());
            keys.len() as u32 - 1
        });
        Ok(SeriesId(number))
    }
}

impl Numbers {
    pub fn key(&self, series: u32) -> SeriesKey {
        self.keys.lock().unwrap().0[series as usize].clone()
    }
}

fn is_refused(key: &SeriesKey) -> bool {
    key.dimensions().any(|(_, value)| value == "refused")
}

/// `market` takes anything, in nanoseconds; `strict` only its own dimensions, in milliseconds.
pub fn specs() -> Arc<Specs> {
    use FieldType::{Float64, Int64, Uint64};
    let market = spec("market", &["symbol"], &[("price", Int64), ("quantity", Uint64)]);
    let strict = spec("strict", &["host", "port"], &[("load", Float64), ("bytes", Uint64), ("price", Int64)]);
    let strict = Spec { precision: MILLISECOND, unknown_dimensions: UnknownDimensions::Reject, ..strict };
    Arc::new(Specs::new(vec![market, strict]))
}

/// What prost and the rules say of a message; `None` where it is malformed.
pub fn naive(message: &[u8], specs: &Specs) -> Option<Outcome> {
    let request = IngestRequest::decode(message).ok()?;
    let mut outcome = Outcome::default();
    let spec = specs.by_name(&request.series);
    outcome.spec = spec.map(|spec| spec.id);
    for (i, tick) in request.ticks.iter().enumerate() {
        let row = spec.map_or(Err(Reason::UnknownSeries), |spec| naive_tick(tick, spec));
        match row {
            Ok(row) => outcome.rows.push(row),
            Err(reason) => {
                let (count, examples) = outcome.rejected.entry(reason).or_default();
                *count += 1;
                if examples.len() < 5 {
                    examples.push(i as u32);
                }
            }
        }
    }
    Some(outcome)
}

fn naive_tick(tick: &TickData, spec: &Spec) -> Result<Row, Reason> {
    let time = i128::from(tick.timestamp_ns) * i128::from(spec.precision);
    let time = i64::try_from(time).map_err(|_| Reason::BadTimestamp)?;
    if time < NOW - spec.retention.ticks {
        return Err(Reason::Expired);
    }
    if time > NOW + spec.window.max_ahead {
        return Err(Reason::Ahead);
    }
    let dimensions = &tick.dimensions;
    let undeclared = |name: &String| !spec.dimensions.contains(name);
    if dimensions.len() > 64
        || dimensions.iter().any(|(name, value)| name.len() > 256 || value.len() > 4096)
        || (spec.unknown_dimensions == UnknownDimensions::Reject && dimensions.keys().any(undeclared))
    {
        return Err(Reason::BadDimensions);
    }
    let key = SeriesKey::new(dimensions.iter().map(|(n, v)| (n.as_str(), v.as_str()))).unwrap();
    if is_refused(&key) {
        return Err(Reason::Cardinality);
    }
    let mut extras: BTreeMap<String, i64> = tick.fields.iter().map(|(n, v)| (n.clone(), *v)).collect();
    let mut fields = Vec::new();
    for field in &spec.fields {
        let value = extras.remove(&field.name);
        let bits = value.map(|value| field.ty.bits_of_int(value).ok_or(Reason::BadField));
        fields.push(bits.transpose()?);
    }
    if extras.len() > 64 || extras.keys().any(|name| name.len() > 256) {
        return Err(Reason::BadField);
    }
    Ok(Row { key, time, sequence: tick.sequence, fields, extras })
}

/// Feeds one stream of messages to both sides and asserts that they agree on every one.
pub fn compare<'a>(messages: impl IntoIterator<Item = &'a [u8]>) {
    let specs = specs();
    let numbers = Numbers::default();
    let mut decoder = TikrDecoder::new(specs.clone());
    let mut out = Builders::new(&specs);
    let mut expected: Vec<Vec<Row>> = vec![Vec::new(); specs.len()];
    for message in messages {
        let ours = decoder.decode(message, NOW, &numbers, &mut out);
        let theirs = naive(message, &specs);
        assert_eq!(ours.is_ok(), theirs.is_some(), "{ours:?} for a message of {} bytes", message.len());
        let (Ok(ours), Some(mut theirs)) = (ours, theirs) else { continue };
        let examples = |r: &barline::codec::Rejection| (r.reason, (r.rows, r.examples.clone()));
        assert_eq!(ours.rejected.iter().map(examples).collect::<BTreeMap<_, _>>(), theirs.rejected);
        assert_eq!((ours.spec, ours.accepted), (theirs.spec, theirs.rows.len() as u64));
        if let Some(spec) = theirs.spec {
            expected[spec.0 as usize].append(&mut theirs.rows);
        }
    }
    for spec in specs.iter() {
        let batch = out.take(spec.id);
        assert_eq!(rows(&batch, &numbers), expected[spec.id.0 as usize]);
    }
}

/// The rows of a batch; also checks that its columns have one length.
pub fn rows(batch: &TickBatch, numbers: &Numbers) -> Vec<Row> {
    assert!(batch.timestamps.len() == batch.len() && batch.fields.iter().all(|c| c.bits.len() == batch.len()));
    assert!(batch.sequences.is_empty() || batch.sequences.len() == batch.len());
    assert!(batch.extras.is_sorted_by_key(|extra| extra.row));
    let row = |row: usize| Row {
        key: numbers.key(batch.series[row]),
        time: batch.timestamps[row],
        sequence: batch.sequence_at(row),
        fields: batch.fields.iter().map(|column| column.get(row)).collect(),
        extras: extras_of(batch, row as u32),
    };
    (0..batch.len()).map(row).collect()
}

fn extras_of(batch: &TickBatch, row: u32) -> BTreeMap<String, i64> {
    let from = batch.extras.partition_point(|extra| extra.row < row);
    let own = batch.extras[from..].iter().take_while(|extra| extra.row == row);
    own.map(|extra| (extra.name.to_string(), extra.value)).collect()
}
