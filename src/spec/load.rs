//! Spec files from disk, all problems of all files at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::compile::{Compiled, compile};
use super::yaml::Sources;
use super::{Problem, Spec, Specs, problem};

/// The most specs of one process.
const MAX_SPECS: usize = 4096;

/// Loads every `*.yaml` and `*.yml` file of `directory`, in order of their names.
///
/// # Errors
/// Every problem of every file; a directory that cannot be read or has no spec.
pub fn load_dir(directory: &Path) -> Result<Specs, Vec<Problem>> {
    let unreadable = |error: std::io::Error| {
        let problem = Problem::in_file(directory.display().to_string(), format!("cannot read the specs: {error}"));
        vec![problem.remedy("name a directory of spec files; relative paths begin where barline was started")]
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort_unstable();
    if files.is_empty() {
        let problem = Problem::in_file(directory.display().to_string(), "no spec file in this directory");
        return Err(vec![problem.allowed("*.yaml, *.yml").remedy("add one; docs/specs.md says how")]);
    }
    load_files(&files)
}

/// Loads `files`, in this order.
///
/// # Errors
/// Every problem of every file.
pub fn load_files(files: &[PathBuf]) -> Result<Specs, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut texts = Vec::new();
    for file in files {
        let name = file.display().to_string();
        match std::fs::read(file).map(String::from_utf8) {
            Ok(Ok(text)) => texts.push((name, text)),
            Ok(Err(_)) => problems.push(Problem::in_file(name, "the file is no UTF-8 text")),
            Err(error) => problems.push(Problem::in_file(name, format!("cannot read the file: {error}"))),
        }
    }
    match load_texts(texts) {
        Ok(specs) if problems.is_empty() => Ok(specs),
        Ok(_) => Err(problems),
        Err(more) => Err(problems.into_iter().chain(more).collect()),
    }
}

/// Compiles spec files already read, given as (name, text).
///
/// # Errors
/// Every problem of every text.
pub fn load_texts(texts: impl IntoIterator<Item = (String, String)>) -> Result<Specs, Vec<Problem>> {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let mut specs: Vec<Spec> = Vec::new();
    let mut named: HashMap<String, String> = HashMap::new();
    for (file, text) in texts {
        let source = sources.add(file.clone(), text);
        let Some(Compiled { spec, name_at }) = load_one(&sources, source, &mut problems) else { continue };
        if let Some(first) = named.insert(spec.name.clone(), file) {
            let problem = Problem::new(format!("series `{}` is declared twice, first in {first}", spec.name));
            problems.push(sources.at(name_at, problem.remedy("remove or rename one of them")));
        }
        specs.push(spec);
    }
    if specs.len() > MAX_SPECS {
        problems.push(Problem::new(format!("{} specs", specs.len())).allowed(format!("at most {MAX_SPECS}")));
    }
    problem::sort(&mut problems);
    if problems.is_empty() { Ok(Specs::new(specs)) } else { Err(problems) }
}

fn load_one(sources: &Sources, source: u32, problems: &mut Vec<Problem>) -> Option<Compiled> {
    let parsed = sources.parse(source).map_err(|problem| problems.push(problem)).ok()?;
    let repeated = !parsed.duplicates.is_empty();
    problems.extend(parsed.duplicates);
    compile(&parsed.root, sources, problems).filter(|_| !repeated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FieldType;
    use crate::model::time::{DAY, HOUR, MILLISECOND, MINUTE, SECOND};
    use crate::spec::{Aggregation, CardinalityOverflow, LatePolicy, Retention, UnknownDimensions, WindowRules};

    const FULL: &str = "
series: full
timestamp: {field: ts, precision: millisecond}
dimensions: [{name: host, type: string}, {name: core}]
unknown_dimensions: reject
metrics:
  - {name: n, aggregation: count}
  - {name: seen, aggregation: count, field: load}
  - {name: mean, aggregation: avg, field: load, type: float64, unit: '%', description: Mean load}
  - {name: p, aggregation: p99.9, field: load, type: float64}
  - {name: q, aggregation: p50, field: load, type: float64}
  - {name: total, aggregation: sum, field: bytes, type: uint64}
granularity: {rollup: 100ms, cascade: [1s, 1m, 1h]}
window: {wait: 0s, idle: 2s, max_ahead: 1m, late: side_output}
retention: {ticks: 2h, bars: 30d}
cardinality: {limit: 10, overflow: fold}
output: {kafka: {topic: bars, encoding: json, on_failure: spool}}
";

    fn load(text: &str) -> Result<Spec, Vec<Problem>> {
        load_texts([("x.yaml".into(), text.into())]).map(|specs| specs.iter().next().unwrap().as_ref().clone())
    }

    #[test]
    fn every_key_is_honoured() {
        let spec = load(FULL).unwrap();
        assert_eq!((spec.precision, spec.unknown_dimensions), (MILLISECOND, UnknownDimensions::Reject));
        assert_eq!(spec.dimensions, ["host", "core"]);
        let fields: Vec<_> = spec.fields.iter().map(|field| (field.name.as_str(), field.ty)).collect();
        assert_eq!(fields, [("load", FieldType::Float64), ("bytes", FieldType::Uint64)]);
        let lengths: Vec<_> = spec.granularities.iter().map(|g| (g.name.as_str(), g.length)).collect();
        assert_eq!(lengths, [("100ms", 100 * MILLISECOND), ("1s", SECOND), ("1m", MINUTE), ("1h", HOUR)]);
        let late = LatePolicy::SideOutput;
        assert_eq!(spec.window, WindowRules { wait: 0, idle: 2 * SECOND, max_ahead: MINUTE, late });
        assert_eq!(spec.retention, Retention { ticks: 2 * HOUR, bars: 30 * DAY });
        assert_eq!((spec.cardinality.limit, spec.cardinality.overflow), (10, CardinalityOverflow::Fold));
        assert_eq!(spec.kafka.unwrap().on_failure.as_deref(), Some("spool"));
        assert_eq!((spec.metrics[2].unit.as_deref(), spec.metrics[0].accumulator), (Some("%"), None));
    }

    #[test]
    fn metrics_that_need_the_same_state_share_it() {
        let spec = load(FULL).unwrap();
        let used: Vec<_> = spec.metrics.iter().map(|metric| metric.accumulator).collect();
        assert_eq!(used, [None, Some(0), Some(1), Some(2), Some(2), Some(3)]);
        assert_eq!(spec.metrics[3].aggregation, Aggregation::Quantile(0.999));
        let types: Vec<_> = spec.metrics.iter().map(|metric| metric.ty.name()).collect();
        assert_eq!(types, ["int64", "int64", "float64", "float64", "float64", "uint64"]);
    }

    #[test]
    fn a_retention_left_out_gives_way_to_the_one_written() {
        let with = |retention: &str| {
            let text = "series: a\nmetrics: [{name: n, aggregation: count}]\ngranularity: {rollup: 1s}\n";
            let kept = load(&format!("{text}retention: {retention}\n")).unwrap().retention;
            (kept.ticks, kept.bars)
        };
        assert_eq!(with("{}"), (DAY, 7 * DAY));
        assert_eq!(with("{ticks: 30d}"), (30 * DAY, 30 * DAY));
        assert_eq!(with("{bars: 1h}"), (HOUR, HOUR));
    }

    #[test]
    fn two_files_may_not_declare_one_series() {
        let texts = ["a.yaml", "b.yaml"].map(|name| (name.to_owned(), FULL.to_owned()));
        let problems = load_texts(texts).unwrap_err();
        assert_eq!((problems.len(), problems[0].file.as_str(), problems[0].line), (1, "b.yaml", 2));
    }

    #[test]
    fn the_shipped_specs_load_and_a_directory_without_specs_does_not() {
        let specs = load_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("specs")).unwrap();
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        assert_eq!(names, ["asic_metrics", "host_metrics", "market_ticks", "network_flows"]);
        let market = specs.by_name("market_ticks").unwrap();
        let metrics: Vec<_> = market.metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(metrics, ["open", "high", "low", "close", "volume", "tick_count"]);
        assert_eq!(market.kafka.as_ref().unwrap().topic, "tikr-bars-market-1s");
        assert!(load_dir(tempfile::tempdir().unwrap().path()).is_err());
    }

    #[test]
    fn the_examples_of_the_reference_load() {
        let reference = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/specs.md")).unwrap();
        let blocks = reference.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap());
        let texts: Vec<_> = blocks.enumerate().map(|(i, block)| (format!("example {i}"), block.to_owned())).collect();
        assert_eq!(load_texts(texts).map_err(|problems| problem::render(&problems)).unwrap().len(), 2);
    }
}
