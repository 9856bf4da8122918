//! What metrics are computed from: mergeable states, one file per kind, all of the same shape.
//!
//! A state has two forms. While its window is open it takes a fixed number of words in a flat slab (what does not
//! fit, sketches and far-flung sums, lives beside it in [`Side`]). When the window closes it is written out as
//! plain words, self-delimiting, which is what bars carry, the store keeps and merges read. The closed form
//! depends only on the ticks, not on their order or on how they were merged.

mod count;
mod first;
mod last;
mod max;
mod mean;
mod min;
mod moments;
mod number;
mod sketch;
mod sum;

use crate::model::{Column, FieldType, TickBatch, Value};
use crate::spec::{Accumulator, AccumulatorKind as Kind, Aggregation};

use self::number::{Double, Signed, Unsigned};
use super::natural::Side;

/// One mergeable state. The words are all zero in a new state unless `init` says otherwise.
trait Accumulate {
    /// Words of the open form.
    const WORDS: usize;
    /// Makes the (zeroed) state empty.
    fn init(_state: &mut [u64]) {}
    /// Takes in one value.
    fn update(state: &mut [u64], side: &mut Side, bits: u64, tick: Tick<'_>);
    /// Takes in a closed state.
    fn merge(state: &mut [u64], side: &mut Side, closed: &[u64]);
    /// Appends the closed form to `out`, lets go of what is held in `side` and leaves the state unusable.
    fn close(state: &mut [u64], side: &mut Side, out: &mut Vec<u64>);
    /// How many of the words at the front of `closed` are this state.
    fn closed_len(_closed: &[u64]) -> usize {
        Self::WORDS
    }
    /// What `aggregation` reads from a closed state; `None` where no tick carried the field.
    fn value(closed: &[u64], aggregation: Aggregation, ty: FieldType) -> Option<Value>;
    /// Whether an integer result lies outside its type.
    fn overflowed(_closed: &[u64]) -> bool {
        false
    }
}

/// Where a value comes from; its columns are read only by those who need them.
#[derive(Clone, Copy)]
struct Tick<'b> {
    batch: &'b TickBatch,
    row: usize,
    arrival: u64,
}

/// Which rows of a batch go into which windows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'p> {
    /// Rows of the batch.
    pub(super) rows: &'p [u32],
    /// For each, where the states of its window begin.
    pub(super) places: &'p [u32],
    /// The arrival number of the batch's row 0.
    pub(super) offset: u64,
}

/// The piece of a column that belongs to `rows`, where these follow each other without a gap.
pub(super) fn piece_of<'c, T>(rows: &[u32], column: &'c [T]) -> Option<&'c [T]> {
    let (first, last) = (*rows.first()? as usize, *rows.last()? as usize);
    (last.wrapping_sub(first) + 1 == rows.len()).then(|| column.get(first..=last))?
}

/// One accumulator's functions, for its kind and type.
#[derive(Clone, Copy)]
pub(super) struct Ops {
    pub(super) words: usize,
    pub(super) init: fn(&mut [u64]),
    pub(super) update: fn(&mut [u64], usize, &mut Side, Placed<'_>, &TickBatch, &Column),
    pub(super) merge: fn(&mut [u64], &mut Side, &[u64]),
    pub(super) close: fn(&mut [u64], &mut Side, &mut Vec<u64>),
    closed_len: fn(&[u64]) -> usize,
    pub(super) value: fn(&[u64], Aggregation, FieldType) -> Option<Value>,
    pub(super) overflowed: fn(&[u64]) -> bool,
}

/// The functions of `accumulator`: the table of all kinds.
pub(super) fn ops(accumulator: &Accumulator) -> Ops {
    use FieldType::{Float64, Int64, Uint64};
    match (accumulator.kind, accumulator.ty) {
        (Kind::First, _) => Ops::of::<first::First>(),
        (Kind::Last, _) => Ops::of::<last::Last>(),
        (Kind::Min, Int64) => Ops::of::<min::Min<Signed>>(),
        (Kind::Min, Uint64) => Ops::of::<min::Min<Unsigned>>(),
        (Kind::Min, Float64) => Ops::of::<min::Min<Double>>(),
        (Kind::Max, Int64) => Ops::of::<max::Max<Signed>>(),
        (Kind::Max, Uint64) => Ops::of::<max::Max<Unsigned>>(),
        (Kind::Max, Float64) => Ops::of::<max::Max<Double>>(),
        (Kind::Sum, Int64) => Ops::of::<sum::IntSum<Signed>>(),
        (Kind::Sum, Uint64) => Ops::of::<sum::IntSum<Unsigned>>(),
        (Kind::Sum, Float64) => Ops::of::<sum::FloatSum>(),
        (Kind::Count, _) => Ops::of::<count::Count>(),
        (Kind::Mean, Int64) => Ops::of::<mean::IntMean<Signed>>(),
        (Kind::Mean, Uint64) => Ops::of::<mean::IntMean<Unsigned>>(),
        (Kind::Mean, Float64) => Ops::of::<mean::FloatMean>(),
        (Kind::Moments, Int64) => Ops::of::<moments::IntMoments<Signed>>(),
        (Kind::Moments, Uint64) => Ops::of::<moments::IntMoments<Unsigned>>(),
        (Kind::Moments, Float64) => Ops::of::<moments::FloatMoments>(),
        (Kind::Sketch, Int64) => Ops::of::<sketch::Sketch<Signed>>(),
        (Kind::Sketch, Uint64) => Ops::of::<sketch::Sketch<Unsigned>>(),
        (Kind::Sketch, Float64) => Ops::of::<sketch::Sketch<Double>>(),
    }
}

impl Ops {
    fn of<A: Accumulate>() -> Self {
        Self {
            words: A::WORDS,
            init: A::init,
            update: update::<A>,
            merge: A::merge,
            close: A::close,
            closed_len: A::closed_len,
            value: A::value,
            overflowed: A::overflowed,
        }
    }

    /// How many words at the front of `closed` should be this accumulator's closed state.
    pub(super) fn len_of(&self, closed: &[u64]) -> usize {
        (self.closed_len)(closed)
    }

    /// Splits this accumulator's closed state off the front of `closed`.
    pub(super) fn split<'c>(&self, closed: &'c [u64]) -> (&'c [u64], &'c [u64]) {
        closed.split_at((self.closed_len)(closed).min(closed.len()))
    }

    /// Appends the closed form of a state no tick went into.
    pub(super) fn close_empty(&self, out: &mut Vec<u64>) {
        let mut state = vec![0; self.words];
        (self.init)(&mut state);
        (self.close)(&mut state, &mut Side::default(), out);
    }
}

/// The loop that every tick passes once per accumulator, whose state is at word `at` of a window's.
fn update<A: Accumulate>(
    words: &mut [u64],
    at: usize,
    side: &mut Side,
    placed: Placed<'_>,
    batch: &TickBatch,
    column: &Column,
) {
    let words = words.get_mut(at..).unwrap_or_default();
    let mut add = |place: u32, row: usize, bits: u64| {
        let tick = Tick { batch, row, arrival: placed.offset + row as u64 };
        A::update(&mut words[place as usize..place as usize + A::WORDS], side, bits, tick);
    };
    if !column.absent.is_empty() {
        for (row, place) in placed.rows.iter().zip(placed.places) {
            if !column.is_absent(*row as usize) {
                add(*place, *row as usize, column.bits[*row as usize]);
            }
        }
    } else if let Some(piece) = piece_of(placed.rows, &column.bits) {
        for ((bits, place), row) in piece.iter().zip(placed.places).zip(placed.rows) {
            add(*place, *row as usize, *bits);
        }
    } else {
        for (row, place) in placed.rows.iter().zip(placed.places) {
            add(*place, *row as usize, column.bits[*row as usize]);
        }
    }
}

/// An exact integer as a value of type `ty`, clamped to its range.
pub(super) fn integer(total: i128, ty: FieldType) -> Value {
    match ty {
        FieldType::Int64 => Value::Int(total.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
        FieldType::Uint64 => Value::Uint(total.clamp(0, u64::MAX.into()) as u64),
        FieldType::Float64 => Value::Float(total as f64),
    }
}

#[cfg(test)]
mod testing;
