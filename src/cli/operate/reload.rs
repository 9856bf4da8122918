//! `barline reload`: the running process reads topology and specs again.

use std::fmt::Write;
use std::time::Duration;

use super::{ReloadArgs, online, show};
use crate::cli::{Exit, Failure, run, say};
use crate::serve::admin::ReloadReport;

/// Reloads.
pub fn reload(args: &ReloadArgs) -> Exit {
    let plan = args.place.plan()?;
    let Some(data_dir) = plan.data_dir else {
        return Err(Failure::input(format!(
            "topology {} keeps its data in memory, where no command reaches it; send its process SIGHUP instead",
            plan.name
        )));
    };
    let Some(running) = online::connect(&data_dir)? else {
        return Err(Failure::start(format!(
            "no barline runs on {}; name its data directory with --data-dir, or its topology with --topology",
            data_dir.display()
        )));
    };
    let report = running.reload()?;
    say(show::in_format(&report, args.format, || text(&report)))?;
    if report.unready.is_empty() { Ok(()) } else { Err(Failure::ran("reloaded, and not every instance is at work")) }
}

fn text(report: &ReloadReport) -> String {
    let paused = Duration::from_millis(report.paused_ms);
    let mut out = format!("{}\ngeneration {}, input paused for {paused:?}\n", run::summary(report), report.generation);
    for reason in &report.unready {
        // Writing to a string does not fail.
        let _ = writeln!(out, "not at work yet: {reason}");
    }
    out
}
