//! The arguments of `barline query` and its help.

use barline_proto::barline::Match;
use clap::{Args, Subcommand, ValueEnum};

use crate::cli::Failure;
use crate::cli::access::Access;
use crate::runtime::{Clock, SystemClock};
use crate::serve::read::select;
use crate::serve::when;

const EXAMPLES: &str = "\
Examples:
  barline query bars market_ticks symbol=AAPL --from -5m
  barline query bars market_ticks 'symbol=*' --granularity 1m --limit 20 --format csv
  barline query ticks market_ticks symbol=AAPL --from 2026-01-31T12:00:00Z --to 2026-01-31T12:00:01Z
  barline query ticks market_ticks --late --limit 0 --format json
  barline query series                              the specs
  barline query series market_ticks                 the series of one
  barline query values market_ticks symbol
  barline query ledger
  barline query sinks";

/// The arguments of `barline query`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QueryArgs {
    /// What to ask for.
    #[command(subcommand)]
    pub what: What,
    /// Where barline's gRPC port is.
    #[arg(long, global = true, env = "BARLINE_ADDR", default_value = "http://127.0.0.1:9876", value_name = "URL")]
    pub addr: String,
    /// What opens it.
    #[command(flatten)]
    pub access: Access,
    /// How the answer looks.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// How an answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people.
    Table,
    /// One array of objects, as the HTTP API gives them.
    Json,
    /// A header and one line per row; what has no column is in the last, `extra`.
    Csv,
}

/// What can be asked for.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Stored bars, by series and window start.
    #[command(after_help = EXAMPLES)]
    Bars {
        /// Which series.
        #[command(flatten)]
        series: SeriesArgs,
        /// The time range.
        #[command(flatten)]
        range: RangeArgs,
        /// The window length as written in the spec [default: the finest].
        #[arg(long, default_value = "", hide_default_value = true, value_name = "SPAN")]
        granularity: String,
    },
    /// Raw ticks, by timestamp, sequence and arrival.
    #[command(after_help = EXAMPLES)]
    Ticks {
        /// Which series.
        #[command(flatten)]
        series: SeriesArgs,
        /// The time range.
        #[command(flatten)]
        range: RangeArgs,
        /// The late ticks kept aside under `late: side_output`.
        #[arg(long)]
        late: bool,
    },
    /// The series of a spec; without one, the specs.
    #[command(after_help = EXAMPLES)]
    Series {
        /// The spec.
        spec: Option<String>,
        /// Dimensions the series must have: NAME=VALUE, VALUE may be * for any.
        matches: Vec<String>,
        /// Only series that have no other dimensions.
        #[arg(long)]
        exact: bool,
        /// The most rows; 0 for all.
        #[arg(long, default_value_t = 1000)]
        limit: u64,
    },
    /// The distinct values of a dimension, ascending.
    #[command(after_help = EXAMPLES)]
    Values {
        /// The spec.
        spec: String,
        /// The dimension.
        dimension: String,
        /// Dimensions the series must have: NAME=VALUE, VALUE may be * for any.
        matches: Vec<String>,
        /// The most values; 0 for as many as the server gives at once.
        #[arg(long, default_value_t = 1000)]
        limit: u64,
    },
    /// Ticks received against ticks found in bars, per spec.
    #[command(after_help = EXAMPLES)]
    Ledger {
        /// Only this spec.
        spec: Option<String>,
    },
    /// How far the sinks have come: bars delivered, dropped and outstanding, by sink and spec.
    #[command(after_help = EXAMPLES)]
    Sinks {
        /// Only this stage.
        sink: Option<String>,
    },
}

/// Which series.
#[derive(Debug, Args)]
pub struct SeriesArgs {
    /// The spec.
    pub spec: String,
    /// Dimensions the series must have: NAME=VALUE, VALUE may be * for any.
    pub matches: Vec<String>,
    /// Only series that have no other dimensions.
    #[arg(long)]
    pub exact: bool,
}

/// Which time range, and how much of it.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// The start: RFC 3339, nanoseconds since 1970, `now`, or a span before now as in -5m.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub from: Option<String>,
    /// The end, exclusive.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub to: Option<String>,
    /// The most rows; 0 for all.
    #[arg(long, default_value_t = 1000)]
    pub limit: u64,
}

impl SeriesArgs {
    /// What the series must have.
    pub(super) fn matching(&self) -> Result<Option<Match>, Failure> {
        matching(&self.matches, self.exact)
    }
}

/// What series must have, as it is written: NAME=VALUE each.
pub(crate) fn matching(pairs: &[String], exact: bool) -> Result<Option<Match>, Failure> {
    let pairs: Result<_, _> = pairs.iter().map(|text| select::pair(text)).collect();
    Ok(Some(Match { dimensions: pairs.map_err(Failure::input)?, exact }))
}

impl RangeArgs {
    /// The ends of the range in nanoseconds, 0 where it is open.
    pub(super) fn bounds(&self) -> Result<(i64, i64), Failure> {
        let now = SystemClock.now();
        let read = |name: &str, text: &Option<String>| match text {
            None => Ok(0),
            Some(text) => when::parse(text, now).map_err(|error| Failure::input(format!("--{name}: {error}"))),
        };
        Ok((read("from", &self.from)?, read("to", &self.to)?))
    }
}
