//! YAML as a tree that knows where each word stands.
//!
//! The tree keeps every scalar as it was written, so that `1.50` stays `1.50` and its type is decided by who reads
//! it. `raw.rs` fills it.

use super::{Problem, raw};

/// Everything that was read, so that problems can show it.
#[derive(Debug, Clone, Default)]
pub struct Sources(Vec<Source>);

#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: String,
    /// Whether problems show line and column.
    lines: bool,
}

/// Where a word stands: a source, a line and a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Index into [`Sources`].
    pub source: u32,
    /// Line, from 1; 0 for the source as a whole.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// One value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Yaml,
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub enum Yaml {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar as written, without its quotes; `typed` where YAML takes it for a number or a boolean.
    Scalar {
        /// The words.
        text: String,
        /// Whether YAML's own rules make it a number or a boolean.
        typed: bool,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order written.
    Map(Vec<Entry>),
}

/// One key of a mapping and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key, always a scalar.
    pub key: Node,
    /// The value.
    pub value: Node,
}

/// A parsed text and the keys in it that occur twice (of which the first counts).
#[derive(Debug)]
pub struct Parsed {
    /// The whole text.
    pub root: Node,
    /// One problem per repeated key.
    pub duplicates: Vec<Problem>,
}

impl Sources {
    /// Adds a file under the name problems give it.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> u32 {
        self.push(Source { name: name.into(), text: text.into(), lines: true })
    }

    /// Adds a single value, whose problems are placed by its name alone: `--set ingest.listen`.
    pub fn add_value(&mut self, name: impl Into<String>, text: impl Into<String>) -> u32 {
        self.push(Source { name: name.into(), text: text.into(), lines: false })
    }

    fn push(&mut self, source: Source) -> u32 {
        self.0.push(source);
        self.0.len() as u32 - 1
    }

    /// Puts `problem` at `place`.
    pub fn at(&self, place: Place, problem: Problem) -> Problem {
        let Some(source) = self.0.get(place.source as usize) else { return problem };
        let file = source.name.clone();
        if place.line == 0 || !source.lines {
            return Problem { file, ..problem };
        }
        let snippet = source.text.lines().nth(place.line as usize - 1).map(Box::from);
        Problem { file, line: place.line, column: place.column, snippet, ..problem }
    }

    /// Parses source `source`.
    ///
    /// # Errors
    /// What is no YAML, is too large, nests too deeply or has more than one document.
    pub fn parse(&self, source: u32) -> Result<Parsed, Problem> {
        let text = self.0.get(source as usize).map_or("", |source| source.text.as_str());
        raw::parse(self, source, text)
    }
}

impl Node {
    /// A mapping without entries at `place`.
    pub fn empty_map(place: Place) -> Self {
        Self { place, value: Yaml::Map(Vec::new()) }
    }

    /// The value under `key`, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`, where this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key.text() == Some(key))
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        if let Yaml::Map(entries) = &self.value { entries } else { &[] }
    }

    /// The words of a scalar.
    pub fn text(&self) -> Option<&str> {
        if let Yaml::Scalar { text, .. } = &self.value { Some(text) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Parsed, Problem> {
        let mut sources = Sources::default();
        let source = sources.add("x.yaml", text);
        sources.parse(source)
    }

    #[test]
    fn scalars_keep_their_spelling_and_place() {
        let root = parse("a: 1.50\nb: &x 0x10\nc: *x\nd: off\n").unwrap().root;
        let text = |key| root.get(key).and_then(Node::text).unwrap();
        assert_eq!([text("a"), text("b"), text("c"), text("d")], ["1.50", "0x10", "0x10", "off"]);
        assert_eq!(root.get("c").unwrap().place, Place { source: 0, line: 3, column: 4 });
    }

    #[test]
    fn every_repeated_key_is_reported_and_the_first_counts() {
        let parsed = parse("a: 1\nb: 2\na: 3\nb: 4\n").unwrap();
        assert_eq!(parsed.root.get("a").and_then(Node::text), Some("1"));
        let lines: Vec<_> = parsed.duplicates.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [3, 4]);
    }

    #[test]
    fn hostile_yaml_is_an_error_within_bounds() {
        let laughs: String = (1..20).fold("- &l0 [x, x]\n".into(), |text: String, i| {
            let aliases = vec![format!("*l{}", i - 1); 10].join(", ");
            text + &format!("- &l{i} [{aliases}]\n")
        });
        let deep = format!("{}1", "a: {".repeat(5_000));
        let brackets = "[".repeat(100_000);
        let huge = "- x\n".repeat(raw::MAX_BYTES / 4 + 1);
        for text in [laughs, deep, brackets, huge, "a: \"\0\"".into(), "%".into(), "a: *b".into(), "---\n---\n".into()]
        {
            assert!(parse(&text).is_err(), "{}", &text[..text.len().min(40)]);
        }
    }
}
