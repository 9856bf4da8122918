//! Live bars: what the writer has stored, filtered for one subscriber.

use std::collections::VecDeque;
use std::sync::Arc;

use barline_proto::barline::{Bar, BarChunk};
use futures_util::stream::{self, Stream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tonic::Status;

use super::chunks::ROWS;
use super::convert;
use super::read::BarRow;
use super::served::Served;
use crate::catalog::Match;
use crate::model::BarBatch;
use crate::store::OutboxError;

/// What one subscriber asked for.
pub struct Filter {
    /// Per spec, by number: the granularity asked for; `None` where the spec is not.
    pub granularities: Vec<Option<u8>>,
    /// Which series.
    pub series: Match,
}

/// One subscription.
struct Live {
    served: Arc<Served>,
    filter: Filter,
    feed: Receiver<Arc<BarBatch>>,
    /// Converted, not sent yet, each with the position after its last bar.
    ready: VecDeque<(Vec<Bar>, u64)>,
    /// Everything stored before this position has been converted.
    next: u64,
    /// Whether there may be bars between `next` and what the feed gives.
    behind: bool,
    /// Whether `next` is what the subscriber asked for, and nothing was read yet.
    asked: bool,
    missed: u64,
    /// Whether the subscriber knows a position: from its first chunk on it can go on after any failure.
    greeted: bool,
    ended: bool,
}

/// Bars a subscriber that is behind reads from the outbox at once.
const STRETCH: usize = 4096;

/// Bars stored from `position` on, or from now on; ends with `UNAVAILABLE` when the server stops. A subscriber that reads
/// slower than bars are stored gets them from the outbox, as long as they are kept there.
pub fn subscribe(
    served: &Arc<Served>,
    filter: Filter,
    position: Option<u64>,
) -> impl Stream<Item = Result<BarChunk, Status>> + Send + use<> {
    // Listening begins first, so that no bar falls between the outbox and the feed.
    let feed = served.context.feed.subscribe();
    let next = position.unwrap_or_else(|| served.context.store.outbox_end());
    let live = Live {
        served: served.clone(),
        filter,
        feed,
        ready: VecDeque::new(),
        next,
        behind: position.is_some(),
        asked: position.is_some(),
        missed: 0,
        greeted: position.is_some(),
        ended: false,
    };
    stream::unfold(live, |mut live| async move {
        let next = if live.ended { None } else { Some(live.next().await) };
        next.map(|chunk| (chunk, live))
    })
}

impl Live {
    /// The next chunk: bars, or the news that some were missed, or the end.
    async fn next(&mut self) -> Result<BarChunk, Status> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Ok(BarChunk { next_position: self.next, ..BarChunk::default() });
        }
        loop {
            if let Some((bars, next_position)) = self.ready.pop_front() {
                return Ok(BarChunk { bars, missed: std::mem::take(&mut self.missed), next_position });
            }
            if self.behind {
                self.catch_up().await?;
                continue;
            }
            let served = self.served.clone();
            let received = tokio::select! {
                biased;
                received = self.feed.recv() => received,
                () = served.stopping().cancelled() => Err(RecvError::Closed),
            };
            match received {
                Ok(batch) if batch.position < self.next => {}
                Ok(batch) => {
                    self.next = batch.next_position();
                    self.convert(&batch, (batch.position..).take(batch.len()));
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Err(self.end(Status::unavailable("stopping"))),
            }
        }
    }

    /// Reads the next stretch from the outbox.
    async fn catch_up(&mut self) -> Result<(), Status> {
        let (store, position) = (self.served.context.store.clone(), self.next);
        let read = tokio::task::spawn_blocking(move || store.outbox_from(position, STRETCH)).await;
        match read.map_err(|error| Status::internal(error.to_string()))? {
            Ok(stretch) => {
                self.asked = false;
                self.behind = stretch.next > self.next;
                for commit in &stretch.commits {
                    self.convert(&commit.bars, commit.positions.iter().copied());
                }
                self.next = stretch.next;
                Ok(())
            }
            // Too slow for too long: what was missed is told, and it goes on with what is kept.
            Err(OutboxError::Outside { oldest, .. }) if !self.asked => {
                self.missed += oldest.saturating_sub(self.next);
                self.next = oldest;
                Ok(())
            }
            Err(outside @ OutboxError::Outside { .. }) => Err(self.end(Status::out_of_range(outside.to_string()))),
            Err(OutboxError::Store(error)) => Err(self.end(Status::internal(error.to_string()))),
        }
    }

    fn end(&mut self, status: Status) -> Status {
        self.ended = true;
        status
    }

    /// Readies the bars of `batch` that were asked for; `positions` has one for each of its bars.
    fn convert(&mut self, batch: &BarBatch, positions: impl Iterator<Item = u64>) {
        let wanted = self.filter.granularities.get(batch.spec.0 as usize);
        let Some(granularity) = wanted.copied().flatten() else { return };
        let context = &self.served.context;
        let spec = context.specs.get(batch.spec);
        let (mut bars, mut next) = (Vec::new(), 0);
        for (head, position) in batch.heads.iter().zip(positions).filter(|(head, _)| head.granularity == granularity) {
            let key = context.catalog.key(batch.spec, head.series);
            if self.filter.series.accepts(&key) {
                bars.push(convert::bar(&BarRow::new(spec, &key, head, batch.state(head))));
                next = position + 1;
            }
            if bars.len() == ROWS {
                self.ready.push_back((std::mem::take(&mut bars), next));
            }
        }
        self.ready.extend(Some((bars, next)).filter(|(bars, _)| !bars.is_empty()));
    }
}
