//! From a written spec to what it means: every rule of a spec file, each broken one a problem.

use crate::model::series::{MAX_DIMENSIONS, MAX_NAME_BYTES};
use crate::model::time::{DAY, MICROSECOND, MILLISECOND, SECOND};
use crate::model::{DurationNs, SpecId};

use super::decode::{At, decode};
use super::metrics::{self, Resolved};
use super::units::{DURATION_ALLOWED, format_duration, parse_duration};
use super::written::{
    WrittenCardinality, WrittenGranularity, WrittenKafka, WrittenRetention, WrittenSpec, WrittenWindow,
};
use super::yaml::{Node, Place, Sources};
use super::{
    Cardinality, CardinalityOverflow, Granularity, KafkaOutput, LatePolicy, Problem, Retention, Spec,
    UnknownDimensions, WindowRules,
};

/// How many window lengths may stand above the rollup.
const MAX_CASCADES: usize = 3;
/// Tick retention unless said otherwise.
const TICKS_KEPT: DurationNs = DAY;
/// Bar retention unless said otherwise.
const BARS_KEPT: DurationNs = 7 * DAY;

/// A spec and where its name stands, for whoever finds the name taken.
pub struct Compiled {
    /// The spec, not numbered yet.
    pub spec: Spec,
    /// The place of its `series`.
    pub name_at: Place,
}

/// Compiles the spec file parsed as `root`; `None` when `problems` got longer.
pub fn compile(root: &Node, sources: &Sources, problems: &mut Vec<Problem>) -> Option<Compiled> {
    let before = problems.len();
    let written: WrittenSpec = decode(root, sources, problems)?;
    let mut check = Check { sources, problems };
    let compiled = check.spec(root, written);
    compiled.filter(|_| problems.len() == before)
}

/// The checks of one file, with the list that what they find goes to.
pub(super) struct Check<'a> {
    sources: &'a Sources,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    /// Notes a problem.
    pub(super) fn report(&mut self, place: Place, problem: Problem) {
        self.problems.push(self.sources.at(place, problem));
    }

    /// The value `written` stands for, one of `known`.
    pub(super) fn choose<T: Copy>(&mut self, key: &str, written: &At<String>, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(name, _)| *name == written.value);
        if found.is_none() {
            let names = known.iter().map(|(name, _)| *name);
            self.report(written.place, Problem::unknown_value(key, &written.value, names));
        }
        found.map(|(_, value)| *value)
    }

    /// Checks a name that ticks or bars carry.
    pub(super) fn name(&mut self, what: &str, name: &At<String>) {
        let bytes = name.value.len();
        if bytes == 0 {
            self.report(name.place, Problem::new(format!("an empty {what} name")).remedy("give it a name"));
        } else if bytes > MAX_NAME_BYTES {
            let problem = Problem::new(format!("a {what} name of {bytes} bytes"));
            self.report(name.place, problem.allowed(format!("at most {MAX_NAME_BYTES} bytes")));
        }
    }

    fn spec(&mut self, root: &Node, written: WrittenSpec) -> Option<Compiled> {
        let name = self.series(root, written.series.as_ref());
        let precision = self.precision(&written);
        let dimensions = self.dimensions(&written);
        let policies = [("accept", UnknownDimensions::Accept), ("reject", UnknownDimensions::Reject)];
        let unknown = self.optional("unknown_dimensions", written.unknown_dimensions.as_ref(), &policies);
        let Resolved { fields, metrics, accumulators } = metrics::resolve(self, root, written.metrics);
        let granularities = self.granularities(root, written.granularity.as_ref());
        let name = name?;
        let spec = Spec {
            id: SpecId::default(),
            name: name.value.clone(),
            precision,
            dimensions,
            unknown_dimensions: unknown.unwrap_or(UnknownDimensions::Accept),
            fields,
            metrics,
            accumulators,
            granularities,
            window: self.window(&written.window.unwrap_or_default()),
            retention: self.retention(&written.retention.unwrap_or_default()),
            cardinality: self.cardinality(&written.cardinality.unwrap_or_default()),
            kafka: written.output.and_then(|output| output.kafka).and_then(|kafka| self.kafka(kafka)),
        };
        Some(Compiled { spec, name_at: name.place })
    }

    fn series<'s>(&mut self, root: &Node, series: Option<&'s At<String>>) -> Option<&'s At<String>> {
        const ALLOWED: &str = "1 to 120 of A-Z a-z 0-9 _ . -";
        let Some(name) = series else {
            if root.get("series").is_none_or(|node| node.value == super::yaml::Yaml::Null) {
                let problem = Problem::new("`series`, the spec's name, is missing").allowed(ALLOWED);
                self.report(root.place, problem.remedy("add `series: my_series`"));
            }
            return None;
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.value.is_empty() || name.value.len() > 120 || !name.value.chars().all(legal) {
            self.report(name.place, Problem::new(format!("spec name {:?}", name.value)).allowed(ALLOWED));
        }
        Some(name)
    }

    fn precision(&mut self, written: &WrittenSpec) -> DurationNs {
        let units = [("nanosecond", 1), ("microsecond", MICROSECOND), ("millisecond", MILLISECOND), ("second", SECOND)];
        let Some(timestamp) = &written.timestamp else { return 1 };
        if let Some(field) = &timestamp.field {
            self.name("timestamp field", field);
        }
        self.optional("precision", timestamp.precision.as_ref(), &units).unwrap_or(1)
    }

    fn dimensions(&mut self, written: &WrittenSpec) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (index, At { value: dimension, place }) in written.dimensions.iter().enumerate() {
            if index == MAX_DIMENSIONS {
                let problem = Problem::new(format!("{} dimensions", written.dimensions.len()));
                self.report(*place, problem.allowed(format!("at most {MAX_DIMENSIONS}")));
                break;
            }
            self.name("dimension", &dimension.name);
            if let Some(ty) = &dimension.ty {
                self.choose("type", ty, &[("string", ())]);
            }
            if names.contains(&dimension.name.value) {
                let problem = Problem::new(format!("dimension `{}` is declared twice", dimension.name.value));
                self.report(dimension.name.place, problem.remedy("remove or rename one of them"));
            }
            names.push(dimension.name.value.clone());
        }
        names
    }

    fn granularities(&mut self, root: &Node, written: Option<&At<WrittenGranularity>>) -> Vec<Granularity> {
        let Some(At { value: written, .. }) = written else {
            if root.get("granularity").is_none() {
                let problem = Problem::new("`granularity`, the window length, is missing");
                self.report(root.place, problem.remedy("add `granularity: {rollup: 1s}`"));
            }
            return Vec::new();
        };
        let mut lengths: Vec<Granularity> = Vec::new();
        for (index, text) in std::iter::once(&written.rollup).chain(&written.cascade).enumerate() {
            if index == MAX_CASCADES + 1 {
                let problem = Problem::new(format!("{} cascades", written.cascade.len()));
                self.report(text.place, problem.allowed(format!("at most {MAX_CASCADES}")));
            }
            let Some(length) = self.duration(text, 1, "longer than 0s") else { continue };
            if let Some(finer) = lengths.last().filter(|finer| length <= finer.length || length % finer.length != 0) {
                let problem = Problem::new(format!("cascade {} is no multiple of {}", text.value, finer.name));
                let allowed = format!("2, 3, 4 … times {}", format_duration(finer.length));
                self.report(text.place, problem.allowed(allowed));
            }
            lengths.push(Granularity { name: text.value.clone(), length });
        }
        lengths
    }

    fn window(&mut self, written: &WrittenWindow) -> WindowRules {
        let policies =
            [("amend", LatePolicy::Amend), ("drop", LatePolicy::Drop), ("side_output", LatePolicy::SideOutput)];
        let mut span = |text: &Option<At<String>>, least, default| {
            let allowed = if least > 0 { "longer than 0s" } else { "0s or longer" };
            text.as_ref().and_then(|text| self.duration(text, least, allowed)).unwrap_or(default)
        };
        WindowRules {
            wait: span(&written.wait, 0, 200 * MILLISECOND),
            idle: span(&written.idle, 1, SECOND),
            max_ahead: span(&written.max_ahead, 0, 10 * SECOND),
            late: self.optional("late", written.late.as_ref(), &policies).unwrap_or(LatePolicy::Amend),
        }
    }

    /// Bars outlive ticks, so that every tick still kept can be found in a bar; a default gives way to what is
    /// written.
    fn retention(&mut self, written: &WrittenRetention) -> Retention {
        let ticks = written.ticks.as_ref().and_then(|text| self.duration(text, 1, "longer than 0s"));
        let bars = written.bars.as_ref().and_then(|text| self.duration(text, 1, "longer than 0s"));
        if let (Some(ticks), Some(bars), Some(text)) = (ticks, bars, &written.bars)
            && bars < ticks
        {
            let problem = Problem::new(format!("bars are kept for {}, shorter than ticks", text.value));
            let ticks = format_duration(ticks);
            self.report(text.place, problem.allowed(format!("{ticks} or longer")).remedy("keep bars at least as long"));
        }
        Retention {
            ticks: ticks.unwrap_or(TICKS_KEPT.min(bars.unwrap_or(TICKS_KEPT))),
            bars: bars.unwrap_or(BARS_KEPT.max(ticks.unwrap_or(0))),
        }
    }

    fn cardinality(&mut self, written: &WrittenCardinality) -> Cardinality {
        let policies = [("reject", CardinalityOverflow::Reject), ("fold", CardinalityOverflow::Fold)];
        if let Some(limit) = written.limit.as_ref().filter(|limit| limit.value == 0) {
            self.report(limit.place, Problem::new("a cardinality limit of 0").allowed("1 to 4294967295 series"));
        }
        Cardinality {
            limit: written.limit.as_ref().map_or(1_000_000, |limit| limit.value),
            overflow: self
                .optional("overflow", written.overflow.as_ref(), &policies)
                .unwrap_or(CardinalityOverflow::Reject),
        }
    }

    fn kafka(&mut self, written: WrittenKafka) -> Option<KafkaOutput> {
        let same = |names: [&'static str; 3]| names.map(|name| (name, name));
        // Early tikr spec files call OTLP "proto".
        let encodings = [("otlp", "otlp"), ("tikr", "tikr"), ("json", "json"), ("proto", "otlp")];
        let encoding = self.optional("encoding", written.encoding.as_ref(), &encodings);
        let on_failure = self.optional("on_failure", written.on_failure.as_ref(), &same(["spool", "block", "drop"]));
        let topic = written.topic.filter(|topic| !topic.value.is_empty())?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if topic.value.len() > 249 || !topic.value.chars().all(legal) || matches!(topic.value.as_str(), "." | "..") {
            let problem = Problem::new(format!("topic name {:?}", topic.value));
            self.report(topic.place, problem.allowed("1 to 249 of A-Z a-z 0-9 _ . -"));
        }
        Some(KafkaOutput {
            topic: topic.value,
            encoding: encoding.map(str::to_owned),
            on_failure: on_failure.map(str::to_owned),
        })
    }

    /// [`Check::choose`] for a key that may be left out.
    fn optional<T: Copy>(&mut self, key: &str, written: Option<&At<String>>, known: &[(&str, T)]) -> Option<T> {
        written.and_then(|written| self.choose(key, written, known))
    }

    /// A span of time of at least `least`, which `allowed` says in words.
    fn duration(&mut self, text: &At<String>, least: DurationNs, allowed: &str) -> Option<DurationNs> {
        let Some(span) = parse_duration(&text.value) else {
            let problem = Problem::new(format!("`{}` is no span of time", text.value));
            self.report(text.place, problem.allowed(DURATION_ALLOWED));
            return None;
        };
        if span < least {
            self.report(text.place, Problem::new(format!("a span of {}", text.value)).allowed(allowed));
            return None;
        }
        Some(span)
    }
}
