//! Rows as a table, as CSV or as one JSON array.
//!
//! Columns are found as rows come: a dimension or field may be undeclared. A table waits for all rows; CSV settles its
//! header with the first chunk and puts what has no column into the last one, `extra`, so that nothing is lost.

use std::io::{ErrorKind, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::Format;
use crate::cli::{Exit, Failure, cannot_write};

/// Where a column stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// Times.
    When,
    /// Dimensions.
    Who,
    /// Metrics or fields.
    What,
    /// The rest.
    Rest,
}

/// One value of a row.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Where its column stands.
    pub section: Section,
    /// Its column.
    pub name: String,
    /// What it says.
    pub text: String,
    /// Aligned right.
    pub is_number: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Column {
    section: Section,
    name: String,
    is_number: bool,
}

/// An answer being printed.
pub struct Sheet<W: Write> {
    format: Format,
    out: W,
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    /// Lines below a table.
    notes: Vec<String>,
    /// CSV: the header is out. JSON: a row is.
    begun: bool,
}

impl Cell {
    /// A text, aligned left.
    pub fn text(section: Section, name: &str, text: impl ToString) -> Self {
        Self { section, name: name.to_owned(), text: text.to_string(), is_number: false }
    }

    /// A number, aligned right.
    pub fn number(section: Section, name: &str, number: impl ToString) -> Self {
        Self { is_number: true, ..Self::text(section, name, number) }
    }
}

impl<W: Write> Sheet<W> {
    /// An empty answer on `out`.
    pub fn new(format: Format, out: W) -> Self {
        Self { format, out, columns: Vec::new(), rows: Vec::new(), notes: Vec::new(), begun: false }
    }

    /// Adds a row, as JSON or as cells.
    pub fn add(&mut self, json: &impl Serialize, cells: Vec<Cell>) -> Exit {
        if self.format != Format::Json {
            self.put(cells);
            return Ok(());
        }
        let begin = if std::mem::replace(&mut self.begun, true) { ",\n " } else { "[" };
        let json = serde_json::to_string(json).map_err(Failure::ran)?;
        self.print(format!("{begin}{json}").as_bytes())
    }

    /// Adds a row of cells, which JSON leaves out.
    pub fn put(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Adds a line below a table; JSON has it in its rows, CSV holds nothing but rows.
    pub fn note(&mut self, line: String) {
        self.notes.push(line);
    }

    /// Prints what can be printed before the end.
    pub fn flush(&mut self) -> Exit {
        if self.format == Format::Csv && !(self.rows.is_empty() && self.begun) { self.csv() } else { Ok(()) }
    }

    /// Prints the rest.
    pub fn end(mut self) -> Exit {
        match self.format {
            Format::Table => self.table()?,
            Format::Csv => self.flush()?,
            Format::Json => self.print(if self.begun { b"]\n" } else { b"[]\n" })?,
        }
        self.out.flush().or_else(gone)
    }

    fn table(&mut self) -> Exit {
        self.find_columns();
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return self.print(b"nothing found\n");
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.header());
        for row in &rows {
            let shown = |column: &Column| {
                let text = find(row, column).unwrap_or_default();
                if column.is_number { short(text) } else { visible(text) }
            };
            table.add_row(self.columns.iter().map(shown));
        }
        for (column, known) in table.column_iter_mut().zip(&self.columns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(if known.is_number { CellAlignment::Right } else { CellAlignment::Left });
        }
        let lines = table.lines().map(|line| line.trim_end().to_owned());
        let lines: Vec<String> = lines.chain(std::mem::take(&mut self.notes)).collect();
        self.print(format!("{}\n", lines.join("\n")).as_bytes())
    }

    fn csv(&mut self) -> Exit {
        let rows = std::mem::take(&mut self.rows);
        let mut lines = csv::Writer::from_writer(Vec::new());
        if !self.begun {
            self.begun = true;
            self.rows = rows;
            self.find_columns();
            let names = self.header().into_iter().chain(["extra".to_owned()]);
            lines.write_record(names).map_err(Failure::ran)?;
            return self.print_lines(lines).and_then(|()| if self.rows.is_empty() { Ok(()) } else { self.csv() });
        }
        for row in &rows {
            let known = self.columns.iter().map(|column| find(row, column).unwrap_or_default());
            let extra = row.iter().filter(|cell| !self.columns.iter().any(|column| column.holds(cell)));
            let extra: Vec<String> = extra.map(|cell| format!("{}={}", cell.name, cell.text)).collect();
            lines.write_record(known.chain([extra.join("|").as_str()])).map_err(Failure::ran)?;
        }
        self.print_lines(lines)
    }

    fn print_lines(&mut self, lines: csv::Writer<Vec<u8>>) -> Exit {
        let bytes = lines.into_inner().map_err(|error| Failure::ran(error.error()))?;
        self.print(&bytes)
    }

    /// Makes a column of everything the rows hold, section by section, in order of first occurrence.
    fn find_columns(&mut self) {
        for cell in self.rows.iter().flatten() {
            if !self.columns.iter().any(|column| column.holds(cell)) {
                let (section, name, is_number) = (cell.section, cell.name.clone(), cell.is_number);
                self.columns.push(Column { section, name, is_number });
            }
        }
        self.columns.sort_by_key(|column| column.section);
    }

    /// The columns' names; where two sections share one, each says what it is.
    fn header(&self) -> Vec<String> {
        let is_shared = |name: &str| self.columns.iter().filter(|column| column.name == name).count() > 1;
        let shown = |column: &Column| match column.section {
            Section::Who if is_shared(&column.name) => format!("dimension.{}", column.name),
            Section::What if is_shared(&column.name) => format!("value.{}", column.name),
            _ => column.name.clone(),
        };
        self.columns.iter().map(shown).collect()
    }

    fn print(&mut self, bytes: &[u8]) -> Exit {
        self.out.write_all(bytes).or_else(gone)
    }
}

impl Column {
    fn holds(&self, cell: &Cell) -> bool {
        self.section == cell.section && self.name == cell.name
    }
}

fn find<'a>(row: &'a [Cell], column: &Column) -> Option<&'a str> {
    row.iter().find(|cell| column.holds(cell)).map(|cell| cell.text.as_str())
}

/// A client's own text must not move the cursor of the terminal it is shown in.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Nobody reading any more (`| head`) ends the program quietly.
pub fn gone(error: std::io::Error) -> Exit {
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0)
    }
    Err(cannot_write(error))
}

/// A number for people: no more than four places after the point. CSV and JSON have all of them.
fn short(number: &str) -> String {
    match number.parse::<f64>() {
        Ok(value) if number.split_once('.').is_some_and(|(_, places)| places.len() > 4) => format!("{value:.4}"),
        _ => visible(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_four_places_and_whole_numbers_as_they_are() {
        let shown = ["1.9154690933639666", "0.5", "-3", "18446744073709551615", ""].map(short);
        assert_eq!(shown, ["1.9155", "0.5", "-3", "18446744073709551615", ""]);
    }

    fn printed(format: Format, rows: &[Vec<Cell>]) -> String {
        let mut bytes = Vec::new();
        let mut sheet = Sheet::new(format, &mut bytes);
        for row in rows {
            let json: std::collections::BTreeMap<_, _> = row.iter().map(|cell| (&cell.name, &cell.text)).collect();
            sheet.add(&json, row.clone()).unwrap();
            sheet.flush().unwrap();
        }
        sheet.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    fn rows() -> Vec<Vec<Cell>> {
        let dimension = |name, text: &str| Cell::text(Section::Who, name, text);
        let metric = |name, number: i64| Cell::number(Section::What, name, number);
        vec![
            vec![dimension("symbol", "A"), metric("high", 5)],
            vec![dimension("symbol", "B,\n"), dimension("venue", "X"), metric("high", 1234), metric("symbol", 1)],
        ]
    }

    #[test]
    fn a_table_has_a_column_for_everything_and_numbers_to_the_right() {
        let shown = printed(Format::Table, &rows());
        let expected = "dimension.symbol  venue  high  value.symbol\nA                           5\nB,\u{fffd}               X      1234             1\n";
        assert_eq!(shown, expected, "{shown}");
        assert_eq!(printed(Format::Table, &[]), "nothing found\n");
    }

    #[test]
    fn csv_keeps_its_first_header_and_puts_the_rest_into_extra() {
        let shown = printed(Format::Csv, &rows());
        assert_eq!(shown, "symbol,high,extra\nA,5,\n\"B,\n\",1234,venue=X|symbol=1\n");
        assert_eq!(printed(Format::Csv, &[]), "extra\n");
    }

    #[test]
    fn json_is_one_array() {
        assert_eq!(printed(Format::Json, &[]), "[]\n");
        let array: serde_json::Value = serde_json::from_str(&printed(Format::Json, &rows())).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 2);
    }
}
