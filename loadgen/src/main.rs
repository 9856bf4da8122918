//! The program: see the library for the way through.

use std::{process::ExitCode, sync::atomic::Ordering::Relaxed, time::Duration};

use clap::Parser;
use serde::Serialize;

use loadgen::{
    cli::{CheckArgs, Cli, Command, RunArgs},
    run::{self, Failure, Stop},
    show,
    verify::Verdict,
};

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Check(args) => check(&args),
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
    let report = runtime()?.block_on(async {
        tokio::spawn(stop_at_interrupt(options.stop.clone()));
        run::run(profile, &options).await
    })?;
    write(&report, &report.table(), args.json.as_deref()).map_err(Failure::Usage)?;
    Ok(code(report.verify.as_ref()))
}

/// Checks, and writes the result where it was asked for.
fn check(args: &CheckArgs) -> Result<ExitCode, Failure> {
    let settle = Duration::from_nanos(args.settle as u64);
    let server = args.server.resolve().map_err(Failure::Usage)?;
    let verdict = runtime()?.block_on(run::check(&args.record, &server, settle))?;
    let text = format!("{}\n{}", verdict.text(), verdict.problems());
    write(&verdict, &text, args.json.as_deref()).map_err(Failure::Usage)?;
    Ok(code(Some(&verdict)))
}

/// The first interrupt ends the sending, what was sent is still waited for; the second ends the program.
async fn stop_at_interrupt(stop: Stop) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if stop.swap(true, Relaxed) {
            std::process::exit(130);
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| Failure::Usage(format!("cannot start threads: {e}")))
}

fn code(verdict: Option<&Verdict>) -> ExitCode {
    ExitCode::from(u8::from(verdict.is_some_and(|verdict| !verdict.ok)))
}

fn write(result: &impl Serialize, table: &str, json: Option<&str>) -> Result<(), String> {
    let text = serde_json::to_string_pretty(result).map_err(|e| format!("the result does not fit JSON: {e}"))?;
    match json {
        Some("-") => println!("{text}"),
        Some(path) => std::fs::write(path, text + "\n").map_err(|e| format!("--json {path}: {e}"))?,
        None => {}
    }
    if json != Some("-") {
        print!("{table}");
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
