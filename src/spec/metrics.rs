//! The metrics of a spec: which fields they read and which mergeable states they are computed from.

use crate::model::FieldType;

use super::compile::Check;
use super::decode::At;
use super::written::WrittenMetric;
use super::yaml::{Node, Place};
use super::{Accumulator, AccumulatorKind, Aggregation, Field, Metric, Problem};

/// The most metrics of one spec.
const MAX_METRICS: usize = 256;

const TYPES: [(&str, FieldType); 3] =
    [("int64", FieldType::Int64), ("uint64", FieldType::Uint64), ("float64", FieldType::Float64)];

const AGGREGATIONS: [(&str, Aggregation); 8] = [
    ("first", Aggregation::First),
    ("last", Aggregation::Last),
    ("min", Aggregation::Min),
    ("max", Aggregation::Max),
    ("sum", Aggregation::Sum),
    ("count", Aggregation::Count),
    ("avg", Aggregation::Avg),
    ("stddev", Aggregation::Stddev),
];

/// What the `metrics` block comes to.
#[derive(Default)]
pub(super) struct Resolved {
    /// The distinct fields, in order of first use.
    pub fields: Vec<Field>,
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// The distinct states.
    pub accumulators: Vec<Accumulator>,
}

/// Resolves the `metrics` block; what is wrong goes to `check`.
pub(super) fn resolve(check: &mut Check<'_>, root: &Node, written: Option<At<Vec<At<WrittenMetric>>>>) -> Resolved {
    let place = root.entry("metrics").map_or(root.place, |entry| entry.key.place);
    // A block whose metrics all had problems of their own is not reported as empty too.
    if root.get("metrics").is_none_or(|node| !matches!(&node.value, super::yaml::Yaml::List(list) if !list.is_empty()))
    {
        let problem = Problem::new("no metrics, so bars would be empty");
        check.report(place, problem.remedy("add one, such as `- {name: ticks, aggregation: count}`"));
    }
    let written = written.map_or_else(Vec::new, |written| written.value);
    if written.len() > MAX_METRICS {
        let problem = Problem::new(format!("{} metrics", written.len()));
        check.report(place, problem.allowed(format!("at most {MAX_METRICS}")).remedy("split the spec into several"));
        return Resolved::default();
    }
    let parsed: Vec<Parsed> = written.into_iter().map(|metric| Parsed::of(check, metric)).collect();
    report_duplicates(check, &parsed);
    report_conflicts(check, &parsed);
    let mut resolved = Resolved::default();
    for metric in &parsed {
        resolved.add(metric, &parsed);
    }
    resolved
}

/// A metric whose words are understood, each for itself.
struct Parsed {
    written: WrittenMetric,
    aggregation: Option<Aggregation>,
    field: Option<At<String>>,
    ty: Option<FieldType>,
}

impl Parsed {
    fn of(check: &mut Check<'_>, At { value: mut written, place }: At<WrittenMetric>) -> Self {
        check.name("metric", &written.name);
        let aggregation = aggregation(check, &written.aggregation);
        let field = written.field.take().filter(|field| !field.value.is_empty());
        let ty = written.ty.as_ref().and_then(|ty| check.choose("type", ty, &TYPES));
        let metric = Self { aggregation, field, ty, written };
        metric.check(check, place);
        metric
    }

    fn check(&self, check: &mut Check<'_>, place: Place) {
        let name = &self.written.name.value;
        if let Some(field) = &self.field {
            check.name("field", field);
        }
        let Some(aggregation) = self.aggregation else { return };
        if aggregation == Aggregation::Count {
            let whole = self.field.is_some() || self.ty != Some(FieldType::Float64);
            if let (Some(ty), false) = (&self.written.ty, whole) {
                check.report(ty.place, Problem::new("a count is a whole number").allowed("int64, uint64"));
            }
            return;
        }
        if self.field.is_none() {
            let problem = Problem::new(format!("metric `{name}` names no `field` to aggregate"));
            check.report(place, problem.remedy("add `field: …`; only `count` can do without"));
        }
        if self.written.ty.is_none() {
            let problem = Problem::new(format!("metric `{name}` has no `type`, the type of its field"));
            check.report(place, problem.allowed("int64, uint64, float64").remedy("add `type: int64`"));
        }
    }
}

/// `first`, `p99.9` and so on.
fn aggregation(check: &mut Check<'_>, written: &At<String>) -> Option<Aggregation> {
    let text = written.value.as_str();
    if let Some((_, known)) = AGGREGATIONS.iter().find(|(name, _)| *name == text) {
        return Some(*known);
    }
    let percent = text.strip_prefix('p').filter(|digits| digits.starts_with(|c: char| c.is_ascii_digit()));
    let percent = percent.filter(|digits| digits.chars().all(|c| c.is_ascii_digit() || c == '.'));
    // Read as hundredths at once: 99.9 / 100.0 would not be 0.999.
    match percent.and_then(|digits| format!("{digits}e-2").parse::<f64>().ok()) {
        Some(rank) if rank > 0.0 && rank < 1.0 => Some(Aggregation::Quantile(rank)),
        Some(_) => {
            let problem = Problem::new(format!("quantile `{text}` is out of range"));
            check.report(written.place, problem.allowed("above p0 and below p100, as in p50 or p99.9"));
            None
        }
        None => {
            let known = AGGREGATIONS.iter().map(|(name, _)| *name).chain(["p50", "p99.9"]);
            let problem = Problem::new(format!("unknown aggregation `{text}`")).choices(text, known);
            let allowed = problem.allowed.clone().unwrap_or_default();
            check.report(written.place, problem.allowed(format!("{allowed} (any pN above 0 and below 100)")));
            None
        }
    }
}

fn report_duplicates(check: &mut Check<'_>, metrics: &[Parsed]) {
    let mut seen = std::collections::HashMap::new();
    for metric in metrics {
        let At { value: name, place } = &metric.written.name;
        if let Some(first) = seen.insert(name, place.line) {
            let problem = Problem::new(format!("metric `{name}` is declared twice, first in line {first}"));
            check.report(*place, problem.remedy("remove or rename one of them"));
        }
    }
}

/// A tick carries a field once, so it has one type.
fn report_conflicts(check: &mut Check<'_>, metrics: &[Parsed]) {
    let mut seen: std::collections::HashMap<&str, (FieldType, u32)> = std::collections::HashMap::new();
    for metric in metrics {
        let (Some(field), Some(ty), Some(written)) = (&metric.field, metric.ty, &metric.written.ty) else { continue };
        let (first, line) = *seen.entry(&field.value).or_insert((ty, written.place.line));
        if first != ty {
            let field = &field.value;
            let problem =
                Problem::new(format!("field `{field}` is {} here and {} in line {line}", ty.name(), first.name()));
            check.report(
                written.place,
                problem.allowed(first.name()).remedy("give every metric of a field the same type"),
            );
        }
    }
}

impl Resolved {
    /// Adds `metric`, one of `all`; what it lacks has been reported.
    fn add(&mut self, metric: &Parsed, all: &[Parsed]) {
        let Some(aggregation) = metric.aggregation else { return };
        let accumulator = metric.field.as_ref().map(|field| {
            let field = self.field(&field.value, all);
            self.accumulator(AccumulatorKind::of(aggregation), field)
        });
        let field_type = accumulator.map(|index| self.accumulators[index].ty);
        let ty = match aggregation {
            Aggregation::Avg | Aggregation::Stddev | Aggregation::Quantile(_) => FieldType::Float64,
            Aggregation::Count if field_type.is_none() => metric.ty.unwrap_or(FieldType::Int64),
            Aggregation::Count => FieldType::Int64,
            _ => field_type.unwrap_or(FieldType::Int64),
        };
        self.metrics.push(Metric {
            name: metric.written.name.value.clone(),
            aggregation,
            accumulator,
            ty,
            unit: metric.written.unit.clone(),
            description: metric.written.description.clone(),
        });
    }

    /// The index of field `name`, whose type is the first one `all` declare; `int64` where only counts name it.
    fn field(&mut self, name: &str, all: &[Parsed]) -> usize {
        if let Some(index) = self.fields.iter().position(|field| field.name == name) {
            return index;
        }
        let same = |metric: &&Parsed| metric.field.as_ref().is_some_and(|field| field.value == name);
        let ty = all.iter().filter(same).find_map(|metric| metric.ty).unwrap_or(FieldType::Int64);
        self.fields.push(Field { name: name.to_owned(), ty });
        self.fields.len() - 1
    }

    fn accumulator(&mut self, kind: AccumulatorKind, field: usize) -> usize {
        let wanted = Accumulator { kind, field, ty: self.fields[field].ty };
        if let Some(index) = self.accumulators.iter().position(|known| *known == wanted) {
            return index;
        }
        self.accumulators.push(wanted);
        self.accumulators.len() - 1
    }
}
