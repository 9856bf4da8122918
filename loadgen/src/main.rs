//! Open-loop load generator and independent verifier for barline.
//!
//! It knows barline by its gRPC contract alone. The way through, for one run:
//!
//! 1. [`cli`] and [`profile`] ([`load`], [`check`]) say what is asked for; [`plan`] fixes the run's name, times and shares.
//! 2. [`generate`] makes the ticks of a connection from the seed, with values from [`values`], series from
//!    [`pick`] and [`dimensions`] and times from [`pace`].
//! 3. [`encode`] and [`columnar`] write them as messages of the two wires, with the tools of [`wire`].
//! 4. [`feed`] hands the messages over when they are due; [`tikr`] and [`native`] send them through [`codec`] on
//!    channels of [`connect`], the latter within the bounds of [`in_flight`]. [`mod@run`] holds it all together.
//! 5. [`meter`] measures, [`progress`] shows, [`report`] sums up.
//! 6. [`verify`] generates the ticks again, makes [`naive`] bars of them ([`aggregate`]) and lets [`compare`] and [`ledger`] hold
//!    them against the server's.

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, RunArgs};
use report::Report;
use run::Failure;

mod aggregate;
mod check;
mod cli;
mod codec;
mod columnar;
mod compare;
mod connect;
mod dimensions;
mod encode;
mod feed;
mod generate;
mod in_flight;
mod ledger;
mod load;
mod meter;
mod naive;
mod native;
mod pace;
mod pick;
mod plan;
mod profile;
mod progress;
mod report;
mod run;
mod show;
mod tikr;
mod units;
mod values;
mod verify;
mod wire;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Profiles => show::profiles().map_err(Failure::Usage).map(print),
        Command::Show(args) => {
            args.profile.load().and_then(|profile| show::ticks(profile, args.ticks)).map_err(Failure::Usage).map(print)
        }
    };
    match done {
        Ok(code) => code,
        Err(Failure::Usage(problem)) => fail(&problem, 2),
        Err(Failure::Connection(problem)) => fail(&problem, 3),
    }
}

/// Runs, and writes the result where it was asked for.
fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let (profile, options) = args.resolve().map_err(Failure::Usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::Usage(format!("cannot start threads: {e}")))?;
    let report = runtime.block_on(run::run(profile, &options))?;
    write(&report, args.json.as_deref()).map_err(Failure::Usage)?;
    let wrong = report.verify.is_some_and(|verdict| !verdict.ok);
    Ok(if wrong { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

fn write(report: &Report, json: Option<&str>) -> Result<(), String> {
    let text = serde_json::to_string_pretty(report).map_err(|e| format!("the result does not fit JSON: {e}"))?;
    match json {
        Some("-") => println!("{text}"),
        Some(path) => std::fs::write(path, text + "\n").map_err(|e| format!("--json {path}: {e}"))?,
        None => {}
    }
    if json != Some("-") {
        print!("{}", report.table());
    }
    Ok(())
}

fn print(text: String) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

fn fail(problem: &str, code: u8) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::from(code)
}
