//! Bars and ticks as JSON: the one shape that HTTP replies and `barline query --format json` share.
//!
//! Every time stands twice, as integer nanoseconds and as RFC 3339. Numbers that JSON cannot say (NaN, infinities) are
//! `null`; a metric that no tick of the window carried is left out.

use std::collections::{BTreeMap, HashMap};

use barline_proto::barline::value::Kind;
use barline_proto::barline::{Bar, Tick, Value};
use serde::Serialize;

use super::when::rfc3339;

/// A bar.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct BarJson<'a> {
    pub spec: &'a str,
    pub dimensions: BTreeMap<&'a str, &'a str>,
    pub granularity: &'a str,
    pub start_ns: i64,
    pub start: String,
    pub end_ns: i64,
    pub end: String,
    pub metrics: BTreeMap<&'a str, Number>,
    pub first_ns: i64,
    pub first: String,
    pub last_ns: i64,
    pub last: String,
    pub tick_count: u64,
    pub late_count: u64,
    pub revision: u32,
    pub partial: bool,
    pub overflow: bool,
    pub redefined: bool,
}

/// A tick.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct TickJson<'a> {
    pub dimensions: BTreeMap<&'a str, &'a str>,
    pub timestamp_ns: i64,
    pub timestamp: String,
    pub sequence: u32,
    pub fields: BTreeMap<&'a str, Number>,
}

/// A number in its own type.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Number {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Float(f64),
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(v) => v.fmt(f),
            Self::Uint(v) => v.fmt(f),
            Self::Float(v) => v.fmt(f),
        }
    }
}

impl<'a> From<&'a Bar> for BarJson<'a> {
    fn from(bar: &'a Bar) -> Self {
        Self {
            spec: &bar.spec,
            dimensions: dimensions(&bar.dimensions),
            granularity: &bar.granularity,
            start_ns: bar.start_ns,
            start: rfc3339(bar.start_ns),
            end_ns: bar.end_ns,
            end: rfc3339(bar.end_ns),
            metrics: numbers(&bar.metrics),
            first_ns: bar.first_ns,
            first: rfc3339(bar.first_ns),
            last_ns: bar.last_ns,
            last: rfc3339(bar.last_ns),
            tick_count: bar.tick_count,
            late_count: bar.late_count,
            revision: bar.revision,
            partial: bar.partial,
            overflow: bar.overflow,
            redefined: bar.redefined,
        }
    }
}

impl<'a> From<&'a Tick> for TickJson<'a> {
    fn from(tick: &'a Tick) -> Self {
        Self {
            dimensions: dimensions(&tick.dimensions),
            timestamp_ns: tick.timestamp_ns,
            timestamp: rfc3339(tick.timestamp_ns),
            sequence: tick.sequence,
            fields: numbers(&tick.fields),
        }
    }
}

/// Dimensions by name.
pub fn dimensions(dimensions: &HashMap<String, String>) -> BTreeMap<&str, &str> {
    dimensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Values by name; those without a kind are left out.
pub fn numbers(values: &HashMap<String, Value>) -> BTreeMap<&str, Number> {
    values.iter().filter_map(|(name, value)| Some((name.as_str(), number(value)?))).collect()
}

fn number(value: &Value) -> Option<Number> {
    Some(match value.kind? {
        Kind::Int(v) => Number::Int(v),
        Kind::Uint(v) => Number::Uint(v),
        Kind::Float(v) => Number::Float(v),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_type_and_what_json_cannot_say_is_null() {
        let value = |kind| Value { kind: Some(kind) };
        let values = HashMap::from([
            ("a".to_owned(), value(Kind::Uint(u64::MAX))),
            ("b".to_owned(), value(Kind::Int(-1))),
            ("c".to_owned(), value(Kind::Float(0.5))),
            ("d".to_owned(), value(Kind::Float(f64::NAN))),
            ("e".to_owned(), Value { kind: None }),
        ]);
        let text = serde_json::to_string(&numbers(&values)).unwrap();
        assert_eq!(text, r#"{"a":18446744073709551615,"b":-1,"c":0.5,"d":null}"#);
    }
}
