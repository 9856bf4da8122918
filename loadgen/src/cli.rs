//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    connect::ServerArgs,
    plan::Limit,
    profile::{Profile, Protocol},
    run::{Options, Stop},
    units::{self, Count, Rate, SECOND},
};

/// Open-loop load generator and verifier for barline.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  loadgen run --profile market --rate 100k --duration 30s
  loadgen run --profile market --rate max --ticks 10M --series 5k --connections 4 --verify \\
      --set 'disorder={fraction: 0.05, up_to: 100ms}' --set 'late={fraction: 0.01, by: 5s}'
  loadgen run --profile network --protocol barline.v1 --ticks 1M --json -
  loadgen run --profile market --protocol barline.v1 --duration 10m --record acks.jsonl --reconnect-for 5m
  loadgen check --record acks.jsonl
  loadgen profiles
  loadgen show --profile host --ticks 5

Exit codes:
  0  done; with --verify, and of check: every bar equal, ledger balanced
  1  --verify or check found a difference
  2  wrong usage, profile or record
  3  the server is not there, stayed away for longer than --reconnect-for, or answered with an error";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send ticks, report what was measured, and with --verify check every bar.
    Run(Box<RunArgs>),
    /// Check what a server holds against the record of a run: nothing acknowledged may be gone.
    Check(CheckArgs),
    /// List the shipped profiles.
    Profiles,
    /// Print the first ticks of a profile.
    Show(ShowArgs),
}

/// Which profile, and what differs from it.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// A shipped profile (market, network, asic, host) or a YAML file.
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: String,
    /// Override any key of the profile, as in --set series=5k or --set late.by=2s.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Ticks per second over all connections, or max.
    #[arg(long, value_name = "N|max", value_parser = units::rate)]
    pub rate: Option<Rate>,
    /// Series over all connections.
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub series: Option<u64>,
    /// Connections, each with a thread of its own.
    #[arg(long, value_name = "N", value_parser = units::count)]
    pub connections: Option<u64>,
    /// The wire.
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// Seed of everything random.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// Stop after this many ticks over all connections.
    #[arg(long, value_name = "N", value_parser = units::count, conflicts_with = "duration")]
    ticks: Option<u64>,
    /// Stop after this time [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = units::duration)]
    duration: Option<units::Nanos>,
    /// Encode everything before the run begins, to measure the server alone; needs --rate max and --ticks.
    #[arg(long)]
    prebuild: bool,
    /// Compare every bar and the ledger with a recomputation; nobody else may send to the spec meanwhile.
    #[arg(long)]
    verify: bool,
    /// With --verify: how long the server may take to come to rest.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "30s")]
    settle: units::Nanos,
    /// How long a connection that broke is tried again without an acknowledgement; 0s fails at once.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "60s")]
    reconnect_for: units::Nanos,
    /// The most ticks of a stream on tikr.v1, where only a whole stream is acknowledged [default: all in one].
    #[arg(long, value_name = "N", value_parser = stream_ticks)]
    stream_ticks: Option<u64>,
    /// What the producer ids of barline.v1 begin with, followed by `-` and the connection's number. A server that knows
    /// them takes the batches for ones sent again [default: another one for every run].
    #[arg(long, value_name = "ID", value_parser = producer_id)]
    producer_id: Option<String>,
    /// Keep what was acknowledged in this file, line by line as it is, for `loadgen check`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Also write the result as JSON to this file; `-` writes it to standard output instead of the table.
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<String>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The record of a run, which must not be under way.
    #[arg(long, value_name = "FILE")]
    pub record: PathBuf,
    /// The server.
    #[command(flatten)]
    pub server: ServerArgs,
    /// How long the server may take to come to rest.
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "30s")]
    pub settle: units::Nanos,
    /// Also write the result as JSON to this file; `-` writes it to standard output instead of the table.
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<String>,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Which profile.
    #[command(flatten)]
    pub profile: ProfileArgs,
    /// How many ticks of every connection.
    #[arg(long, value_name = "N", value_parser = units::count, default_value = "10")]
    pub ticks: u64,
}

impl ProfileArgs {
    /// The profile with everything that was overridden, checked.
    ///
    /// # Errors
    /// See [`Profile::load`] and [`Profile::check`].
    pub fn load(&self) -> Result<Profile, String> {
        let mut profile = Profile::load(&self.profile, &self.set)?;
        profile.rate = self.rate.unwrap_or(profile.rate);
        profile.series = self.series.map_or(profile.series, Count);
        profile.connections = self.connections.map_or(profile.connections, Count);
        profile.protocol = self.protocol.unwrap_or(profile.protocol);
        profile.seed = self.seed.unwrap_or(profile.seed);
        profile.check().map_err(|e| format!("profile {}: {e}", self.profile))?;
        Ok(profile)
    }
}

impl RunArgs {
    /// The profile to run, and how.
    ///
    /// # Errors
    /// See [`ProfileArgs::load`]; `--prebuild` of a run that is paced or without end.
    pub fn resolve(&self) -> Result<(Profile, Options), String> {
        let profile = self.profile.load()?;
        if self.prebuild && (profile.rate != Rate::Max || self.ticks.is_none()) {
            return Err("--prebuild encodes a whole run flat out, give --rate max and --ticks".to_owned());
        }
        let limit = match (self.ticks, self.duration) {
            (Some(ticks), _) => Limit::Ticks(ticks),
            (None, span) => Limit::For(span.unwrap_or(30 * SECOND)),
        };
        let options = Options {
            server: self.server.resolve()?,
            limit,
            prebuild: self.prebuild,
            verify: self.verify,
            settle: Duration::from_nanos(self.settle as u64),
            reconnect: Duration::from_nanos(self.reconnect_for as u64),
            stream_ticks: self.stream_ticks,
            producer: self.producer_id.clone(),
            record: self.record.clone(),
            stop: Stop::default(),
        };
        Ok((profile, options))
    }
}

fn stream_ticks(text: &str) -> Result<u64, String> {
    units::count(text).and_then(|ticks| if ticks > 0 { Ok(ticks) } else { Err("at least 1 is allowed".to_owned()) })
}

fn producer_id(text: &str) -> Result<String, String> {
    // The server takes 128 bytes, with the connection's number behind it.
    let allowed = (1..=120).contains(&text.len());
    if allowed { Ok(text.to_owned()) } else { Err(format!("has {} bytes, 1 to 120 are allowed", text.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn resolve(arguments: &str) -> Result<(Profile, Options), String> {
        let cli = Cli::try_parse_from(arguments.split(' ')).map_err(|e| e.to_string())?;
        match cli.command {
            Command::Run(args) => args.resolve(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_above_overrides_and_those_above_the_profile() {
        let (profile, options) =
            resolve("loadgen run --profile market --set series=7k --set rate=5 --rate max --ticks 2M --seed 9")
                .unwrap();
        assert_eq!((profile.series, profile.rate, profile.seed), (Count(7_000), Rate::Max, 9));
        assert_eq!(options.limit, Limit::Ticks(2_000_000));
    }

    #[test]
    fn a_paced_run_cannot_be_prebuilt() {
        assert!(
            resolve("loadgen run --profile market --rate 10 --ticks 5 --prebuild").unwrap_err().contains("--rate max")
        );
    }
}
