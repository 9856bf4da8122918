//! A load profile: what is sent, how fast, and in what disorder, as written in YAML.
//!
//! Strict: an unknown key, an impossible number or two series with the same dimensions is an error before
//! anything is sent.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use crate::{
    dimensions::Dimensions,
    units::{Count, Rate, SECOND, Span},
    values::Maker,
};

/// The most fields a tick may have: one bit each in a tick's `present` mask.
pub const MAX_FIELDS: usize = 16;

/// The profiles that come with the program, by name.
pub const SHIPPED: [(&str, &str); 4] = [
    ("market", include_str!("../profiles/market.yaml")),
    ("network", include_str!("../profiles/network.yaml")),
    ("asic", include_str!("../profiles/asic.yaml")),
    ("host", include_str!("../profiles/host.yaml")),
];

/// One load profile.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// One line for `loadgen profiles`.
    #[serde(default)]
    pub about: String,
    /// The series spec's name on the server.
    pub spec: String,
    /// The spec's finest window, for `--verify`.
    #[serde(default = "one_second")]
    pub window: Span,
    /// The dimensions of a series.
    pub dimensions: Vec<DimensionRule>,
    /// The fields of a tick.
    pub fields: Vec<Field>,
    /// What the spec computes, for `--verify`.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// How many series there are, over all connections.
    pub series: Count,
    /// Zipf exponent of the series' popularity; 0 sends to them in turn.
    #[serde(default)]
    pub skew: f64,
    /// Whether every connection sends to every series, instead of each to its own.
    #[serde(default)]
    pub shared_series: bool,
    /// How fast, over all connections.
    pub rate: Rate,
    /// Ticks per second of *event* time where the rate is `max`.
    #[serde(default = "one_million")]
    pub event_rate: Count,
    /// Regular bursts above `rate`.
    pub burst: Option<Burst>,
    /// Ticks a little older than the ones before them.
    pub disorder: Option<Disorder>,
    /// Ticks so old that their window has been closed.
    pub late: Option<Late>,
    /// Ticks sent twice.
    pub duplicates: Option<Share>,
    /// Ticks that must be rejected: in turn of an unknown series, far in the future, expired.
    pub bad: Option<Share>,
    /// How many connections, each with a thread of its own.
    #[serde(default = "one")]
    pub connections: Count,
    /// The wire.
    #[serde(default)]
    pub protocol: Protocol,
    /// The most ticks in a message.
    #[serde(default = "five_thousand")]
    pub batch: Count,
    /// The longest time a message gathers ticks at a given rate.
    #[serde(default = "twenty_ms")]
    pub linger: Span,
    /// The most unacknowledged batches of a connection, on `barline.v1`.
    #[serde(default = "sixty_four")]
    pub in_flight: Count,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
}

/// How one dimension of a series gets its value. Exactly one of `value` and `values` is given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DimensionRule {
    /// The dimension's name.
    pub name: String,
    /// A template with `{run}` and `{series}`, `{series/N}`, `{series%M}` or `{series/N%M}`.
    pub value: Option<String>,
    /// Values taken in turn, series by series.
    pub values: Option<Vec<String>>,
}

/// One field of a tick.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Its type in the spec.
    #[serde(rename = "type")]
    pub ty: FieldType,
    /// How its values are made.
    pub values: Maker,
    /// Only series whose dimensions have one of these values carry the field.
    #[serde(default)]
    pub when: BTreeMap<String, Vec<String>>,
    /// The share of ticks that lack the field all the same.
    #[serde(default)]
    pub absent: f64,
    /// Values of a float64 field are divided by this on `barline.v1`; `tikr.v1` carries integers only.
    #[serde(default = "unit")]
    pub divisor: f64,
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldType {
    /// Signed 64-bit integer.
    Int64,
    /// Unsigned 64-bit integer.
    Uint64,
    /// IEEE 754 double.
    Float64,
}

/// One metric of the spec.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// The metric's name.
    pub name: String,
    /// The field it reads; none for the count of all ticks.
    pub field: Option<String>,
    /// `first`, `last`, `min`, `max`, `sum`, `count`, `avg`, `stddev` or `pN`.
    pub aggregation: String,
}

/// Bursts: for the first tenth of every period the rate is `factor` times as high.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burst {
    /// The period.
    pub every: Span,
    /// The factor, at least 1.
    pub factor: f64,
}

/// A share of ticks is up to `up_to` older than its place in the stream.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disorder {
    /// The share, 0 to 1.
    pub fraction: f64,
    /// The most, evenly distributed.
    pub up_to: Span,
}

/// A share of ticks is `by` older than its place in the stream.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Late {
    /// The share, 0 to 1.
    pub fraction: f64,
    /// How much.
    pub by: Span,
}

/// A share of ticks.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// The share, 0 to 1.
    pub fraction: f64,
}

/// The wire ticks are sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
pub enum Protocol {
    /// tikr's wire: one message per tick, one reply per stream.
    #[default]
    #[serde(rename = "tikr.v1")]
    #[value(name = "tikr.v1")]
    Tikr,
    /// barline's columnar wire: one acknowledgement per batch.
    #[serde(rename = "barline.v1")]
    #[value(name = "barline.v1")]
    Barline,
}

fn one() -> Count {
    Count(1)
}

fn sixty_four() -> Count {
    Count(64)
}

fn five_thousand() -> Count {
    Count(5_000)
}

fn one_million() -> Count {
    Count(1_000_000)
}

fn one_second() -> Span {
    Span(SECOND)
}

fn twenty_ms() -> Span {
    Span(20_000_000)
}

fn unit() -> f64 {
    1.0
}

impl Protocol {
    /// The name of its gRPC package.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tikr => "tikr.v1",
            Self::Barline => "barline.v1",
        }
    }
}

impl Profile {
    /// Reads the shipped profile `name`, or the file of that name, and applies `key=value` overrides.
    /// The numbers are not checked yet: see [`Profile::check`].
    ///
    /// # Errors
    /// A file that cannot be read, YAML that does not fit, an override that names no key.
    pub fn load(name: &str, overrides: &[String]) -> Result<Self, String> {
        let text = match SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name)).map_err(|e| {
                let shipped: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
                format!("profile {name:?} is no file ({e}) and none of {}", shipped.join(", "))
            })?,
        };
        let profile: Self = yaml(&text).map_err(|e| format!("profile {name}: {e}"))?;
        if overrides.is_empty() { Ok(profile) } else { overridden(name, &text, overrides) }
    }

    /// Checks everything the types cannot.
    ///
    /// # Errors
    /// The first thing that is out of bounds, with what is allowed.
    pub fn check(&self) -> Result<(), String> {
        self.check_numbers()?;
        self.check_fields()?;
        Dimensions::new(self, "R0")?.check_distinct(self.series.0)
    }

    /// The divisor of field `field` on the profile's wire.
    pub fn divisor(&self, field: usize) -> f64 {
        let field = &self.fields[field];
        let whole = self.protocol == Protocol::Tikr || field.ty != FieldType::Float64;
        if whole { 1.0 } else { field.divisor }
    }

    fn check_numbers(&self) -> Result<(), String> {
        within("series", self.series.0, 1, 1 << 24)?;
        within("connections", self.connections.0, 1, 256)?;
        within("batch", self.batch.0, 1, 100_000)?;
        within("in_flight", self.in_flight.0, 1, 65_536)?;
        within("event_rate", self.event_rate.0, 1, SECOND as u64)?;
        within("window in nanoseconds", self.window.0 as u64, 1, 86_400 * SECOND as u64)?;
        if !(0.0..=10.0).contains(&self.skew) {
            return Err(format!("skew {} is out of 0 to 10", self.skew));
        }
        if let Some(burst) = self.burst {
            within("burst.every in nanoseconds", burst.every.0 as u64, 1_000_000, 86_400 * SECOND as u64)?;
            if !(1.0..=1000.0).contains(&burst.factor) {
                return Err(format!("burst.factor {} is out of 1 to 1000", burst.factor));
            }
        }
        if !self.shared_series && self.series.0 < self.connections.0 {
            return Err(format!(
                "{} series cannot be shared out over {} connections, lower `connections` or set `shared_series: true`",
                self.series.0, self.connections.0
            ));
        }
        self.check_shares()
    }

    fn check_shares(&self) -> Result<(), String> {
        let shares = [
            ("disorder", self.disorder.map(|d| d.fraction)),
            ("late", self.late.map(|l| l.fraction)),
            ("duplicates", self.duplicates.map(|d| d.fraction)),
            ("bad", self.bad.map(|b| b.fraction)),
        ];
        for (name, share) in shares {
            if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
                return Err(format!("{name}.fraction {} is out of 0 to 1", share.unwrap_or_default()));
            }
        }
        let sum: f64 = shares.iter().filter_map(|(_, share)| *share).sum();
        if sum > 1.0 {
            return Err(format!(
                "the fractions of disorder, late, duplicates and bad add up to {sum}, at most 1 is allowed"
            ));
        }
        Ok(())
    }

    fn check_fields(&self) -> Result<(), String> {
        within("the number of fields", self.fields.len() as u64, 1, MAX_FIELDS as u64)?;
        for (index, field) in self.fields.iter().enumerate() {
            let place = format!("field {:?}", field.name);
            within(&format!("{place}: the length of the name"), field.name.len() as u64, 1, 100)?;
            if self.fields[..index].iter().any(|other| other.name == field.name) {
                return Err(format!("{place} is there twice, give it another name"));
            }
            if !(0.0..=1.0).contains(&field.absent) {
                return Err(format!("{place}: absent {} is out of 0 to 1", field.absent));
            }
            if !field.divisor.is_finite() || field.divisor <= 0.0 {
                return Err(format!("{place}: divisor {} is not above 0", field.divisor));
            }
            if let Some(other) = field.when.keys().find(|name| !self.dimensions.iter().any(|d| d.name == **name)) {
                return Err(format!("{place}: `when` names {other:?}, which is no dimension of the profile"));
            }
            field.values.check().map_err(|e| format!("{place}: {e}"))?;
            if field.ty == FieldType::Uint64 && field.values.lowest() < 0 {
                return Err(format!("{place}: values below 0 do not fit uint64, raise `min` or use int64"));
            }
        }
        Ok(())
    }
}

/// Reads YAML in which only `true` and `false` are booleans, so that `n` or `off` can be a name or a value.
fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, serde_yaml::Error> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { strict_booleans: true })
}

/// Lays `key=value` pairs over the profile's YAML; a key may be a path as in `disorder.fraction`.
fn overridden(name: &str, text: &str, overrides: &[String]) -> Result<Profile, String> {
    let mut root: serde_json::Value = yaml(text).map_err(|e| format!("profile {name}: {e}"))?;
    for written in overrides {
        let (path, value) = written
            .split_once('=')
            .ok_or_else(|| format!("--set {written}: write it as key=value, as in series=5000"))?;
        let value = yaml(value).map_err(|e| format!("--set {written}: {e}"))?;
        let mut place = &mut root;
        for key in path.split('.') {
            if place.is_null() {
                *place = serde_json::Value::Object(serde_json::Map::new());
            }
            let keys =
                place.as_object_mut().ok_or_else(|| format!("--set {written}: {key:?} is below a plain value"))?;
            place = keys.entry(key).or_insert(serde_json::Value::Null);
        }
        *place = value;
    }
    serde_json::from_value(root).map_err(|e| format!("--set {}: {e}", overrides.join(" --set ")))
}

fn within(what: &str, value: u64, low: u64, high: u64) -> Result<(), String> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(format!("{what} is {value}, {low} to {high} is allowed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_is_sound() {
        for (name, _) in SHIPPED {
            Profile::load(name, &[]).unwrap().check().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn an_override_reaches_a_nested_key_and_a_wrong_one_is_named() {
        let set = |text: &str| Profile::load("market", &[text.to_owned()]);
        let disorder = set("disorder={fraction: 0.25, up_to: 50ms}").unwrap().disorder.unwrap();
        assert_eq!((disorder.fraction, disorder.up_to), (0.25, Span(50_000_000)));
        assert_eq!(set("rate=max").unwrap().rate, Rate::Max);
        assert!(set("late.by=2s").unwrap_err().contains("fraction"));
        assert!(set("colour=red").unwrap_err().contains("colour"));
        assert!(set("series").unwrap_err().contains("key=value"));
    }

    #[test]
    fn impossible_numbers_are_refused_with_what_is_allowed() {
        let check = |text: &str| Profile::load("market", &[text.to_owned()]).unwrap().check().unwrap_err();
        assert!(check("series=0").contains("1 to"));
        assert!(check("late={fraction: 2, by: 1s}").contains("0 to 1"));
        assert!(check("connections=300").contains("1 to 256"));
        assert!(check("series=1").contains("shared_series"));
        assert!(check("burst={every: 10s, factor: 0.5}").contains("1 to 1000"));
    }
}
