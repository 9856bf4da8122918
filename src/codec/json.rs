//! Ticks as JSON: one object, or an array of them.
//!
//! ```json
//! {"series": "market_ticks", "timestamp": 1700000000000000000, "sequence": 1,
//!  "dimensions": {"symbol": "AAPL"}, "fields": {"price": 17520, "quantity": 100}}
//! ```
//! `series` may be left out where the reader has a spec of its own, `sequence` always. The timestamp is in the spec's
//! precision. A message is read whole or not at all; then each tick is judged alone, as on every protocol.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Number;

use super::admit::{Decoded, Interner, MAX_EXTRAS, Refusal, TimeGate, admit_series, quote, unknown_spec};
use super::builders::{Builders, push_row};
use crate::model::series::MAX_NAME_BYTES;
use crate::model::{ExtraField, FieldType, Reason, SeriesId, TickBatch, TimeNs};
use crate::spec::{Spec, Specs};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tick<'a> {
    #[serde(borrow, default)]
    series: Option<Cow<'a, str>>,
    timestamp: i64,
    #[serde(default)]
    sequence: u32,
    #[serde(borrow, default)]
    dimensions: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow, default)]
    fields: BTreeMap<Cow<'a, str>, Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ticks<'a> {
    #[serde(borrow)]
    One(Box<Tick<'a>>),
    Many(#[serde(borrow)] Vec<Tick<'a>>),
}

/// Reads messages of JSON.
#[derive(Debug, Clone)]
pub struct JsonDecoder {
    specs: Arc<Specs>,
    /// The spec of ticks that name none.
    default: Option<String>,
}

impl JsonDecoder {
    /// A decoder; ticks that name no series are of spec `default`.
    pub fn new(specs: Arc<Specs>, default: Option<String>) -> Self {
        Self { specs, default }
    }

    /// Appends the ticks of one message that are taken to the batches of their specs; what became of them, by spec.
    ///
    /// # Errors
    /// The message is no such JSON; then nothing of it was appended.
    pub fn decode(
        &self,
        message: &[u8],
        now: TimeNs,
        interner: &dyn Interner,
        out: &mut Builders,
    ) -> Result<Vec<Decoded>, serde_json::Error> {
        let ticks = match serde_json::from_slice(message)? {
            Ticks::One(tick) => vec![*tick],
            Ticks::Many(ticks) => ticks,
        };
        let mut decoded: Vec<Decoded> = Vec::new();
        for (row, tick) in ticks.iter().enumerate() {
            let name = tick.series.as_deref().or(self.default.as_deref()).unwrap_or_default();
            let spec = self.specs.by_name(name);
            let id = spec.map(|spec| spec.id);
            let result = match spec {
                Some(spec) => take(tick, spec, now, interner, out.batch(spec.id)),
                None => Err(Refusal { reason: Reason::UnknownSeries, message: unknown_spec(name, &self.specs) }),
            };
            let of = match decoded.iter().position(|of| of.spec == id) {
                Some(at) => &mut decoded[at],
                None => decoded.push_mut(Decoded { spec: id, ..Decoded::default() }),
            };
            match result {
                Ok(()) => of.accepted += 1,
                Err(refusal) => of.rejected.add(row as u32, refusal.reason, || refusal.message),
            }
        }
        Ok(decoded)
    }
}

fn take(
    tick: &Tick<'_>,
    spec: &Spec,
    now: TimeNs,
    interner: &dyn Interner,
    batch: &mut TickBatch,
) -> Result<(), Refusal> {
    let gate = TimeGate::new(spec, now);
    let late = |reason| Refusal { reason, message: gate.explain(reason, tick.timestamp) };
    let time = gate.admit(tick.timestamp).map_err(late)?;
    let dimensions = tick.dimensions.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let series = admit_series(spec, dimensions, interner)?;
    let fields = declared(tick, spec)?;
    let extras = undeclared(tick, spec)?;
    append(tick, series, time, &fields, extras, batch);
    Ok(())
}

/// Per field of the spec: its bits, where the tick has it.
fn declared(tick: &Tick<'_>, spec: &Spec) -> Result<Vec<Option<u64>>, Refusal> {
    let field = |field: &crate::spec::Field| {
        let Some(number) = tick.fields.get(field.name.as_str()) else { return Ok(None) };
        let misfit = || bad(format!("{number} does not fit field {:?}, which is {}", field.name, field.ty.name()));
        bits(number, field.ty).map(Some).ok_or_else(misfit)
    };
    spec.fields.iter().map(field).collect()
}

fn bits(number: &Number, ty: FieldType) -> Option<u64> {
    match (number.as_i64(), number.as_u64()) {
        (Some(value), _) => ty.bits_of_int(value),
        (None, Some(value)) => ty.bits_of_uint(value),
        (None, None) => number.as_f64().filter(|_| ty == FieldType::Float64).map(f64::to_bits),
    }
}

/// The fields the spec does not declare: integers are kept.
fn undeclared(tick: &Tick<'_>, spec: &Spec) -> Result<Vec<(Arc<str>, i64)>, Refusal> {
    let others = tick.fields.iter().filter(|(name, _)| !spec.fields.iter().any(|field| field.name == name.as_ref()));
    let mut extras = Vec::new();
    for (name, number) in others {
        let shown = quote(name);
        let value = number
            .as_i64()
            .ok_or_else(|| bad(format!("field {shown:?} is not declared; only integers are kept then")))?;
        if extras.len() == MAX_EXTRAS || name.len() > MAX_NAME_BYTES {
            return Err(bad(format!(
                "undeclared fields: at most {MAX_EXTRAS}, with names of at most {MAX_NAME_BYTES} bytes"
            )));
        }
        extras.push((name.as_ref().into(), value));
    }
    Ok(extras)
}

fn bad(message: String) -> Refusal {
    Refusal { reason: Reason::BadField, message }
}

fn append(
    tick: &Tick<'_>,
    series: SeriesId,
    time: TimeNs,
    fields: &[Option<u64>],
    extras: Vec<(Arc<str>, i64)>,
    batch: &mut TickBatch,
) {
    let row = batch.len();
    push_row(batch, series, time, tick.sequence);
    for (column, bits) in batch.fields.iter_mut().zip(fields) {
        column.bits.push(bits.unwrap_or(0));
        if bits.is_none() {
            column.set_absent(row);
        }
    }
    batch.extras.extend(extras.into_iter().map(|(name, value)| ExtraField { row: row as u32, name, value }));
}

#[cfg(test)]
mod tests {
    use super::super::admit::tests::spec;
    use super::*;
    use crate::model::{SeriesKey, SpecId};

    struct One;

    impl Interner for One {
        fn intern(&self, _: SpecId, _: &SeriesKey) -> Result<SeriesId, Refusal> {
            Ok(SeriesId(3))
        }
    }

    fn decode(message: &str) -> (Result<Vec<Decoded>, serde_json::Error>, TickBatch) {
        let specs = Arc::new(Specs::new(vec![spec()]));
        let mut out = Builders::new(&specs);
        let decoder = JsonDecoder::new(specs, Some("market".into()));
        let decoded = decoder.decode(message.as_bytes(), 1_000, &One, &mut out);
        (decoded, out.take(SpecId(0)))
    }

    #[test]
    fn ticks_are_taken_alone_or_in_arrays_and_judged_one_by_one() {
        let (decoded, batch) = decode(
            r#"[{"timestamp": 5, "dimensions": {"symbol": "A"}, "fields": {"price": -7, "level": 1.5, "more": 4}},
                {"series": "market", "timestamp": 6, "sequence": 2, "fields": {"quantity": 18446744073709551615}},
                {"timestamp": 7, "fields": {"quantity": -1}}, {"series": "other", "timestamp": 7}]"#,
        );
        let decoded = decoded.unwrap();
        assert_eq!((decoded[0].accepted, decoded[0].rejected.rows(), decoded[1].spec), (2, 1, None));
        assert_eq!(
            (&batch.series[..], &batch.timestamps[..], &batch.sequences[..]),
            (&[3, 3][..], &[5, 6][..], &[0, 2][..])
        );
        assert_eq!(batch.fields[0].get(0), Some(-7_i64 as u64));
        assert_eq!(batch.fields[1].get(1), Some(u64::MAX));
        assert_eq!((batch.extras[0].row, &*batch.extras[0].name, batch.extras[0].value), (0, "more", 4));
        assert_eq!(decode(r#"{"timestamp": 5}"#).1.len(), 1);
    }

    #[test]
    fn what_is_no_message_leaves_nothing_behind() {
        for bad in ["", "7", "{}", r#"[{"timestamp": 5}, {"timestamp": "x"}]"#, r#"{"timestamp": 5, "odd": 1}"#] {
            let (decoded, batch) = decode(bad);
            assert!(decoded.is_err() && batch.is_empty(), "{bad}");
        }
    }
}
