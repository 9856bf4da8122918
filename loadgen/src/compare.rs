//! A server's bars against the naive ones, bar by bar.

use std::{collections::HashMap, fmt::Write};

use barline_proto::barline::{Bar, Value, value::Kind};

use crate::{aggregate::Expected, naive::NaiveBars, plan::Plan};

/// How many differing bars are shown in full.
const SHOWN: usize = 10;

/// A comparison under way: takes the stored bars in any order.
#[derive(Debug)]
pub struct Comparison<'a> {
    plan: &'a Plan,
    naive: &'a NaiveBars,
    series: HashMap<String, u32>,
    seen: Vec<bool>,
    /// Bars of this run that were compared.
    pub compared: u64,
    /// Of these, how many were amended after they were first stored.
    pub amended: u64,
    /// Bars that differ, are missing, twice there, or there without a tick.
    pub wrong: u64,
    /// The first of them, in full.
    pub shown: Vec<String>,
}

impl<'a> Comparison<'a> {
    /// Nothing compared yet.
    pub fn new(plan: &'a Plan, naive: &'a NaiveBars) -> Self {
        Self {
            plan,
            naive,
            series: (0..plan.profile.series.0).map(|s| (plan.dimensions.key(s), s as u32)).collect(),
            seen: vec![false; naive.len()],
            compared: 0,
            amended: 0,
            wrong: 0,
            shown: Vec::new(),
        }
    }

    /// Compares one stored bar; bars of other runs are passed over.
    pub fn add(&mut self, bar: &Bar) {
        let series = self.plan.dimensions.key_of(&bar.dimensions).and_then(|key| self.series.get(&key).copied());
        let Some(series) = series else {
            if bar.dimensions.values().any(|value| value.contains(&self.plan.run)) {
                self.wrong(|| format!("a bar of a series that was never sent\n{bar:#?}\n"));
            }
            return;
        };
        self.compared += 1;
        self.amended += u64::from(bar.revision > 0);
        let Some(number) = self.naive.find(series, bar.start_ns) else {
            return self.wrong(|| format!("a bar of a window that no tick fell in\n{bar:#?}\n"));
        };
        if std::mem::replace(&mut self.seen[number], true) {
            return self.wrong(|| format!("a bar that is there twice\n{bar:#?}\n"));
        }
        let rows = self.rows(number, bar);
        if rows.iter().any(|row| !row.equal) {
            let name = self.name(number);
            self.wrong(|| table(&format!("a bar that differs: {name}"), &rows));
        }
    }

    /// Says that there are no more bars: those not seen are missing.
    pub fn finish(&mut self) {
        let missing: Vec<usize> = (0..self.seen.len()).filter(|bar| !self.seen[*bar]).collect();
        for bar in missing {
            let text = format!("a bar that is missing: {}, {} ticks\n", self.name(bar), self.naive.head(bar).ticks);
            self.wrong(|| text);
        }
    }

    fn wrong(&mut self, text: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(text());
        }
    }

    /// Everything a bar says, beside what it must say.
    fn rows(&self, number: usize, bar: &Bar) -> Vec<Row> {
        let head = self.naive.head(number);
        let end = head.start + self.plan.profile.window.0;
        let mut rows = vec![
            Row::plain("tick_count", head.ticks, bar.tick_count),
            Row::plain("end_ns", end, bar.end_ns),
            Row::plain("first_ns", head.first, bar.first_ns),
            Row::plain("last_ns", head.last, bar.last_ns),
            Row::plain("overflow", false, bar.overflow),
        ];
        let metrics = &self.plan.profile.metrics;
        for (m, metric) in metrics.iter().enumerate() {
            rows.push(Row::metric(&metric.name, self.naive.metric(number, m), bar.metrics.get(&metric.name)));
        }
        if !metrics.is_empty() {
            let unknown = bar.metrics.iter().filter(|(name, _)| !metrics.iter().any(|m| m.name == **name));
            rows.extend(unknown.map(|(name, value)| Row::metric(name, None, Some(value))));
        }
        rows
    }

    fn name(&self, number: usize) -> String {
        let head = self.naive.head(number);
        let pairs = self.plan.dimensions.names().zip(self.plan.dimensions.values(head.series.into()));
        let series: Vec<String> = pairs.map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} start_ns={}", series.join(" "), head.start)
    }
}

/// One number of a bar.
#[derive(Debug)]
struct Row {
    name: String,
    expected: String,
    stored: String,
    equal: bool,
}

impl Row {
    fn plain<T: PartialEq + ToString>(name: &str, expected: T, stored: T) -> Self {
        let equal = expected == stored;
        Self { name: name.to_owned(), expected: expected.to_string(), stored: stored.to_string(), equal }
    }

    fn metric(name: &str, expected: Option<Expected>, stored: Option<&Value>) -> Self {
        let kind = stored.and_then(|value| value.kind.as_ref());
        Self {
            name: name.to_owned(),
            expected: expected.map_or_else(|| "absent".to_owned(), Expected::text),
            stored: kind.map_or_else(|| "absent".to_owned(), text),
            equal: match (expected, kind) {
                (Some(expected), Some(kind)) => expected.allows(kind),
                (expected, kind) => expected.is_none() && kind.is_none(),
            },
        }
    }
}

impl Expected {
    /// Whether a stored value is what was expected, of the right kind.
    fn allows(self, stored: &Kind) -> bool {
        match (self, stored) {
            (Self::Whole(expected), Kind::Int(stored)) => expected == i128::from(*stored),
            (Self::Whole(expected), Kind::Uint(stored)) => expected == i128::from(*stored),
            (Self::Real(expected), Kind::Float(stored)) => expected == *stored,
            (Self::Near(expected), Kind::Float(stored)) => {
                (expected - stored).abs() <= 1e-9 * expected.abs().max(stored.abs()).max(1e-3)
            }
            (Self::Between(low, high), Kind::Float(stored)) => (low..=high).contains(stored),
            _ => false,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Whole(value) => value.to_string(),
            Self::Real(value) => format!("{value:?}"),
            Self::Near(value) => format!("about {value:?}"),
            Self::Between(low, high) => format!("{low:?} to {high:?}"),
        }
    }
}

fn text(kind: &Kind) -> String {
    match kind {
        Kind::Int(value) => value.to_string(),
        Kind::Uint(value) => value.to_string(),
        Kind::Float(value) => format!("{value:?}"),
    }
}

fn table(title: &str, rows: &[Row]) -> String {
    let width = |column: fn(&Row) -> &str| rows.iter().map(|row| column(row).len()).max().unwrap_or(0);
    let (names, numbers) = (width(|row| &row.name), width(|row| &row.expected).max("expected".len()));
    let mut text = format!("{title}\n  {:names$}  {:>numbers$}  stored\n", "", "expected");
    for row in rows {
        let mark = if row.equal { "" } else { "   <- differs" };
        let _ = writeln!(text, "  {:names$}  {:>numbers$}  {}{mark}", row.name, row.expected, row.stored);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_must_be_of_the_right_kind_and_within_its_tolerance() {
        assert!(Expected::Whole(7).allows(&Kind::Int(7)) && Expected::Whole(7).allows(&Kind::Uint(7)));
        assert!(!Expected::Whole(7).allows(&Kind::Float(7.0)) && !Expected::Whole(7).allows(&Kind::Int(8)));
        assert!(Expected::Near(1e6).allows(&Kind::Float(1e6 + 1e-4)));
        assert!(!Expected::Near(1e6).allows(&Kind::Float(1e6 + 1e-2)));
        assert!(!Expected::Real(0.1).allows(&Kind::Float(0.1 + 1e-16 * 2.0)));
        assert!(Expected::Between(1.0, 2.0).allows(&Kind::Float(2.0)));
        assert!(!Expected::Near(1.0).allows(&Kind::Float(f64::NAN)));
    }

    #[test]
    fn a_differing_bar_is_shown_in_full_with_the_difference_marked() {
        let rows = [Row::plain("tick_count", 10, 10), Row::metric("open", Some(Expected::Whole(5)), None)];
        let text = table("title", &rows);
        assert!(text.contains("tick_count        10  10\n"), "{text}");
        assert!(text.contains("open               5  absent   <- differs"), "{text}");
    }
}
