//! A small reader of Prometheus' text format, written from its description and knowing nothing of who writes it.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Every sample of `text`; panics where the format is not kept to.
pub fn parse(text: &str) -> Vec<Sample> {
    let (mut samples, mut types) = (Vec::new(), BTreeMap::new());
    let mut finished: BTreeSet<String> = BTreeSet::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').unwrap();
            let (name, told) = rest.split_once(' ').unwrap();
            assert!(!told.is_empty(), "{line}");
            if word == "HELP" {
                assert!(finished.insert(name.to_owned()), "{name} comes twice");
                family = name.to_owned();
            } else {
                assert_eq!((word, name), ("TYPE", family.as_str()));
                assert!(["counter", "gauge", "histogram"].contains(&told), "{line}");
                types.insert(name.to_owned(), told.to_owned());
            }
            continue;
        }
        let sample = sample(line);
        let of_histogram =
            ["_bucket", "_sum", "_count"].map(|ending| sample.name.strip_suffix(ending) == Some(&family));
        let histogram = types[&family] == "histogram";
        assert!(if histogram { of_histogram.contains(&true) } else { sample.name == family }, "{line} under {family}");
        samples.push(sample);
    }
    samples
}

fn sample(line: &str) -> Sample {
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = head.split_once('{').unwrap_or_else(|| panic!("no labels: {line}"));
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
    assert!(name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()), "{line}");
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("unclosed: {line}"));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
        (name.to_owned(), value.to_owned())
    };
    let labels: Vec<_> = labels.strip_suffix('"').unwrap().split("\",").map(pair).collect();
    let count = labels.len();
    let labels: BTreeMap<_, _> = labels.into_iter().collect();
    assert_eq!(labels.len(), count, "a label twice: {line}");
    Sample { name: name.to_owned(), labels, value: value.parse().unwrap_or_else(|_| panic!("no number: {line}")) }
}
