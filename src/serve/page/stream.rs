//! Live figures: one event a second to every browser that looks; nothing is read while none does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::{Stream, StreamExt, stream};
use tokio::time::{MissedTickBehavior, interval};

use super::figures::Figures;
use crate::serve::Served;
use crate::telemetry::{Load, Snapshot};

const EVERY: Duration = Duration::from_secs(1);

/// `/live`: ends when the browser goes away or the topology stops.
pub async fn live(State(served): State<Arc<Served>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = served.stopping().clone().cancelled_owned();
    let before = served.observed.snapshot();
    let events = stream::unfold((served, clock, before), async |(served, mut clock, before)| {
        clock.tick().await;
        let now = served.observed.snapshot();
        let event = event(&before, &now);
        Some((Ok(event), (served, clock, now)))
    });
    // The first tick comes at once and tells of no time.
    Sse::new(events.skip(1).take_until(stop))
}

fn event(before: &Snapshot, now: &Snapshot) -> Event {
    // Texts and finite numbers always have a JSON form.
    Event::default().json_data(Figures::new(&Load::between(before, now))).unwrap_or_default()
}
