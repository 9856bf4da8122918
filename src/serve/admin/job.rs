//! One job on a thread of its own, as a stream of events.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use barline_proto::barline::job_event::Event;
use barline_proto::barline::{JobEvent, Progress, ReplayRequest};
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::serve::Served;
use crate::spec::{self, problem};
use crate::tools::replay::{Grounds, HELD_BYTES, Install, Replay};
use crate::tools::{Job, Report, Step, ToolError, job};

/// The least time between two events.
const BETWEEN: Duration = Duration::from_millis(100);
/// Events that may wait for the client.
const AHEAD: usize = 16;

/// Reads a request.
///
/// # Errors
/// The spec is wrong: every problem, ready to be printed.
pub(super) fn replay(request: ReplayRequest) -> Result<Replay, String> {
    let specs = spec::load_texts([(request.file, request.text)]).map_err(|problems| problem::render(&problems))?;
    let spec = specs.iter().next().ok_or("no spec was given")?;
    Ok(Replay {
        spec: spec::Spec::clone(spec),
        ticks_of: Some(request.ticks_of).filter(|name| !name.is_empty()),
        from: request.from_ns.unwrap_or(i64::MIN),
        to: request.to_ns.unwrap_or(i64::MAX),
        examples: request.examples as usize,
        held_bytes: HELD_BYTES,
        install: request.install.then_some(Install::All),
    })
}

/// Starts a job, which has `place` until its end.
pub(super) fn start(
    served: Arc<Served>,
    job: Job,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<JobEvent, Status>> + Send + use<> {
    let (sender, receiver) = flume::bounded(AHEAD);
    let (events, ends) = (sender.clone(), sender);
    let working = tokio::task::spawn_blocking(move || {
        let _place = place;
        let context = &served.context;
        let now = context.clock.now();
        context.store.set_now(now);
        let mut told = Instant::now();
        let mut watch = |step: Step<'_>| {
            if events.is_disconnected() || served.stopping().is_cancelled() {
                return ControlFlow::Break(());
            }
            if told.elapsed() >= BETWEEN {
                told = Instant::now();
                // A client that reads slowly misses some.
                let _ = events.try_send(Ok(progress(step)));
            }
            ControlFlow::Continue(())
        };
        let grounds = Grounds { specs: &context.specs, catalog: &context.catalog, store: &context.store, now };
        job::run(grounds, &job, &mut watch)
    });
    tokio::spawn(async move {
        let end = match working.await {
            Ok(Ok(report)) => Ok(self::report(&report)),
            Ok(Err(error)) => Err(status(&error)),
            Err(_) => Err(Status::internal("the job failed unexpectedly; the log of the server says more")),
        };
        // Nobody waiting for it any more is fine.
        let _ = ends.send_async(end).await;
    });
    receiver.into_stream()
}

fn progress(step: Step<'_>) -> JobEvent {
    let Step { what, done, total } = step;
    JobEvent { event: Some(Event::Progress(Progress { what: what.to_owned(), done, total })) }
}

fn report(report: &Report) -> JobEvent {
    // Numbers, strings and lists always have a JSON form.
    JobEvent { event: Some(Event::Report(serde_json::to_string(report).unwrap_or_default())) }
}

fn status(error: &ToolError) -> Status {
    match error {
        ToolError::Stopped => Status::unavailable(error.to_string()),
        ToolError::Refused(message) => Status::invalid_argument(message),
        ToolError::Store(_) | ToolError::File { .. } => Status::internal(error.to_string()),
    }
}
