//! L1: series → shard → aggregator instance.
//!
//! Series numbers are dense, so their lowest bits spread them evenly over shards, and shards over instances. The number
//! of shards is fixed for ever: state that is kept by shard can move to another number of instances.

use std::sync::Arc;

use crate::model::{Checkpoint, Rows, SeriesId, TickBatch};

/// How many shards there are.
pub const SHARDS: u32 = 256;

/// The shard of a series, below [`SHARDS`].
pub fn shard_of(series: SeriesId) -> u32 {
    series.0 % SHARDS
}

/// The instance, below `instances` (0 counts as 1), that has a shard.
pub fn instance_of(shard: u32, instances: u16) -> u16 {
    (shard % u32::from(instances.max(1))) as u16
}

/// The rows of `batch` for each of `instances`, in their order. A batch that is all one instance's is not copied.
pub fn split(batch: &Arc<TickBatch>, instances: u16) -> Vec<Rows> {
    if instances <= 1 {
        return vec![Rows::All];
    }
    let mut owner = [0u16; SHARDS as usize];
    for (shard, instance) in (0..).zip(&mut owner) {
        *instance = instance_of(shard, instances);
    }
    let mut counts = vec![0usize; usize::from(instances)];
    for series in &batch.series {
        counts[usize::from(owner[shard_of(SeriesId(*series)) as usize])] += 1;
    }
    let mut picked: Vec<Vec<u32>> = counts.iter().map(|count| Vec::with_capacity(*count)).collect();
    if let Some(only) = counts.iter().position(|count| *count == batch.len()) {
        return (0..counts.len()).map(|i| if i == only { Rows::All } else { Rows::Picked(Vec::new()) }).collect();
    }
    for (row, series) in (0..).zip(&batch.series) {
        picked[usize::from(owner[shard_of(SeriesId(*series)) as usize])].push(row);
    }
    picked.into_iter().map(Rows::Picked).collect()
}

/// By shard: ticks that arrived before this are in stored bars or counted as dropped.
pub struct ReplayBounds([u64; SHARDS as usize]);

impl ReplayBounds {
    /// What the checkpoints say together. Where the number of instances has changed, a shard has several: each is true.
    pub fn of(checkpoints: &[Checkpoint]) -> Self {
        let mut bounds = [0; SHARDS as usize];
        for (shard, bound) in (0..).zip(&mut bounds) {
            let is_about = |told: &&Checkpoint| instance_of(shard, told.instances) == told.instance;
            *bound = checkpoints.iter().filter(is_about).map(|told| told.replay_from).max().unwrap_or(0);
        }
        Self(bounds)
    }

    /// As far as it goes, but none above `end`.
    pub fn up_to(self, end: u64) -> Self {
        Self(self.0.map(|bound| bound.min(end)))
    }

    /// The bound of one shard.
    pub fn of_shard(&self, shard: u32) -> u64 {
        self.0[shard as usize]
    }

    /// The lowest of all shards: below it every tick is accounted for, whatever its series.
    pub fn lowest(&self) -> u64 {
        self.0.iter().copied().min().unwrap_or(0)
    }

    /// The highest of all shards.
    pub fn highest(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    /// The lowest of the shards of one instance.
    pub fn lowest_of(&self, instance: u16, instances: u16) -> u64 {
        let mine = (0..).zip(&self.0).filter(|(shard, _)| instance_of(*shard, instances) == instance);
        mine.map(|(_, bound)| *bound).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{SpecId, TickSlice};

    fn batch(series: Vec<u32>) -> Arc<TickBatch> {
        Arc::new(TickBatch { series, ..TickBatch::new(SpecId(0), 0) })
    }

    #[test]
    fn every_row_goes_to_the_one_instance_that_has_its_shard() {
        let batch = batch((0..1_000).map(|i| i * 7).collect());
        for instances in 1..=9 {
            let mut rows: Vec<usize> = Vec::new();
            for (instance, picked) in (0..).zip(split(&batch, instances)) {
                let slice = TickSlice { batch: batch.clone(), rows: picked, offset: 0 };
                let owner = |row: usize| instance_of(shard_of(batch.series_at(row)), instances);
                assert!(slice.rows().all(|row| owner(row) == instance));
                assert!(slice.rows().is_sorted());
                rows.extend(slice.rows());
            }
            rows.sort_unstable();
            assert_eq!(rows, (0..1_000).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_shard_goes_by_the_highest_that_any_checkpoint_of_it_says() {
        let told = Checkpoint::told;
        let bounds = ReplayBounds::of(&[told(2, 0, 50), told(2, 1, 70), told(3, 0, 60)]);
        assert_eq!([0, 1, 2, 3].map(|shard| bounds.of_shard(shard)), [60, 70, 50, 70]);
        assert_eq!((bounds.lowest(), bounds.highest()), (50, 70));
        assert_eq!((bounds.lowest_of(0, 2), bounds.lowest_of(1, 2), bounds.lowest_of(0, 3)), (50, 70, 60));
        assert_eq!(bounds.up_to(55).highest(), 55);
        assert_eq!(ReplayBounds::of(&[told(2, 0, 50)]).lowest(), 0);
    }

    #[test]
    fn a_batch_of_one_instance_is_passed_on_whole() {
        assert_eq!(split(&batch(vec![2, 4, 2]), 2), [Rows::All, Rows::Picked(vec![])]);
        assert_eq!(split(&batch(vec![]), 1), [Rows::All]);
        assert_eq!(split(&batch(vec![1]), 0), [Rows::All]);
    }

    #[test]
    fn few_series_spread_over_few_instances() {
        let rows = split(&batch(vec![0, 1, 2, 3]), 4);
        assert_eq!(rows, (0..4).map(|i| Rows::Picked(vec![i])).collect::<Vec<_>>());
    }
}
