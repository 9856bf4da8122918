//! `otlp`: one `ExportMetricsServiceRequest` per bar, as the OpenTelemetry Collector's Kafka receiver takes it.
//!
//! Sums and counts are delta `Sum`s over the window, so that windows may be added up; everything else is a `Gauge`. Start
//! is the window's start, time its end. The series' dimensions are the attributes of every data point; what tells one
//! window length from another belongs to the resource. Numbers of fields are those of `opentelemetry/proto/metrics/v1`.

use super::{Outgoing, adds_up, unsigned};
use crate::codec::proto::{fixed64, fixed64_always, message, text, text_always, uint};
use crate::model::{FieldType, Value};
use crate::spec::{Aggregation, Metric};

const DELTA: u64 = 1;

/// Appends `bar`.
pub fn write(service: &str, bar: &Outgoing<'_>, out: &mut Vec<u8>) {
    // The same at every data point.
    let mut attributes = Vec::with_capacity(bar.key.as_bytes().len() * 2);
    bar.key.dimensions().for_each(|(name, value)| attribute(&mut attributes, 7, name, value));
    let told = &Told { bar, attributes };
    message(out, 1, |out| {
        message(out, 1, |out| {
            attribute(out, 1, "service.name", service);
            attribute(out, 1, "barline.series", &bar.spec.name);
            attribute(out, 1, "barline.granularity", bar.granularity());
        });
        message(out, 2, |out| {
            message(out, 1, |out| {
                text(out, 1, "barline");
                text(out, 2, env!("CARGO_PKG_VERSION"));
            });
            bar.present().for_each(|(metric, value)| write_metric(told, metric, value, out));
            write_ticks(told, out);
        });
    });
}

/// A bar and the attributes of its data points.
struct Told<'a> {
    bar: &'a Outgoing<'a>,
    attributes: Vec<u8>,
}

fn write_metric(told: &Told<'_>, metric: &Metric, value: Value, out: &mut Vec<u8>) {
    message(out, 2, |out| {
        name(out, told, &metric.name);
        text(out, 2, metric.description.as_deref().unwrap_or_default());
        text(out, 3, metric.unit.as_deref().unwrap_or_default());
        if adds_up(metric.aggregation) {
            sum(out, told, value, metric.aggregation == Aggregation::Count || metric.ty == FieldType::Uint64);
        } else {
            message(out, 5, |out| point(out, told, value));
        }
    });
}

/// How many ticks the bar has, unless the spec has a metric of that name.
fn write_ticks(told: &Told<'_>, out: &mut Vec<u8>) {
    const TICKS: &str = "tick_count";
    if told.bar.spec.metrics.iter().any(|metric| metric.name == TICKS) {
        return;
    }
    message(out, 2, |out| {
        name(out, told, TICKS);
        text(out, 3, "{tick}");
        sum(out, told, Value::Uint(told.bar.ticks()), true);
    });
}

/// `<spec>.<metric>`
fn name(out: &mut Vec<u8>, told: &Told<'_>, metric: &str) {
    message(out, 1, |out| {
        for part in [&told.bar.spec.name, ".", metric] {
            out.extend_from_slice(part.as_bytes());
        }
    });
}

fn sum(out: &mut Vec<u8>, told: &Told<'_>, value: Value, monotonic: bool) {
    message(out, 7, |out| {
        point(out, told, value);
        uint(out, 2, DELTA);
        uint(out, 3, u64::from(monotonic));
    });
}

/// A data point. Integers beyond the signed range become doubles, for OTLP has no unsigned ones.
fn point(out: &mut Vec<u8>, told: &Told<'_>, value: Value) {
    message(out, 1, |out| {
        fixed64(out, 2, unsigned(told.bar.head.start));
        fixed64(out, 3, unsigned(told.bar.end()));
        match value {
            Value::Int(value) => fixed64_always(out, 6, value as u64),
            Value::Uint(value) if i64::try_from(value).is_ok() => fixed64_always(out, 6, value),
            Value::Uint(_) | Value::Float(_) => fixed64_always(out, 4, value.to_float().to_bits()),
        }
        out.extend_from_slice(&told.attributes);
    });
}

/// A `KeyValue` with a string.
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: &str) {
    message(out, field, |out| {
        text(out, 1, name);
        message(out, 2, |out| text_always(out, 1, value));
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Point;
    use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, NumberDataPoint};
    use proptest::prelude::*;
    use prost::Message;

    use super::super::testing::{Sample, sample, samples};
    use super::*;

    fn decoded(sample: &Sample) -> ExportMetricsServiceRequest {
        let mut out = Vec::new();
        write("edge-1", &sample.outgoing(), &mut out);
        ExportMetricsServiceRequest::decode(&out[..]).unwrap()
    }

    fn string<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
        let found = attributes.iter().find(|attribute| attribute.key == name)?;
        match found.value.as_ref()? {
            AnyValue { value: Some(Any::StringValue(text)) } => Some(text),
            _ => None,
        }
    }

    fn check_point(point: &NumberDataPoint, sample: &Sample) {
        assert!(point.start_time_unix_nano <= point.time_unix_nano);
        assert_eq!(point.start_time_unix_nano, u64::try_from(sample.head.start).unwrap_or(0));
        let told: Vec<_> =
            point.attributes.iter().map(|a| (a.key.as_str(), string(&point.attributes, &a.key))).collect();
        let dimensions: Vec<_> = sample.key.dimensions().map(|(name, value)| (name, Some(value))).collect();
        assert_eq!(told, dimensions);
        assert!(point.value.is_some());
    }

    fn check(sample: &Sample) {
        let request = decoded(sample);
        let [resource] = &request.resource_metrics[..] else { panic!("{request:?}") };
        let attributes = &resource.resource.as_ref().unwrap().attributes;
        assert_eq!(string(attributes, "service.name"), Some("edge-1"));
        assert_eq!(string(attributes, "barline.series"), Some(sample.spec.name.as_str()));
        let [scope] = &resource.scope_metrics[..] else { panic!("{request:?}") };
        let names: BTreeSet<_> = scope.metrics.iter().map(|metric| &metric.name).collect();
        assert_eq!(names.len(), scope.metrics.len(), "a name stands twice");
        for metric in &scope.metrics {
            let spec = sample.spec.metrics.iter().find(|m| metric.name == format!("{}.{}", sample.spec.name, m.name));
            let adds = spec.is_none_or(|metric| adds_up(metric.aggregation));
            let points = match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => {
                    assert!(adds && sum.aggregation_temporality() == AggregationTemporality::Delta);
                    &sum.data_points
                }
                Data::Gauge(gauge) => {
                    assert!(!adds);
                    &gauge.data_points
                }
                other => panic!("{other:?}"),
            };
            let [point] = &points[..] else { panic!("{metric:?}") };
            check_point(point, sample);
        }
    }

    proptest! {
        #[test]
        fn every_bar_is_a_request_that_keeps_the_rules_of_otlp(sample in samples()) {
            check(&sample);
        }
    }

    #[test]
    fn an_increment_tells_what_was_added_and_what_now_holds() {
        let mut bar = sample();
        bar.before = Some((3, vec![Some(Value::Int(17520)), None, None, None, Some(Value::Uint(400)), None]));
        let request = decoded(&bar);
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let value = |name: &str| {
            let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
            let points = match metric.data.as_ref().unwrap() {
                Data::Sum(sum) => &sum.data_points,
                Data::Gauge(gauge) => &gauge.data_points,
                other => panic!("{other:?}"),
            };
            points[0].value.unwrap()
        };
        assert_eq!(value("market_ticks.volume"), Point::AsInt(50));
        assert_eq!(value("market_ticks.open"), Point::AsInt(17520));
        assert_eq!(value("market_ticks.high"), Point::AsInt(17550));
        assert_eq!(value("market_ticks.tick_count"), Point::AsInt(5));
    }

    #[test]
    fn units_and_descriptions_are_the_specs() {
        let mut bar = sample();
        (bar.spec.metrics[4].unit, bar.spec.metrics[4].description) = (Some("{share}".into()), Some("traded".into()));
        let metrics = &decoded(&bar).resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!((metrics[4].unit.as_str(), metrics[4].description.as_str()), ("{share}", "traded"));
    }
}
