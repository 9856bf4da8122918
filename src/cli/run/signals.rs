//! What the operating system tells the process: stop, reload; and giving memory back to it.

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::serve::admin::{Refused, Reloads};

/// How often memory is given back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(2);
/// A block large enough that the allocator looks at what it holds.
const LARGE_BLOCK: usize = 4 << 20;
/// Signals closer together than this mean one thing.
const SAME_WISH: Duration = Duration::from_millis(500);

/// The allocator gives freed memory back to the system only while somebody allocates: without this an idle process
/// keeps whatever a burst left behind.
pub(super) async fn give_memory_back() {
    loop {
        tokio::time::sleep(GIVE_BACK_EVERY).await;
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE_BLOCK)));
    }
}

/// Asks for a reload at every SIGHUP. What comes of it is in the log.
pub(super) fn reload_at_hangup(reloads: Reloads) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::task::spawn_local(async move {
        while hangup.recv().await.is_some() {
            if let Err(refused @ (Refused::Busy | Refused::Stopping)) = reloads.ask().await {
                tracing::warn!("SIGHUP is ignored: {refused}");
            }
        }
    });
    Ok(())
}

/// Waits for SIGINT or SIGTERM; a second one, later than [`SAME_WISH`], ends the process at once.
pub(super) async fn signalled() -> std::io::Result<()> {
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
