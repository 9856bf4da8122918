//! `json`: one object per bar, as `docs/bar.schema.json` describes it.
//!
//! Times are integer nanoseconds since 1970. A metric that no tick of the window carried is left out; a number JSON cannot
//! say (NaN, infinities) is `null`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Outgoing, bar_id};
use crate::model::Value;

#[derive(Serialize)]
struct Bar<'a> {
    id: String,
    series: &'a str,
    dimensions: BTreeMap<&'a str, &'a str>,
    granularity: &'a str,
    start_ns: i64,
    end_ns: i64,
    metrics: BTreeMap<&'a str, Number>,
    first_ns: i64,
    last_ns: i64,
    tick_count: u64,
    late_count: u64,
    revision: u32,
    /// Whether sums and counts say only what was added since the revision before.
    increment: bool,
    flags: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Number {
    Int(i64),
    Uint(u64),
    Float(f64),
}

/// Appends `bar`.
pub fn write(bar: &Outgoing<'_>, out: &mut Vec<u8>) {
    let head = bar.head;
    let object = Bar {
        id: bar_id(bar),
        series: &bar.spec.name,
        dimensions: bar.key.dimensions().collect(),
        granularity: bar.granularity(),
        start_ns: head.start,
        end_ns: bar.end(),
        metrics: bar.present().map(|(metric, value)| (metric.name.as_str(), number(value))).collect(),
        first_ns: head.first,
        last_ns: head.last,
        tick_count: bar.ticks(),
        late_count: head.late,
        revision: head.revision,
        increment: bar.previous.is_some(),
        flags: bar.flags().collect(),
    };
    // Writing plain values into memory does not fail; were it to, the record would be empty rather than wrong.
    let start = out.len();
    if serde_json::to_writer(&mut *out, &object).is_err() {
        out.truncate(start);
    }
}

fn number(value: Value) -> Number {
    match value {
        Value::Int(value) => Number::Int(value),
        Value::Uint(value) => Number::Uint(value),
        Value::Float(value) => Number::Float(value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::super::testing::{Sample, sample, samples};
    use super::*;

    const SCHEMA: &str = include_str!("../../../docs/bar.schema.json");

    fn written(sample: &Sample) -> Json {
        let mut out = Vec::new();
        write(&sample.outgoing(), &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    /// Holds `value` against the words of JSON Schema that the file uses.
    fn check(schema: &Json, value: &Json, place: &str) -> Result<(), String> {
        let kinds: Vec<_> = match &schema["type"] {
            Json::String(kind) => vec![kind.as_str()],
            Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).collect(),
            _ => return Err(format!("{place}: the schema names no type")),
        };
        let is = |kind: &&str| match *kind {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "null" => value.is_null(),
            _ => false,
        };
        if !kinds.iter().any(is) {
            return Err(format!("{place}: {value} is none of {kinds:?}"));
        }
        let allowed = schema["enum"].as_array();
        if allowed.is_some_and(|allowed| !allowed.contains(value)) {
            return Err(format!("{place}: {value} is not allowed"));
        }
        for item in value.as_array().into_iter().flatten() {
            check(&schema["items"], item, place)?;
        }
        let Some(object) = value.as_object() else { return Ok(()) };
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            object.get(name).ok_or_else(|| format!("{place}: {name} is missing"))?;
        }
        for (name, inner) in object {
            let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
            check(schema, inner, &format!("{place}/{name}"))?;
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn every_bar_is_as_the_schema_says(sample in samples()) {
            let schema = serde_json::from_str(SCHEMA).unwrap();
            prop_assert_eq!(check(&schema, &written(&sample), ""), Ok(()));
        }
    }

    #[test]
    fn the_schema_refuses_what_is_no_bar() {
        let schema = serde_json::from_str(SCHEMA).unwrap();
        for (name, wrong) in [("revision", Json::from("1")), ("flags", Json::from(vec!["odd"])), ("extra", Json::Null)]
        {
            let mut bar = written(&sample());
            bar[name] = wrong;
            assert!(check(&schema, &bar, "").is_err(), "{name}");
        }
    }

    #[test]
    fn the_object_is_readable() {
        let bar = written(&sample());
        assert_eq!(bar["id"], "market_ticks/1s/1700000000000000000/symbol=AAPL");
        assert_eq!(bar["metrics"]["volume"], 450);
        assert_eq!((&bar["increment"], &bar["tick_count"]), (&Json::Bool(false), &Json::from(5)));
    }
}
