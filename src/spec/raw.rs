//! From YAML text to the tree of [`super::yaml`].
//!
//! serde-saphyr parses, expands anchors and merge keys and refuses hostile input.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::options::DuplicateKeyPolicy;
use serde_yaml::{Location, Spanned};

use super::Problem;
use super::yaml::{Entry, Node, Parsed, Place, Sources, Yaml};

/// The longest text that is parsed, in bytes.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// How deep lists and mappings may nest.
const MAX_DEPTH: usize = 32;
/// How many values a text may have, repeated ones of aliases included.
const MAX_NODES: usize = 100_000;

/// Parses `text`, which is source `source` of `sources`.
pub(super) fn parse(sources: &Sources, source: u32, text: &str) -> Result<Parsed, Problem> {
    let whole = Place { source, line: 0, column: 0 };
    if text.len() > MAX_BYTES {
        let problem = Problem::new(format!("{} bytes of YAML", text.len()));
        return Err(sources.at(whole, problem.allowed(format!("at most {MAX_BYTES} bytes"))));
    }
    let raw: Spanned<Raw> = serde_yaml::from_str_with_options(text, options()).map_err(|error| {
        let place = error.location().map_or(whole, |location| place_of(source, location));
        sources.at(place, syntax_problem(&error))
    })?;
    let mut builder = Builder { text, source, sources, duplicates: Vec::new() };
    let root = builder.node(raw);
    Ok(Parsed { root, duplicates: builder.duplicates })
}

/// Only what these files need: no second document, no duplicate key, nothing that grows beyond its size.
fn options() -> serde_yaml::Options {
    serde_yaml::options! {
        strict_booleans: true,
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        budget: serde_yaml::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES, max_aliases: 1_000 },
    }
}

/// The parser's error in this project's words, without the place, which the problem shows itself.
fn syntax_problem(error: &serde_yaml::Error) -> Problem {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    match message {
        _ if message.contains("budget breached") || message.contains("recursion limit") => {
            Problem::new("YAML that is too large or too deeply nested")
                .allowed(format!("{MAX_NODES} values with aliases expanded, {MAX_DEPTH} levels"))
        }
        _ if message.starts_with("multiple YAML documents") => {
            Problem::new("more than one YAML document").remedy("put each into a file of its own and remove the `---`")
        }
        _ => Problem::new(format!("no valid YAML: {message}")),
    }
}

fn place_of(source: u32, location: Location) -> Place {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Place { source, line: number(location.line()), column: number(location.column()) }
}

/// Turns what the parser gave into nodes.
struct Builder<'a> {
    text: &'a str,
    source: u32,
    sources: &'a Sources,
    duplicates: Vec<Problem>,
}

impl Builder<'_> {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let value = match raw.value {
            Raw::Null => Yaml::Null,
            Raw::Text(text) => Yaml::Scalar { text, typed: false },
            Raw::Typed(text) => Yaml::Scalar { text: self.written(raw.defined).unwrap_or(text), typed: true },
            Raw::List(items) => Yaml::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Yaml::Map(self.entries(entries)),
        };
        Node { place: place_of(self.source, raw.referenced), value }
    }

    fn entries(&mut self, raw: Vec<(Spanned<String>, Spanned<Raw>)>) -> Vec<Entry> {
        let mut first_lines = HashMap::new();
        let mut entries = Vec::with_capacity(raw.len());
        for (key, value) in raw {
            let place = place_of(self.source, key.referenced);
            if let Some(first) = first_lines.insert(key.value.clone(), place.line) {
                let problem = Problem::new(format!("key `{}` occurs twice, first in line {first}", key.value));
                self.duplicates.push(self.sources.at(place, problem.remedy("remove or rename one of them")));
                continue;
            }
            let key = Node { place, value: Yaml::Scalar { text: key.value, typed: false } };
            entries.push(Entry { key, value: self.node(value) });
        }
        entries
    }

    /// A number or boolean as it stands in the text: the parser gives its value only.
    fn written(&self, at: Location) -> Option<String> {
        let start = usize::try_from(at.span().byte_offset()?).ok()?;
        let end = start.checked_add(usize::try_from(at.span().byte_len()?).ok()?)?;
        self.text.get(start..end).map(str::to_owned)
    }
}

/// What the parser gives, before scalars get their words back.
enum Raw {
    Null,
    Text(String),
    Typed(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}
