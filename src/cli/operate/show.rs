//! Reports as people read them.

use std::fmt::Write;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::JobFormat;
use crate::serve::when::rfc3339;
use crate::spec::units::format_bytes;
use crate::tools::restore::RestoreReport;
use crate::tools::stat::StatReport;
use crate::tools::verify::Damage;
use crate::tools::{BackupReport, ReplayReport, VerifyReport};

pub(super) fn replay(report: &ReplayReport, diff: bool, format: JobFormat) -> String {
    in_format(report, format, || {
        let mut out = format!("bars of {} from {} ticks of {}\n\n", report.spec, report.ticks, report.ticks_of);
        let header =
            ["", "derived", "same", "changed", "new", "missing", "richer", "in flight", "incomplete", "installed"];
        let rows = report.granularities.iter().map(|c| {
            let counts =
                [c.derived, c.same, c.changed, c.new, c.missing, c.richer, c.in_flight, c.incomplete, c.installed];
            std::iter::once(c.granularity.clone()).chain(counts.map(|count| count.to_string())).collect()
        });
        out += &table(&header, 1, rows);
        if !report.configured {
            out += "\nthe spec is not configured: there are no stored bars of it to compare with\n";
        }
        if report.refused > 0 {
            let _ = writeln!(out, "\n{} bars of series that the spec does not take were not installed", report.refused);
        }
        for note in &report.notes {
            let _ = writeln!(out, "\n{note}");
        }
        if diff && !report.differences.is_empty() {
            out += "\ndifferences, the first of them:\n";
            let header = ["", "series", "window", "what", "stored", "derived"];
            let rows = report.differences.iter().map(|d| {
                let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
                let what = [d.granularity.clone(), visible(&d.series), rfc3339(d.start_ns), d.what.clone()];
                what.into_iter().chain([side(&d.stored), side(&d.derived)]).collect()
            });
            out += &table(&header, 4, rows);
        }
        out
    })
}

pub(super) fn verify(report: &VerifyReport, format: JobFormat) -> String {
    in_format(report, format, || {
        let header = ["", "values", "bytes", "damaged", "repaired"];
        let rows = report.kinds.iter().map(|kind| {
            let counts = [kind.values.to_string(), format_bytes(kind.bytes), kind.bad.to_string()];
            std::iter::once(kind.kind.clone()).chain(counts).chain([kind.repaired.to_string()]).collect()
        });
        let mut out = table(&header, 1, rows);
        for Damage { kind, space, key, what, outcome, .. } in &report.damages {
            let key = visible(key);
            let _ = writeln!(out, "\n{kind} {key} in {space}: {what}");
            if !outcome.is_empty() {
                let _ = writeln!(out, "  {outcome}");
            }
        }
        let bad: u64 = report.kinds.iter().map(|kind| kind.bad).sum();
        let told = report.damages.len() as u64;
        if bad > told {
            let _ = writeln!(out, "\nand {} more", bad - told);
        }
        if report.restored > 0 {
            let _ = writeln!(out, "\n{} missing bars were derived again from the journal", report.restored);
        }
        for (from, to) in &report.gaps {
            let _ = writeln!(
                out,
                "\nno arrivals {from} to {} in order (rewritten by series, expired, dropped or lost)",
                to - 1
            );
        }
        if bad == 0 {
            out += "\nevery value is sound\n";
        }
        out
    })
}

pub(super) fn stat(report: &StatReport, format: JobFormat) -> String {
    in_format(report, format, || {
        let header = ["", "series", "ticks", "late aside", "bars", "partitions"];
        let rows = report.specs.iter().map(|spec| {
            let bytes = [spec.ticks, spec.side, spec.bars].map(format_bytes);
            let series = [spec.spec.clone(), spec.series.to_string()];
            series.into_iter().chain(bytes).chain([spec.partitions.to_string()]).collect()
        });
        let mut out = table(&header, 1, rows);
        let (orphans, fixed) = (format_bytes(report.orphans), format_bytes(report.fixed));
        let end = report.journal_end;
        let _ =
            writeln!(out, "\nof specs no longer configured {orphans}, series and records {fixed}, next arrival {end}");
        for (kind, count) in &report.quarantined {
            let _ = writeln!(out, "put aside because corrupt: {count} of kind {kind}");
        }
        out
    })
}

pub(super) fn backup(report: &BackupReport, format: JobFormat) -> String {
    in_format(report, format, || {
        let BackupReport { directory, spaces, pairs, journal_end, unreadable, .. } = report;
        let bytes = format_bytes(report.bytes);
        let mut out =
            format!("{directory}: {pairs} values in {spaces} spaces, {bytes}, journal up to arrival {journal_end}\n");
        if *unreadable > 0 {
            let _ = writeln!(out, "{unreadable} values could not be read; see `barline store verify`");
        }
        out
    })
}

pub(super) fn restore(report: &RestoreReport, format: JobFormat) -> String {
    in_format(report, format, || {
        let RestoreReport { data_dir, pairs, journal_end, taken_ns, found, .. } = report;
        let (bytes, taken) = (format_bytes(report.bytes), rfc3339(*taken_ns));
        let mut out =
            format!("{data_dir}: {pairs} values, {bytes}, journal up to arrival {journal_end}, as of {taken}\n");
        if !found.is_sound() {
            let left = found.left;
            let _ =
                writeln!(out, "{left} values were damaged when they were copied; see `barline store verify --repair`");
        }
        out
    })
}

pub(super) fn in_format(report: &impl Serialize, format: JobFormat, human: impl FnOnce() -> String) -> String {
    match format {
        JobFormat::Human => human(),
        // Numbers, strings and lists always have a JSON form.
        JobFormat::Json => serde_json::to_string_pretty(report).unwrap_or_default() + "\n",
    }
}

/// Aligned columns, numbers to the right from column `numbers` on.
fn table(header: &[&str], numbers: usize, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        column.set_cell_alignment(if index < numbers { CellAlignment::Left } else { CellAlignment::Right });
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A client's own text must not move the cursor of the terminal it is shown in.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
