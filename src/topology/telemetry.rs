//! The `telemetry` block: what is pushed where, and how many batches are traced.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::kind::{ConfigNode, Parse, ParsedConfig};
use super::otlp::{CollectorPlan, Compression, Otlp, Protocol, Signal, URL_ALLOWED, is_url};
use crate::model::DurationNs;
use crate::model::time::{MINUTE, SECOND};
use crate::spec::Problem;
use crate::spec::decode::At;
use crate::spec::units::DurationText;
use crate::spec::yaml::{Node, Sources};

/// Without a word about it one batch of a thousand is traced, where traces are pushed at all.
const SAMPLE: f64 = 0.001;
/// How often metrics are pushed: OpenTelemetry's own default.
const EVERY: DurationNs = MINUTE;

/// The block as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTelemetry {
    /// Where metrics, traces and logs are pushed.
    pub otlp: Option<WrittenOtlp>,
    /// How many batches are traced.
    pub traces: Option<WrittenTraces>,
    /// The topic that metrics go to; read by whoever sends them.
    pub kafka: Option<IgnoredAny>,
}

/// The `otlp` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenOtlp {
    /// The collector's URL.
    pub endpoint: Option<At<String>>,
    /// `grpc` or `http/protobuf`.
    pub protocol: Option<At<String>>,
    /// What is pushed: all there is, where nothing is named.
    pub signals: Option<Vec<At<String>>>,
    /// How often metrics are pushed.
    pub every: Option<At<DurationText>>,
    /// How long a push may take.
    pub timeout: Option<At<DurationText>>,
    /// `none` or `gzip`.
    pub compression: Option<At<String>>,
    /// Who signed the collector's certificate.
    pub ca: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// The `traces` block.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenTraces {
    /// The share of batches.
    pub sample: Option<At<f64>>,
}

/// What is pushed where.
#[derive(Debug, Clone)]
pub struct TelemetryPlan {
    /// What is said of all collectors.
    pub otlp: Otlp,
    /// What is said of a signal's collector alone, in the order of [`Signal::ALL`].
    pub own: [Otlp; 3],
    /// Whether a signal is pushed, in that order.
    pub pushed: [bool; 3],
    /// How often metrics are pushed.
    pub every: DurationNs,
    /// The share of batches that are traced, 0 to 1.
    pub sample: f64,
    /// `service.name` of what is pushed.
    pub service: String,
    /// Further attributes of the resource that is pushed about.
    pub resource: Vec<(String, String)>,
    /// The topic that metrics go to, as whoever sends them understands it.
    pub kafka: Option<ParsedConfig>,
}

impl Default for TelemetryPlan {
    fn default() -> Self {
        Self {
            otlp: Otlp::default(),
            own: Default::default(),
            pushed: [true; 3],
            every: EVERY,
            sample: SAMPLE,
            service: "barline".to_owned(),
            resource: Vec::new(),
            kafka: None,
        }
    }
}

impl TelemetryPlan {
    /// Where `signal` is pushed to, if it is.
    pub fn collector(&self, signal: Signal) -> Option<CollectorPlan> {
        let of = signal as usize;
        self.pushed[of].then(|| CollectorPlan::of(signal, &self.own[of], &self.otlp)).flatten()
    }

    /// The most memory that what is pushed takes, in bytes.
    pub fn memory(&self) -> u64 {
        self.kafka.as_ref().map_or(0, |kafka| kafka.facts.memory)
    }

    /// What is written in `root`, decoded as `written`, with its defaults; `exporter` reads the `kafka` block.
    pub(super) fn of(
        root: &Node,
        written: Option<&WrittenTelemetry>,
        exporter: Parse,
        sources: &Arc<Sources>,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let mut plan = Self::default();
        let Some(written) = written else { return plan };
        if let Some(otlp) = &written.otlp {
            plan.read(otlp, sources, problems);
        }
        if let Some(At { value, place }) = written.traces.as_ref().and_then(|traces| traces.sample.as_ref()) {
            if !(0.0..=1.0).contains(value) {
                let problem = Problem::new(format!("{value} is no share of batches")).allowed("0 to 1");
                problems.push(sources.at(*place, problem));
            }
            plan.sample = *value;
        }
        if let Some(node) = root.get("telemetry").and_then(|telemetry| telemetry.get("kafka")) {
            match exporter(&ConfigNode::new(node.clone(), sources.clone())) {
                Ok(config) => plan.kafka = Some(config),
                Err(wrong) => problems.extend(wrong),
            }
        }
        plan
    }

    fn read(&mut self, written: &WrittenOtlp, sources: &Sources, problems: &mut Vec<Problem>) {
        let mut report = |place, problem| problems.push(sources.at(place, problem));
        for At { value, place } in [&written.every, &written.timeout].into_iter().flatten() {
            if value.0 < SECOND {
                report(*place, Problem::new("too short a time for a push").allowed("1s or longer"));
            }
        }
        self.every = written.every.as_ref().map_or(self.every, |every| every.value.0);
        self.otlp.timeout = written.timeout.as_ref().map(|timeout| timeout.value.0);
        if let Some(At { value, place }) = &written.protocol {
            self.otlp.protocol = Protocol::parse(value);
            if self.otlp.protocol.is_none() {
                report(*place, Problem::unknown_value("protocol", value, Protocol::NAMES));
            }
        }
        if let Some(At { value, place }) = &written.compression {
            self.otlp.compression = Compression::parse(value);
            if self.otlp.compression.is_none() {
                report(*place, Problem::unknown_value("compression", value, Compression::NAMES));
            }
        }
        if let Some(At { value, place }) = &written.endpoint {
            if !is_url(value) {
                report(*place, Problem::new(format!("cannot push to the endpoint {value:?}")).allowed(URL_ALLOWED));
            }
            self.otlp.endpoint = Some(value.clone());
        }
        if let Some(signals) = &written.signals {
            self.pushed = [false; 3];
            for At { value, place } in signals {
                match Signal::parse(value) {
                    Some(signal) => self.pushed[signal as usize] = true,
                    None => report(*place, Problem::unknown_value("signals", value, Signal::NAMES)),
                }
            }
        }
        self.otlp.tls.ca.clone_from(&written.ca);
        self.otlp.tls.certificate.clone_from(&written.certificate);
        self.otlp.tls.key.clone_from(&written.key);
    }
}
