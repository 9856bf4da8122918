//! All figures at one moment: what every exporter, the page, `top` and `doctor` read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::distribution::Distribution;
use super::table::{Instrument, Kind, TABLE};
use crate::model::TimeNs;

/// Every family, in the table's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken, in nanoseconds since the Unix epoch.
    pub at_ns: TimeNs,
    /// When the process started.
    pub started_ns: TimeNs,
    /// The topology's name.
    pub topology: String,
    /// The instruments, each with its points; also those that have none.
    pub families: Vec<Family>,
}

/// One instrument and its points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// See [`Instrument`].
    pub name: String,
    /// See [`Instrument`].
    pub unit: String,
    /// See [`Instrument`].
    pub description: String,
    /// See [`Instrument`].
    pub kind: Kind,
    /// One for every combination of attributes that occurs.
    pub points: Vec<Point>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// What it is about, without the topology.
    pub attributes: BTreeMap<String, String>,
    /// `value` or `histogram`.
    #[serde(flatten)]
    pub value: Value,
}

/// A figure's value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Of a counter or gauge.
    #[serde(rename = "value")]
    Number(f64),
    /// Of a histogram.
    #[serde(rename = "histogram")]
    Histogram(Distribution),
}

impl Snapshot {
    /// Every family, without points.
    pub fn new(topology: &str, started_ns: TimeNs, at_ns: TimeNs) -> Self {
        let family = |instrument: &Instrument| Family {
            name: instrument.name.to_owned(),
            unit: instrument.unit.to_owned(),
            description: instrument.description.to_owned(),
            kind: instrument.kind,
            points: Vec::new(),
        };
        Self { at_ns, started_ns, topology: topology.to_owned(), families: TABLE.iter().map(family).collect() }
    }

    /// Adds a number; `values` are those of the instrument's attributes, in its order.
    pub fn number(&mut self, instrument: &Instrument, values: &[&str], number: f64) {
        self.add(instrument, values, Value::Number(number));
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, instrument: &Instrument, values: &[&str], histogram: Distribution) {
        self.add(instrument, values, Value::Histogram(histogram));
    }

    fn add(&mut self, instrument: &Instrument, values: &[&str], value: Value) {
        debug_assert_eq!(instrument.attributes.len(), values.len(), "{}", instrument.name);
        let attributes = instrument.attributes.iter().zip(values);
        let attributes = attributes.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if let Some(family) = self.families.iter_mut().find(|family| family.name == instrument.name) {
            family.points.push(Point { attributes, value });
        }
    }

    /// Goes on from the figures of the generation before: what only grows is added to, but for the instruments that
    /// `continued` names, which have gone on by themselves. What is not there any more is left out.
    pub fn go_on_from(&mut self, before: &Self, continued: &[Instrument]) {
        let grows = |family: &&mut Family| {
            family.kind != Kind::Gauge && !continued.iter().any(|instrument| instrument.name == family.name)
        };
        for family in self.families.iter_mut().filter(grows) {
            let Some(known) = before.families.iter().find(|known| known.name == family.name) else { continue };
            for point in &mut family.points {
                let earlier = known.points.iter().find(|earlier| earlier.attributes == point.attributes);
                match (&mut point.value, earlier.map(|earlier| &earlier.value)) {
                    (Value::Number(number), Some(Value::Number(earlier))) => *number += earlier,
                    (Value::Histogram(histogram), Some(Value::Histogram(earlier))) => {
                        *histogram = histogram.plus(earlier);
                    }
                    _ => {}
                }
            }
        }
    }

    /// The points of an instrument.
    pub fn points(&self, instrument: &Instrument) -> &[Point] {
        self.families.iter().find(|family| family.name == instrument.name).map_or(&[], |family| &family.points)
    }

    /// The number of the point with exactly these attributes.
    pub fn get(&self, instrument: &Instrument, attributes: &[(&str, &str)]) -> Option<f64> {
        self.points(instrument).iter().find(|point| point.is_about(attributes))?.as_number()
    }

    /// The histogram of the point with exactly these attributes.
    pub fn distribution(&self, instrument: &Instrument, attributes: &[(&str, &str)]) -> Option<&Distribution> {
        match &self.points(instrument).iter().find(|point| point.is_about(attributes))?.value {
            Value::Histogram(histogram) => Some(histogram),
            Value::Number(_) => None,
        }
    }
}

impl Point {
    /// Its number; `None` for a histogram.
    pub fn as_number(&self) -> Option<f64> {
        match self.value {
            Value::Number(number) => Some(number),
            Value::Histogram(_) => None,
        }
    }

    fn is_about(&self, attributes: &[(&str, &str)]) -> bool {
        let has = |(name, value): &(&str, &str)| self.attributes.get(*name).is_some_and(|found| found == value);
        self.attributes.len() == attributes.len() && attributes.iter().all(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::table;

    #[test]
    fn what_only_grows_goes_on_from_the_generation_before() {
        let snapshot = |batches: f64, lag: f64, accepted: f64| {
            let mut snapshot = Snapshot::new("edge", 1, 2);
            snapshot.number(&table::BATCHES, &["write", "0", "in"], batches);
            snapshot.number(&table::LAG, &["write", "0"], lag);
            snapshot.number(&table::ACCEPTED, &["a"], accepted);
            snapshot
        };
        let mut now = snapshot(3.0, 1.0, 10.0);
        now.number(&table::BATCHES, &["new", "0", "in"], 1.0);
        now.go_on_from(&snapshot(4.0, 2.0, 9.0), &[table::ACCEPTED]);
        let mut wanted = snapshot(7.0, 1.0, 10.0);
        wanted.number(&table::BATCHES, &["new", "0", "in"], 1.0);
        assert_eq!(now, wanted);
    }

    #[test]
    fn a_snapshot_goes_through_json_unchanged_and_its_points_are_found() {
        let mut snapshot = Snapshot::new("edge", 1, 2);
        snapshot.number(&table::LAG, &["write", "0"], 1.5);
        let histogram = Distribution { count: 1, sum: 0.5, offset: -9, buckets: vec![1] };
        snapshot.histogram(&table::QUEUE, &["write", "0"], histogram.clone());
        let json = serde_json::to_string(&snapshot).unwrap();
        assert!(json.contains(r#"{"attributes":{"instance":"0","stage":"write"},"value":1.5}"#), "{json}");
        let read: Snapshot = serde_json::from_str(&json).unwrap();
        assert_eq!(read, snapshot);
        let write = [("stage", "write"), ("instance", "0")];
        assert_eq!((read.get(&table::LAG, &write), read.get(&table::LAG, &[])), (Some(1.5), None));
        assert_eq!(read.distribution(&table::QUEUE, &write), Some(&histogram));
    }
}
