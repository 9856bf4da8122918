//! `barline run`: compile, assemble, launch, show, drain.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure, say};
use crate::app::{App, Launched};
use crate::console;
use crate::runtime::Placement;
use crate::serve::admin;
use crate::spec::{self, problem};
use crate::stages::ROWS;
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

/// How often memory is given back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(2);
/// A block large enough that the allocator looks at what it holds.
const LARGE_BLOCK: usize = 4 << 20;

/// The topology of those who name none.
pub(super) const QUICKSTART: &str = "topologies/quickstart.yaml";

impl Default for RunArgs {
    fn default() -> Self {
        Self { topology: QUICKSTART.into(), set: Vec::new(), data_dir: None, quiet: false }
    }
}

/// Runs a topology until a signal, and drains it.
pub fn run(args: &RunArgs) -> Exit {
    let mut overrides = args.set.clone();
    overrides.extend(args.data_dir.iter().map(|path| format!("data_dir={}", path.display())));
    let plan = compile_file(&args.topology, &overrides).map_err(Failure::input)?;
    let specs = spec::load_dir(&plan.specs_dir).map_err(|problems| Failure::input(problem::render(&problems)))?;
    let system = actix::System::new();
    system.block_on(async {
        let app = App::assemble(plan, specs).map_err(Failure::start)?;
        let launched = app.launch(Placement::OwnArbiter);
        launched.serve_http().await.map_err(Failure::start)?;
        let _admin = admin::socket::open(launched.served.clone());
        until_drained(launched, args.quiet).await
    })
}

async fn until_drained(launched: Launched, quiet: bool) -> Exit {
    let (stop, drained) = (launched.running.stopping().clone(), CancellationToken::new());
    let context = launched.context.clone();
    let started = launched.served.started;
    let live = console::live(
        context.feed.subscribe(),
        context.clone(),
        addresses(&launched.plan),
        drained.clone(),
        std::io::stdout().is_terminal(),
    );
    let shown = (!quiet).then(|| tokio::task::spawn_local(live));
    tokio::task::spawn_local(async move {
        if let Err(error) = signalled().await {
            tracing::error!("signals cannot be received, stopping: {error}");
        }
        stop.cancel();
    });
    tokio::task::spawn_local(give_memory_back());
    let report = launched.wait().await;
    drained.cancel();
    let tally = match shown {
        Some(shown) => shown.await.ok(),
        None => None,
    };
    let said = say(console::farewell(&context, &report, context.clock.now() - started, tally.as_ref()));
    if report.is_clean() { said } else { Err(Failure::ran("not every stage ended in order")) }
}

/// Signals closer together than this mean one thing.
const SAME_WISH: Duration = Duration::from_millis(500);

/// The allocator gives freed memory back to the system only while somebody allocates: without this an idle process
/// keeps whatever a burst left behind.
async fn give_memory_back() {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BLOCK)));
    }
}

/// Waits for SIGINT or SIGTERM; a second one, later than [`SAME_WISH`], ends the process at once.
async fn signalled() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping: no more ticks are taken, what was taken is finished");
    let first = Instant::now();
    tokio::task::spawn_local(async move {
        // What ends a process group, as coreutils' `timeout` does, signals its child twice within milliseconds.
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first.elapsed() >= SAME_WISH {
                break;
            }
        }
        eprintln!("stopped at once; open windows are rebuilt from the journal at the next start");
        std::process::exit(1);
    });
    Ok(())
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

/// Compiles the topology `text` with the environment's overrides, then those of `--set`; the error is ready to be
/// printed.
pub fn compile(file: &str, text: &str, set: &[&str], environment: &[(String, String)]) -> Result<Plan, String> {
    let mut overrides = Override::of_env(environment.iter().cloned());
    for text in set {
        overrides.push(Override::of_set(text).map_err(|problem| problem::render(&[problem]))?);
    }
    let kinds = ROWS.iter().map(|row| &row.kind);
    let mut plan =
        topology::compile(file, text, kinds, &overrides, machine()).map_err(|problems| problem::render(&problems))?;
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
