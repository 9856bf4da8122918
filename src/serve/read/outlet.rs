//! From a scan that blocks to a stream that does not: a thread that reads, a few chunks in between.
//!
//! Memory is bounded by the chunks, threads by [`Served::scans`](super::super::Served). A client that goes away stops
//! its scan at the next row; one that takes nothing for `PATIENCE` loses its query, so that it cannot keep a place
//! others wait for.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use flume::r#async::RecvStream;

use super::ReadError;
use crate::serve::Served;

/// Chunks that may wait for the client.
const AHEAD: usize = 2;
/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// The end of a stream where a scan puts what it finds.
pub struct Outlet<T> {
    sender: flume::Sender<Result<T, ReadError>>,
    late: bool,
}

impl<T> Outlet<T> {
    /// Gives one chunk to the client, waiting for room; breaks when nobody takes it.
    pub fn give(&mut self, chunk: T) -> ControlFlow<()> {
        match self.sender.send_timeout(Ok(chunk), PATIENCE) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.late |= matches!(error, flume::SendTimeoutError::Timeout(_));
                ControlFlow::Break(())
            }
        }
    }

    /// Tells, at any time and from anywhere, whether the client has gone away.
    pub fn gone(&self) -> impl Fn() -> bool + use<T> {
        let sender = self.sender.clone();
        move || sender.is_disconnected()
    }
}

/// Runs `scan` on a thread of its own and streams what it gives; an error comes last. What has expired by now is hidden
/// from it, whenever the reaper last ran.
///
/// # Errors
/// Too many scans are running.
pub fn scan<T: Send + 'static>(
    served: &Arc<Served>,
    scan: impl FnOnce(&Served, &mut Outlet<T>) -> Result<(), ReadError> + Send + 'static,
) -> Result<RecvStream<'static, Result<T, ReadError>>, ReadError> {
    let busy = |_| {
        let most = served.plan.security.limits.queries();
        ReadError::Busy(format!("{most} queries are running, the most at once; try again when one has ended"))
    };
    let place = served.scans.clone().try_acquire_owned().map_err(busy)?;
    let (sender, receiver) = flume::bounded(AHEAD);
    let served = served.clone();
    let mut outlet = Outlet { sender: sender.clone(), late: false };
    let scanning = tokio::task::spawn_blocking(move || {
        let _place = place;
        served.context.store.set_now(served.context.clock.now());
        let done = scan(&served, &mut outlet);
        if outlet.late { Err(ReadError::Busy("the client took nothing for a minute".to_owned())) } else { done }
    });
    tokio::spawn(async move {
        // A scan that panicked must not look like one that came to its end.
        let done =
            scanning.await.unwrap_or_else(|_| Err(ReadError::Failed("the query failed unexpectedly".to_owned())));
        if let Err(error) = done {
            let _ = sender.send_async(Err(error)).await;
        }
    });
    Ok(receiver.into_stream())
}
