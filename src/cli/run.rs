//! `barline run`: compile, assemble, launch, show, drain; over as many generations as there are reloads.

mod answer;
mod generations;
mod signals;

use std::path::{Path, PathBuf};

use clap::Args;
use tokio_util::sync::CancellationToken;

pub(super) use answer::summary;

use super::Exit;
use crate::runtime::Guard;
use crate::serve::admin::{self, Reloads};
use crate::spec::{self, Specs, problem};
use crate::stages::{ROWS, kafka_sink};
use crate::telemetry::kafka;
use crate::topology::{self, Machine, Override, Plan};

/// `barline run`
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  barline run
  barline run topologies/edge.yaml --data-dir /var/lib/barline
  barline run topologies/scaled.yaml --set ingest.listen=127.0.0.1:7000 --set aggregate.instances=2
  BARLINE_JOURNAL__SYNC=interval barline run topologies/edge.yaml")]
pub struct RunArgs {
    /// The topology file.
    #[arg(default_value = QUICKSTART)]
    pub topology: PathBuf,
    /// Changes one key: STAGE.KEY=VALUE into a stage's config, or SETTING=VALUE.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where data is kept, instead of the topology's `data_dir`.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Show no bars, only the log.
    #[arg(long)]
    pub quiet: bool,
}

/// The topology of those who name none.
pub(super) const QUICKSTART: &str = "topologies/quickstart.yaml";

impl Default for RunArgs {
    fn default() -> Self {
        Self { topology: QUICKSTART.into(), set: Vec::new(), data_dir: None, quiet: false }
    }
}

impl RunArgs {
    /// What is written of topology, overrides and specs: as text, and what it means. The error is ready to be printed.
    fn read(&self) -> Result<(String, Plan, Specs), String> {
        let mut overrides = self.set.clone();
        overrides.extend(self.data_dir.iter().map(|path| format!("data_dir={}", path.display())));
        let plan = compile_file(&self.topology, &overrides)?;
        // Only what was read without an error is compared.
        let written = std::fs::read_to_string(&self.topology).unwrap_or_default();
        let specs = load_specs(&plan)?;
        Ok((written, plan, specs))
    }
}

/// Reads the specs of `plan`, and looks whether its stages can do with them; the error is ready to be printed.
pub fn load_specs(plan: &Plan) -> Result<Specs, String> {
    let specs = spec::load_dir(&plan.specs_dir).map_err(|problems| problem::render(&problems))?;
    let problems = kafka_sink::check_specs(plan, &specs);
    if problems.is_empty() { Ok(specs) } else { Err(problem::render(&problems)) }
}

/// Runs a topology until a signal, and drains it.
pub fn run(args: &RunArgs) -> Exit {
    let (stop, (reloads, wishes)) = (CancellationToken::new(), Reloads::new());
    let system = actix::System::new();
    system.block_on(async {
        // Before anything else: until somebody listens to it SIGHUP ends the process.
        if let Err(error) = signals::reload_at_hangup(reloads.clone()) {
            tracing::error!("SIGHUP cannot be received: {error}");
        }
        let (process, launched) = generations::begin(args, stop.clone(), wishes)?;
        let _admin = admin::socket::open(process.served(), reloads, stop.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = signals::signalled().await {
                tracing::error!("signals cannot be received, stopping: {error}");
            }
            stop.cancel();
        });
        tokio::task::spawn_local(signals::give_memory_back());
        process.run(launched).await
    })
}

/// Where to talk to a running plan: what it is called, and the address.
fn addresses(plan: &Plan) -> Vec<(String, String)> {
    let listens = plan.stages.iter().flat_map(|stage| &stage.facts.listens);
    let grpc = listens.map(|address| ("gRPC".to_owned(), address.to_string()));
    grpc.chain(plan.http.map(|address| ("HTTP".to_owned(), format!("http://{address}")))).collect()
}

/// Reads and compiles a topology file; the error is ready to be printed.
pub fn compile_file(path: &Path, set: &[String]) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "error: cannot read the topology {}: {error}\n  remedy: name one, as in `barline run {QUICKSTART}`",
            path.display()
        )
    })?;
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    let environment: Vec<_> = std::env::vars().collect();
    compile(&path.display().to_string(), &text, &set, &environment)
}

/// Reads every token and certificate of a plan; the error is ready to be printed.
pub(super) fn check_security(plan: &Plan) -> Result<(), String> {
    let render = |problems: String| format!("error: {}", problems.replace('\n', "\nerror: "));
    Guard::load(&plan.security).map(drop).map_err(render)
}

/// Compiles the topology `text` with the environment's overrides, then those of `--set`; the error is ready to be
/// printed.
pub fn compile(file: &str, text: &str, set: &[&str], environment: &[(String, String)]) -> Result<Plan, String> {
    let mut overrides = Override::of_env(environment.iter().cloned());
    for text in set {
        overrides.push(Override::of_set(text).map_err(|problem| problem::render(&[problem]))?);
    }
    let kinds = ROWS.iter().map(|row| &row.kind);
    let mut plan = topology::compile(file, text, kinds, kafka::parse, &overrides, machine())
        .map_err(|problems| problem::render(&problems))?;
    plan.telemetry.apply_env(environment).map_err(|problems| problem::render(&problems))?;
    Ok(plan)
}

/// This machine; where its memory cannot be read no budget is too large for it.
fn machine() -> Machine {
    let memory = sysinfo::System::new().map(|mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    Machine { memory_bytes: memory.unwrap_or(u64::MAX) }
}
