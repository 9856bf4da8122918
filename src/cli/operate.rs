//! `barline replay`, `store`, `backup`, `restore`, `reload`: an operator's jobs, done by the running process if there is one, else on
//! the data directory itself.
//!
//! Whether one runs is told by its socket: where it answers, the job is sent there, so that a command means the same
//! either way.

mod args;
mod bar;
mod offline;
mod online;
mod reload;
mod scale;
mod show;

use std::path::{Path, PathBuf};

pub use args::{
    BackupArgs, JobFormat, ReloadArgs, ReplayArgs, RestoreArgs, StatArgs, StoreArgs, StoreCommand, VerifyArgs,
    WhereArgs,
};
use bar::Bar;
pub use reload::reload;
pub use scale::{ScaleArgs, scale};

use super::{Exit, Failure, say};
use crate::spec::problem;
use crate::spec::{self, Spec};
use crate::tools::replay::{HELD_BYTES, Install, Replay};
use crate::tools::{Job, Report, ToolError, restore};
use crate::topology::Plan;

/// Derives bars again.
pub fn replay(args: &ReplayArgs) -> Exit {
    let (from, to) = args.bounds()?;
    let text = std::fs::read_to_string(&args.spec)
        .map_err(|error| Failure::input(format!("cannot read the spec {}: {error}", args.spec.display())))?;
    let file = args.spec.display().to_string();
    let specs = spec::load_texts([(file.clone(), text.clone())])
        .map_err(|problems| Failure::input(problem::render(&problems)))?;
    let Some(spec) = specs.iter().next() else { return Err(Failure::input(format!("{file} holds no spec"))) };
    let job = Replay {
        spec: Spec::clone(spec),
        ticks_of: args.ticks_of.clone(),
        from,
        to,
        examples: if args.diff { args.examples as usize } else { 0 },
        held_bytes: HELD_BYTES,
        install: args.install.then_some(Install::All),
    };
    let asked = Asked { job: Job::Replay(Box::new(job)), spec: Some((file, text)), writes: args.install };
    let Report::Replay(report) = asked.run(&args.place)? else { return Err(unexpected()) };
    say(show::replay(&report, args.diff, args.format))?;
    let differs = args.diff && !args.install && !report.is_equal();
    if differs { Err(Failure::ran("stored bars differ from what the journal holds")) } else { Ok(()) }
}

/// Checks every value.
pub fn verify(args: &VerifyArgs) -> Exit {
    let asked = Asked { job: Job::Verify { repair: args.repair }, spec: None, writes: args.repair };
    let Report::Verify(report) = asked.run(&args.place)? else { return Err(unexpected()) };
    say(show::verify(&report, args.format))?;
    if report.is_sound() {
        return Ok(());
    }
    let remedy = if args.repair { "what could be brought back has been" } else { "repair it with --repair" };
    Err(Failure::ran(format!("{} damaged values; {remedy}", report.left)))
}

/// Tells what is kept.
pub fn stat(args: &StatArgs) -> Exit {
    let asked = Asked { job: Job::Stat, spec: None, writes: false };
    let Report::Stat(report) = asked.run(&args.place)? else { return Err(unexpected()) };
    say(show::stat(&report, args.format))
}

/// Copies everything.
pub fn backup(args: &BackupArgs) -> Exit {
    let directory = absolute(&args.directory)?;
    let asked = Asked { job: Job::Backup { directory }, spec: None, writes: false };
    let Report::Backup(report) = asked.run(&args.place)? else { return Err(unexpected()) };
    say(show::backup(&report, args.format))
}

/// Brings a copy back.
pub fn restore(args: &RestoreArgs) -> Exit {
    let mut bar = Bar::new();
    let restored = restore::restore(&args.directory, &args.data_dir, &mut |step| bar.show(step));
    bar.end();
    let report = restored.map_err(failure)?;
    say(show::restore(&report, args.format))
}

/// A job, and what a running process needs to know of it.
struct Asked {
    job: Job,
    /// The spec file's name and text.
    spec: Option<(String, String)>,
    /// Whether it changes the store.
    writes: bool,
}

impl Asked {
    /// Has the job done by the process that has the data directory, or does it itself.
    fn run(self, place: &WhereArgs) -> Result<Report, Failure> {
        let plan = place.plan()?;
        let data_dir = data_dir_of(&plan)?;
        let mut bar = Bar::new();
        let report = match online::connect(&data_dir)? {
            Some(running) => running.run(&self, &mut bar),
            None => offline::run(&self, &plan, &data_dir, &mut bar),
        };
        bar.end();
        report
    }
}

impl WhereArgs {
    /// The topology, with what the arguments change.
    fn plan(&self) -> Result<Plan, Failure> {
        let mut overrides = self.set.clone();
        overrides.extend(self.data_dir.iter().map(|path| format!("data_dir={}", path.display())));
        super::run::compile_file(&self.topology, &overrides).map_err(Failure::input)
    }
}

/// Where the data of a topology is, and the socket of the process that has it.
fn data_dir_of(plan: &Plan) -> Result<PathBuf, Failure> {
    plan.data_dir.clone().ok_or_else(|| {
        Failure::input(format!(
            "topology {} keeps its data in memory, where no command reaches it; name one with a data_dir, or --data-dir",
            plan.name
        ))
    })
}

fn failure(error: ToolError) -> Failure {
    match error {
        ToolError::Refused(message) => Failure::input(message),
        error => Failure::ran(error),
    }
}

fn unexpected() -> Failure {
    Failure::ran("the running barline gave the report of another job; it is of another version")
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::input(format!("{}: {error}", path.display())))
}
