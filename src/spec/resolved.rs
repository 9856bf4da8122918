//! A series spec as the engine uses it: names resolved to indices, defaults filled in.

use std::sync::Arc;

use crate::model::{DurationNs, FieldType, SpecId};

/// One series spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its number in this process: its index in [`Specs`].
    pub id: SpecId,
    /// The name producers and queries use: `series` in the file.
    pub name: String,
    /// Nanoseconds per unit of the producers' timestamps.
    pub precision: DurationNs,
    /// Declared dimension names, in the file's order.
    pub dimensions: Vec<String>,
    /// What becomes of a tick with a dimension that is not declared.
    pub unknown_dimensions: UnknownDimensions,
    /// The distinct tick fields the metrics read, in order of first use.
    pub fields: Vec<Field>,
    /// Metrics, in the file's order.
    pub metrics: Vec<Metric>,
    /// The distinct mergeable states the metrics are computed from.
    pub accumulators: Vec<Accumulator>,
    /// Window lengths, the finest first; each divides the next.
    pub granularities: Vec<Granularity>,
    /// When windows close and what becomes of late ticks.
    pub window: WindowRules,
    /// How long ticks and bars are kept.
    pub retention: Retention,
    /// How many series there may be.
    pub cardinality: Cardinality,
    /// Where the bars go, if to Kafka.
    pub kafka: Option<KafkaOutput>,
}

/// A tick field that some metric reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The name ticks carry.
    pub name: String,
    /// Its type.
    pub ty: FieldType,
}

/// One number of a bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// The name bars carry.
    pub name: String,
    /// How it is computed.
    pub aggregation: Aggregation,
    /// Index into [`Spec::accumulators`]; `None` for `count` without a field, which is the bar's tick count.
    pub accumulator: Option<usize>,
    /// The type of its value.
    pub ty: FieldType,
    /// UCUM unit, as written.
    pub unit: Option<String>,
    /// One line for people, as written.
    pub description: Option<String>,
}

/// How a metric is computed from its field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregation {
    /// The value of the first tick by (timestamp, sequence, arrival).
    First,
    /// The value of the last tick by (timestamp, sequence, arrival).
    Last,
    /// The lowest value.
    Min,
    /// The highest value.
    Max,
    /// The sum.
    Sum,
    /// How many ticks carry the field; without a field, how many ticks there are.
    Count,
    /// The arithmetic mean.
    Avg,
    /// The population standard deviation.
    Stddev,
    /// The quantile at this rank, in (0, 1), within 1 % of the value.
    Quantile(f64),
}

/// A mergeable state, shared by all metrics that need the same one of the same field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Accumulator {
    /// What it gathers.
    pub kind: AccumulatorKind,
    /// Index into [`Spec::fields`].
    pub field: usize,
    /// That field's type.
    pub ty: FieldType,
}

/// What a mergeable state gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AccumulatorKind {
    /// Value and place of the first tick.
    First = 1,
    /// Value and place of the last tick.
    Last = 2,
    /// The lowest value.
    Min = 3,
    /// The highest value.
    Max = 4,
    /// The exact sum: 128-bit for integers, an order-independent exact sum for doubles.
    Sum = 5,
    /// How many values.
    Count = 6,
    /// Count and exact sum.
    Mean = 7,
    /// Count, exact sum and exact sum of squares.
    Moments = 8,
    /// A DDSketch with 1 % relative accuracy.
    Sketch = 9,
}

/// One window length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granularity {
    /// As written, `1s`.
    pub name: String,
    /// In nanoseconds, positive.
    pub length: DurationNs,
}

/// When windows close and what becomes of late ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowRules {
    /// A series' watermark is its highest event time minus this.
    pub wait: DurationNs,
    /// A silent series' window closes this much wall time past the window's end (or its last tick).
    pub idle: DurationNs,
    /// Ticks further than this in the future are rejected.
    pub max_ahead: DurationNs,
    /// What becomes of ticks behind their series' watermark's window.
    pub late: LatePolicy,
}

/// What becomes of a late tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatePolicy {
    /// It is merged into its bar, which gets a new revision.
    Amend,
    /// It is dropped and counted.
    Drop,
    /// It is kept as a raw tick beside the bars, and counted.
    SideOutput,
}

/// What becomes of a tick with an undeclared dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownDimensions {
    /// The dimension is part of the series' identity.
    Accept,
    /// The tick is rejected.
    Reject,
}

/// How long things are kept, by event time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Raw ticks; an older tick is rejected.
    pub ticks: DurationNs,
    /// Bars; at least as long as ticks.
    pub bars: DurationNs,
}

/// How many series a spec may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cardinality {
    /// The most series.
    pub limit: u32,
    /// What becomes of ticks of further series.
    pub overflow: CardinalityOverflow,
}

/// What becomes of ticks of series beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CardinalityOverflow {
    /// They are rejected.
    Reject,
    /// They all go into one series whose only dimension is `overflow=true`.
    Fold,
}

/// The `output.kafka` block of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaOutput {
    /// The topic.
    pub topic: String,
    /// `otlp`, `tikr` or `json`; `None` leaves it to the sink.
    pub encoding: Option<String>,
    /// `spool`, `block` or `drop`; `None` leaves it to the sink.
    pub on_failure: Option<String>,
}

/// All specs of a process, by number and by name; in order of their files' names.
#[derive(Debug, Clone, Default)]
pub struct Specs {
    specs: Vec<Arc<Spec>>,
}

impl Specs {
    /// Numbers `specs` in the given order.
    pub fn new(specs: Vec<Spec>) -> Self {
        let number = |(i, spec)| Arc::new(Spec { id: SpecId(i as u16), ..spec });
        Self { specs: specs.into_iter().enumerate().map(number).collect() }
    }

    /// The spec with this number.
    pub fn get(&self, id: SpecId) -> &Arc<Spec> {
        &self.specs[id.0 as usize]
    }

    /// The spec with this name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Spec>> {
        self.specs.iter().find(|spec| spec.name == name)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Spec>> {
        self.specs.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.specs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.specs.is_empty()
    }
}

impl AccumulatorKind {
    /// What metrics of `aggregation` are computed from; `Count` only counts ticks that carry a field.
    pub fn of(aggregation: Aggregation) -> Self {
        match aggregation {
            Aggregation::First => Self::First,
            Aggregation::Last => Self::Last,
            Aggregation::Min => Self::Min,
            Aggregation::Max => Self::Max,
            Aggregation::Sum => Self::Sum,
            Aggregation::Count => Self::Count,
            Aggregation::Avg => Self::Mean,
            Aggregation::Stddev => Self::Moments,
            Aggregation::Quantile(_) => Self::Sketch,
        }
    }
}
