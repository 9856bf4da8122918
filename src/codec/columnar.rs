//! `barline.v1.IngestBatch`: columns from the wire onto the columns of a batch.
//!
//! A batch whose parts contradict each other is refused as a whole and said so; the stream goes on. Otherwise
//! each row is judged alone, in the same order as on `tikr.v1`: time, dimensions, cardinality, fields. Where
//! no row is refused, which is the rule, whole columns are appended.

use std::sync::Arc;

use barline_proto::barline::{IngestBatch, Series};

use super::admit::{Decoded, Interner, Refusal, Rejections, TimeGate, admit_series, unknown_spec};
use super::builders::Builders;
use super::columns::Columns;
use crate::model::{Reason, SeriesId, SpecId, TickBatch, TimeNs};
use crate::spec::{Spec, Specs};

/// The most series one stream may name, over all specs.
pub const MAX_SERIES: usize = 16 << 20;

/// Decodes the batches of one client stream.
#[derive(Debug)]
pub struct ColumnarDecoder {
    specs: Arc<Specs>,
    /// Per spec: the series the stream has named, in the order it named them.
    dictionaries: Vec<Vec<Named>>,
}

/// What became of a series when it was named.
#[derive(Debug, Clone, Copy)]
enum Named {
    Series(SeriesId),
    Refused(Reason),
}

/// The judgement over the rows of one batch.
pub(super) struct Verdict {
    /// Per row: whether it is refused. Empty while none is.
    refused: Vec<bool>,
    /// The refused ones by reason.
    pub rejected: Rejections,
    rows: usize,
}

impl ColumnarDecoder {
    /// A decoder for a fresh stream.
    pub fn new(specs: Arc<Specs>) -> Self {
        let dictionaries = specs.iter().map(|_| Vec::new()).collect();
        Self { specs, dictionaries }
    }

    /// Appends the rows of one batch that are taken to the batch of its spec.
    pub fn decode(&mut self, batch: &IngestBatch, now: TimeNs, interner: &dyn Interner, out: &mut Builders) -> Decoded {
        let rows = batch.timestamps.len();
        let mut verdict = Verdict::new(rows);
        let Some(spec) = self.specs.by_name(&batch.spec).cloned() else {
            verdict.rejected.add_all(rows, Reason::UnknownSeries, unknown_spec(&batch.spec, &self.specs));
            return Decoded { spec: None, accepted: 0, rejected: verdict.rejected };
        };
        // The client counts these whether or not the rows are taken, so they are numbered first.
        let refusal = self.name_series(&spec, &batch.new_series, interner);
        match Columns::of(batch, &spec) {
            Err(Refusal { reason, message }) => verdict.rejected.add_all(rows, reason, message),
            Ok(columns) => {
                let times = judge_times(batch, &TimeGate::new(&spec, now), &mut verdict);
                let series = self.judge_series(batch, &spec, refusal, &mut verdict);
                columns.judge(&mut verdict);
                append(&verdict, &series, &times, &batch.sequences, &columns, out.batch(spec.id));
            }
        }
        let accepted = rows as u64 - verdict.rejected.rows();
        Decoded { spec: Some(spec.id), accepted, rejected: verdict.rejected }
    }

    /// Continues the dictionary with the series a batch names, and takes none of its rows.
    pub fn skip(&mut self, batch: &IngestBatch, interner: &dyn Interner) -> Option<SpecId> {
        let spec = self.specs.by_name(&batch.spec).cloned()?;
        self.name_series(&spec, &batch.new_series, interner);
        Some(spec.id)
    }

    /// Continues the dictionary of `spec`; gives the first refusal, for its message.
    fn name_series(&mut self, spec: &Spec, new: &[Series], interner: &dyn Interner) -> Option<Refusal> {
        let free = MAX_SERIES.saturating_sub(self.dictionaries.iter().map(Vec::len).sum());
        let dictionary = &mut self.dictionaries[spec.id.0 as usize];
        let mut first = None;
        for series in new.iter().take(free) {
            let dimensions = series.dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            dictionary.push(match admit_series(spec, dimensions, interner) {
                Ok(series) => Named::Series(series),
                Err(refusal) => {
                    let reason = refusal.reason;
                    first.get_or_insert(refusal);
                    Named::Refused(reason)
                }
            });
        }
        first
    }

    /// Per row: its series, 0 where the row is refused.
    fn judge_series(
        &self,
        batch: &IngestBatch,
        spec: &Spec,
        refusal: Option<Refusal>,
        verdict: &mut Verdict,
    ) -> Vec<u32> {
        let dictionary = &self.dictionaries[spec.id.0 as usize];
        let judge = |(row, index): (usize, &u32)| match dictionary.get(*index as usize) {
            Some(Named::Series(series)) => series.0,
            Some(Named::Refused(reason)) => {
                verdict.refuse(row, *reason, || match &refusal {
                    Some(refusal) if refusal.reason == *reason => refusal.message.clone(),
                    _ => format!("series_index {index} was refused when this stream named it"),
                });
                0
            }
            None => {
                let named = dictionary.len();
                verdict.refuse(row, Reason::BadDimensions, || {
                    format!("series_index {index}, but this stream has named {named} series of {}, at most {MAX_SERIES} in all", spec.name)
                });
                0
            }
        };
        batch.series_index.iter().enumerate().map(judge).collect()
    }
}

/// Per row: its event time, 0 where the row is refused.
fn judge_times(batch: &IngestBatch, gate: &TimeGate, verdict: &mut Verdict) -> Vec<TimeNs> {
    let judge = |(row, raw): (usize, &i64)| {
        gate.admit(*raw).unwrap_or_else(|reason| {
            verdict.refuse(row, reason, || gate.explain(reason, raw));
            0
        })
    };
    batch.timestamps.iter().enumerate().map(judge).collect()
}

/// Appends the rows that are not refused.
fn append(
    verdict: &Verdict,
    series: &[u32],
    times: &[TimeNs],
    sequences: &[u32],
    columns: &Columns<'_>,
    out: &mut TickBatch,
) {
    let base = out.len();
    verdict.extend(&mut out.series, series.iter().copied());
    verdict.extend(&mut out.timestamps, times.iter().copied());
    if !out.sequences.is_empty() || sequences.iter().any(|sequence| *sequence != 0) {
        out.sequences.resize(base, 0);
        verdict.extend(&mut out.sequences, sequences.iter().copied());
        out.sequences.resize(out.series.len(), 0);
    }
    columns.append(verdict, base, out);
}

impl Verdict {
    fn new(rows: usize) -> Self {
        Self { refused: Vec::new(), rejected: Rejections::default(), rows }
    }

    /// Refuses a row unless it is refused already.
    pub(super) fn refuse(&mut self, row: usize, reason: Reason, message: impl FnOnce() -> String) {
        if self.refused.is_empty() {
            self.refused = vec![false; self.rows];
        }
        if !std::mem::replace(&mut self.refused[row], true) {
            self.rejected.add(row as u32, reason, message);
        }
    }

    /// Whether a row is taken.
    pub(super) fn takes(&self, row: usize) -> bool {
        !self.refused.get(row).is_some_and(|refused| *refused)
    }

    /// The rows that are taken.
    pub(super) fn taken(&self) -> impl Iterator<Item = usize> {
        (0..self.rows).filter(|row| self.takes(*row))
    }

    /// Appends those of one item per row whose row is taken.
    pub(super) fn extend<T>(&self, out: &mut Vec<T>, items: impl ExactSizeIterator<Item = T>) {
        if self.refused.is_empty() {
            out.extend(items);
        } else {
            out.extend(items.zip(&self.refused).filter(|(_, refused)| !**refused).map(|(item, _)| item));
        }
    }
}

#[cfg(test)]
mod tests {
    use barline_proto::barline::FieldColumn;

    use super::*;
    use crate::codec::admit::tests::spec;
    use crate::model::time::HOUR;
    use crate::model::{SeriesKey, SpecId};

    const NOW: TimeNs = 100 * HOUR;

    /// Numbers series by their symbol, refuses `full`.
    struct BySymbol;

    impl Interner for BySymbol {
        fn intern(&self, _: SpecId, key: &SeriesKey) -> Result<SeriesId, Refusal> {
            let number = key.get("symbol").and_then(|symbol| symbol.parse().ok());
            number.map(SeriesId).ok_or(Refusal { reason: Reason::Cardinality, message: "full".into() })
        }
    }

    fn series(symbol: &str) -> Series {
        Series { dimensions: [("symbol".to_owned(), symbol.to_owned())].into() }
    }

    fn batch(new: &[&str], index: &[u32], fields: Vec<FieldColumn>) -> IngestBatch {
        IngestBatch {
            spec: "market".into(),
            new_series: new.iter().map(|symbol| series(symbol)).collect(),
            timestamps: vec![NOW; index.len()],
            series_index: index.into(),
            fields,
            ..IngestBatch::default()
        }
    }

    fn ints(name: &str, ints: &[i64], absent_rows: &[u32]) -> FieldColumn {
        FieldColumn { name: name.into(), ints: ints.into(), absent_rows: absent_rows.into(), ..FieldColumn::default() }
    }

    /// Decodes a stream: what was said of each batch, and all rows.
    fn decode(batches: &[IngestBatch]) -> (Vec<Decoded>, TickBatch) {
        let specs = Arc::new(Specs::new(vec![spec()]));
        let mut decoder = ColumnarDecoder::new(specs.clone());
        let mut out = Builders::new(&specs);
        let said = batches.iter().map(|batch| decoder.decode(batch, NOW, &BySymbol, &mut out)).collect();
        (said, out.take(SpecId(0)))
    }

    fn reasons(decoded: &Decoded) -> Vec<(Reason, u64, Vec<u32>)> {
        decoded.rejected.iter().map(|r| (r.reason, r.rows, r.examples.clone())).collect()
    }

    #[test]
    fn a_refused_batch_still_names_its_series() {
        let broken = batch(&["10", "11"], &[0, 1], vec![ints("price", &[1], &[])]);
        let (said, rows) = decode(&[broken, batch(&["12"], &[2, 0], vec![])]);
        assert_eq!(reasons(&said[0]), [(Reason::BadField, 2, vec![0, 1])]);
        assert_eq!((said[1].accepted, rows.series), (2, vec![12, 10]));
    }

    #[test]
    fn each_row_is_refused_for_its_own_first_reason() {
        let fields = vec![ints("quantity", &[1, -1, -1, -1, -1], &[4]), ints("bid", &[5, 6, 7, 8, 9], &[])];
        let mut batch = batch(&["10", "full"], &[0, 0, 1, 7, 0], fields);
        batch.timestamps[2] = 0;
        let (said, rows) = decode(&[batch]);
        let expected =
            [(Reason::Expired, 1, vec![2]), (Reason::BadDimensions, 1, vec![3]), (Reason::BadField, 1, vec![1])];
        assert_eq!(reasons(&said[0]), expected);
        assert_eq!((said[0].accepted, rows.len()), (2, 2));
        assert_eq!((0..2).map(|row| rows.fields[1].get(row)).collect::<Vec<_>>(), [Some(1), None]);
        assert_eq!(rows.extras.iter().map(|extra| (extra.row, extra.value)).collect::<Vec<_>>(), [(0, 5), (1, 9)]);
        assert!(rows.fields[0].is_absent(0) && rows.fields[2].is_absent(1));
    }

    #[test]
    fn floats_and_uints_go_only_where_they_fit() {
        let floats = |name: &str| FieldColumn { name: name.into(), floats: vec![1.5, 2.5], ..FieldColumn::default() };
        let uints = FieldColumn { name: "price".into(), uints: vec![1, u64::MAX], ..FieldColumn::default() };
        let level = floats("level");
        let undeclared = FieldColumn { absent_rows: vec![0], ..floats("bid") };
        let (said, rows) = decode(&[
            batch(&["1"], &[0, 0], vec![uints, level.clone()]),
            batch(&[], &[0, 0], vec![undeclared, level]),
            batch(&[], &[0, 0], vec![floats("price")]),
        ]);
        assert_eq!(said.iter().map(|decoded| decoded.accepted).collect::<Vec<_>>(), [1, 1, 0]);
        assert_eq!(rows.fields[2].bits, [1.5f64.to_bits(), 1.5f64.to_bits()]);
    }

    #[test]
    fn contradictions_refuse_the_batch_and_unknown_specs_every_row() {
        let twice = vec![ints("price", &[1], &[]), ints("price", &[1], &[])];
        let short = IngestBatch { sequences: vec![1, 2], ..batch(&["1"], &[0], vec![]) };
        let beyond = batch(&[], &[0], vec![ints("price", &[1], &[1])]);
        let nobody = IngestBatch { spec: "nobody".into(), ..batch(&["1"], &[0, 0], vec![]) };
        let (said, rows) = decode(&[short, batch(&[], &[0], twice), beyond, nobody]);
        assert!(rows.is_empty() && said[..3].iter().all(|d| reasons(d) == [(Reason::BadField, 1, vec![0])]));
        assert_eq!((said[3].spec, reasons(&said[3])), (None, vec![(Reason::UnknownSeries, 2, vec![0, 1])]));
    }
}
