//! `tikr.v1.IngestRequest`: its bytes straight into columns, with no map and no string per tick.
//!
//! Takes and refuses exactly the bytes prost's generated decoder takes and refuses, and gives the same rows;
//! `tests/it/wire_oracle.rs` and the fuzz target `tikr_wire` hold the two equal. What it remembers from tick
//! to tick only saves time: the series by the bytes of their dimensions ([`Dictionary`]), the fields by their
//! order in the tick before ([`Layout`]).

use std::sync::Arc;

use super::admit::{Decoded, Interner, MAX_EXTRAS, Malformed, Rejections, TimeGate, admit_series, unknown_spec};
use super::builders::{Builders, Mark, push_row};
use super::dictionary::Dictionary;
use super::draft::{Draft, check_dimensions, check_tick, dimensions};
use super::layout::Layout;
use super::wire::{BadWire, MAX_DEPTH, Reader, bytes_key};
use crate::model::series::MAX_NAME_BYTES;
use crate::model::{ExtraField, FieldType, Reason, SeriesId, TickBatch, TimeNs};
use crate::spec::{Field, Spec, Specs};

const SERIES: u64 = bytes_key(1);
const TICK: u64 = bytes_key(2);
/// The highest field number of a message.
const LAST: u32 = 2;

/// Decodes the messages of one client stream. Its memory is bounded whatever the client sends.
#[derive(Debug)]
pub struct TikrDecoder {
    specs: Arc<Specs>,
    dictionary: Dictionary,
    layouts: Vec<Layout>,
    draft: Draft,
}

/// What is the same for all ticks of one message.
struct Message<'a> {
    spec: &'a Spec,
    gate: TimeGate,
    interner: &'a dyn Interner,
}

impl TikrDecoder {
    /// A decoder for a fresh stream.
    pub fn new(specs: Arc<Specs>) -> Self {
        let layouts = specs.iter().map(|spec| Layout::new(spec)).collect();
        Self { specs, dictionary: Dictionary::default(), layouts, draft: Draft::default() }
    }

    /// Appends the ticks of one message that are taken to the batch of its spec.
    ///
    /// # Errors
    /// The bytes are no message; then nothing of it was appended.
    pub fn decode(
        &mut self,
        message: &[u8],
        now: TimeNs,
        interner: &dyn Interner,
        out: &mut Builders,
    ) -> Result<Decoded, Malformed> {
        // The last name counts, even one behind the ticks. It nearly always is the first thing in the message, so
        // that is believed until the end, and looking for the name costs no pass of its own.
        let guess = leading_name(message);
        let (decoded, name) = self.decode_as(guess, message, now, interner, out)?;
        if name == guess {
            return Ok(decoded);
        }
        Ok(self.decode_as(name, message, now, interner, out)?.0)
    }

    /// Takes the message for one of series `guess`; gives its real name too. Where that is another one, or the
    /// message is malformed, nothing was appended.
    fn decode_as<'a>(
        &mut self,
        guess: &str,
        message: &'a [u8],
        now: TimeNs,
        interner: &dyn Interner,
        out: &mut Builders,
    ) -> Result<(Decoded, &'a str), Malformed> {
        let Some(spec) = self.specs.by_name(guess).cloned() else {
            return self.refuse_all(message);
        };
        let batch = out.batch(spec.id);
        let mark = Mark::of(batch);
        let context = Message { spec: &spec, gate: TimeGate::new(&spec, now), interner };
        let mut decoded = Decoded { spec: Some(spec.id), ..Decoded::default() };
        let mut row = 0;
        let name = each_tick(message, |body| {
            self.tick(body, row, &context, batch, &mut decoded)?;
            row += 1;
            Ok(())
        });
        if name != Ok(guess) {
            mark.restore(batch);
        }
        Ok((decoded, name?))
    }

    /// Checks a message of a series nobody knows and counts its ticks.
    fn refuse_all<'a>(&self, message: &'a [u8]) -> Result<(Decoded, &'a str), Malformed> {
        let mut ticks = 0;
        let name = each_tick(message, |body| {
            ticks += 1;
            check_tick(body)
        })?;
        let mut rejected = Rejections::default();
        rejected.add_all(ticks, Reason::UnknownSeries, unknown_spec(name, &self.specs));
        Ok((Decoded { spec: None, accepted: 0, rejected }, name))
    }

    /// Reads one tick and appends it, or says why not.
    #[inline]
    fn tick(
        &mut self,
        body: &[u8],
        row: u32,
        message: &Message<'_>,
        batch: &mut TickBatch,
        decoded: &mut Decoded,
    ) -> Result<(), BadWire> {
        let Message { spec, gate, interner } = *message;
        let layout = &mut self.layouts[spec.id.0 as usize];
        self.draft.read(body, layout)?;
        let raw = self.draft.dimensions(body);
        let known = self.dictionary.get(spec.id, raw);
        if known.is_none() {
            check_dimensions(raw)?;
        }
        let rejected = &mut decoded.rejected;
        let time = match gate.admit_unsigned(self.draft.timestamp) {
            Ok(time) => time,
            Err(reason) => {
                rejected.add(row, reason, || gate.explain(reason, self.draft.timestamp));
                return Ok(());
            }
        };
        let series = match known {
            Some(series) => series,
            None => match admit_series(spec, dimensions(raw), interner) {
                Ok(series) => {
                    self.dictionary.insert(spec.id, raw, series);
                    series
                }
                Err(refusal) => {
                    rejected.add(row, refusal.reason, || refusal.message);
                    return Ok(());
                }
            },
        };
        match bad_field(&self.draft, spec) {
            Some(message) => rejected.add(row, Reason::BadField, || message),
            None => {
                append(&self.draft, layout, spec, series, time, batch);
                decoded.accepted += 1;
            }
        }
        Ok(())
    }
}

/// What is wrong with the fields of a tick, if anything.
#[inline]
fn bad_field(draft: &Draft, spec: &Spec) -> Option<String> {
    if draft.too_many {
        return Some(format!(
            "undeclared fields: at most {MAX_EXTRAS} are kept per tick, with names of at most {MAX_NAME_BYTES} bytes"
        ));
    }
    // A number from zero up fits every type, and most are.
    let misfit = |value: i64, ty: FieldType| value < 0 && ty.bits_of_int(value).is_none();
    let mut values = draft.values.iter().zip(&spec.fields).filter_map(|(value, field)| Some(((*value)?, field)));
    let (value, Field { name, ty }) = values.find(|(value, field)| misfit(*value, field.ty))?;
    Some(format!("{value} does not fit field {name:?}, which is {}", ty.name()))
}

/// Appends a tick whose fields all fit.
#[inline]
fn append(draft: &Draft, layout: &Layout, spec: &Spec, series: SeriesId, time: TimeNs, batch: &mut TickBatch) {
    let row = batch.len();
    push_row(batch, series, time, draft.sequence);
    for ((column, value), field) in batch.fields.iter_mut().zip(&draft.values).zip(&spec.fields) {
        match value.and_then(|value| field.ty.bits_of_int(value)) {
            Some(bits) => column.bits.push(bits),
            None => {
                column.bits.push(0);
                column.set_absent(row);
            }
        }
    }
    for (name, value) in &draft.extras {
        batch.extras.push(ExtraField { row: row as u32, name: layout.name(*name).clone(), value: *value });
    }
}

/// The name a message begins with; empty where it begins with something else.
fn leading_name(message: &[u8]) -> &str {
    let mut reader = Reader::new(message);
    match reader.varint() {
        Ok(SERIES) => reader.string().unwrap_or_default(),
        _ => "",
    }
}

/// Calls `visit` with the bytes of each tick of a message; gives the name of its series, the last one in it.
#[inline]
fn each_tick<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(&'a [u8]) -> Result<(), BadWire>,
) -> Result<&'a str, Malformed> {
    let mut name = "";
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        let at = message.len() - reader.rest().len();
        let mut field = || {
            match reader.varint()? {
                SERIES => name = reader.string()?,
                TICK => visit(reader.nested()?.rest())?,
                other => reader = reader.after_unknown(other, LAST, MAX_DEPTH)?,
            }
            Ok(())
        };
        field().map_err(|what| Malformed { what, at })?;
    }
    Ok(name)
}
