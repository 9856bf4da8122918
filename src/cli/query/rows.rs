//! What the server answers, as rows of cells and as JSON.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use barline_proto::barline::{Bar, FollowerStatus, Offender, Series, SinkStatus, SpecLedger, Tick, Value};
use barline_proto::tikr::SeriesInfo;
use serde_json::json;

use super::sheet::{Cell, Section, Sheet};
use crate::cli::Exit;
use crate::serve::json::{BarJson, TickJson, dimensions, numbers};
use crate::serve::when::rfc3339;

/// Declared names in the spec file's order, which is the order of the columns.
pub struct Names {
    dimensions: Vec<String>,
    metrics: Vec<String>,
}

impl Names {
    /// The names a spec declares.
    pub fn of(info: SeriesInfo) -> Self {
        Self { dimensions: info.dimensions, metrics: info.metrics }
    }

    fn who(&self, series: &HashMap<String, String>) -> Vec<Cell> {
        let pairs = in_order(dimensions(series).into_iter(), &self.dimensions);
        pairs.into_iter().map(|(name, value)| Cell::text(Section::Who, name, value)).collect()
    }

    fn what(&self, values: &HashMap<String, Value>) -> Vec<Cell> {
        let pairs = in_order(numbers(values).into_iter(), &self.metrics);
        pairs.into_iter().map(|(name, number)| Cell::number(Section::What, name, number)).collect()
    }
}

/// A bar.
pub fn bar<W: Write>(bar: &Bar, names: &Names, sheet: &mut Sheet<W>) -> Exit {
    sheet.add(&BarJson::from(bar), bar_cells(bar, names))
}

/// The cells of a bar.
pub fn bar_cells(bar: &Bar, names: &Names) -> Vec<Cell> {
    let mut cells = vec![Cell::text(Section::When, "start", rfc3339(bar.start_ns))];
    cells.extend(names.who(&bar.dimensions));
    cells.extend(names.what(&bar.metrics));
    cells.extend([
        Cell::number(Section::Rest, "ticks", bar.tick_count),
        Cell::number(Section::Rest, "late", bar.late_count),
        Cell::number(Section::Rest, "revision", bar.revision),
        Cell::text(Section::Rest, "flags", flags(bar)),
    ]);
    cells
}

/// A tick.
pub fn tick<W: Write>(tick: &Tick, names: &Names, sheet: &mut Sheet<W>) -> Exit {
    sheet.add(&TickJson::from(tick), tick_cells(tick, names))
}

/// The cells of a tick.
pub fn tick_cells(tick: &Tick, names: &Names) -> Vec<Cell> {
    let mut cells = vec![Cell::text(Section::When, "timestamp", rfc3339(tick.timestamp_ns))];
    cells.extend(names.who(&tick.dimensions));
    cells.extend(names.what(&tick.fields));
    cells.push(Cell::number(Section::Rest, "sequence", tick.sequence));
    cells
}

/// A series.
pub fn series<W: Write>(series: &Series, names: &Names, sheet: &mut Sheet<W>) -> Exit {
    sheet.add(&dimensions(&series.dimensions), names.who(&series.dimensions))
}

/// A spec.
pub fn spec<W: Write>(info: &SeriesInfo, sheet: &mut Sheet<W>) -> Exit {
    let json = json!({
        "spec": info.name, "rollup": info.rollup, "dimensions": info.dimensions, "metrics": info.metrics,
    });
    let cells = vec![
        Cell::text(Section::Who, "spec", &info.name),
        Cell::text(Section::Who, "rollup", &info.rollup),
        Cell::text(Section::What, "dimensions", info.dimensions.join(", ")),
        Cell::text(Section::What, "metrics", info.metrics.join(", ")),
    ];
    sheet.add(&json, cells)
}

/// A value of a dimension.
pub fn value<W: Write>(dimension: &str, value: &str, sheet: &mut Sheet<W>) -> Exit {
    sheet.add(&value, vec![Cell::text(Section::Who, dimension, value)])
}

/// The ledger of one spec.
pub fn ledger<W: Write>(ledger: &SpecLedger, sheet: &mut Sheet<W>) -> Exit {
    let offender = |o: &Offender| json!({ "dimension": o.dimension, "distinct": o.distinct, "values": o.values });
    let offenders: Vec<_> = ledger.offenders.iter().map(offender).collect();
    let json = json!({
        "spec": ledger.spec, "received": ledger.received, "accepted": ledger.accepted, "rejected": ledger.rejected,
        "duplicate": ledger.duplicate, "in_bars": ledger.in_bars, "open": ledger.open,
        "in_flight": ledger.in_flight, "dropped": ledger.dropped, "refused_series": ledger.refused_series,
        "offenders": offenders,
    });
    let name = if ledger.spec.is_empty() { "(unknown)" } else { &ledger.spec };
    let count = |name, number| Cell::number(Section::What, name, number);
    let cells = vec![
        Cell::text(Section::Who, "spec", name),
        count("received", ledger.received),
        count("accepted", ledger.accepted),
        count("duplicate", ledger.duplicate),
        count("in_bars", ledger.in_bars),
        count("open", ledger.open),
        Cell::number(Section::What, "in_flight", ledger.in_flight),
        Cell::text(Section::Rest, "rejected", reasons(&ledger.rejected)),
        Cell::text(Section::Rest, "dropped", reasons(&ledger.dropped)),
    ];
    for Offender { dimension, distinct, values } in &ledger.offenders {
        // A client's own text: quoted, so that control characters are escaped.
        let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
        let (times, values) = (ledger.refused_series, values.join(", "));
        sheet.note(format!(
            "{name}: series beyond its cardinality limit came {times} times; dimension {dimension:?} has about \
             {distinct} different values there, most often {values}"
        ));
    }
    sheet.add(&json, cells)
}

/// How a sink stands, a row for each of its specs.
pub fn sink<W: Write>(sink: &SinkStatus, sheet: &mut Sheet<W>) -> Exit {
    for follower in &sink.specs {
        let FollowerStatus { delivered, quarantined, skipped, outstanding, spooled_bytes, oldest_ns, .. } = follower;
        let json = json!({
            "sink": sink.sink, "spec": follower.spec, "link": sink.link, "last_error": sink.last_error,
            "delivered": delivered, "outstanding": outstanding, "quarantined": quarantined, "skipped": skipped,
            "dropped": follower.dropped, "spooled_bytes": spooled_bytes, "oldest_ns": oldest_ns,
        });
        let count = |name, number: &u64| Cell::number(Section::What, name, *number);
        let oldest = Duration::from_nanos(u64::try_from(*oldest_ns).unwrap_or(0));
        let cells = vec![
            Cell::text(Section::Who, "sink", &sink.sink),
            Cell::text(Section::Who, "spec", &follower.spec),
            count("delivered", delivered),
            count("outstanding", outstanding),
            count("quarantined", quarantined),
            count("skipped", skipped),
            count("spooled_bytes", spooled_bytes),
            Cell::number(Section::What, "oldest_seconds", format!("{:.1}", oldest.as_secs_f64())),
            Cell::text(Section::Rest, "dropped", reasons(&follower.dropped)),
            // A peer's own words may be in it.
            Cell::text(Section::Rest, "link", sink.link.escape_debug().to_string()),
        ];
        sheet.add(&json, cells)?;
    }
    Ok(())
}

fn flags(bar: &Bar) -> String {
    let flags = [(bar.partial, "partial"), (bar.overflow, "overflow"), (bar.redefined, "redefined")];
    flags.iter().filter(|(is_set, _)| *is_set).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
}

fn reasons(counts: &HashMap<String, u64>) -> String {
    let mut counts: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason}={count}")).collect();
    counts.sort_unstable();
    counts.join(" ")
}

/// Pairs in the order of `names`, those not named last.
fn in_order<'a, T>(pairs: impl Iterator<Item = (&'a str, T)>, names: &[String]) -> Vec<(&'a str, T)> {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by_key(|(name, _)| names.iter().position(|known| known == name).unwrap_or(usize::MAX));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::query::Format;

    fn printed(format: Format, ledgers: &[SpecLedger]) -> String {
        let mut bytes = Vec::new();
        let mut sheet = Sheet::new(format, &mut bytes);
        ledgers.iter().try_for_each(|one| ledger(one, &mut sheet)).unwrap();
        sheet.end().unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn offenders_stand_below_the_table_and_in_json() {
        let calm = SpecLedger { spec: "calm".into(), ..SpecLedger::default() };
        let values = vec!["17".to_owned(), "\u{1b}[2J".to_owned()];
        let offender = Offender { dimension: "request".into(), distinct: 9, values };
        let full = SpecLedger { spec: "full".into(), refused_series: 12, offenders: vec![offender], ..calm.clone() };
        let quiet = printed(Format::Table, &[calm.clone(), calm.clone()]);
        assert_eq!(quiet.lines().count(), 3, "{quiet}");
        let table = printed(Format::Table, &[full.clone(), calm.clone()]);
        let below = "full: series beyond its cardinality limit came 12 times; dimension \"request\" has about 9 \
                     different values there, most often \"17\", \"\\u{1b}[2J\"";
        assert_eq!(table.lines().skip(3).collect::<Vec<_>>(), [below], "{table}");
        assert_eq!(printed(Format::Csv, std::slice::from_ref(&full)).lines().count(), 2);
        let json: serde_json::Value = serde_json::from_str(&printed(Format::Json, &[full, calm])).unwrap();
        assert_eq!((&json[0]["refused_series"], &json[0]["offenders"][0]["distinct"]), (&json!(12), &json!(9)));
        assert_eq!(json[1]["offenders"], json!([]));
    }
}
