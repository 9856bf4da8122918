//! The series specs as plain, serialisable rows.

use serde::Serialize;

use crate::runtime::Context;
use crate::spec::Spec;

/// One spec.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct SpecRow {
    /// Its name.
    pub spec: String,
    /// Declared dimensions, in the file's order.
    pub dimensions: Vec<String>,
    /// Fields the metrics read.
    pub fields: Vec<NamedRow>,
    /// Metrics of its bars, in the file's order.
    pub metrics: Vec<NamedRow>,
    /// Window lengths as written, the finest first.
    pub granularities: Vec<String>,
    /// How many series were seen so far.
    pub series: usize,
}

/// A field or metric.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct NamedRow {
    /// Its name.
    pub name: String,
    /// `int64`, `uint64` or `float64`.
    #[serde(rename = "type")]
    pub ty: &'static str,
    /// UCUM unit, where the spec names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What it is, where the spec says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Every spec, in order.
pub fn specs(context: &Context) -> Vec<SpecRow> {
    context.specs.iter().map(|spec| SpecRow::new(spec, context.catalog.len(spec.id))).collect()
}

impl SpecRow {
    fn new(spec: &Spec, series: usize) -> Self {
        let field = |field: &crate::spec::Field| NamedRow {
            name: field.name.clone(),
            ty: field.ty.name(),
            unit: None,
            description: None,
        };
        let metric = |metric: &crate::spec::Metric| NamedRow {
            name: metric.name.clone(),
            ty: metric.ty.name(),
            unit: metric.unit.clone(),
            description: metric.description.clone(),
        };
        Self {
            spec: spec.name.clone(),
            dimensions: spec.dimensions.clone(),
            fields: spec.fields.iter().map(field).collect(),
            metrics: spec.metrics.iter().map(metric).collect(),
            granularities: spec.granularities.iter().map(|granularity| granularity.name.clone()).collect(),
            series,
        }
    }
}
