//! A process over its generations: each runs one topology with one set of specs over the same store and the same listening
//! sockets, until a reload brings the next or the process stops.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::answer::{answer, summary};
use super::{RunArgs, addresses, check_security};
use crate::app::changes::{self, Setup};
use crate::app::{App, Launched, Legacy, Opened, Seams, StartError};
use crate::cli::{Exit, Failure, say};
use crate::console::{self, Tally};
use crate::runtime::{Context, DrainReport, Placement};
use crate::serve::Served;
use crate::serve::admin::{Refused, ReloadReport, Wish};
use crate::spec::{Specs, problem};
use crate::telemetry::{logs, push};
use crate::topology::Plan;

/// A process from its first generation to its last.
pub(super) struct Process {
    pub args: RunArgs,
    /// Cancelled when the process is to end.
    pub stop: CancellationToken,
    /// Where it is said that topology and specs are to be read again.
    pub wishes: flume::Receiver<Wish>,
    seams: Seams,
    /// The text of the topology and of what overrides it.
    written: String,
    number: u64,
    tally: Option<Tally>,
    /// The generation at work, for operators.
    served: watch::Sender<Arc<Served>>,
}

/// A topology and specs that may follow the present ones.
struct Next {
    wish: Wish,
    plan: Plan,
    specs: Specs,
    written: String,
    report: ReloadReport,
    since: Instant,
}

/// What is shown of a generation's bars.
struct Shown {
    drained: CancellationToken,
    live: Option<JoinHandle<Tally>>,
}

/// Starts the first generation; gives the process, and where the generation at work is to be seen.
pub(super) fn begin(
    args: &RunArgs,
    stop: CancellationToken,
    wishes: flume::Receiver<Wish>,
) -> Result<(Process, Launched), Failure> {
    let (written, plan, specs) = args.read().map_err(Failure::input)?;
    // The store may have something to tell before there is anybody to push it.
    let _lines = logs::listen_for(&plan.telemetry);
    let seams = Seams::of(&plan).map_err(Failure::start)?;
    let app = App::over(seams.again(), plan, specs).map_err(Failure::start)?;
    let launched = app.launch(Placement::OwnArbiter);
    launched.serve_http().map_err(Failure::start)?;
    let served = watch::Sender::new(launched.served.clone());
    let args = args.clone();
    Ok((Process { args, stop, wishes, seams, written, number: 1, tally: None, served }, launched))
}

impl Process {
    /// The generation at work.
    pub fn served(&self) -> watch::Receiver<Arc<Served>> {
        self.served.subscribe()
    }

    /// Runs one generation after the other until the last has drained.
    pub async fn run(mut self, mut launched: Launched) -> Exit {
        loop {
            let (served, retired) = (launched.served.clone(), launched.retired.clone());
            let shown = self.show(&launched);
            let (report, next) = self.until_drained(launched).await;
            self.add(shown.end().await);
            let goes_on = report.is_clean() && !self.stop.is_cancelled();
            launched = match next {
                Some(next) if goes_on => self.follow(&served, next).await?,
                next => {
                    retired.cancel();
                    next.into_iter().for_each(|next| next.wish.answer(Err(Refused::Stopping)));
                    self.stop.cancel();
                    return self.farewell(&served, &report);
                }
            };
            retired.cancel();
        }
    }

    /// Waits for the end of a generation. Where a reload has ended it, also gives what is to follow.
    async fn until_drained(&self, launched: Launched) -> (DrainReport, Option<Next>) {
        let (served, stop) = (launched.served.clone(), launched.running.stopping().clone());
        let (process, stopping) = (self.stop.clone(), stop.clone());
        let follows = tokio::task::spawn_local(async move {
            process.cancelled().await;
            stopping.cancel();
        });
        let mut next: Option<Next> = None;
        let drained = launched.wait();
        tokio::pin!(drained);
        let report = loop {
            tokio::select! {
                biased;
                report = &mut drained => break report,
                Ok(wish) = self.wishes.recv_async(), if next.is_none() => {
                    if stop.is_cancelled() {
                        wish.answer(Err(Refused::Stopping));
                        continue;
                    }
                    next = self.look(&served, wish);
                    if next.is_some() {
                        served.reload();
                        stop.cancel();
                    }
                }
            }
        };
        follows.abort();
        (report, next)
    }

    /// Reads topology and specs again. Where they can follow, what is to follow; else the wish is answered and nothing has
    /// changed.
    fn look(&self, served: &Served, wish: Wish) -> Option<Next> {
        match self.compare(served) {
            Ok((written, plan, specs, report)) => {
                tracing::info!("reloading: {}", summary(&report));
                Some(Next { wish, plan, specs, written, report, since: Instant::now() })
            }
            Err(problems) => {
                tracing::error!("not reloaded, nothing has changed:\n{}", problems.trim_end());
                wish.answer(Err(Refused::Invalid(problems)));
                None
            }
        }
    }

    /// What is written now, and what it changes; the error is ready to be printed.
    fn compare(&self, served: &Served) -> Result<(String, Plan, Specs, ReloadReport), String> {
        let (written, plan, specs) = self.args.read()?;
        let rendered = |problems: Vec<problem::Problem>| problem::render(&problems);
        changes::allowed(&served.plan, &plan, &self.args.topology).map_err(rendered)?;
        check_security(&plan)?;
        let context = &served.context;
        push::check(&plan.telemetry).map_err(|problem| format!("error: {problem}"))?;
        if let Err(error) = listen(context, &plan) {
            context.listeners.keep(&sockets(&served.plan));
            return Err(format!("error: {error}\n  remedy: give it a free port, or end what has that one\n"));
        }
        let (old, new) = (Setup { plan: &served.plan, specs: &context.specs }, Setup { plan: &plan, specs: &specs });
        let topology_changed = written != self.written;
        let report = ReloadReport { generation: self.number + 1, topology_changed, ..changes::between(old, new) };
        context.hand_over.settle(changes::handed_over(old, new));
        Ok((written, plan, specs, report))
    }

    /// Starts the generation that follows the one that has ended; where it cannot be, that one again.
    async fn follow(&mut self, ended: &Served, next: Next) -> Result<Launched, Failure> {
        let Next { wish, plan, specs, written, report, since } = next;
        self.number += 1;
        let follows = match self.start(ended, plan, specs).await {
            Ok(launched) => {
                self.written = written;
                self.served.send_replace(launched.served.clone());
                tokio::task::spawn_local(answer(launched.served.clone(), wish, report, since));
                launched
            }
            Err(error) => {
                tracing::error!("what was reloaded cannot be started, going on with what ran before: {error}");
                let again = (Plan::clone(&ended.plan), Specs::clone(&ended.context.specs));
                let launched = self.start(ended, again.0, again.1).await.map_err(Failure::start)?;
                self.served.send_replace(launched.served.clone());
                wish.answer(Err(Refused::Failed(error.to_string())));
                launched
            }
        };
        ended.context.listeners.keep(&sockets(&follows.plan));
        Ok(follows)
    }

    async fn start(&self, ended: &Served, plan: Plan, specs: Specs) -> Result<Launched, StartError> {
        let (kv, clock) = (self.seams.kv.clone(), self.seams.clock.clone());
        let legacy = Legacy::of(&ended.observed);
        // HTTP answers meanwhile.
        let opening = tokio::task::spawn_blocking(move || {
            let opened = Opened::open(kv, &clock, &plan, specs, &legacy);
            opened.map(|opened| (opened, legacy, plan))
        });
        let (opened, legacy, plan) = opening.await.map_err(|error| StartError::Panicked(error.to_string()))??;
        let launched = App::after(legacy, opened, self.seams.again(), plan)?.launch(Placement::OwnArbiter);
        if let Err(error) = launched.serve_http() {
            // Two generations never run at once.
            launched.running.stop();
            launched.wait().await;
            return Err(error);
        }
        Ok(launched)
    }

    /// Shows a generation's bars, if bars are to be shown.
    fn show(&self, launched: &Launched) -> Shown {
        let (context, drained) = (launched.context.clone(), CancellationToken::new());
        let live = console::live(
            context.feed.subscribe(),
            context,
            addresses(&launched.plan),
            drained.clone(),
            std::io::stdout().is_terminal(),
        );
        Shown { drained, live: (!self.args.quiet).then(|| tokio::task::spawn_local(live)) }
    }

    fn add(&mut self, tally: Option<Tally>) {
        let sum = self.tally.take();
        self.tally = tally.map(|tally| sum.unwrap_or_default().plus(&tally)).or(sum);
    }

    fn farewell(&self, served: &Served, report: &DrainReport) -> Exit {
        let context = &served.context;
        let ran = context.clock.now() - served.started;
        let said = say(console::farewell(context, report, ran, self.tally.as_ref()));
        if report.is_clean() { said } else { Err(Failure::ran("not every stage ended in order")) }
    }
}

impl Shown {
    /// Waits until everything is shown.
    async fn end(self) -> Option<Tally> {
        self.drained.cancel();
        self.live?.await.ok()
    }
}

/// Takes every socket that `plan` listens at.
fn listen(context: &Context, plan: &Plan) -> Result<(), StartError> {
    for address in sockets(plan) {
        context.listeners.at(address).map_err(|error| StartError::Http { address, error })?;
    }
    Ok(())
}

/// Where `plan` listens.
fn sockets(plan: &Plan) -> Vec<std::net::SocketAddr> {
    let stages = plan.stages.iter().flat_map(|stage| stage.facts.listens.iter().copied());
    stages.chain(plan.http).chain(plan.metrics).collect()
}
