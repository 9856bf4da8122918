//! The command line: what can be asked for, in one place; each command in a file of its own.
//!
//! Exit codes: 0 done; 1 it ran and something went wrong; 2 the command line, a topology or a spec is wrong;
//! 3 it could not start (port taken, data directory in use).

pub mod access;
pub mod check;
pub mod doctor;
pub mod operate;
pub mod query;
pub mod run;
pub mod tap;
pub mod top;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::console::LogWriter;
use crate::telemetry::logs;

/// An edge rollup engine: high-frequency ticks in over gRPC, exact bars out.
#[derive(Debug, Parser)]
#[command(name = "barline", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do; without a command it runs topologies/quickstart.yaml.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

const EXAMPLES: &str = "\
Examples:
  barline                                          run topologies/quickstart.yaml
  barline run topologies/edge.yaml --set aggregate.instances=4
  barline check topologies/*.yaml                  every error at once, and the resolved plan
  barline query bars market_ticks symbol=AAPL --from -5m
  barline tap aggregate symbol=AAPL                what a stage is given, live
  barline doctor                                   what limits it, and which knob to turn
  barline reload                                   specs and topology, without a restart
  barline backup /mnt/backup/today                 while it runs
  barline store verify --repair                    every value, and what can be made good

Log level: BARLINE_LOG=debug (default info; per module: info,barline::runtime=debug).

Exit codes: 0 done; 1 it ran and something went wrong; 2 the command line, a topology or a spec is
wrong; 3 it could not start (port taken, data directory in use).";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a topology until Ctrl-C or SIGTERM, then drain.
    Run(run::RunArgs),
    /// Check topologies: every error at once with its place and remedy, and the resolved plan.
    Check(check::CheckArgs),
    /// Draw a topology as Mermaid or DOT.
    Graph(check::GraphArgs),
    /// Work with series specs.
    Spec {
        /// What to do.
        #[command(subcommand)]
        command: SpecCommand,
    },
    /// Ask a running barline for bars, ticks, series or the ledger.
    Query(query::QueryArgs),
    /// Look at batches as they flow: what a stage is given, or a source gives, some rows of some batches.
    Tap(tap::TapArgs),
    /// Watch every instance at work: rates, lag, mailboxes, and who waits for whom.
    Top(top::TopArgs),
    /// Say in sentences what limits a running barline and which knob to turn.
    Doctor(doctor::DoctorArgs),
    /// Derive the bars of a spec again from the journal, compare them with the stored ones, install what differs.
    Replay(operate::ReplayArgs),
    /// Check, repair and measure what is stored.
    Store(operate::StoreArgs),
    /// Have a running barline read its topology and specs again, without a restart.
    Reload(operate::ReloadArgs),
    /// Change how many instances of a stage are active, while barline runs.
    Scale(operate::ScaleArgs),
    /// Take a consistent copy of everything, also while barline runs.
    Backup(operate::BackupArgs),
    /// Check a backup and make a data directory of it.
    Restore(operate::RestoreArgs),
    /// Print the version.
    Version,
}

/// The commands on specs.
#[derive(Debug, Subcommand)]
pub enum SpecCommand {
    /// Check spec files: every error at once with its place and remedy.
    Check {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
}

/// How a command ended.
pub type Exit = Result<(), Failure>;

/// Why a command failed: what to print and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// Printed to stderr as it is.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// It ran and something went wrong.
    pub fn ran(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: 1 }
    }

    /// What was written is wrong.
    pub fn input(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: 2 }
    }

    /// It could not start.
    pub fn start(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), code: 3 }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.log_format);
    let exit = match cli.command.unwrap_or_else(|| Command::Run(run::RunArgs::default())) {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Graph(args) => check::graph(&args),
        Command::Spec { command: SpecCommand::Check { files } } => check::specs(&files),
        Command::Query(args) => blocking(query::run(args)),
        Command::Tap(args) => blocking(tap::run(args)),
        Command::Top(args) => blocking(top::run(args)),
        Command::Doctor(args) => blocking(doctor::run(args)),
        Command::Replay(args) => operate::replay(&args),
        Command::Store(args) => match args.command {
            operate::StoreCommand::Verify(args) => operate::verify(&args),
            operate::StoreCommand::Stat(args) => operate::stat(&args),
        },
        Command::Reload(args) => operate::reload(&args),
        Command::Scale(args) => operate::scale(&args),
        Command::Backup(args) => operate::backup(&args),
        Command::Restore(args) => operate::restore(&args),
        Command::Version => say(concat!("barline ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    match exit {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where nobody reads this either, the exit code still says it.
            let _ = writeln!(std::io::stderr(), "{}", failure.message.trim_end());
            ExitCode::from(failure.code)
        }
    }
}

/// Prints to stdout as it is. Nobody reading any more (`| head`) is no failure.
fn say(text: impl std::fmt::Display) -> Exit {
    let mut out = std::io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(cannot_write(error)),
        _ => Ok(()),
    }
}

/// What is said when stdout takes no more.
fn cannot_write(error: std::io::Error) -> Failure {
    Failure::ran(format!("cannot write the answer: {error}"))
}

fn blocking(command: impl Future<Output = Exit>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::start)?;
    runtime.block_on(command)
}

/// The store's own libraries have little to tell an operator.
const DEFAULT_LOG: &str = "info,fjall=warn,lsm_tree=warn";

fn start_log(format: LogFormat) {
    let asked = std::env::var("BARLINE_LOG").unwrap_or_else(|_| DEFAULT_LOG.to_owned());
    let filter = EnvFilter::try_new(&asked).unwrap_or_else(|error| {
        // The log itself cannot say so yet.
        let _ = writeln!(std::io::stderr(), "BARLINE_LOG={asked:?} is no filter ({error}); using {DEFAULT_LOG}");
        EnvFilter::new(DEFAULT_LOG)
    });
    // Colours only where nobody has to parse them.
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(LogWriter::default);
    let log = tracing_subscriber::registry().with(filter).with(logs::Layer);
    match format {
        LogFormat::Text => log.with(lines).init(),
        LogFormat::Json => log.with(lines.json()).init(),
    }
}
