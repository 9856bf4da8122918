//! A small spec for unit tests.

use std::sync::Arc;

use crate::model::time::{DAY, MILLISECOND, SECOND};
use crate::model::{FieldType, SpecId};
use crate::spec::{
    Accumulator, AccumulatorKind, Aggregation, Cardinality, CardinalityOverflow, Field, Granularity, LatePolicy,
    Metric, Retention, Spec, UnknownDimensions, WindowRules,
};

/// One int64 field `v`, these metrics of it, and the default window rules.
pub(super) fn spec(lengths: &[i64], late: LatePolicy, aggregations: &[Aggregation]) -> Arc<Spec> {
    let ty = FieldType::Int64;
    let metric = |(at, aggregation): (usize, &Aggregation)| Metric {
        name: format!("{aggregation:?}"),
        aggregation: *aggregation,
        accumulator: Some(at),
        ty,
        unit: None,
        description: None,
    };
    let accumulator = |aggregation: &Aggregation| Accumulator { kind: AccumulatorKind::of(*aggregation), field: 0, ty };
    Arc::new(Spec {
        id: SpecId(0),
        name: "test".into(),
        precision: 1,
        dimensions: vec![],
        unknown_dimensions: UnknownDimensions::Accept,
        fields: vec![Field { name: "v".into(), ty }],
        metrics: aggregations.iter().enumerate().map(metric).collect(),
        accumulators: aggregations.iter().map(accumulator).collect(),
        granularities: lengths.iter().map(|l| Granularity { name: format!("{l}ns"), length: *l }).collect(),
        window: WindowRules { wait: 200 * MILLISECOND, idle: SECOND, max_ahead: 10 * SECOND, late },
        retention: Retention { ticks: DAY, bars: DAY },
        cardinality: Cardinality { limit: 1_000_000, overflow: CardinalityOverflow::Reject },
        kafka: None,
    })
}
