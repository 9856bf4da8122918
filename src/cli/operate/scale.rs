//! `barline scale`: how many instances of a stage are active.

use std::time::Duration;

use barline_proto::barline::{ScaleReply, ScaleRequest};
use clap::Args;
use serde_json::json;

use super::{JobFormat, WhereArgs, online};
use crate::cli::{Exit, Failure, say};
use crate::telemetry::load::span;

/// `barline scale`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Answers when the change is done. A number given here is kept until barline stops or the stage is let follow the
load again.

Examples:
  barline scale aggregate=4 --topology topologies/autoscale.yaml
  barline scale aggregate=auto --data-dir /var/lib/barline")]
pub struct ScaleArgs {
    /// The stage and how many of its instances are to be active, or `auto` to follow the load.
    #[arg(value_name = "STAGE=N")]
    pub change: String,
    /// How the answer looks.
    #[arg(long, value_enum, default_value_t = JobFormat::Human)]
    pub format: JobFormat,
    /// Which data directory.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// Changes how many instances of a stage are active.
pub fn scale(args: &ScaleArgs) -> Exit {
    let request = request(&args.change)?;
    let data_dir = super::data_dir_of(&args.place.plan()?)?;
    let Some(running) = online::connect(&data_dir)? else {
        let data_dir = data_dir.display();
        return Err(Failure::start(format!("no barline runs on {data_dir}; name its --data-dir or --topology")));
    };
    let stage = request.stage.clone();
    let reply = running.scale(request)?;
    say(match args.format {
        JobFormat::Human => human(&stage, &reply),
        JobFormat::Json => json(&stage, &reply),
    })
}

fn request(change: &str) -> Result<ScaleRequest, Failure> {
    let wrong = || Failure::input(format!("{change:?} is not of the form STAGE=N or STAGE=auto, as in aggregate=4"));
    let (stage, number) = change.split_once('=').ok_or_else(wrong)?;
    let instances = if number == "auto" { None } else { Some(number.parse().map_err(|_| wrong())?) };
    Ok(ScaleRequest { stage: stage.to_owned(), instances })
}

fn human(stage: &str, reply: &ScaleReply) -> String {
    let ScaleReply { before, instances, follows_load, .. } = *reply;
    let took = span(Duration::from_nanos(reply.took_ns).as_secs_f64());
    match (follows_load, before == instances) {
        (true, _) => format!("{stage}: {instances} instances active, their number follows the load\n"),
        (false, true) => format!("{stage}: {instances} instances active, as before\n"),
        (false, false) => format!("{stage}: {before} → {instances} instances active, changed in {took}\n"),
    }
}

fn json(stage: &str, reply: &ScaleReply) -> String {
    let ScaleReply { before, instances, took_ns, follows_load } = *reply;
    let told = json!({
        "stage": stage, "before": before, "instances": instances, "took_ns": took_ns, "follows_load": follows_load,
    });
    format!("{told:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_auto_is_read_and_anything_else_told() {
        assert_eq!(request("aggregate=4").unwrap().instances, Some(4));
        assert_eq!(request("aggregate=auto").unwrap().instances, None);
        for wrong in ["aggregate", "aggregate=", "aggregate=-1", "aggregate=many"] {
            assert!(request(wrong).unwrap_err().message.contains("STAGE=N"));
        }
    }
}
