//! What is seen of a life from outside: its clock, the bars it shows, the journal it leaves.

use std::sync::{Arc, Mutex};

use barline::app::Launched;
use barline::model::{BarBatch, TimeNs};
use barline::runtime::{Clock, Context};

use crate::naive::Tick;

/// A clock that is set back once.
pub struct SetBack<C> {
    pub clock: C,
    pub at: TimeNs,
    pub by: TimeNs,
}

impl Clock for SetBack<Arc<dyn Clock>> {
    fn now(&self) -> TimeNs {
        let now = self.clock.now();
        if now >= self.at { now - self.by } else { now }
    }
}

/// Gathers every bar a subscriber sees.
pub fn watch(launched: &Launched) -> Arc<Mutex<Vec<Arc<BarBatch>>>> {
    let seen: Arc<Mutex<Vec<Arc<BarBatch>>>> = Arc::default();
    let (noted, mut feed) = (seen.clone(), launched.context.feed.subscribe());
    tokio::task::spawn_local(async move {
        while let Ok(bars) = feed.recv().await {
            noted.lock().unwrap().push(bars);
        }
    });
    seen
}

/// The ticks in the journal, by block.
pub fn journal(context: &Context) -> Vec<Vec<Tick>> {
    let mut blocks = Vec::new();
    let read = context.store.journal_from(0, &mut |_, spec, block| {
        let batch = block.into_batch(context.specs.get(spec));
        let tick = |row: usize| Tick {
            series: batch.series[row],
            time: batch.timestamps[row],
            sequence: batch.sequences.get(row).copied().unwrap_or(0),
            price: batch.fields[0].bits[row] as i64,
            quantity: batch.fields[1].bits[row] as i64,
        };
        blocks.push((0..batch.len()).map(tick).collect());
    });
    read.unwrap();
    blocks
}
