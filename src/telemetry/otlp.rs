//! Figures, spans and lines of the log as OpenTelemetry's messages, built straight from the table.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as OtlpSpan, span::SpanKind};

use super::distribution::{Distribution, SCALE};
use super::logs::Line;
use super::snapshot::{Family, Point, Snapshot, Value};
use super::table::Kind;
use crate::model::TimeNs;
use crate::runtime::trace::Span;
use crate::topology::TelemetryPlan;

/// The message of a snapshot's families that have points.
pub fn metrics(snapshot: &Snapshot, plan: &TelemetryPlan) -> ExportMetricsServiceRequest {
    let families = snapshot.families.iter().filter(|family| !family.points.is_empty());
    let metrics = families.map(|family| metric(family, snapshot)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..Default::default() }];
    let resource = Some(resource(plan, &snapshot.topology));
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..Default::default() }],
    }
}

/// The message of finished spans of `topology`.
pub fn traces(spans: &[Span], plan: &TelemetryPlan, topology: &str) -> ExportTraceServiceRequest {
    let scope_spans =
        vec![ScopeSpans { scope: Some(scope()), spans: spans.iter().map(span).collect(), ..Default::default() }];
    let resource = Some(resource(plan, topology));
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..Default::default() }] }
}

/// The message of lines of the log of `topology`.
pub fn logs(lines: Vec<Line>, plan: &TelemetryPlan, topology: &str) -> ExportLogsServiceRequest {
    let log_records = lines.into_iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..Default::default() }];
    let resource = Some(resource(plan, topology));
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, ..Default::default() }] }
}

fn resource(plan: &TelemetryPlan, topology: &str) -> Resource {
    let own = [
        ("service.name", plan.service.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("barline.topology", topology),
    ];
    let given = plan.resource.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let given = given.filter(|(key, _)| own.iter().all(|(taken, _)| taken != key));
    Resource { attributes: own.into_iter().chain(given).map(text).collect(), ..Default::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "barline".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    }
}

fn metric(family: &Family, snapshot: &Snapshot) -> Metric {
    let temporality = AggregationTemporality::Cumulative.into();
    let numbers = || family.points.iter().filter_map(|point| number(point, snapshot)).collect();
    let data = match family.kind {
        Kind::Counter => {
            Data::Sum(Sum { data_points: numbers(), aggregation_temporality: temporality, is_monotonic: true })
        }
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram => {
            let data_points = family.points.iter().filter_map(|point| histogram(point, snapshot)).collect();
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality: temporality })
        }
    };
    let (name, unit, description) = (family.name.clone(), family.unit.clone(), family.description.clone());
    Metric { name, unit, description, data: Some(data), ..Default::default() }
}

fn number(point: &Point, snapshot: &Snapshot) -> Option<NumberDataPoint> {
    let value = number_data_point::Value::AsDouble(point.as_number()?);
    Some(NumberDataPoint {
        attributes: attributes(point, snapshot),
        start_time_unix_nano: unix(snapshot.started_ns),
        time_unix_nano: unix(snapshot.at_ns),
        value: Some(value),
        ..Default::default()
    })
}

fn histogram(point: &Point, snapshot: &Snapshot) -> Option<ExponentialHistogramDataPoint> {
    let Value::Histogram(Distribution { count, sum, offset, buckets }) = &point.value else { return None };
    Some(ExponentialHistogramDataPoint {
        attributes: attributes(point, snapshot),
        start_time_unix_nano: unix(snapshot.started_ns),
        time_unix_nano: unix(snapshot.at_ns),
        count: *count,
        sum: Some(*sum),
        scale: SCALE,
        positive: Some(Buckets { offset: *offset, bucket_counts: buckets.clone() }),
        ..Default::default()
    })
}

fn attributes(point: &Point, snapshot: &Snapshot) -> Vec<KeyValue> {
    let own = point.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    std::iter::once(("topology", snapshot.topology.as_str())).chain(own).map(text).collect()
}

fn span(span: &Span) -> OtlpSpan {
    let kind = if span.parent == 0 { SpanKind::Producer } else { SpanKind::Consumer };
    let parent = if span.parent == 0 { Vec::new() } else { span.parent.to_be_bytes().to_vec() };
    let double = |seconds| any_value::Value::DoubleValue(seconds);
    let rows = any_value::Value::IntValue(i64::try_from(span.rows).unwrap_or(i64::MAX));
    let attributes = vec![
        text(("stage", &span.stage)),
        text(("instance", &span.instance.to_string())),
        pair("barline.queue.duration", double(span.queued.as_secs_f64())),
        pair("barline.handling.duration", double(span.worked.as_secs_f64())),
        pair("barline.items", rows),
    ];
    OtlpSpan {
        trace_id: span.trace.to_be_bytes().to_vec(),
        span_id: span.id.to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: span.stage.to_string(),
        kind: kind.into(),
        start_time_unix_nano: unix(span.start),
        end_time_unix_nano: unix(span.end),
        attributes,
        ..Default::default()
    }
}

fn record(line: Line) -> LogRecord {
    let Line { at, level, target, message, fields, trace: (trace, span) } = line;
    let severity = match level {
        tracing::Level::ERROR => SeverityNumber::Error,
        tracing::Level::WARN => SeverityNumber::Warn,
        _ => SeverityNumber::Info,
    };
    let fields = fields.into_iter().map(|(name, value)| pair(name, value));
    LogRecord {
        time_unix_nano: unix(at),
        observed_time_unix_nano: unix(at),
        severity_number: severity.into(),
        severity_text: level.to_string(),
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(message)) }),
        attributes: std::iter::once(text(("target", target))).chain(fields).collect(),
        trace_id: if trace == 0 { Vec::new() } else { trace.to_be_bytes().to_vec() },
        span_id: if span == 0 { Vec::new() } else { span.to_be_bytes().to_vec() },
        ..Default::default()
    }
}

fn text((key, value): (&str, &str)) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.to_owned()))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}

fn unix(time: TimeNs) -> u64 {
    u64::try_from(time).unwrap_or(0)
}
