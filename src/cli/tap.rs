//! `barline tap`: looks at batches as they flow, over `barline.v1`.

use std::collections::HashMap;
use std::io::{IsTerminal, StdoutLock, Write};

use barline_proto::barline::{TapRequest, TapSample};
use clap::Args;
use serde_json::json;

use super::access::Access;
use super::query::rows::{self, Names};
use super::query::sheet::{Cell, Section, Sheet, gone};
use super::query::{Client, Format, matching};
use super::{Exit, Failure};
use crate::serve::json::{BarJson, TickJson};
use crate::serve::when::rfc3339;
use crate::spec::units::{DURATION_ALLOWED, parse_duration};

/// `barline tap`
#[derive(Debug, Args)]
#[command(after_help = "\
Shows what a stage is given; of a source, what it gives. Each batch is shown with its stage and instance, the time,
how many rows it had, and how many batches passed unseen before it. Tapping changes nothing in the flow: batches
are copied, and pass unseen while the copies are not read.

Examples:
  barline tap ingest                                   ticks as they come in
  barline tap aggregate market_ticks symbol=AAPL       ticks of one series on their way into windows
  barline tap write --instance 0 --every 1s --rows 3   closed windows on their way to the store
  barline tap publish --format json --limit 100        bars on their way to Kafka, for programs")]
pub struct TapArgs {
    /// The stage, by its name in the topology.
    pub stage: String,
    /// The spec, then dimensions the series must have, where VALUE may be * for any; without them everything is shown.
    #[arg(value_name = "SPEC | NAME=VALUE")]
    pub series: Vec<String>,
    /// Only series that have no other dimensions.
    #[arg(long)]
    pub exact: bool,
    /// Only this instance of the stage [default: all].
    #[arg(long, value_name = "N")]
    pub instance: Option<u32>,
    /// At most one batch of an instance in this time; 10ms or more.
    #[arg(long, value_name = "SPAN", default_value = "200ms")]
    pub every: String,
    /// The most rows of a batch, up to 1000.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rows: u32,
    /// Ends after so many rows; 0 for no end.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub limit: u64,
    /// Where barline's gRPC port is.
    #[arg(long, env = "BARLINE_ADDR", default_value = "http://127.0.0.1:9876", value_name = "URL")]
    pub addr: String,
    /// What opens it.
    #[command(flatten)]
    pub access: Access,
    /// How rows look: a table for each batch, one line of JSON for each batch, or lines of CSV.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Looks on until the limit is reached, the server stops, or Ctrl-C.
///
/// # Errors
/// The arguments make no sense to the server (exit code 2), nobody listens at the address (3), or the server ends it (1).
pub async fn run(args: TapArgs) -> Exit {
    let request = args.request()?;
    let client = Client::connect(&args.addr, &args.access).await?;
    let infos = client.infos().await?.into_iter().map(|info| (info.name.clone(), Names::of(info)));
    let mut paper =
        Paper { names: infos.collect(), format: args.format, csv: Sheet::new(Format::Csv, std::io::stdout().lock()) };
    let mut samples = client.ask(client.client().tap(request)).await?;
    if args.format == Format::Table && std::io::stdout().is_terminal() {
        eprintln!("looking at {}, Ctrl-C ends it", args.stage);
    }
    let mut left = if args.limit == 0 { usize::MAX } else { usize::try_from(args.limit).unwrap_or(usize::MAX) };
    while left > 0
        && let Some(mut sample) = client.next(&mut samples).await?
    {
        sample.ticks.truncate(left);
        sample.bars.truncate(left);
        left -= sample.ticks.len() + sample.bars.len();
        paper.print(&sample)?;
    }
    Ok(())
}

impl TapArgs {
    fn request(&self) -> Result<TapRequest, Failure> {
        let (spec, pairs) = match self.series.split_first() {
            Some((first, rest)) if !first.contains('=') => (first.clone(), rest),
            _ => (String::new(), self.series.as_slice()),
        };
        let every = parse_duration(&self.every).and_then(|span| u64::try_from(span).ok()).filter(|span| *span > 0);
        let wrong = || Failure::input(format!("--every {:?} is no span of time: {DURATION_ALLOWED}", self.every));
        Ok(TapRequest {
            stage: self.stage.clone(),
            instance: self.instance,
            spec,
            r#match: matching(pairs, self.exact)?,
            every_ns: every.ok_or_else(wrong)?,
            rows: self.rows,
        })
    }
}

/// Where samples are printed, each as it comes.
struct Paper {
    /// By spec.
    names: HashMap<String, Names>,
    format: Format,
    csv: Sheet<StdoutLock<'static>>,
}

impl Paper {
    fn print(&mut self, sample: &TapSample) -> Exit {
        match self.format {
            Format::Table => {
                let mut sheet = Sheet::new(Format::Table, std::io::stdout().lock());
                self.rows(sample).into_iter().for_each(|cells| sheet.put(cells));
                sheet.note(String::new());
                line(&heading(sample))?;
                sheet.end()
            }
            Format::Json => line(&json(sample)),
            Format::Csv => {
                for mut cells in self.rows(sample) {
                    cells.extend(origin(sample));
                    self.csv.put(cells);
                }
                self.csv.flush()
            }
        }
    }

    /// The sample's rows as cells.
    fn rows(&self, sample: &TapSample) -> Vec<Vec<Cell>> {
        let unknown = Names::of(Default::default());
        let names = self.names.get(&sample.spec).unwrap_or(&unknown);
        let ticks = sample.ticks.iter().map(|tick| rows::tick_cells(tick, names));
        let bars = sample.bars.iter().map(|bar| {
            let mut cells = rows::bar_cells(bar, names);
            cells.push(Cell::text(Section::When, "granularity", &bar.granularity));
            cells
        });
        ticks.chain(bars).collect()
    }
}

/// Prints a line at once.
fn line(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).or_else(gone)
}

/// Where and when a sample was taken, before its rows.
fn origin(sample: &TapSample) -> [Cell; 4] {
    [
        Cell::text(Section::Rest, "stage", &sample.stage),
        Cell::number(Section::Rest, "instance", sample.instance),
        Cell::text(Section::Rest, "taken", rfc3339(sample.time_ns)),
        Cell::text(Section::Rest, "spec", &sample.spec),
    ]
}

/// The line above a sample's table.
fn heading(sample: &TapSample) -> String {
    let TapSample { stage, instance, spec, rows, skipped, ticks, bars, .. } = sample;
    let (shown, what) = if bars.is_empty() { (ticks.len(), "ticks") } else { (bars.len(), "bars") };
    let time = rfc3339(sample.time_ns);
    format!("{stage} {instance} · {time} · {shown} of {rows} {what} of {spec} · {skipped} batches before it unseen")
}

fn json(sample: &TapSample) -> String {
    let mut told = json!({
        "stage": sample.stage, "instance": sample.instance, "time_ns": sample.time_ns, "time": rfc3339(sample.time_ns),
        "spec": sample.spec, "rows": sample.rows, "skipped": sample.skipped,
    });
    if sample.bars.is_empty() {
        told["ticks"] = json!(sample.ticks.iter().map(TickJson::from).collect::<Vec<_>>());
    } else {
        told["bars"] = json!(sample.bars.iter().map(BarJson::from).collect::<Vec<_>>());
    }
    told.to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn request(arguments: &[&str]) -> Result<TapRequest, Failure> {
        match Cli::parse_from(["barline", "tap"].iter().chain(arguments)).command {
            Some(Command::Tap(args)) => args.request(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_word_without_an_equals_sign_is_the_spec_and_the_others_are_dimensions() {
        let all = request(&["ingest"]).unwrap();
        assert_eq!((all.stage.as_str(), all.spec.as_str(), all.instance), ("ingest", "", None));
        assert_eq!((all.every_ns, all.rows), (200_000_000, 10));
        let one = request(&["agg", "market", "symbol=A", "venue=*", "--instance", "1", "--every", "1s"]).unwrap();
        assert_eq!((one.spec.as_str(), one.instance, one.every_ns), ("market", Some(1), 1_000_000_000));
        assert_eq!(one.r#match.unwrap().dimensions.len(), 2);
        let pairs = request(&["agg", "symbol=A"]).unwrap();
        assert_eq!((pairs.spec.as_str(), pairs.r#match.unwrap().dimensions["symbol"].as_str()), ("", "A"));
        assert!(request(&["agg", "market", "symbol"]).unwrap_err().message.contains("NAME=VALUE"));
        for every in ["soon", "0s", "-1s"] {
            let wrong = request(&["agg", &format!("--every={every}")]).unwrap_err();
            assert!(wrong.code == 2 && wrong.message.contains("100ms"), "{}", wrong.message);
        }
    }

    #[test]
    fn a_sample_says_what_it_is_of() {
        let tick = barline_proto::barline::Tick { sequence: 7, ..Default::default() };
        let sample = TapSample {
            stage: "route".into(),
            instance: 1,
            spec: "market".into(),
            rows: 300,
            skipped: 4,
            ticks: vec![tick],
            ..TapSample::default()
        };
        let line = "route 1 · 1970-01-01T00:00:00Z · 1 of 300 ticks of market · 4 batches before it unseen";
        assert_eq!(heading(&sample), line);
        let told: serde_json::Value = serde_json::from_str(&json(&sample)).unwrap();
        assert_eq!(
            (&told["rows"], &told["skipped"], &told["ticks"][0]["sequence"]),
            (&300.into(), &4.into(), &7.into())
        );
        assert!(told.get("bars").is_none());
    }
}
