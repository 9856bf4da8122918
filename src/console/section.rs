//! The newest bars of one spec as aligned text.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ColumnConstraint, Table};

use super::board::Kept;
use super::{human, lines};
use crate::model::time::{MILLISECOND, SECOND};
use crate::model::{SeriesKey, TimeNs};
use crate::spec::{Metric, Spec};
use crate::window::state;

/// Spaces between columns.
const GAP: u16 = 2;
/// The longest a dimension's value is shown.
const MOST_VALUE: usize = 24;

/// The bars of one spec, as cells.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    title: String,
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// Series that are not among `rows`.
    more: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Column {
    name: String,
    is_number: bool,
    /// The highest goes first when there is no room; 0 stays.
    dispensable: usize,
}

/// A section as lines of text.
pub struct Grid {
    title: String,
    /// The column names.
    pub head: Vec<String>,
    body: Vec<String>,
    more: usize,
}

impl Section {
    /// The section of `spec` with these series, and `more` others that are not shown.
    pub fn new(spec: &Spec, bars: &[(SeriesKey, &Kept)], more: usize) -> Self {
        let values: Vec<_> = bars.iter().map(|(_, kept)| state::metrics(spec, &kept.head, &kept.state)).collect();
        let mut section =
            Self { title: spec.name.clone(), columns: Vec::new(), rows: vec![Vec::new(); bars.len()], more };
        let finest = spec.granularities.first();
        section.title += &finest.map_or(String::new(), |finest| format!(" · {}", finest.name));
        let subsecond = finest.is_some_and(|finest| finest.length % SECOND != 0);
        section.push("time", false, 0, |row| clock(bars[row].1.head.start, subsecond));
        section.push_dimensions(spec, bars);
        for (at, metric) in spec.metrics.iter().enumerate() {
            // A count of ticks has a column already; what no bar has needs none.
            if metric.accumulator.is_some() && values.iter().any(|values| values.get(at).is_some_and(Option::is_some)) {
                section.push(&metric.name, true, dispensability(&spec.metrics, at, spec), |row| {
                    let value = values[row].get(at).copied().flatten();
                    value.map_or(String::new(), |value| human::metric(value, metric.unit.as_deref()))
                });
            }
        }
        section.push("ticks", true, 0, |row| human::count(bars[row].1.head.ticks));
        section.push("rev", true, 0, |row| bars[row].1.head.revision.to_string());
        if bars.iter().any(|(_, kept)| lines::flags(&kept.head).next().is_some()) {
            section.push("note", false, 0, |row| lines::flags(&bars[row].1.head).collect::<Vec<_>>().join(" "));
        }
        section
    }

    /// Dimensions that are the same in every bar stand in the title, declared ones in a column each, others in one.
    fn push_dimensions(&mut self, spec: &Spec, bars: &[(SeriesKey, &Kept)]) {
        let shared: Vec<_> = match bars {
            [(first, _), _, ..] => first
                .dimensions()
                .filter(|(name, value)| bars.iter().all(|(key, _)| key.get(name) == Some(value)))
                .collect(),
            _ => Vec::new(),
        };
        for (name, value) in &shared {
            self.title += &format!(" · {}={}", human::clean(name), shown(value));
        }
        let is_shared = |name: &str| shared.iter().any(|(shared, _)| *shared == name);
        let is_declared = |name: &str| spec.dimensions.iter().any(|declared| declared == name);
        for name in spec.dimensions.iter().filter(|name| !is_shared(name)) {
            self.push(name, false, 0, |row| bars[row].0.get(name).map_or("-".to_owned(), shown));
        }
        let others = |row: usize| {
            let others = bars[row].0.dimensions().filter(|(name, _)| !is_shared(name) && !is_declared(name));
            others.map(|(name, value)| shown(&format!("{name}={value}"))).collect::<Vec<_>>().join(" ")
        };
        if (0..bars.len()).any(|row| !others(row).is_empty()) {
            self.push("others", false, 0, others);
        }
    }

    fn push(&mut self, name: &str, is_number: bool, dispensable: usize, cell: impl Fn(usize) -> String) {
        self.columns.push(Column { name: human::clean(name), is_number, dispensable });
        for (row, cells) in self.rows.iter_mut().enumerate() {
            cells.push(cell(row));
        }
    }

    /// The section as lines of at most `width`: if need be with names broken at their underscores, and then without
    /// the columns that can best be done without.
    pub fn grid(self, width: usize) -> Grid {
        let mut hidden = Vec::new();
        let (mut table, mut head) = self.table(false);
        if self.width(&table, &hidden) > width {
            (table, head) = self.table(true);
        }
        let mut most_dispensable: Vec<_> =
            (0..self.columns.len()).filter(|at| self.columns[*at].dispensable > 0).collect();
        most_dispensable.sort_by_key(|at| (self.columns[*at].dispensable, *at));
        while self.width(&table, &hidden) > width
            && let Some(at) = most_dispensable.pop()
        {
            hidden.push(at);
        }
        for at in &hidden {
            if let Some(column) = table.column_mut(*at) {
                column.set_constraint(ColumnConstraint::Hidden);
            }
        }
        let mut lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        let body = lines.split_off(head.min(lines.len()));
        let mut title = self.title;
        if !hidden.is_empty() {
            title += " · more metrics in a wider window";
        }
        Grid { title, head: lines, body, more: self.more }
    }

    /// The section as a table, and how many lines its column names take.
    fn table(&self, break_names: bool) -> (Table, usize) {
        let parts = |name: &str| if break_names { name.replace('_', "\n") } else { name.to_owned() };
        let names: Vec<_> = self.columns.iter().map(|column| parts(&column.name)).collect();
        let head = names.iter().map(|name| name.lines().count()).max().unwrap_or(1);
        // Names stand on the bars, not under the ceiling.
        let names = names.iter().map(|name| "\n".repeat(head - name.lines().count().min(head)) + name);
        let mut table = Table::new();
        table.load_style(NOTHING).force_no_tty().set_header(names.collect::<Vec<_>>()).add_rows(self.rows.clone());
        for (column, how) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding((0, GAP));
            column.set_cell_alignment(if how.is_number { CellAlignment::Right } else { CellAlignment::Left });
        }
        (table, head)
    }

    fn width(&self, table: &Table, hidden: &[usize]) -> usize {
        let widths = table.column_max_content_widths();
        let shown = widths.iter().enumerate().filter(|(at, _)| !hidden.contains(at));
        let total: usize = shown.map(|(_, width)| usize::from(width + GAP)).sum();
        total.saturating_sub(GAP.into())
    }
}

impl Grid {
    /// How many lines below its column names it takes to show everything.
    pub fn wants(&self) -> usize {
        self.body.len() + usize::from(self.more > 0)
    }

    /// Appends the section with at most `rows` lines below its column names.
    pub fn write(mut self, rows: usize, width: usize, lines: &mut Vec<String>) {
        lines.push(human::shortened(&self.title, width));
        lines.append(&mut self.head);
        if self.wants() > rows {
            let shown = rows.saturating_sub(1);
            self.more += self.body.len().saturating_sub(shown);
            self.body.truncate(shown);
        }
        lines.append(&mut self.body);
        lines.extend((self.more > 0).then(|| format!("… and {} more series", human::count(self.more as u64))));
    }
}

/// The first metric of each field tells most, the second next: what it is the n-th of, from 1.
fn dispensability(metrics: &[Metric], at: usize, spec: &Spec) -> usize {
    let field = |metric: &Metric| metric.accumulator.and_then(|at| spec.accumulators.get(at)).map(|state| state.field);
    metrics[..at].iter().filter(|before| field(before) == field(&metrics[at])).count() + 1
}

fn shown(value: &str) -> String {
    human::shortened(&human::clean(value), MOST_VALUE)
}

/// The time of day in UTC; with milliseconds where windows are that short.
fn clock(time: TimeNs, subsecond: bool) -> String {
    let second = time.div_euclid(SECOND);
    let [hour, minute] = [(3600, 24), (60, 60)].map(|(length, cycle)| second.div_euclid(length).rem_euclid(cycle));
    let text = format!("{hour:02}:{minute:02}:{:02}", second.rem_euclid(60));
    if subsecond { format!("{text}.{:03}", time.rem_euclid(SECOND) / MILLISECOND) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::fixtures::{bars, catalog, specs};
    use crate::model::{BarHead, SpecId};

    fn section(keys: &[SeriesKey]) -> Section {
        let specs = specs();
        let kept = Kept { head: BarHead::default(), state: Vec::new() };
        let bars: Vec<_> = keys.iter().map(|key| (key.clone(), &kept)).collect();
        Section::new(specs.get(SpecId(0)), &bars, 0)
    }

    #[test]
    fn undeclared_dimensions_share_a_column_and_missing_ones_are_a_dash() {
        let key = |pairs: &[(&str, &str)]| SeriesKey::new(pairs.iter().copied()).unwrap();
        let section = section(&[key(&[("device", "a\x1b[2J"), ("rack", "7")]), key(&[("device", "b")])]);
        let names: Vec<_> = section.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["time", "host", "resource", "device", "others", "ticks", "rev"]);
        assert_eq!(section.rows[0][1..5], ["-", "-", "a\u{fffd}[2J", "rack=7"]);
    }

    #[test]
    fn the_only_series_keeps_its_dimensions_in_columns() {
        let specs = specs();
        let batch = bars(1, SpecId(0));
        let kept = Kept { head: batch.heads[0], state: batch.state(&batch.heads[0]).to_vec() };
        let key = catalog(&specs).key(SpecId(0), kept.head.series);
        let section = Section::new(specs.get(SpecId(0)), &[(key, &kept)], 0);
        assert_eq!(section.title, "host_metrics · 1s");
        assert_eq!(section.rows[0][1], "vm");
    }

    #[test]
    fn times_of_day_are_right_before_the_epoch_too() {
        assert_eq!(clock(-1, true), "23:59:59.999");
        assert_eq!(clock(86_400 * SECOND + 3_661 * SECOND, false), "01:01:01");
    }
}
