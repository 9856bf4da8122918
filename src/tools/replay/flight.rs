//! What is on its way: which windows may hold ticks that are not in stored bars yet.

use std::collections::HashSet;

use super::{BarId, Grounds, Replay};
use crate::model::{SeriesId, SpecId, TimeNs};
use crate::routing::{self, ReplayBounds};
use crate::spec::Granularity;
use crate::store::{Poisoned, Store, StoreError};
use crate::tools::ToolError;
use crate::window::bounds;

/// From which arrival numbers on ticks are not settled, and the windows of those that are there.
pub(super) struct Flight {
    source: SpecId,
    granularities: Vec<Granularity>,
    /// By shard: every tick that arrived below this is in stored bars or was dropped.
    settled: ReplayBounds,
    /// Ticks that were given up: no bar has them.
    poisoned: Vec<Poisoned>,
    /// Coarser windows that start before this were closed then.
    cascade_from: TimeNs,
    /// Windows of ticks that are not settled.
    touched: HashSet<BarId>,
    /// Up to where the journal was searched for them.
    seen: u64,
}

impl Flight {
    /// What is settled now.
    ///
    /// # Errors
    /// The port fails.
    pub fn begin(grounds: Grounds<'_>, job: &Replay, source: SpecId) -> Result<Self, ToolError> {
        let checkpoints = grounds.store.checkpoints();
        let end = grounds.store.journal_end();
        let settled = ReplayBounds::of(&checkpoints).up_to(end);
        let series = (0..grounds.catalog.len(source) as u32).map(SeriesId);
        let lowest = series.map(|series| settled.of_shard(routing::shard_of(series))).min().unwrap_or(end);
        let mut flight = Self {
            source,
            granularities: job.spec.granularities.clone(),
            settled,
            poisoned: grounds.store.poisoned().into_iter().filter(|of| of.0 == source).map(|of| of.1).collect(),
            cascade_from: checkpoints.iter().map(|told| told.cascade_from).min().unwrap_or(TimeNs::MIN),
            touched: HashSet::new(),
            seen: lowest,
        };
        if !flight.is_unsettled() {
            flight.catch_up(grounds.store)?;
        }
        Ok(flight)
    }

    /// Every tick of a series that arrived below this is in stored bars or was dropped.
    pub fn settled(&self, series: SeriesId) -> u64 {
        self.settled.of_shard(routing::shard_of(series))
    }

    /// Whether the tick `number` of a series belongs into its bar by now.
    pub fn counts(&self, number: u64, series: SeriesId) -> bool {
        let shard = routing::shard_of(series);
        number < self.settled(series) && !self.poisoned.iter().any(|poisoned| poisoned.includes(number, shard))
    }

    /// Whether no tick is settled; then nothing can be said of any window.
    pub fn is_unsettled(&self) -> bool {
        self.settled.highest() == 0
    }

    /// Whether ticks of a window may be on their way, as of the last [`Flight::catch_up`].
    pub fn has(&self, (granularity, series, start): BarId) -> bool {
        self.is_unsettled()
            || granularity > 0 && start >= self.cascade_from
            || self.touched.contains(&(granularity, series, start))
    }

    /// Looks at the ticks that have arrived meanwhile.
    ///
    /// # Errors
    /// The port fails.
    pub fn catch_up(&mut self, store: &Store) -> Result<(), StoreError> {
        let end = store.journal_end();
        if end == self.seen {
            return Ok(());
        }
        let (source, from) = (self.source, self.seen);
        store.journal_from(from, &mut |offset, spec, block| {
            if spec != source {
                return;
            }
            for ((number, series), time) in (offset..).zip(&block.series).zip(&block.timestamps) {
                let series = SeriesId(*series);
                if number >= from.max(self.settled(series)) {
                    for (granularity, rule) in (0..).zip(&self.granularities) {
                        self.touched.insert((granularity, series, bounds::start_of(*time, rule.length)));
                    }
                }
            }
        })?;
        self.seen = end;
        Ok(())
    }
}
