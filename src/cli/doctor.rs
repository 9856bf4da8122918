//! `barline doctor`: looks at a running barline twice and says what it sees.

use std::time::Duration;

use clap::Args;

use super::access::Access;
use super::{Exit, Failure, say};
use crate::spec::units::parse_duration;
use crate::telemetry::{doctor, web};

/// `barline doctor`
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The HTTP port of the barline to look at.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9877")]
    pub http: String,
    /// What opens it.
    #[command(flatten)]
    pub access: Access,
    /// How long to look.
    #[arg(long = "for", value_name = "SPAN", default_value = "5s", value_parser = span)]
    pub span: Duration,
    /// The findings as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Looks, waits, looks again, and tells.
pub async fn run(args: DoctorArgs) -> Exit {
    let access = args.access.web(&args.http)?;
    let look = || async {
        let looked = web::snapshot(&args.http, &access).await;
        looked.map_err(|error| Failure::ran(format!("cannot read the figures of {}: {error}", args.http)))
    };
    let before = look().await?;
    tokio::time::sleep(args.span).await;
    let findings = doctor::findings(&before, &look().await?);
    if args.json {
        let json = serde_json::to_string_pretty(&findings).map_err(Failure::ran)?;
        return say(json + "\n");
    }
    let line = |finding: &doctor::Finding| match &finding.remedy {
        Some(remedy) => format!("{}\n  → {remedy}\n", finding.told),
        None => format!("{}\n", finding.told),
    };
    say(findings.iter().map(line).collect::<String>())
}

fn span(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text).and_then(|span| u64::try_from(span).ok()).filter(|span| *span > 0);
    span.map(Duration::from_nanos).ok_or_else(|| format!("{text:?} is no span of time above zero, as in 5s"))
}
