//! What the tests of all accumulators share: ticks of one field, and the laws every state obeys.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Placed, ops};
pub(super) use crate::model::Value;
use crate::model::{FieldType, SpecId, TickBatch};
use crate::spec::{Accumulator, AccumulatorKind, Aggregation};
use crate::window::natural::Side;

/// One tick with one field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) ty: FieldType,
    bits: Option<u64>,
    timestamp: i64,
    sequence: u32,
    /// Its arrival number where it is not simply its place in the list.
    arrival: Option<u64>,
}

impl Sample {
    fn new(ty: FieldType, bits: Option<u64>, timestamp: i64) -> Self {
        Self { ty, bits, timestamp, sequence: 0, arrival: None }
    }

    pub(super) fn int(value: i64, timestamp: i64) -> Self {
        Self::new(FieldType::Int64, Some(value as u64), timestamp)
    }

    pub(super) fn uint(value: u64, timestamp: i64) -> Self {
        Self::new(FieldType::Uint64, Some(value), timestamp)
    }

    pub(super) fn float(value: f64, timestamp: i64) -> Self {
        Self::new(FieldType::Float64, Some(value.to_bits()), timestamp)
    }

    pub(super) fn absent(timestamp: i64) -> Self {
        Self::new(FieldType::Int64, None, timestamp)
    }

    pub(super) fn sequence(self, sequence: u32) -> Self {
        Self { sequence, ..self }
    }
}

/// The closed state of `ticks`, of which each is a batch of its own.
pub(super) fn closed(kind: AccumulatorKind, ticks: &[Sample]) -> Vec<u64> {
    let ty = ticks.first().map_or(FieldType::Int64, |tick| tick.ty);
    let ops = ops(&Accumulator { kind, field: 0, ty });
    let (mut state, mut side, mut out) = (vec![0; ops.words], Side::default(), Vec::new());
    (ops.init)(&mut state);
    for (i, tick) in ticks.iter().enumerate() {
        let mut batch = TickBatch::new(SpecId(0), 1);
        batch.series.push(0);
        batch.timestamps.push(tick.timestamp);
        batch.sequences.push(tick.sequence);
        batch.fields[0].bits.push(tick.bits.unwrap_or(0));
        if tick.bits.is_none() {
            batch.fields[0].set_absent(0);
        }
        let placed = Placed { rows: &[0], places: &[0], offset: tick.arrival.unwrap_or(i as u64) };
        (ops.update)(&mut state, 0, &mut side, placed, &batch, &batch.fields[0]);
    }
    (ops.close)(&mut state, &mut side, &mut out);
    assert_eq!(ops.split(&[&out[..], &[7]].concat()).0, out, "a closed state must delimit itself");
    out
}

/// The closed states `parts` in one.
pub(super) fn merged<'a>(
    kind: AccumulatorKind,
    ty: FieldType,
    parts: impl IntoIterator<Item = &'a Vec<u64>>,
) -> Vec<u64> {
    let ops = ops(&Accumulator { kind, field: 0, ty });
    let (mut state, mut side, mut out) = (vec![0; ops.words], Side::default(), Vec::new());
    (ops.init)(&mut state);
    for part in parts {
        (ops.merge)(&mut state, &mut side, part);
    }
    (ops.close)(&mut state, &mut side, &mut out);
    out
}

/// What the only metric of this kind shows for `ticks`.
pub(super) fn value_of(kind: AccumulatorKind, ticks: &[Sample]) -> Option<Value> {
    let ty = ticks.first().map_or(FieldType::Int64, |tick| tick.ty);
    (ops(&Accumulator { kind, field: 0, ty }).value)(&closed(kind, ticks), Aggregation::Quantile(0.5), ty)
}

/// The quantile at `rank`.
pub(super) fn quantile(rank: f64, ticks: &[Sample]) -> Option<Value> {
    let kind = AccumulatorKind::Sketch;
    let ops = ops(&Accumulator { kind, field: 0, ty: ticks[0].ty });
    (ops.value)(&closed(kind, ticks), Aggregation::Quantile(rank), FieldType::Float64)
}

/// Whether the sum of `ticks` left its type.
pub(super) fn overflows(kind: AccumulatorKind, ticks: &[Sample]) -> bool {
    (ops(&Accumulator { kind, field: 0, ty: ticks[0].ty }).overflowed)(&closed(kind, ticks))
}

/// Any order and any grouping give the same words; ticks without the field change nothing; any words can be read.
pub(super) fn check_laws(kind: AccumulatorKind) {
    for ty in [FieldType::Int64, FieldType::Uint64, FieldType::Float64] {
        let tick = (prop::option::weighted(0.9, bits(ty)), -3..3i64, 0..3u32);
        let ticks = (prop::collection::vec(tick, 0..40), any::<u64>());
        let mut runner = TestRunner::new(Config { cases: 48, failure_persistence: None, ..Config::default() });
        let law = |(ticks, seed): (Vec<(Option<u64>, i64, u32)>, u64)| {
            let samples = ticks.iter().zip(0..).map(|((bits, timestamp, sequence), arrival)| Sample {
                sequence: *sequence,
                arrival: Some(arrival),
                ..Sample::new(ty, *bits, *timestamp)
            });
            let samples: Vec<Sample> = samples.collect();
            obeys(kind, ty, samples, fastrand::Rng::with_seed(seed));
            Ok(())
        };
        runner.run(&ticks, law).unwrap();
        for length in 0..6 {
            (ops(&Accumulator { kind, field: 0, ty }).value)(&vec![u64::MAX; length], Aggregation::Sum, ty);
            merged(kind, ty, [&vec![u64::MAX; length]]);
        }
    }
}

fn obeys(kind: AccumulatorKind, ty: FieldType, samples: Vec<Sample>, mut random: fastrand::Rng) {
    let none = merged(kind, ty, []);
    let close = |samples: &[Sample]| if samples.is_empty() { none.clone() } else { closed(kind, samples) };
    let truth = close(&samples);
    let mut shuffled = samples.clone();
    random.shuffle(&mut shuffled);
    assert_eq!(close(&shuffled), truth, "order");
    let (left, rest) = shuffled.split_at(random.usize(0..=samples.len()));
    let (middle, right) = rest.split_at(random.usize(0..=rest.len()));
    let mut parts = [left, middle, right].map(close);
    assert_eq!(merged(kind, ty, &parts), truth, "grouping");
    let nested = merged(kind, ty, [&parts[0], &merged(kind, ty, &parts[1..])]);
    assert_eq!(nested, truth, "associativity");
    parts.reverse();
    assert_eq!(merged(kind, ty, &parts), truth, "commutativity");
    let carrying: Vec<Sample> = samples.into_iter().filter(|s| s.bits.is_some()).collect();
    assert_eq!(close(&carrying), truth, "absence");
}

/// Small values that tie, and the edges of the type.
fn bits(ty: FieldType) -> BoxedStrategy<u64> {
    match ty {
        FieldType::Float64 => prop_oneof![
            4 => (-50..50i32).prop_map(|v| (f64::from(v) * 0.1).to_bits()),
            1 => any::<u64>(),
            1 => prop::sample::select(vec![f64::MAX, -f64::MAX, 5e-324, -0.0, f64::INFINITY, f64::NAN])
                .prop_map(f64::to_bits),
        ]
        .boxed(),
        _ => prop_oneof![4 => (-5..5i64).prop_map(|v| v as u64), 1 => any::<u64>()].boxed(),
    }
}
