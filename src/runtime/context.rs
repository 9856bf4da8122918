//! What the stages of one process share: specs, store, catalog, ledger, clock and the live feed of bars.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use tokio::sync::broadcast;

use super::chaos::Chaos;
use super::clock::Clock;
use super::guard::Guard;
use super::hand_over::HandOver;
use super::listeners::Listeners;
use super::measures::Measures;
use super::producers::Producers;
use super::recovery::Recovery;
use super::scaling::Scaling;
use super::sinks::Sinks;
use super::trace::{Tracer, Tracing};
use crate::broker::Brokers;
use crate::catalog::Catalog;
use crate::model::{BarBatch, Ledger, SeriesId, SpecId, TimeNs};
use crate::spec::Specs;
use crate::store::{Store, StoreBatch, StoreError};
use crate::topology::{Flow, StagePlan};
use crate::window::{Covered, bounds};

/// What an acknowledgement promises of the ticks it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// They are in memory: there is no journal, or no data directory for it.
    Accepted,
    /// They are in the journal, handed to the operating system: they survive the death of the process.
    Written,
    /// They are in the journal, synced to the device: they survive loss of power.
    Synced,
}

/// Shared by every stage; cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The series specs.
    pub specs: Arc<Specs>,
    /// Series and their numbers.
    pub catalog: Arc<Catalog>,
    /// What is kept.
    pub store: Store,
    /// What is counted.
    pub ledger: Arc<Ledger>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Bars as they are stored.
    pub feed: BarFeed,
    /// gRPC services served beside ingest: queries, health, reflection.
    pub routes: axum::Router,
    /// Whether the topology has a `journal` stage: then what a restarted stage lost can be replayed.
    pub journaled: bool,
    /// What an acknowledgement promises.
    pub promise: Promise,
    /// Which batches have been taken.
    pub producers: Arc<Producers>,
    /// Where the journal ended when the process started: what is below is replayed, what is above is sent.
    pub recovered_to: u64,
    /// Whether what the last process accepted is accounted for.
    pub recovery: Arc<Recovery>,
    /// What stages measure that know more than their batches.
    pub measures: Arc<Measures>,
    /// Follows some batches, where somebody takes the traces.
    pub tracer: Option<Arc<Tracer>>,
    /// Who may call.
    pub guard: Arc<Guard>,
    /// The way to brokers.
    pub brokers: Arc<dyn Brokers>,
    /// What can be seen of the sinks.
    pub sinks: Arc<Sinks>,
    /// The stage whose number of active instances changes, if one does.
    pub scaling: Option<Arc<Scaling>>,
    /// Who breaks things, in simulations.
    pub chaos: Option<Arc<dyn Chaos>>,
    /// Where the process listens.
    pub listeners: Arc<Listeners>,
    /// What is left open for the next generation.
    pub hand_over: Arc<HandOver>,
}

/// The series a store knows.
///
/// # Errors
/// The store fails.
pub fn load_catalog(store: &Store, specs: &Specs) -> Result<Catalog, StoreError> {
    let catalog = Catalog::new(specs);
    for spec in specs.iter() {
        store.load_series(spec.id, &mut |id, key| catalog.load(spec.id, id, key))?;
    }
    Ok(catalog)
}

pub use crate::topology::kind::JOURNAL;

/// Series that a commit makes durable: per spec, all numbers below this.
pub type NewSeries = Vec<(SpecId, u32)>;

impl Context {
    /// Adds every series that is not durable yet to `batch`, so that no number is stored before the key it stands for.
    pub fn add_new_series(&self, batch: &mut StoreBatch) -> Result<NewSeries, StoreError> {
        let mut added = NewSeries::new();
        for spec in self.specs.iter() {
            let new = self.catalog.unpersisted(spec.id);
            if new.is_empty() {
                continue;
            }
            for id in new.clone() {
                batch.put_series(spec.id, SeriesId(id), &self.catalog.key(spec.id, SeriesId(id)));
            }
            added.push((spec.id, new.end));
        }
        Ok(added)
    }

    /// Notes that what [`Context::add_new_series`] added is durable.
    pub fn mark_persisted(&self, series: &NewSeries) {
        for (spec, end) in series {
            self.catalog.mark_persisted(*spec, *end);
        }
    }
}

impl Context {
    /// Tells whoever listens that these bars are stored.
    pub fn announce(&self, bars: &Arc<BarBatch>) {
        self.measures.stored(self.specs.get(bars.spec), bars, self.clock.now());
        self.feed.publish(bars);
    }

    /// What changes the number of active instances of the stage at this place of the plan, if anything does.
    pub fn scaling_of(&self, stage: usize) -> Option<Arc<Scaling>> {
        self.scaling.clone().filter(|scaling| scaling.index == stage)
    }

    /// The tracing of one instance, where batches are traced.
    pub(super) fn tracing(&self, stage: &str, instance: u16) -> Option<Tracing> {
        let tracer = self.tracer.clone()?;
        Some(Tracing { tracer, clock: self.clock.clone(), stage: stage.into(), instance })
    }

    /// The store, where what `stage` takes has been through the journal.
    pub(super) fn store_behind_journal(&self, stage: &StagePlan) -> Option<Store> {
        let takes_ticks = stage.kind.takes == Some(Flow::Ticks);
        (self.journaled && takes_ticks && stage.kind.name != JOURNAL).then(|| self.store.clone())
    }

    /// Answers, for a series and the start of one of its finest windows of `spec`, which of the window's ticks stored bars
    /// hold. Those in `mended` are about to be replaced by what finer bars add up to. Where the device fails to say so that
    /// is noted in `failed`: then nothing may come of the answers, for ticks of a bar taken for missing would be counted twice.
    pub fn covered(
        &self,
        spec: SpecId,
        mended: HashSet<(u8, SeriesId, TimeNs)>,
        failed: &Arc<OnceLock<StoreError>>,
    ) -> Box<dyn FnMut(SeriesId, TimeNs) -> Covered + Send> {
        let (store, failed, rules) = (self.store.clone(), failed.clone(), self.specs.get(spec).clone());
        let ask = move |series, start| {
            let below = store.bar(spec, 0, series, start)?.map_or(0, |(head, _)| head.covers);
            if !store.is_lost(spec, 0, series, start)? {
                return Ok(Covered { below, lost: None });
            }
            let mut above = [0; 3];
            for ((granularity, coarser), below) in (1..).zip(&rules.granularities[1..]).zip(&mut above) {
                let start = bounds::start_of(start, coarser.length);
                let stored = store.bar(spec, granularity, series, start)?;
                let stored = stored.filter(|_| !mended.contains(&(granularity, series, start)));
                *below = stored.map_or(0, |(head, _)| head.covers);
            }
            Ok(Covered { below, lost: Some(above) })
        };
        Box::new(move |series, start| {
            ask(series, start).unwrap_or_else(|error| {
                // The first one is enough.
                let _ = failed.set(error);
                Covered::default()
            })
        })
    }
}

/// Bars as they are stored, for whoever listens. A listener that reads too slowly misses some and is told how many.
#[derive(Debug, Clone)]
pub struct BarFeed(broadcast::Sender<Arc<BarBatch>>);

/// Batches a slow listener may be behind before it misses some.
const FEED_CAPACITY: usize = 256;

impl BarFeed {
    /// A feed nobody listens to yet.
    pub fn new() -> Self {
        Self(broadcast::Sender::new(FEED_CAPACITY))
    }

    /// Gives stored bars to every listener.
    pub fn publish(&self, bars: &Arc<BarBatch>) {
        // Nobody listening is fine.
        let _ = self.0.send(bars.clone());
    }

    /// Listens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<BarBatch>> {
        self.0.subscribe()
    }
}

impl Default for BarFeed {
    fn default() -> Self {
        Self::new()
    }
}
