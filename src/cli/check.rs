//! `barline check`, `barline graph` and `barline spec check`: what can be known without running.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::run::{check_security, compile_file, load_specs};
use super::{Exit, Failure, say};
use crate::spec::{self, problem};
use crate::telemetry::push;
use crate::topology::graph;

/// `barline check`
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  barline check topologies/*.yaml --set aggregate.instances=4")]
pub struct CheckArgs {
    /// The topology files.
    #[arg(required = true)]
    pub topologies: Vec<PathBuf>,
    /// Changes one key, as in `barline run`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// `barline graph`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  barline graph topologies/edge.yaml\n  barline graph topologies/edge.yaml --format dot | dot -Tsvg > edge.svg"
)]
pub struct GraphArgs {
    /// The topology file.
    pub topology: PathBuf,
    /// The language of the drawing.
    #[arg(long, value_enum, default_value_t = GraphFormat::Mermaid)]
    pub format: GraphFormat,
    /// Changes one key, as in `barline run`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// The language of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Mermaid, as Markdown viewers draw it.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// Checks topologies and the specs they name; prints each plan.
pub fn check(args: &CheckArgs) -> Exit {
    let mut wrong = Vec::new();
    for path in &args.topologies {
        let checked = compile_file(path, &args.set).and_then(|plan| {
            let specs = load_specs(&plan)?;
            check_security(&plan)?;
            push::check(&plan.telemetry).map_err(|problem| format!("error: {problem}"))?;
            Ok((plan, specs))
        });
        match checked {
            Ok((plan, specs)) => say(format_args!("{}: ok, {} specs\n\n{plan}\n", path.display(), specs.len()))?,
            Err(problems) => wrong.push(problems),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::input(wrong.join("\n"))) }
}

/// Prints a drawing of a topology.
pub fn graph(args: &GraphArgs) -> Exit {
    let plan = compile_file(&args.topology, &args.set).map_err(Failure::input)?;
    match args.format {
        GraphFormat::Mermaid => say(graph::mermaid(&plan)),
        GraphFormat::Dot => say(graph::dot(&plan)),
    }
}

/// Checks spec files.
pub fn specs(files: &[PathBuf]) -> Exit {
    let specs = spec::load_files(files).map_err(|problems| Failure::input(problem::render(&problems)))?;
    for spec in specs.iter() {
        let granularities: Vec<_> = spec.granularities.iter().map(|granularity| granularity.name.as_str()).collect();
        say(format_args!(
            "{}: ok, {} metrics of {} fields, bars of {}\n",
            spec.name,
            spec.metrics.len(),
            spec.fields.len(),
            granularities.join(", ")
        ))?;
    }
    Ok(())
}
