//! What is wrong with something a person wrote: where, what is allowed there, and what to do about it.
//!
//! Specs and topologies share it, so that every error reads the same. Checks never stop at the first problem:
//! they gather all of them in a `Vec<Problem>`.

use std::fmt;

/// One problem, shown the way a compiler shows its errors.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// The file, or what else the words came from (`--set ingest.listen`).
    pub file: String,
    /// Line, from 1; 0 where no line is to blame.
    pub line: u32,
    /// Column in characters, from 1; 0 where no line is to blame.
    pub column: u32,
    /// What is wrong, with the offending value.
    pub message: String,
    /// What may stand there.
    pub allowed: Option<Box<str>>,
    /// What to do about it.
    pub remedy: Option<Box<str>>,
    /// The line to blame, as written.
    pub snippet: Option<Box<str>>,
}

impl Problem {
    /// A problem without a place yet; of a very long message, which only a hostile value makes, the beginning.
    pub fn new(message: impl Into<String>) -> Self {
        const LONGEST: usize = 400;
        let mut message: String = message.into();
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
            message.push('…');
        }
        Self { message, ..Self::default() }
    }

    /// A problem with `key`'s value, which is none of the `known` ones.
    pub fn unknown_value<'a>(key: &str, value: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(format!("unknown value `{value}` for `{key}`")).choices(value, known)
    }

    /// A problem of a whole file or directory.
    pub fn in_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::new(message) }
    }

    /// A problem told in up to three lines: what is wrong, what is allowed, the remedy; an empty line says nothing.
    pub fn of_lines(text: &str) -> Self {
        let mut lines = text.lines();
        let problem = Self::new(lines.next().unwrap_or_default());
        let mut told = || lines.next().filter(|line| !line.is_empty()).map(Box::from);
        Self { allowed: told(), remedy: told(), ..problem }
    }

    /// Says what may stand there.
    pub fn allowed(self, allowed: impl Into<Box<str>>) -> Self {
        Self { allowed: Some(allowed.into()), ..self }
    }

    /// Says what to do about it.
    pub fn remedy(self, remedy: impl Into<Box<str>>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// Answers an unknown `name` with the `known` ones, the nearest of them as the remedy.
    pub fn choices<'a>(self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let problem = match nearest(name, known.iter().copied()) {
            Some(near) => self.remedy(format!("did you mean `{near}`?")),
            None => self,
        };
        problem.allowed(if known.is_empty() { "nothing".to_owned() } else { known.join(", ") })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let line = self.line.to_string();
        let margin = if self.line > 0 { line.len() } else { 0 };
        match self.line {
            0 if self.file.is_empty() => {}
            0 => write!(f, "\n {:margin$}--> {}", "", self.file)?,
            _ => write!(f, "\n {:margin$}--> {}:{line}:{}", "", self.file, self.column)?,
        }
        if let Some(snippet) = &self.snippet {
            let (text, indent) = crop(snippet, self.column);
            write!(f, "\n {:margin$} |\n {line} | {text}\n {:margin$} | {:indent$}^", "", "", "")?;
        }
        for (label, text) in [("allowed", &self.allowed), ("remedy", &self.remedy)] {
            if let Some(text) = text {
                write!(f, "\n {:margin$} = {label}: {text}", "")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Brings the problems of each file into the order of its lines; files keep the order they came in.
pub fn sort(problems: &mut [Problem]) {
    let mut files: Vec<String> = Vec::new();
    for problem in problems.iter() {
        if !files.contains(&problem.file) {
            files.push(problem.file.clone());
        }
    }
    let file = |problem: &Problem| files.iter().position(|file| *file == problem.file);
    problems.sort_by_cached_key(|problem| (file(problem), problem.line, problem.column));
}

/// All of `problems` as one text, an empty line between them, ending in a newline.
pub fn render(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect::<Vec<_>>().join("\n")
}

/// At most 100 characters of `line` around `column`, and how far in that column then is.
fn crop(line: &str, column: u32) -> (String, usize) {
    const WIDTH: usize = 100;
    let indent = (column as usize).saturating_sub(1);
    let skip = if indent >= WIDTH { indent - WIDTH / 2 } else { 0 };
    let shown = line.chars().skip(skip).take(WIDTH).map(|c| if c.is_control() { ' ' } else { c });
    (shown.collect::<String>().trim_end().to_owned(), indent - skip)
}

/// The candidate that `name` was most likely meant to be, if any is close enough.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let limit = 1 + name.chars().count() / 3;
    let near = candidates.into_iter().map(|candidate| (distance(name, candidate), candidate));
    near.filter(|(distance, _)| *distance <= limit).min_by_key(|(distance, _)| *distance).map(|(_, near)| near)
}

/// Levenshtein's distance: how many letters to insert, delete or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_points_at_its_place() {
        let problem = Problem {
            file: "a.yaml".into(),
            line: 12,
            column: 3,
            snippet: Some("  kind: x".into()),
            ..Problem::new("unknown kind `x`").choices("x", ["xy", "zzzz"])
        };
        let shown = "error: unknown kind `x`\n   --> a.yaml:12:3\n    |\n 12 |   kind: x\n    |   ^\n    = allowed: xy, \
                     zzzz\n    = remedy: did you mean `xy`?";
        assert_eq!(problem.to_string(), shown);
    }

    #[test]
    fn long_lines_are_cropped_around_the_column() {
        let line = format!("{}X{}", "a".repeat(5000), "b".repeat(5000));
        let (text, indent) = crop(&line, 5001);
        assert_eq!((text.chars().count(), text.chars().nth(indent)), (100, Some('X')));
    }

    #[test]
    fn only_a_close_name_is_suggested() {
        assert_eq!(nearest("agregator", ["journal", "aggregator"]), Some("aggregator"));
        assert_eq!(nearest("zebra", ["journal", "aggregator"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
