//! Raw ticks in order of (timestamp, sequence, arrival), although the journal holds them in order of arrival.
//!
//! They are sorted slice by slice: the journal is scanned from where the last slice ended, and whenever more is held
//! than `HELD`, the later half is given up and the scan begins anew with an earlier end, which passes over the
//! blocks behind it. So memory is bounded whatever the range, and where ticks arrive roughly in order every block is
//! read about three times; where blocks are clustered by series, once per slice of their run.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::ReadError;
use super::select::{Series, Wanted};
use crate::codec::block::Block;
use crate::model::{SeriesId, SeriesKey, TimeNs, Value};
use crate::runtime::Context;
use crate::spec::Spec;
use crate::store::{TickScan, TickView};

/// Bytes of ticks a query holds at most, roughly.
const HELD: usize = 8 << 20;
/// Ticks that are gathered beyond a query's limit before they are given up.
const SLACK: usize = 4096;

/// Which ticks are asked for.
#[derive(Debug, Clone)]
pub struct TickQuery {
    /// The spec.
    pub spec: Arc<Spec>,
    /// Which series.
    pub series: Series,
    /// The lowest event time.
    pub from: TimeNs,
    /// Above the highest event time; `i64::MAX` leaves it open.
    pub to: TimeNs,
    /// The most ticks; `u64::MAX` for all.
    pub limit: u64,
    /// The late ticks kept aside instead of the journal.
    pub late: bool,
}

/// One tick.
#[derive(Debug)]
pub struct TickRow<'a> {
    /// Its series.
    pub key: &'a SeriesKey,
    /// Its event time.
    pub timestamp: TimeNs,
    /// The producer's sequence number.
    pub sequence: u32,
    names: &'a [String],
    tick: &'a Held,
}

impl TickRow<'_> {
    /// The fields it carries by name, undeclared ones last.
    pub fn fields(&self) -> impl Iterator<Item = (&str, Value)> {
        let declared =
            self.tick.fields.iter().filter_map(|(name, value)| Some((self.names.get(*name)?.as_str(), *value)));
        declared.chain(self.tick.extras.iter().map(|(name, value)| (&**name, Value::Int(*value))))
    }
}

/// What ticks are ordered by: timestamp, sequence, arrival; the series only keeps equal ones apart.
type Place = (TimeNs, u32, u64, u32);

/// One tick out of its block.
#[derive(Debug)]
struct Held {
    place: Place,
    /// Index into the query's names, and the value.
    fields: Box<[(usize, Value)]>,
    extras: Box<[(Arc<str>, i64)]>,
}

/// Visits the ticks asked for until `visit` breaks or `gone` says that nobody waits any more.
///
/// # Errors
/// The store fails.
pub fn ticks(
    context: &Context,
    query: &TickQuery,
    gone: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(TickRow<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let wanted = Wanted::of(&context.catalog, query.spec.id, &query.series);
    if wanted.is_empty() {
        return Ok(());
    }
    // All slices are cut from the same: arrival numbers change where a partition is rewritten.
    let view = context.store.tick_view(query.spec.id, query.late);
    let mut slice =
        Slice { query, wanted, gone, names: Vec::new(), rows: Vec::new(), bytes: 0, begin: None, end: None };
    let mut key = (u32::MAX, SeriesKey::default());
    let mut left = query.limit;
    while left > 0 {
        slice.gather(context, &view, left)?;
        for tick in &slice.rows {
            let (timestamp, sequence, _, series) = tick.place;
            if key.0 != series {
                key = (series, context.catalog.key(query.spec.id, SeriesId(series)));
            }
            let row = TickRow { key: &key.1, timestamp, sequence, names: &slice.names, tick };
            left -= 1;
            if visit(row).is_break() || left == 0 {
                return Ok(());
            }
        }
        slice.begin = slice.end.take();
        if slice.begin.is_none() {
            break;
        }
    }
    Ok(())
}

/// The ticks in `[begin, end)`, in order.
struct Slice<'a> {
    query: &'a TickQuery,
    wanted: Wanted,
    gone: &'a dyn Fn() -> bool,
    /// Names of the fields seen in blocks.
    names: Vec<String>,
    rows: Vec<Held>,
    bytes: usize,
    /// `None`: from the first.
    begin: Option<Place>,
    /// `None`: to the last.
    end: Option<Place>,
}

impl Slice<'_> {
    /// Gathers as many ticks from `begin` on as may be held, of which `limit` are wanted, and says by `end` where it
    /// had to stop.
    fn gather(&mut self, context: &Context, view: &TickView, limit: u64) -> Result<(), ReadError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut crowded = true;
        while crowded {
            crowded = false;
            self.clear();
            let query = self.query;
            let scan = TickScan {
                spec: query.spec.id,
                series: self.wanted.these(),
                from: self.begin.map_or(query.from, |place| place.0),
                to: self.end.map_or(query.to, |place| place.0.saturating_add(1)).min(query.to),
                side: query.late,
            };
            context.store.scan_view(view, &scan, &mut |block, range| {
                self.take(block, range.start, range.end);
                crowded = self.bytes > HELD || self.rows.len() > limit.saturating_add(SLACK).saturating_mul(2);
                if crowded || (self.gone)() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if crowded {
                self.shorten(limit);
            }
        }
        self.rows.sort_unstable_by_key(|tick| tick.place);
        Ok(())
    }

    /// Takes what it wants of a block.
    fn take(&mut self, block: &Block, from: TimeNs, to: TimeNs) {
        let names: Vec<usize> = block.fields.iter().map(|(name, ..)| self.name(name)).collect();
        let mut extras = block.extras.iter().peekable();
        for (row, (series, time)) in block.series.iter().zip(&block.timestamps).enumerate() {
            // `extras` ascend by row: those of earlier rows are passed over, wanted or not.
            while extras.next_if(|extra| (extra.row as usize) < row).is_some() {}
            if *time < from || *time >= to || !self.wanted.contains(SeriesId(*series)) {
                continue;
            }
            let sequence = block.sequences.get(row).copied().unwrap_or(0);
            let place = (*time, sequence, block.header.offset + row as u64, *series);
            if self.begin.is_some_and(|begin| place < begin) || self.end.is_some_and(|end| place >= end) {
                continue;
            }
            let values = block.fields.iter().zip(&names);
            let present = values.filter_map(|((_, ty, column), name)| Some((*name, ty.value(column.get(row)?))));
            let own = std::iter::from_fn(|| extras.next_if(|extra| extra.row as usize == row));
            let own = own.map(|extra| (extra.name.clone(), extra.value));
            let tick = Held { place, fields: present.collect(), extras: own.collect() };
            self.bytes += size_of::<Held>()
                + size_of_val(&*tick.fields)
                + tick.extras.iter().map(|e| 48 + e.0.len()).sum::<usize>();
            self.rows.push(tick);
        }
    }

    /// Sets an earlier end: half of what is held, or where the limit is reached if that is less.
    fn shorten(&mut self, limit: usize) {
        let keep = limit.min(self.rows.len() / 2);
        let (_, end, _) = self.rows.select_nth_unstable_by_key(keep, |tick| tick.place);
        self.end = Some(end.place);
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.bytes = 0;
    }

    /// The number of a field's name in this query.
    fn name(&mut self, name: &str) -> usize {
        let known = self.names.iter().position(|known| known == name);
        known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }
}
