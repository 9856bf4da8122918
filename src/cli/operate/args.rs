//! The arguments of the operators' commands and their help.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::Failure;
use crate::cli::run::QUICKSTART;
use crate::runtime::{Clock, SystemClock};
use crate::serve::when;

/// Which data directory.
#[derive(Debug, Clone, Args)]
pub struct WhereArgs {
    /// The topology whose data directory and specs are meant.
    #[arg(long, value_name = "FILE", default_value = QUICKSTART)]
    pub topology: PathBuf,
    /// Changes one key of the topology, as for `barline run`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The data directory, instead of the topology's.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// How a report looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JobFormat {
    /// For people.
    Human,
    /// One JSON object.
    Json,
}

/// `barline replay`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Nothing is written without --install. Exit codes: 0 done; with --diff, 1 where stored bars differ.

Examples:
  barline replay --spec specs/market_ticks.yaml --diff
  barline replay --spec new.yaml --from -2h --to now --diff --topology topologies/edge.yaml
  barline replay --spec candles.yaml --ticks-of market_ticks --dry-run
  barline replay --spec specs/market_ticks.yaml --install --data-dir /var/lib/barline")]
pub struct ReplayArgs {
    /// The spec whose bars are derived.
    #[arg(long, value_name = "FILE")]
    pub spec: PathBuf,
    /// The spec whose recorded ticks are used [default: the one of the same name].
    #[arg(long, value_name = "SPEC")]
    pub ticks_of: Option<String>,
    /// The lowest window start: RFC 3339, nanoseconds since 1970, `now`, or a span before now as in -5m.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub from: Option<String>,
    /// The highest window end.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub to: Option<String>,
    /// Derive, compare and count, write nothing; this is the default.
    #[arg(long, conflicts_with = "install")]
    pub dry_run: bool,
    /// Show the differences to the stored bars; exit code 1 where there are any.
    #[arg(long)]
    pub diff: bool,
    /// How many differences are shown.
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    pub examples: u32,
    /// Write bars that are missing or differ.
    #[arg(long)]
    pub install: bool,
    /// How the report looks.
    #[arg(long, value_enum, default_value_t = JobFormat::Human)]
    pub format: JobFormat,
    /// Which data directory.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// `barline store`
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// The commands on the store.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Check every stored value, and repair what can be.
    Verify(VerifyArgs),
    /// Tell what is kept, in bytes.
    Stat(StatArgs),
}

/// `barline store verify`
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 all is sound; 1 something is damaged, or was and could not be brought back.")]
pub struct VerifyArgs {
    /// Move what is damaged aside and derive lost bars again.
    #[arg(long)]
    pub repair: bool,
    /// How the report looks.
    #[arg(long, value_enum, default_value_t = JobFormat::Human)]
    pub format: JobFormat,
    /// Which data directory.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// `barline store stat`
#[derive(Debug, Clone, Args)]
pub struct StatArgs {
    /// How the report looks.
    #[arg(long, value_enum, default_value_t = JobFormat::Human)]
    pub format: JobFormat,
    /// Which data directory.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// `barline backup`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  barline backup /mnt/backup/2026-01-31 --topology topologies/edge.yaml
  barline restore /mnt/backup/2026-01-31 --data-dir /var/lib/barline")]
pub struct BackupArgs {
    /// An empty or new directory.
    pub directory: PathBuf,
    /// How the report looks.
    #[arg(long, value_enum, default_value_t = JobFormat::Human)]
    pub format: JobFormat,
    /// Which data directory.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// `barline reload`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
It goes on with what it was started with: its own topology file, --set, variables and specs directory, read
again. Where anything in them is wrong nothing changes. SIGHUP does the same and tells it in the log.

Exit codes: 0 reloaded; 1 reloaded and not everything is at work, or another job is under way; 2 a file is
wrong; 3 nothing runs there.

Examples:
  barline reload --topology topologies/edge.yaml
  barline reload --data-dir /var/lib/barline/data")]
pub struct ReloadArgs {
    /// How the report looks.
    #[arg(long, value_enum, default_value_t = JobFormat::Human)]
    pub format: JobFormat,
    /// Which data directory.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// `barline restore`
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// The backup.
    pub directory: PathBuf,
    /// The data directory to restore into, empty or new.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// How the report looks.
    #[arg(long, value_enum, default_value_t = JobFormat::Human)]
    pub format: JobFormat,
}

impl ReplayArgs {
    /// The ends of the range, open where none is given.
    pub(super) fn bounds(&self) -> Result<(i64, i64), Failure> {
        let now = SystemClock.now();
        let read = |name: &str, text: &Option<String>, open: i64| match text {
            None => Ok(open),
            Some(text) => when::parse(text, now).map_err(|error| Failure::input(format!("--{name}: {error}"))),
        };
        let (from, to) = (read("from", &self.from, i64::MIN)?, read("to", &self.to, i64::MAX)?);
        if from >= to {
            return Err(Failure::input("--to is not after --from; name an earlier --from or a later --to"));
        }
        Ok((from, to))
    }
}
