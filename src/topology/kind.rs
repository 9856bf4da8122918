//! What the topology has to know of a stage kind. The table of kinds stands beside the stages themselves.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::spec::Problem;
use crate::spec::decode::decode;
use crate::spec::yaml::{Node, Place, Sources};

/// The kind of the stage that makes ticks durable.
pub const JOURNAL: &str = "journal";

/// What flows between stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Batches of ticks.
    Ticks,
    /// Batches of bars.
    Bars,
}

/// What part a stage plays in the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Brings data in from outside.
    Source,
    /// Addresses the instances below it; anyone else sends to single-instance stages only.
    Router,
    /// Works on what it is sent.
    Worker,
}

/// Reads a `config`.
pub type Parse = fn(&ConfigNode) -> Result<ParsedConfig, Vec<Problem>>;

/// A stage kind's row in the table.
pub struct Kind {
    /// The name in topology files.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What part it plays.
    pub role: Role,
    /// What it takes; `None` for a source.
    pub takes: Option<Flow>,
    /// What it gives, if anything.
    pub gives: Option<Flow>,
    /// The most instances of one stage.
    pub max_instances: u16,
    /// Whether a topology may have only one stage of the kind.
    pub unique: bool,
    /// Reads the stage's `config`.
    pub parse: Parse,
}

/// A stage's config as its kind understands it.
#[derive(Clone)]
pub struct ParsedConfig {
    /// The kind's own config type.
    pub value: Arc<dyn AnyConfig>,
    /// What the topology has to know of it.
    pub facts: Facts,
}

impl fmt::Debug for ParsedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParsedConfig({:?})", self.facts)
    }
}

/// What a stage asks of the machine, per instance where not said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where it listens; all its instances share these.
    pub listens: Vec<SocketAddr>,
    /// The largest envelope it sends, in bytes; 0: as large as what it receives.
    pub batch_bytes: u64,
    /// Its own state, in bytes.
    pub memory: u64,
    /// What it keeps on disk, in bytes, over all its instances.
    pub disk: u64,
    /// What a person should know, one line each.
    pub warnings: Vec<String>,
}

/// What is wrong with a config: its key (`batch.rows`), and up to three lines: what is wrong, what is allowed, the remedy.
pub type Complaint = (Cow<'static, str>, String);

/// The config type of a stage kind.
pub trait StageConfig: DeserializeOwned + PartialEq + Send + Sync + 'static {
    /// What it asks of the machine.
    fn facts(&self) -> Facts {
        Facts::default()
    }

    /// What is wrong with it.
    fn check(&self) -> Vec<Complaint> {
        Vec::new()
    }
}

/// A config of whichever type its kind has.
pub trait AnyConfig: Any + Send + Sync {
    /// Whether both are of one type and say the same.
    fn is_same(&self, other: &dyn AnyConfig) -> bool;
}

impl<C: StageConfig> AnyConfig for C {
    fn is_same(&self, other: &dyn AnyConfig) -> bool {
        other.downcast_ref() == Some(self)
    }
}

impl dyn AnyConfig {
    /// The config, if it is a `C`.
    pub fn downcast_ref<C: 'static>(&self) -> Option<&C> {
        (self as &dyn Any).downcast_ref()
    }
}

/// The `config` of a stage as written; an empty mapping where there is none.
#[derive(Debug, Clone)]
pub struct ConfigNode {
    node: Node,
    sources: Arc<Sources>,
}

impl ConfigNode {
    /// A config within a larger text.
    pub fn new(node: Node, sources: Arc<Sources>) -> Self {
        Self { node, sources }
    }

    /// A config that is a text of its own.
    ///
    /// # Errors
    /// A text that is no YAML.
    pub fn of_text(text: &str) -> Result<Self, Vec<Problem>> {
        let mut sources = Sources::default();
        let source = sources.add("config", text);
        let parsed = sources.parse(source).map_err(|problem| vec![problem])?;
        if !parsed.duplicates.is_empty() {
            return Err(parsed.duplicates);
        }
        Ok(Self::new(parsed.root, Arc::new(sources)))
    }

    /// Where the value of `key` stands (dots lead into mappings): as near to it as anything was written.
    pub fn place_of(&self, key: &str) -> Place {
        let (mut node, mut key) = (&self.node, key);
        loop {
            // A key may have dots of its own.
            if let Some(inner) = node.get(key) {
                return inner.place;
            }
            let Some((name, rest)) = key.split_once('.') else { return node.place };
            let Some(inner) = node.get(name) else { return node.place };
            (node, key) = (inner, rest);
        }
    }

    /// Where an address that the stage listens at was written; the config's own place if it was not.
    pub(super) fn place_of_address(&self, address: SocketAddr) -> Place {
        let same = |node: &&Node| node.text().and_then(|text| text.parse().ok()) == Some(address);
        self.node.entries().iter().map(|entry| &entry.value).find(same).map_or(self.node.place, |node| node.place)
    }
}

/// Reads a stage's `config` as `C`: what [`Kind::parse`] is for nearly every kind.
///
/// # Errors
/// Every problem of the config.
pub fn parse_config<C: StageConfig>(config: &ConfigNode) -> Result<ParsedConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    let value: Option<C> = decode(&config.node, &config.sources, &mut problems);
    let Some(value) = value.filter(|_| problems.is_empty()) else { return Err(problems) };
    for (key, message) in value.check() {
        let problem = Problem::of_lines(&format!("`{key}`: {message}"));
        problems.push(config.sources.at(config.place_of(&key), problem));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(ParsedConfig { facts: value.facts(), value: Arc::new(value) })
}

impl Flow {
    /// The flow's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ticks => "ticks",
            Self::Bars => "bars",
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::units::DurationText;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        batch: Batch,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(default, deny_unknown_fields)]
    struct Batch {
        rows: usize,
        linger: DurationText,
    }

    impl Default for Batch {
        fn default() -> Self {
            Self { rows: 7, linger: DurationText(5) }
        }
    }

    impl StageConfig for Config {
        fn check(&self) -> Vec<Complaint> {
            let zero = (self.batch.rows == 0).then(|| ("batch.rows".into(), "0 rows\n1 or more".to_owned()));
            zero.into_iter().collect()
        }
    }

    fn parse(text: &str) -> Result<Arc<Config>, Vec<Problem>> {
        let parsed = parse_config::<Config>(&ConfigNode::of_text(text)?)?;
        let value: Arc<dyn Any + Send + Sync> = parsed.value;
        Ok(value.downcast().unwrap())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(*parse("").unwrap(), Config::default());
        assert_eq!(parse("batch: {linger: 1us}").unwrap().batch, Batch { rows: 7, linger: DurationText(1_000) });
    }

    #[test]
    fn configs_are_the_same_where_what_they_say_is() {
        let config = |text: &str| parse_config::<Config>(&ConfigNode::of_text(text).unwrap()).unwrap().value;
        let is_same = |one, other| config(one).is_same(&*config(other));
        assert!(is_same("", "batch: {rows: 7}") && is_same("batch: {linger: 1us}", "batch: {linger: 1000ns}"));
        assert!(!is_same("", "batch: {rows: 8}"));
    }

    #[test]
    fn a_failed_check_points_at_its_key() {
        let problems = parse("batch:\n  rows: 0\n").unwrap_err();
        assert_eq!((problems.len(), problems[0].line, problems[0].column), (1, 2, 9));
        assert_eq!(problems[0].allowed.as_deref(), Some("1 or more"));
        assert_eq!(parse("batch: {rows: -1, linger: soon}\nx: 1").unwrap_err().len(), 3);
    }
}
