//! Changes to a topology from outside: `--set stage.key=value` and `BARLINE_STAGE__KEY=value`.
//!
//! They are made in the YAML tree before anything is checked, so an override passes the same checks as what is
//! written, and a problem with it names it as the place.

use crate::spec::Problem;
use crate::spec::yaml::{Entry, Node, Place, Sources, Yaml};

use super::written::SETTINGS;

/// Environment variables that are no overrides.
const RESERVED: [&str; 5] = ["BARLINE_ADDR", "BARLINE_TOKEN", "BARLINE_LOG", "BARLINE_SEED", "BARLINE_BLESS"];

/// One change: a key and its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// What problems call it: `--set ingest.listen`.
    origin: String,
    /// The key, split at its dots.
    path: Vec<String>,
    /// A YAML scalar or flow collection; anything else is text.
    value: String,
}

impl Override {
    /// Reads `key=value` as given to `--set`.
    ///
    /// # Errors
    /// A text without `=` or with an empty part in its key.
    pub fn of_set(text: &str) -> Result<Self, Problem> {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let origin = format!("--set {key}");
        let path: Vec<String> = key.trim().split('.').map(str::to_owned).collect();
        if !text.contains('=') || path.iter().any(String::is_empty) {
            let problem = Problem::in_file(origin, format!("`{text}` is no override"));
            return Err(problem.allowed("stage.key=value or setting=value").remedy("write `--set ingest.listen=…`"));
        }
        Ok(Self { origin, path, value: value.to_owned() })
    }

    /// Picks the overrides out of an environment, in order of their names: `BARLINE_INGEST__BATCH__ROWS` is
    /// `ingest.batch.rows`, `BARLINE_DATA_DIR` is `data_dir`. A `-` in a stage's name is written `_`.
    pub fn of_env(pairs: impl IntoIterator<Item = (String, String)>) -> Vec<Self> {
        let overrides = pairs.into_iter().filter(|(name, _)| !RESERVED.contains(&name.as_str()));
        let overrides = overrides.filter_map(|(origin, value)| {
            let key = origin.strip_prefix("BARLINE_")?.to_ascii_lowercase();
            Some(Self { path: key.split("__").map(str::to_owned).collect(), origin, value })
        });
        let mut overrides: Vec<Self> = overrides.collect();
        overrides.sort_by(|a, b| a.origin.cmp(&b.origin));
        overrides
    }

    /// Makes the change in `root`; what is wrong with it goes to `problems`.
    pub(super) fn apply(&self, root: &mut Node, sources: &mut Sources, problems: &mut Vec<Problem>) {
        let source = sources.add_value(&self.origin, &self.value);
        let place = Place { source, line: 0, column: 0 };
        match self.target(root) {
            Ok(path) => set(root, &path, self.node(place, sources, problems), place),
            Err(problem) => problems.push(sources.at(place, problem)),
        }
    }

    /// The new value. What is no YAML is text: `[::1]:80` need not be quoted twice.
    fn node(&self, place: Place, sources: &Sources, problems: &mut Vec<Problem>) -> Node {
        match sources.parse(place.source) {
            Ok(parsed) => {
                problems.extend(parsed.duplicates);
                parsed.root
            }
            Err(_) => Node { place, value: Yaml::Scalar { text: self.value.clone(), typed: false } },
        }
    }

    /// Where in the file the key belongs.
    fn target(&self, root: &Node) -> Result<Vec<String>, Problem> {
        let Some((first, rest)) = self.path.split_first() else { return Ok(Vec::new()) };
        if SETTINGS.contains(&first.as_str()) {
            return Ok(self.path.clone());
        }
        let stages = root.get("stages").map_or(&[][..], Node::entries);
        let names: Vec<&str> = stages.iter().filter_map(|stage| stage.key.text()).collect();
        let is_it = |name: &&&str| **name == first || (self.is_env() && name.replace('-', "_") == *first);
        let Some(stage) = names.iter().find(is_it) else {
            let known: Vec<&str> = names.iter().copied().chain(SETTINGS).collect();
            let problem = Problem::new(format!("`{first}` is neither a stage nor a setting"));
            return Err(problem.choices(first, known));
        };
        let Some(key) = rest.first() else {
            let problem = Problem::new(format!("`{stage}` is a stage, and no key of it is named"));
            return Err(problem.remedy(format!("name one, as in {stage}.instances")));
        };
        let mut path = vec!["stages".to_owned(), (*stage).to_owned()];
        if !["instances", "mailbox"].contains(&key.as_str()) {
            path.push("config".into());
        }
        path.extend(rest.iter().cloned());
        Ok(path)
    }

    fn is_env(&self) -> bool {
        !self.origin.starts_with("--set")
    }
}

/// Puts `value` under `path`, making the mappings on the way that are not there.
fn set(node: &mut Node, path: &[String], value: Node, place: Place) {
    let Some((name, deeper)) = path.split_first() else {
        *node = value;
        return;
    };
    if !matches!(node.value, Yaml::Map(_)) {
        *node = Node::empty_map(if node.value == Yaml::Null { node.place } else { place });
    }
    let Yaml::Map(entries) = &mut node.value else { return };
    let index = entries.iter().position(|entry| entry.key.text() == Some(name)).unwrap_or_else(|| {
        let key = Node { place, value: Yaml::Scalar { text: name.clone(), typed: false } };
        entries.push(Entry { key, value: Node { place, value: Yaml::Null } });
        entries.len() - 1
    });
    set(&mut entries[index].value, deeper, value, place);
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Ingest, KINDS, MACHINE, exporter};
    use super::super::{Plan, compile};
    use super::*;

    const TEXT: &str = "{http: off, stages: {in-1: {kind: grpc_ingest}, agg: {kind: aggregator, from: in-1}}}";

    fn compiled(sets: &[&str], env: &[(&str, &str)]) -> Result<Plan, Vec<Problem>> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut overrides = Override::of_env(env);
        for set in sets {
            overrides.push(Override::of_set(set).map_err(|problem| vec![problem])?);
        }
        compile("test.yaml", TEXT, KINDS.iter(), exporter, &overrides, MACHINE)
    }

    fn places(outcome: Result<Plan, Vec<Problem>>) -> Vec<String> {
        outcome.unwrap_err().into_iter().map(|problem| problem.file).collect()
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_both_over_the_file() {
        let env = [
            ("BARLINE_IN_1__LISTEN", "127.0.0.1:1"),
            ("BARLINE_DATA_DIR", "/tmp/x"),
            ("HOME", "/"),
            ("BARLINE_LOG", "debug"),
            ("BARLINE_ADDR", "http://127.0.0.1:9"),
        ];
        let sets = ["in-1.listen=127.0.0.1:2", "in-1.instances=3", "agg.mailbox.capacity=7", "http.listen=[::1]:80"];
        let plan = compiled(&sets, &env).unwrap();
        let ingest = plan.stage("in-1").unwrap();
        assert_eq!(ingest.config.downcast_ref::<Ingest>().unwrap().listen.0.port(), 2);
        assert_eq!((ingest.instances, plan.stages[1].mailbox.capacity), (3, 7));
        assert_eq!(plan.data_dir.as_deref(), Some(std::path::Path::new("/tmp/x")));
        assert_eq!(plan.http.map(|http| http.to_string()).as_deref(), Some("[::1]:80"));
    }

    #[test]
    fn a_value_may_be_flow_yaml() {
        let plan = compiled(&["in-1.batch={rows: 9, linger: 1ms}"], &[]).unwrap();
        assert_eq!(plan.stages[0].config.downcast_ref::<Ingest>().unwrap().batch.rows, 9);
    }

    #[test]
    fn a_problem_names_the_override_it_is_in() {
        assert_eq!(
            places(compiled(&["nope.x=1", "agg=2", "in-1.instances=99"], &[])),
            ["--set nope.x", "--set agg", "--set in-1.instances"]
        );
        assert_eq!(
            places(compiled(&["in-1.listne=x"], &[("BARLINE_IN_1__BATCH", "[")])),
            ["--set in-1.listne", "BARLINE_IN_1__BATCH"]
        );
        assert_eq!(
            places(compiled(&["agg.kind=journal", "stages.agg.from=x"], &[])),
            ["--set stages.agg.from", "--set agg.kind"]
        );
        for text in ["novalue", "=1", "a..b=1", ".a=1"] {
            assert!(Override::of_set(text).is_err(), "{text}");
        }
    }
}
