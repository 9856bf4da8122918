//! Series specs for tests of the wire and of blocks.

use barline::model::time::{HOUR, SECOND};
use barline::model::{FieldType, SpecId};
use barline::spec::{
    Cardinality, CardinalityOverflow, Field, Granularity, LatePolicy, Retention, Spec, UnknownDimensions, WindowRules,
};

/// A spec that accepts what it can.
pub fn spec(name: &str, dimensions: &[&str], fields: &[(&str, FieldType)]) -> Spec {
    Spec {
        id: SpecId(0),
        name: name.into(),
        precision: 1,
        dimensions: dimensions.iter().map(|d| (*d).into()).collect(),
        unknown_dimensions: UnknownDimensions::Accept,
        fields: fields.iter().map(|(name, ty)| Field { name: (*name).into(), ty: *ty }).collect(),
        metrics: Vec::new(),
        accumulators: Vec::new(),
        granularities: vec![Granularity { name: "1s".into(), length: SECOND }],
        window: WindowRules { wait: 0, idle: SECOND, max_ahead: 10 * SECOND, late: LatePolicy::Amend },
        retention: Retention { ticks: HOUR, bars: HOUR },
        cardinality: Cardinality { limit: u32::MAX, overflow: CardinalityOverflow::Reject },
        kafka: None,
    }
}
