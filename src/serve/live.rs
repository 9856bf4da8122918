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
    /// Converted, not sent yet: the rest of one batch.
    ready: VecDeque<Vec<Bar>>,
    missed: u64,
    ended: bool,
}

/// Bars stored from now on; ends with `UNAVAILABLE` when the server stops.
pub fn subscribe(served: &Arc<Served>, filter: Filter) -> impl Stream<Item = Result<BarChunk, Status>> + Send + use<> {
    let feed = served.context.feed.subscribe();
    let live = Live { served: served.clone(), filter, feed, ready: VecDeque::new(), missed: 0, ended: false };
    stream::unfold(live, |mut live| async move {
        let next = if live.ended { None } else { Some(live.next().await) };
        next.map(|chunk| (chunk, live))
    })
}

impl Live {
    /// The next chunk: bars, or the news that some were missed, or the end.
    async fn next(&mut self) -> Result<BarChunk, Status> {
        loop {
            if let Some(bars) = self.ready.pop_front() {
                return Ok(BarChunk { bars, missed: std::mem::take(&mut self.missed), ..BarChunk::default() });
            }
            let served = self.served.clone();
            let received = tokio::select! {
                biased;
                received = self.feed.recv() => received,
                () = served.stopping().cancelled() => Err(RecvError::Closed),
            };
            match received {
                Ok(batch) => self.convert(&batch),
                Err(RecvError::Lagged(batches)) => self.missed += batches,
                Err(RecvError::Closed) => {
                    self.ended = true;
                    return Err(Status::unavailable("stopping"));
                }
            }
        }
    }

    /// Readies the bars of `batch` that were asked for.
    fn convert(&mut self, batch: &BarBatch) {
        let wanted = self.filter.granularities.get(batch.spec.0 as usize);
        let Some(granularity) = wanted.copied().flatten() else { return };
        let context = &self.served.context;
        let spec = context.specs.get(batch.spec);
        let mut bars = Vec::new();
        for head in batch.heads.iter().filter(|head| head.granularity == granularity) {
            let key = context.catalog.key(batch.spec, head.series);
            if self.filter.series.accepts(&key) {
                bars.push(convert::bar(&BarRow::new(spec, &key, head, batch.state(head))));
            }
            if bars.len() == ROWS {
                self.ready.push_back(std::mem::take(&mut bars));
            }
        }
        self.ready.extend(Some(bars).filter(|bars| !bars.is_empty()));
    }
}
