//! Windows against a naive model: a map from (series, granularity, start) to its ticks, recomputed from scratch.
//!
//! Promise 2: for every series and window the bar equals a naive recomputation, whatever the order of arrival,
//! batching, instances or restarts. Promise 3: no tick is gone without being counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use barline::model::time::{MILLISECOND, SECOND};
use barline::model::{
    BarBatch, BarFlags, BarHead, Column, FieldType, SeriesId, SpecId, TickBatch, TickSlice, TimeNs, Value,
};
use barline::routing;
use barline::spec::{
    Accumulator, AccumulatorKind, Aggregation, Cardinality, CardinalityOverflow, Field, Granularity, LatePolicy,
    Metric, Retention, Spec, UnknownDimensions, WindowRules,
};
use barline::window::clock::Told;
use barline::window::{Applied, Covered, Windows, bounds, state};
use proptest::prelude::*;

const TYPES: [FieldType; 3] = [FieldType::Int64, FieldType::Uint64, FieldType::Float64];
const LENGTHS: [i64; 3] = [SECOND, 5 * SECOND, 20 * SECOND];
const WAIT: i64 = 200 * MILLISECOND;
const FOREVER: i64 = i64::MAX / 4;

/// Doubles of the model are this fraction of an integer, so that integers can check them.
const UNIT: f64 = 1.0 / 1024.0;

#[derive(Debug, Clone)]
struct Tick {
    series: u32,
    time: TimeNs,
    sequence: u32,
    /// Raw bits of each field.
    fields: [Option<u64>; 3],
}

/// What happens: a batch of so many ticks, so much wall time later.
#[derive(Debug, Clone)]
struct Step {
    ticks: usize,
    pause: i64,
}

type Bar = (BarHead, Vec<u64>);
type Key = (u8, u32, TimeNs);

/// Bars as the writer keeps them: increments added up.
#[derive(Default, Clone)]
struct Stored(BTreeMap<Key, Bar>);

impl Stored {
    fn add(&mut self, spec: &Spec, out: &BarBatch) {
        for head in &out.heads {
            let key = (head.granularity, head.series.0, head.start);
            match self.0.get_mut(&key) {
                Some(bar) => state::merge(spec, bar, head, out.state(head)),
                None => drop(self.0.insert(key, (*head, out.state(head).to_vec()))),
            }
        }
    }

    /// How far the clock of a series has come.
    fn high_of(&self, spec: &Spec, series: SeriesId) -> TimeNs {
        let mut told = Told::NOTHING;
        for granularity in 0..LENGTHS.len() as u8 {
            let key = |start| (granularity, series.0, start);
            let newest = self.0.range(key(TimeNs::MIN)..key(TimeNs::MAX)).rev();
            let _ = newest.map(|(_, (head, _))| head).try_for_each(|head| told.hear(spec, head));
        }
        told.high()
    }

    fn ticks(&self, granularity: u8) -> u64 {
        self.0.iter().filter(|(key, _)| key.0 == granularity).map(|(_, bar)| bar.0.ticks).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_bar_equals_its_ticks_whatever_the_order_batching_instances_and_idleness(
        (ticks, steps) in story(), instances in 1..4u16, idle in prop_oneof![Just(SECOND), Just(FOREVER)], seed: u64,
    ) {
        let spec = spec(LatePolicy::Amend, idle);
        let mut windows: Vec<Windows> = (0..instances).map(|_| Windows::new(spec.clone())).collect();
        let mut batches: Vec<BarBatch> = Vec::new();
        let (mut at, mut now) = (0, 0);
        for step in &steps {
            now += step.pause;
            let batch = Arc::new(batch(&ticks[at..at + step.ticks]));
            for (rows, windows) in routing::split(&batch, instances).into_iter().zip(&mut windows) {
                let mut out = BarBatch::new(spec.id);
                let slice = TickSlice { batch: batch.clone(), rows, offset: at as u64 };
                prop_assert_eq!(windows.apply(&slice, now, &mut out), Applied::default());
                windows.close_due(now + step.pause / 2, &mut out);
                prop_assert!(windows.next_deadline().is_none_or(|next| next > now + step.pause / 2));
                batches.push(out);
            }
            at += step.ticks;
            let in_bars: u64 = finest(&batches).map(|head| head.ticks).sum();
            let open: u64 = windows.iter().map(Windows::open_ticks).sum();
            prop_assert_eq!(in_bars + open, at as u64);
            prop_assert!(windows.iter().all(|w| w.replay_from().is_some() == (w.open_ticks() > 0)));
        }
        for windows in &mut windows {
            let mut out = BarBatch::new(spec.id);
            windows.close_all(now, &mut out);
            batches.push(out);
            prop_assert_eq!((windows.open_ticks(), windows.open_windows(), windows.replay_from()), (0, 0, None));
        }
        fastrand::Rng::with_seed(seed).shuffle(&mut batches);
        let mut stored = Stored::default();
        batches.iter().for_each(|batch| stored.add(&spec, batch));
        check(&spec, &stored, &ticks)?;
    }

    #[test]
    fn what_is_late_does_not_depend_on_batching(
        (ticks, steps) in story(),
        policy in prop::sample::select(vec![LatePolicy::Amend, LatePolicy::Drop, LatePolicy::SideOutput]),
    ) {
        let spec = spec(policy, FOREVER);
        let (mut windows, mut out) = (Windows::new(spec.clone()), BarBatch::new(spec.id));
        let (mut at, mut aside) = (0, Vec::new());
        for step in &steps {
            let slice = TickSlice::whole(Arc::new(batch(&ticks[at..at + step.ticks])), at as u64);
            let applied = windows.apply(&slice, 0, &mut out);
            aside.extend(applied.late_rows.iter().map(|row| at + *row as usize));
            at += step.ticks;
        }
        windows.close_all(0, &mut out);
        let mut stored = Stored::default();
        stored.add(&spec, &out);

        let late = late(&ticks);
        let kept: Vec<Tick> = match policy {
            LatePolicy::Amend => ticks.clone(),
            _ => ticks.iter().zip(&late).filter(|(_, late)| !**late).map(|(tick, _)| tick.clone()).collect(),
        };
        check(&spec, &stored, &kept)?;
        let late_rows: Vec<usize> = (0..ticks.len()).filter(|i| late[*i]).collect();
        let expected = if policy == LatePolicy::Amend { Vec::new() } else { late_rows.clone() };
        prop_assert_eq!(aside, expected);
        let counted: u64 = stored.0.iter().filter(|(key, _)| key.0 == 0).map(|(_, bar)| bar.0.late).sum();
        prop_assert_eq!(counted, if policy == LatePolicy::Amend { late_rows.len() as u64 } else { 0 });
    }

    #[test]
    fn restarts_and_replays_neither_lose_nor_repeat_a_tick((ticks, steps) in story(), crashes in crashes()) {
        let spec = spec(LatePolicy::Amend, SECOND);
        let (stored, kept_out) = lives(&spec, &ticks, &steps, &crashes)?;
        prop_assert!(kept_out.is_empty());
        check(&spec, &stored, &ticks)?;
    }

    #[test]
    fn after_any_restart_the_ticks_kept_out_are_those_that_would_have_been_without_it(
        (ticks, steps) in story(), crashes in crashes(), idle in prop_oneof![Just(FOREVER), Just(SECOND)],
    ) {
        let spec = spec(LatePolicy::Drop, idle);
        let (stored, kept_out) = lives(&spec, &ticks, &steps, &crashes)?;
        if idle == FOREVER {
            let late = late(&ticks);
            prop_assert_eq!(&kept_out, &(0..ticks.len()).filter(|i| late[*i]).collect::<BTreeSet<_>>());
        }
        let in_bars = ticks.iter().enumerate().filter(|(arrival, _)| !kept_out.contains(arrival));
        check(&spec, &stored, &in_bars.map(|(_, tick)| tick.clone()).collect::<Vec<_>>())?;
    }
}

/// After which step, how many checkpoints back the restart begins, and whether it was an orderly stop.
type Crash = (usize, usize, bool);

fn crashes() -> impl Strategy<Value = Vec<Crash>> {
    prop::collection::vec((0..40usize, 0..3usize, any::<bool>()), 0..4)
}

/// Takes the ticks step by step, crashes and starts again; every tick is in one place all the while. Gives the bars at the
/// end, and which arrivals were kept out of them.
fn lives(
    spec: &Arc<Spec>,
    ticks: &[Tick],
    steps: &[Step],
    crashes: &[Crash],
) -> Result<(Stored, BTreeSet<usize>), TestCaseError> {
    let mut windows = Windows::new(spec.clone());
    let (mut stored, mut kept_out) = (Stored::default(), BTreeSet::new());
    let (mut at, mut now, mut checkpoints) = (0, 0, vec![0]);
    for (number, step) in steps.iter().enumerate() {
        now += step.pause;
        kept_out.extend(feed(&mut windows, spec, ticks, at..at + step.ticks, now, &mut stored));
        at += step.ticks;
        checkpoints.push(windows.replay_from().unwrap_or(at as u64) as usize);
        if let Some((_, old, orderly)) = crashes.iter().find(|(when, ..)| *when == number) {
            if *orderly {
                close_all(&mut windows, spec, now, &mut stored);
                checkpoints.push(at);
            }
            // The checkpoint on disk may be older than the bars beside it.
            let from = checkpoints[checkpoints.len().saturating_sub(1 + old)];
            // The ledger forgets what no checkpoint tells of: the replay has to find it again.
            kept_out.split_off(&from);
            windows = restore(spec, &mut stored, at as u64);
            for start in (from..at).step_by(7) {
                kept_out.extend(feed(&mut windows, spec, ticks, start..at.min(start + 7), now, &mut stored));
            }
        }
        prop_assert_eq!(stored.ticks(0) + windows.open_ticks() + kept_out.len() as u64, at as u64);
    }
    close_all(&mut windows, spec, now, &mut stored);
    rebuild(spec, &mut stored);
    Ok((stored, kept_out))
}

fn close_all(windows: &mut Windows, spec: &Spec, now: TimeNs, stored: &mut Stored) {
    let mut out = BarBatch::new(spec.id);
    windows.close_all(now, &mut out);
    stored.add(spec, &out);
}

fn finest(batches: &[BarBatch]) -> impl Iterator<Item = &BarHead> {
    batches.iter().flat_map(|batch| &batch.heads).filter(|head| head.granularity == 0)
}

/// Applies a range of the ticks and stores what closes; gives those that are late and go into no window.
fn feed(
    windows: &mut Windows,
    spec: &Spec,
    ticks: &[Tick],
    range: Range<usize>,
    now: i64,
    stored: &mut Stored,
) -> Vec<usize> {
    let mut out = BarBatch::new(spec.id);
    let slice = TickSlice::whole(Arc::new(batch(&ticks[range.clone()])), range.start as u64);
    if spec.window.late != LatePolicy::Amend {
        for series in windows.strangers(&slice) {
            windows.wind(series, stored.high_of(spec, series));
        }
    }
    let applied = windows.apply(&slice, now, &mut out);
    stored.add(spec, &out);
    applied.late_rows.into_iter().map(|row| range.start + row as usize).collect()
}

/// Windows as after a restart: coarser windows from stored finer bars, the rest by replaying.
fn restore(spec: &Arc<Spec>, stored: &mut Stored, until: u64) -> Windows {
    rebuild(spec, stored);
    let mut windows = Windows::new(spec.clone());
    for ((granularity, series, start), (head, words)) in &stored.0 {
        if let Some(length) = LENGTHS.get(usize::from(*granularity) + 1)
            && !stored.0.contains_key(&(granularity + 1, *series, bounds::start_of(*start, *length)))
        {
            if spec.window.late != LatePolicy::Amend && !windows.knows(head.series) {
                windows.wind(head.series, stored.high_of(spec, head.series));
            }
            windows.adopt(head, words);
        }
    }
    let covers: HashMap<(u32, TimeNs), Covered> = (stored.0.iter())
        .filter(|(key, _)| key.0 == 0)
        .map(|((_, series, start), bar)| ((*series, *start), Covered { below: bar.0.covers, lost: None }))
        .collect();
    let covered = move |series: SeriesId, start| covers.get(&(series.0, start)).copied().unwrap_or_default();
    windows.set_covered(Box::new(covered), until);
    windows
}

/// A coarser bar that was stored before its window ended lacks what its finer bars got later, if the process then died
/// with that in memory: its ticks tell, and it is added up anew.
fn rebuild(spec: &Spec, stored: &mut Stored) {
    for (granularity, length) in (1u8..).zip(&LENGTHS[1..]) {
        let mut sums: BTreeMap<Key, Bar> = BTreeMap::new();
        for ((_, series, start), (head, words)) in stored.0.iter().filter(|(key, _)| key.0 == granularity - 1) {
            let key = (granularity, *series, bounds::start_of(*start, *length));
            let empty = || (BarHead { granularity, start: key.2, ..*head }, words.clone());
            match sums.get_mut(&key) {
                Some(sum) => state::merge(spec, sum, head, words),
                None => drop(sums.insert(key, empty())),
            }
        }
        for (key, sum) in sums {
            if let Some(bar) = stored.0.get_mut(&key).filter(|bar| bar.0.ticks != sum.0.ticks) {
                let open_ended = bar.0.flags.contains(BarFlags::OPEN_ENDED);
                *bar = sum;
                bar.0.flags.set(BarFlags::OPEN_ENDED, open_ended);
            }
        }
    }
}

/// Compares every bar of every granularity with the ticks it should hold.
fn check(spec: &Spec, stored: &Stored, ticks: &[Tick]) -> Result<(), TestCaseError> {
    let mut model: BTreeMap<Key, Vec<(usize, &Tick)>> = BTreeMap::new();
    for (arrival, tick) in ticks.iter().enumerate() {
        for (granularity, length) in (0u8..).zip(LENGTHS) {
            let start = tick.time.div_euclid(length) * length;
            model.entry((granularity, tick.series, start)).or_default().push((arrival, tick));
        }
    }
    prop_assert_eq!(stored.0.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
    for (key, ticks) in &model {
        let (head, words) = &stored.0[key];
        let times = || ticks.iter().map(|(_, tick)| tick.time);
        let extent = (ticks.len() as u64, times().min(), times().max());
        prop_assert_eq!((head.ticks, Some(head.first), Some(head.last)), extent, "{:?}", key);
        let metrics = state::metrics(spec, head, words);
        prop_assert_eq!(metrics.len(), spec.metrics.len());
        for (metric, value) in spec.metrics.iter().zip(metrics) {
            let truth = expected(spec, metric, ticks);
            prop_assert!(close(metric, value, truth), "{:?} {}: {:?}, not {:?}", key, metric.name, value, truth);
        }
    }
    Ok(())
}

/// A metric, recomputed from all ticks of a window.
fn expected(spec: &Spec, metric: &Metric, ticks: &[(usize, &Tick)]) -> Option<Value> {
    let Some(at) = metric.accumulator else { return Some(Value::Int(ticks.len() as i64)) };
    let Accumulator { field, ty, .. } = spec.accumulators[at];
    let mut carrying: Vec<(i64, u32, usize, Value)> = (ticks.iter())
        .filter_map(|(arrival, t)| Some((t.time, t.sequence, *arrival, ty.value(t.fields[field]?))))
        .collect();
    carrying.sort_by_key(|(time, sequence, arrival, _)| (*time, *sequence, *arrival));
    let values: Vec<Value> = carrying.iter().map(|(.., value)| *value).collect();
    if metric.aggregation == Aggregation::Count {
        return Some(Value::Int(values.len() as i64));
    }
    let mut ascending = values.clone();
    ascending.sort_by_key(|value| whole(*value));
    let wholes = || values.iter().map(|value| whole(*value));
    let unit = if ty == FieldType::Float64 { UNIT } else { 1.0 };
    let (count, sum): (i128, i128) = (values.len() as i128, wholes().sum());
    Some(match metric.aggregation {
        Aggregation::First => *values.first()?,
        Aggregation::Last => *values.last()?,
        Aggregation::Min => *ascending.first()?,
        Aggregation::Max => *ascending.last()?,
        Aggregation::Sum if values.is_empty() => return None,
        Aggregation::Sum => match ty {
            FieldType::Int64 => Value::Int(sum.clamp(i64::MIN.into(), i64::MAX.into()) as i64),
            FieldType::Uint64 => Value::Uint(sum.clamp(0, u64::MAX.into()) as u64),
            FieldType::Float64 => Value::Float(sum as f64 * UNIT),
        },
        Aggregation::Avg if values.is_empty() => return None,
        Aggregation::Avg => Value::Float(sum as f64 / count as f64 * unit),
        Aggregation::Stddev if values.is_empty() => return None,
        // n Σx² − (Σx)² is the sum over all pairs of (x − y)²: nothing cancels, so that doubles will do.
        Aggregation::Stddev => {
            let pairs = values.iter().enumerate().flat_map(|(i, x)| values[..i].iter().map(|y| (*x, *y)));
            let spread: f64 = pairs.map(|(x, y)| ((whole(x) - whole(y)) as f64).powi(2)).sum();
            Value::Float(spread.sqrt() / count as f64 * unit)
        }
        Aggregation::Quantile(rank) => {
            let at = (rank * (ascending.len().checked_sub(1)?) as f64) as usize;
            Value::Float(ascending[at].to_float())
        }
        Aggregation::Count => unreachable!("answered above"),
    })
}

/// A value as an integer, doubles in [`UNIT`]s.
fn whole(value: Value) -> i128 {
    match value {
        Value::Int(v) => v.into(),
        Value::Uint(v) => v.into(),
        Value::Float(v) => (v / UNIT) as i128,
    }
}

/// Equal, bit for bit; only what the model itself computes in floating point, or promises loosely, has a tolerance.
fn close(metric: &Metric, value: Option<Value>, truth: Option<Value>) -> bool {
    let (Some(value), Some(truth)) = (value, truth) else { return value.is_none() && truth.is_none() };
    let (v, t) = (value.to_float(), truth.to_float());
    match metric.aggregation {
        Aggregation::Quantile(_) => (v - t).abs() <= 0.010_001 * t.abs(),
        Aggregation::Avg => (v - t).abs() <= 4e-16 * t.abs(),
        Aggregation::Stddev => (v - t).abs() <= 1e-13 * t.abs(),
        _ => value == truth,
    }
}

/// Which ticks are late, one after the other: the whole definition.
fn late(ticks: &[Tick]) -> Vec<bool> {
    let mut high: HashMap<u32, i64> = HashMap::new();
    let judge = |tick: &Tick| {
        let before = high.get(&tick.series).copied();
        high.insert(tick.series, before.unwrap_or(i64::MIN).max(tick.time));
        let end = (tick.time.div_euclid(LENGTHS[0]) + 1) * LENGTHS[0];
        before.is_some_and(|before| end <= before - WAIT)
    };
    ticks.iter().map(judge).collect()
}

fn batch(ticks: &[Tick]) -> TickBatch {
    let mut batch = TickBatch::new(SpecId(0), TYPES.len());
    for (row, tick) in ticks.iter().enumerate() {
        batch.series.push(tick.series);
        batch.timestamps.push(tick.time);
        batch.sequences.push(tick.sequence);
        for (column, bits) in batch.fields.iter_mut().zip(tick.fields) {
            column.bits.push(bits.unwrap_or(0));
            if bits.is_none() {
                Column::set_absent(column, row);
            }
        }
    }
    batch
}

/// Ticks roughly in order around the epoch, some late, some ahead, some twice; and how they arrive.
fn story() -> impl Strategy<Value = (Vec<Tick>, Vec<Step>)> {
    let jitter = prop_oneof![
        6 => Just(0),
        3 => -300 * MILLISECOND..300 * MILLISECOND,
        1 => -30 * SECOND..10 * SECOND,
    ];
    let float = (-1_000_000..1_000_000i64).prop_map(|v| (v as f64 * UNIT).to_bits());
    let int = || prop_oneof![8 => 0..1_000u64, 1 => any::<u64>()];
    let field = |bits: BoxedStrategy<u64>| prop::option::weighted(0.9, bits);
    let tick = (0..5u32, jitter, 0..3u32, field(int().boxed()), field(int().boxed()), field(float.boxed()), 0..10u8);
    let ticks = (prop::collection::vec(tick, 0..160), -40i64..40, 10 * MILLISECOND..400 * MILLISECOND);
    let ticks = ticks.prop_map(|(drafts, base, pace)| {
        let mut ticks: Vec<Tick> = Vec::new();
        for (i, (series, jitter, sequence, a, b, c, kind)) in drafts.into_iter().enumerate() {
            // Coarse times make ties; now and then a tick comes twice.
            let time = (base * SECOND + i as i64 * pace + jitter) / (50 * MILLISECOND) * (50 * MILLISECOND);
            let fresh = Tick { series, time, sequence, fields: [a, b, c] };
            let tick = ticks.last().filter(|_| kind == 0).cloned().unwrap_or(fresh);
            ticks.push(tick);
        }
        ticks
    });
    let pause = prop_oneof![8 => 0..300 * MILLISECOND, 1 => 0..4 * SECOND, 1 => Just(30 * SECOND)];
    (ticks, prop::collection::vec((1..12usize, pause), 160)).prop_map(|(ticks, sizes)| {
        let mut left = ticks.len();
        let steps = sizes.into_iter().map_while(|(size, pause)| {
            let size = size.min(left);
            left -= size;
            (size > 0).then_some(Step { ticks: size, pause })
        });
        let steps = steps.collect();
        (ticks, steps)
    })
}

/// Every aggregation of every field type, in three granularities.
fn spec(late: LatePolicy, idle: i64) -> Arc<Spec> {
    use Aggregation::{Avg, Count, First, Last, Max, Min, Quantile, Stddev, Sum};
    let aggregations = [First, Last, Min, Max, Sum, Count, Avg, Stddev, Quantile(0.5), Quantile(0.99)];
    let metric = |name: String, aggregation, accumulator, ty| Metric {
        name,
        aggregation,
        accumulator,
        ty,
        unit: None,
        description: None,
    };
    let mut metrics = vec![metric("ticks".into(), Count, None, FieldType::Int64)];
    let mut accumulators: Vec<Accumulator> = Vec::new();
    for (field, ty) in TYPES.into_iter().enumerate() {
        for aggregation in aggregations {
            let wanted = Accumulator { kind: AccumulatorKind::of(aggregation), field, ty };
            let at = accumulators.iter().position(|known| *known == wanted).unwrap_or(accumulators.len());
            if at == accumulators.len() {
                accumulators.push(wanted);
            }
            let ty = if aggregation == Count { FieldType::Int64 } else { ty };
            metrics.push(metric(format!("{aggregation:?} of {}", ty.name()), aggregation, Some(at), ty));
        }
    }
    Arc::new(Spec {
        id: SpecId(0),
        name: "model".into(),
        precision: 1,
        dimensions: vec![],
        unknown_dimensions: UnknownDimensions::Accept,
        fields: TYPES.map(|ty| Field { name: ty.name().into(), ty }).to_vec(),
        metrics,
        accumulators,
        granularities: LENGTHS.map(|length| Granularity { name: format!("{length}ns"), length }).to_vec(),
        window: WindowRules { wait: WAIT, idle, max_ahead: 10 * SECOND, late },
        retention: Retention { ticks: FOREVER, bars: FOREVER },
        cardinality: Cardinality { limit: 100, overflow: CardinalityOverflow::Reject },
        kafka: None,
    })
}
