//! Serde types out of a YAML tree, with every problem at once.
//!
//! A derived `Deserialize` stops at its first error. [`decode`] therefore takes the offending value out of the
//! tree, notes the problem with its place, and tries again: each round ends one problem sooner. Three things
//! are the same for every type: a key that is not a field is an error, nothing where a mapping or list is
//! expected is an empty one, and a scalar where a list is expected is a list of one.
//!
//! A `Deserialize` of one's own may give its error up to three lines: what is wrong, what is allowed, the remedy.

use std::fmt;

use serde::de::{self, DeserializeOwned, Unexpected};

use super::Problem;
use super::deserializer::NodeDeserializer;
use super::yaml::{Node, Place, Sources, Yaml};

pub use super::place::{At, Ordered};

/// After so many problems the rest is not looked for.
const MAX_PROBLEMS: usize = 100;

/// Decodes `node`; every problem is added to `problems`. What had a problem is as if it had not been written;
/// `None` where nothing is left without it.
pub fn decode<T: DeserializeOwned>(node: &Node, sources: &Sources, problems: &mut Vec<Problem>) -> Option<T> {
    let mut tree = node.clone();
    // A required key whose value was taken out is not reported as missing too.
    let mut taken = Vec::new();
    for _ in 0..MAX_PROBLEMS {
        let mut error = match T::deserialize(NodeDeserializer(&tree)) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let place = error.place.unwrap_or(tree.place);
        if !error.missing.is_some_and(|name| taken.contains(&(place, name.to_owned()))) {
            problems.push(sources.at(place, *error.problem));
        }
        error.path.reverse();
        if error.path.is_empty() {
            return None;
        }
        taken.extend(take_out(&mut tree, &error.path));
    }
    None
}

/// Takes the value at `path`, the index of a child at each level, out of the tree; if it was the value of a
/// key, says which mapping's and which key's.
fn take_out(node: &mut Node, path: &[usize]) -> Option<(Place, String)> {
    let (&index, deeper) = path.split_first()?;
    match &mut node.value {
        Yaml::Map(entries) if deeper.is_empty() => {
            let entry = entries.remove(index);
            Some((node.place, entry.key.text()?.to_owned()))
        }
        Yaml::List(items) if deeper.is_empty() => {
            items.remove(index);
            None
        }
        Yaml::Map(entries) => take_out(&mut entries.get_mut(index)?.value, deeper),
        Yaml::List(items) => take_out(items.get_mut(index)?, deeper),
        _ => None,
    }
}

/// An error, its place once that is known, and the way to it from the innermost level outwards.
#[derive(Debug, Clone)]
pub(super) struct DecodeError {
    problem: Box<Problem>,
    missing: Option<&'static str>,
    place: Option<Place>,
    path: Vec<usize>,
}

impl DecodeError {
    fn new(problem: Problem) -> Self {
        Self { problem: Box::new(problem), missing: None, place: None, path: Vec::new() }
    }

    /// The error as one of the value itself, not of a part of it.
    pub(super) fn of_the_whole(self) -> Self {
        Self { path: Vec::new(), ..self }
    }

    /// The error as the parent sees it: in its child `index`, which stands at `place`.
    pub(super) fn inside(mut self, index: usize, place: Place) -> Self {
        self.place.get_or_insert(place);
        self.path.push(index);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Problem::of_lines(&message.to_string()))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::new(Problem::new(format!("{found} does not belong here")).allowed(in_words(&expected.to_string())))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(name: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Problem::new(format!("unknown value `{name}`")).choices(name, expected.iter().copied()))
    }

    fn unknown_field(name: &str, expected: &'static [&'static str]) -> Self {
        Self::new(Problem::new(format!("unknown key `{name}`")).choices(name, expected.iter().copied()))
    }

    fn missing_field(name: &'static str) -> Self {
        let problem = Problem::new(format!("`{name}` is missing")).remedy(format!("add `{name}: …`"));
        Self { missing: Some(name), ..Self::new(problem) }
    }
}

/// What serde expects, without the names of Rust's types.
fn in_words(expected: &str) -> String {
    match expected {
        "usize" | "u64" => "a whole number, 0 or more".into(),
        "i64" | "isize" => "a whole number".into(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u16" => format!("a whole number from 0 to {}", u16::MAX),
        "f64" | "f32" => "a number".into(),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Always,
        Never,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        name: At<String>,
        #[serde(default)]
        size: Option<u16>,
    }

    #[derive(Debug, Deserialize, Default)]
    #[serde(default, deny_unknown_fields)]
    struct Outer {
        mode: Option<Mode>,
        list: Vec<Inner>,
        tags: Vec<String>,
        flag: bool,
        ratio: f64,
    }

    fn read(text: &str) -> (Option<Outer>, Vec<Problem>) {
        let mut sources = Sources::default();
        let source = sources.add("x.yaml", text);
        let root = sources.parse(source).unwrap().root;
        let mut problems = Vec::new();
        (decode(&root, &sources, &mut problems), problems)
    }

    #[test]
    fn every_problem_is_found_in_one_go_and_the_rest_is_kept() {
        let text = "mode: allways\nbogus: 1\nlist:\n  - {name: a, size: 70000}\n  - {size: 1}\n  - {name: [x]}\n  - \
                    {name: b}\nflag: yes\ntags: {}\nratio: x\n";
        let (outer, problems) = read(text);
        let mut lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [1, 2, 4, 5, 6, 8, 9, 10], "{}", super::super::problem::render(&problems));
        let left: Vec<_> = outer.unwrap().list.into_iter().map(|inner| (inner.name.value, inner.size)).collect();
        assert_eq!(left, [("a".to_owned(), None), ("b".to_owned(), None)]);
    }

    #[test]
    fn a_number_is_text_where_text_is_wanted_and_one_scalar_is_a_list_of_one() {
        let (outer, problems) = read("tags: 1.50\nlist: [{name: 007}]\nmode: {never: }\n");
        assert_eq!(problems, []);
        let outer = outer.unwrap();
        assert_eq!((outer.tags, outer.mode), (vec!["1.50".to_owned()], Some(Mode::Never)));
        assert_eq!((outer.list[0].name.value.as_str(), outer.list[0].name.place.column), ("007", 15));
    }

    #[test]
    fn nothing_is_an_empty_mapping() {
        assert_eq!(read("").1, []);
        assert_eq!(read("list:\n").1, []);
        assert_eq!(read("- a\n").1.len(), 1);
    }
}
