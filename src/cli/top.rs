//! `barline top`: the running topology in a terminal: who is at work, how far behind, and who waits for whom.
//!
//! Read in this order: the arguments and one look here, `table` (rows as text), `screen` (the live view).

mod screen;
mod table;

use std::time::Duration;

use clap::Args;

use super::access::Access;
use super::{Exit, Failure, say};
use crate::telemetry::{Load, Snapshot, web};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// `barline top`
#[derive(Debug, Clone, Args)]
pub struct TopArgs {
    /// The HTTP port of the barline to look at.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9877")]
    pub http: String,
    /// What opens it.
    #[command(flatten)]
    pub access: Access,
    /// One look of a second, printed as a plain table.
    #[arg(long)]
    pub once: bool,
    /// With --once: as JSON.
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// Shows it until `q`.
pub async fn run(args: TopArgs) -> Exit {
    let access = args.access.web(&args.http)?;
    let before = look(&args.http, &access).await?;
    if !args.once {
        return screen::run(&args.http, &access, before).await;
    }
    tokio::time::sleep(EVERY).await;
    let load = Load::between(&before, &look(&args.http, &access).await?);
    match args.json {
        true => say(serde_json::to_string_pretty(&load).map_err(Failure::ran)? + "\n"),
        false => say(table::plain(&load)),
    }
}

async fn look(address: &str, access: &web::Access) -> Result<Snapshot, Failure> {
    let looked = web::snapshot(address, access).await;
    looked.map_err(|error| Failure::ran(format!("cannot read the figures of {address}: {error}")))
}

/// A name from outside, safe for a terminal: what would control it is replaced.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
