//! What is seen of a life from outside: its clock, the bars it shows, the journal it leaves.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use barline::app::Launched;
use barline::model::{BarBatch, TimeNs};
use barline::runtime::{Clock, Context};
use barline::store::TickScan;

use crate::naive::{self, Tick};

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

/// The ticks in the journal, whether as they arrived or rewritten by series, or the late ones kept `aside`, in the order in
/// which they were sent.
pub fn ticks(context: &Context, aside: bool) -> Vec<Tick> {
    let mut ticks = Vec::new();
    let spec = naive::spec_id(&context.specs);
    let scan = TickScan { spec, series: None, from: TimeNs::MIN, to: TimeNs::MAX, side: aside };
    let read = context.store.scan_ticks(&scan, &mut |block, _| {
        let batch = block.clone().into_batch(context.specs.get(spec));
        let tick = |row: usize| Tick {
            series: batch.series[row],
            time: batch.timestamps[row],
            sequence: batch.sequences.get(row).copied().unwrap_or(0),
            price: batch.fields[0].bits[row] as i64,
            quantity: batch.fields[1].bits[row] as i64,
        };
        ticks.extend((0..batch.len()).map(tick));
        ControlFlow::Continue(())
    });
    read.unwrap();
    ticks.sort_by_key(|tick| tick.quantity);
    ticks
}
