//! The figures as Prometheus reads them, in its own text format or in OpenMetrics, whichever the scraper asks for.

use std::fmt::Write;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::collect::Observed;
use super::distribution::Distribution;
use super::snapshot::{Family, Point, Snapshot, Value};
use super::table::Kind;

/// The two formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// Upper bounds of the buckets of every histogram, in powers of two seconds: a microsecond to about a minute.
const BOUNDS: [i32; 14] = [-20, -18, -16, -14, -12, -10, -8, -6, -4, -2, 0, 2, 4, 6];

/// `GET /metrics`.
pub fn router(observed: Observed) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(observed)
}

async fn metrics(State(observed): State<Observed>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    let format = Format::asked_for(accept);
    ([(CONTENT_TYPE, format.content_type())], text(&observed.snapshot(), format)).into_response()
}

impl Format {
    /// The format an `Accept` header asks for.
    pub fn asked_for(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All families that have points.
pub fn text(snapshot: &Snapshot, format: Format) -> String {
    let mut text = String::new();
    for family in snapshot.families.iter().filter(|family| !family.points.is_empty()) {
        write_family(&mut text, family, &snapshot.topology, format);
    }
    if format == Format::OpenMetrics {
        text += "# EOF\n";
    }
    text
}

/// The family's name as Prometheus has it, without the ending of counters: the unit becomes a suffix.
pub fn name(name: &str, unit: &str) -> String {
    let suffix = match unit {
        "s" => "_seconds",
        "By" => "_bytes",
        _ => "",
    };
    name.replace('.', "_") + suffix
}

fn write_family(text: &mut String, family: &Family, topology: &str, format: Format) {
    let base = name(&family.name, &family.unit);
    let samples = if family.kind == Kind::Counter { format!("{base}_total") } else { base.clone() };
    let described = if format == Format::OpenMetrics { &base } else { &samples };
    // Writing into a string does not fail.
    let _ = writeln!(text, "# HELP {described} {}", family.description);
    let _ = writeln!(text, "# TYPE {described} {}", family.kind.name());
    for point in &family.points {
        let labels = labels(point, topology);
        match &point.value {
            Value::Number(number) => {
                let _ = writeln!(text, "{samples}{{{labels}}} {number}");
            }
            Value::Histogram(histogram) => write_histogram(text, &samples, &labels, histogram),
        }
    }
}

fn write_histogram(text: &mut String, name: &str, labels: &str, histogram: &Distribution) {
    for power in BOUNDS {
        let (bound, count) = (f64::from(power).exp2(), histogram.up_to(power));
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {count}");
    }
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count);
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum);
    let _ = writeln!(text, "{name}_count{{{labels}}} {}", histogram.count);
}

fn labels(point: &Point, topology: &str) -> String {
    let mut labels = format!("topology=\"{}\"", escape(topology));
    for (name, value) in &point.attributes {
        let _ = write!(labels, ",{name}=\"{}\"", escape(value));
    }
    labels
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::table;

    #[test]
    fn a_counter_a_gauge_and_a_histogram_in_both_formats() {
        let mut snapshot = Snapshot::new("a\"b", 0, 1);
        snapshot.number(&table::LAG, &["write", "0"], 1.5);
        snapshot.number(&table::JOURNAL_WRITTEN, &[], 7.0);
        let histogram = Distribution { count: 3, sum: 0.5, offset: -9, buckets: vec![1, 2] };
        snapshot.histogram(&table::TICK_TO_ACK, &[], histogram);
        let plain = text(&snapshot, Format::Text);
        for line in [
            "# TYPE barline_stage_lag_seconds gauge",
            "barline_stage_lag_seconds{topology=\"a\\\"b\",instance=\"0\",stage=\"write\"} 1.5",
            "# TYPE barline_journal_written_bytes_total counter",
            "barline_journal_written_bytes_total{topology=\"a\\\"b\"} 7",
            "barline_tick_ack_delay_seconds_bucket{topology=\"a\\\"b\",le=\"0.25\"} 0",
            "barline_tick_ack_delay_seconds_bucket{topology=\"a\\\"b\",le=\"1.0\"} 3",
            "barline_tick_ack_delay_seconds_bucket{topology=\"a\\\"b\",le=\"+Inf\"} 3",
            "barline_tick_ack_delay_seconds_sum{topology=\"a\\\"b\"} 0.5",
        ] {
            assert!(plain.lines().any(|found| found == line), "{line} is not in\n{plain}");
        }
        let open = text(&snapshot, Format::OpenMetrics);
        assert!(open.contains("# TYPE barline_journal_written_bytes counter\n") && open.ends_with("# EOF\n"), "{open}");
    }

    #[test]
    fn a_scraper_gets_the_format_it_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!([prometheus, "*/*", ""].map(Format::asked_for), [Format::OpenMetrics, Format::Text, Format::Text]);
    }
}
