//! The `telemetry` block: what is pushed where, and how many batches are traced.

use serde::Deserialize;

use crate::model::DurationNs;
use crate::model::time::{MINUTE, SECOND};
use crate::spec::Problem;
use crate::spec::decode::At;
use crate::spec::units::DurationText;
use crate::spec::yaml::Sources;

/// Without a word about it one batch of a thousand is traced, where traces are pushed at all.
const SAMPLE: f64 = 0.001;
/// How often metrics are pushed: OpenTelemetry's own default.
const EVERY: DurationNs = MINUTE;
/// How long a push may take.
const TIMEOUT: DurationNs = 10 * SECOND;

/// The block as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTelemetry {
    /// Where metrics and traces are pushed.
    pub otlp: Option<WrittenOtlp>,
    /// How many batches are traced.
    pub traces: Option<WrittenTraces>,
}

/// The `otlp` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenOtlp {
    /// The collector's URL.
    pub endpoint: Option<At<String>>,
    /// `grpc` or `http/protobuf`.
    pub protocol: Option<At<String>>,
    /// How often metrics are pushed.
    pub every: Option<At<DurationText>>,
    /// How long a push may take.
    pub timeout: Option<At<DurationText>>,
}

/// The `traces` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTraces {
    /// The share of batches.
    pub sample: Option<At<f64>>,
}

/// What is pushed where.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryPlan {
    /// The collector, where the topology names one.
    pub endpoint: Option<String>,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Headers of every push.
    pub headers: Vec<(String, String)>,
    /// How often metrics are pushed.
    pub every: DurationNs,
    /// How long a push may take.
    pub timeout: DurationNs,
    /// The share of batches that are traced, 0 to 1.
    pub sample: f64,
    /// `service.name` of what is pushed.
    pub service: String,
    /// Further attributes of the resource that is pushed about.
    pub resource: Vec<(String, String)>,
}

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP as protobuf over HTTP.
    Http,
}

impl Protocol {
    /// The names, as OpenTelemetry has them.
    pub const NAMES: [&str; 2] = ["grpc", "http/protobuf"];

    /// The protocol of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "grpc" => Some(Self::Grpc),
            "http/protobuf" => Some(Self::Http),
            _ => None,
        }
    }
}

impl Default for TelemetryPlan {
    fn default() -> Self {
        Self {
            endpoint: None,
            protocol: Protocol::Http,
            headers: Vec::new(),
            every: EVERY,
            timeout: TIMEOUT,
            sample: SAMPLE,
            service: "barline".to_owned(),
            resource: Vec::new(),
        }
    }
}

impl TelemetryPlan {
    /// What is written, with its defaults.
    pub(super) fn of(written: Option<&WrittenTelemetry>, sources: &Sources, problems: &mut Vec<Problem>) -> Self {
        let mut plan = Self::default();
        let mut report = |place, problem| problems.push(sources.at(place, problem));
        let Some(written) = written else { return plan };
        if let Some(otlp) = &written.otlp {
            for (span, into) in [(&otlp.every, &mut plan.every), (&otlp.timeout, &mut plan.timeout)] {
                let Some(At { value, place }) = span else { continue };
                if value.0 < SECOND {
                    report(*place, Problem::new("too short a time for a push").allowed("1s or longer"));
                }
                *into = value.0;
            }
            if let Some(At { value, place }) = &otlp.protocol {
                match Protocol::parse(value) {
                    Some(protocol) => plan.protocol = protocol,
                    None => report(*place, Problem::unknown_value("protocol", value, Protocol::NAMES)),
                }
            }
            if let Some(At { value, place }) = &otlp.endpoint {
                if !value.starts_with("http://") {
                    let problem = Problem::new(format!("cannot push to the endpoint {value:?}"));
                    report(*place, problem.allowed("http://HOST:PORT, as in http://127.0.0.1:4318"));
                }
                plan.endpoint = Some(value.clone());
            }
        }
        if let Some(At { value, place }) = written.traces.as_ref().and_then(|traces| traces.sample.as_ref()) {
            if !(0.0..=1.0).contains(value) {
                report(*place, Problem::new(format!("{value} is no share of batches")).allowed("0 to 1"));
            }
            plan.sample = *value;
        }
        plan
    }
}
