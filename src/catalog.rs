//! L2: series interning. Every series gets a small dense number, once; after that nobody compares strings.
//!
//! A key is stored once: the map from keys to numbers and the list from numbers to keys share its bytes. Full
//! keys are compared, so no hash collision can merge two series. New series wait to be persisted by whoever
//! commits next: no number reaches the disk before the key it stands for.

mod matching;
mod offenders;

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dashmap::DashMap;

pub use matching::Match;
pub use offenders::Offender;

use crate::codec::admit::{Interner, Refusal};
use crate::model::{Reason, SeriesId, SeriesKey, SpecId};
use crate::spec::{Cardinality, CardinalityOverflow, Specs};
use offenders::Offenders;

/// The series of every spec.
pub struct Catalog {
    specs: Vec<SpecCatalog>,
}

struct SpecCatalog {
    name: String,
    limits: Cardinality,
    ids: DashMap<SeriesKey, SeriesId, foldhash::fast::RandomState>,
    /// By number; `None` where the key was lost. Only its holder for writing gives new numbers.
    keys: RwLock<Vec<Option<SeriesKey>>>,
    /// Series below this number are durable.
    persisted: AtomicU32,
    refused: AtomicU64,
    offenders: Offenders,
}

impl Catalog {
    /// No series yet.
    pub fn new(specs: &Specs) -> Self {
        let empty = |spec: &std::sync::Arc<crate::spec::Spec>| SpecCatalog {
            name: spec.name.clone(),
            limits: spec.cardinality,
            ids: DashMap::default(),
            keys: RwLock::default(),
            persisted: AtomicU32::new(0),
            refused: AtomicU64::new(0),
            offenders: Offenders::default(),
        };
        Self { specs: specs.iter().map(empty).collect() }
    }

    /// Takes in a series found in the store, in ascending order of numbers. `None`, and every number left out,
    /// stands for a series whose key is lost.
    pub fn load(&self, spec: SpecId, id: SeriesId, key: Option<SeriesKey>) {
        let spec = self.spec(spec);
        let mut keys = spec.write();
        let at = id.0 as usize;
        if keys.len() <= at {
            keys.resize(at + 1, None);
        }
        if let Some(key) = &key {
            spec.ids.insert(key.clone(), id);
        }
        keys[at] = key;
        spec.persisted.fetch_max(id.0 + 1, Relaxed);
    }

    /// The key of a series. One whose key is lost is told as the only dimension `lost_series`.
    pub fn key(&self, spec: SpecId, id: SeriesId) -> SeriesKey {
        let found = self.spec(spec).read().get(id.0 as usize).cloned().flatten();
        found.unwrap_or_else(|| SeriesKey::new([("lost_series", id.0.to_string().as_str())]).unwrap_or_default())
    }

    /// The number of the series with exactly this key, if there is one.
    pub fn find(&self, spec: SpecId, key: &SeriesKey) -> Option<SeriesId> {
        self.spec(spec).ids.get(key).map(|id| *id)
    }

    /// How many series a spec has.
    pub fn len(&self, spec: SpecId) -> usize {
        self.spec(spec).read().len()
    }

    /// Whether a spec has none.
    pub fn is_empty(&self, spec: SpecId) -> bool {
        self.len(spec) == 0
    }

    /// Numbers of series that are not durable yet.
    pub fn unpersisted(&self, spec: SpecId) -> Range<u32> {
        let spec = self.spec(spec);
        // Before the list is read: what is marked meanwhile is then persisted twice, never left out.
        let from = spec.persisted.load(Relaxed);
        from..(spec.read().len() as u32).max(from)
    }

    /// Notes that the series below `to` are durable.
    pub fn mark_persisted(&self, spec: SpecId, to: u32) {
        self.spec(spec).persisted.fetch_max(to, Relaxed);
    }

    /// How many times a tick of a further series met the limit.
    pub fn refused(&self, spec: SpecId) -> u64 {
        self.spec(spec).refused.load(Relaxed)
    }

    /// Which dimensions make the series that met the limit, the worst first.
    pub fn offenders(&self, spec: SpecId) -> Vec<Offender> {
        self.spec(spec).offenders.worst()
    }

    fn spec(&self, id: SpecId) -> &SpecCatalog {
        &self.specs[id.0 as usize]
    }
}

impl SpecCatalog {
    fn read(&self) -> RwLockReadGuard<'_, Vec<Option<SeriesKey>>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Option<SeriesKey>>> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of `key`, a new one while there are fewer than `limit`.
    fn number(&self, key: &SeriesKey, limit: u32) -> Option<SeriesId> {
        if self.read().len() >= limit as usize {
            return None;
        }
        let mut keys = self.write();
        // Someone else may have been first, with this key or with the last number.
        if let Some(id) = self.ids.get(key) {
            return Some(*id);
        }
        let id = u32::try_from(keys.len()).ok().filter(|id| *id < limit).map(SeriesId)?;
        keys.push(Some(key.clone()));
        self.ids.insert(key.clone(), id);
        Some(id)
    }

    /// What becomes of a series beyond the limit.
    fn overflow(&self, key: &SeriesKey) -> Result<SeriesId, Refusal> {
        self.refused.fetch_add(1, Relaxed);
        self.offenders.note(key);
        if self.limits.overflow == CardinalityOverflow::Fold {
            let fold = SeriesKey::new([("overflow", "true")]).unwrap_or_default();
            let known = self.ids.get(&fold).map(|id| *id);
            // The overflow series itself is beyond the limit.
            if let Some(id) = known.or_else(|| self.number(&fold, u32::MAX)) {
                return Ok(id);
            }
        }
        let (name, limit) = (&self.name, self.limits.limit);
        let message = format!(
            "spec {name:?} has {limit} series, its limit; raise `cardinality.limit`, or drop a dimension of many values"
        );
        Err(Refusal { reason: Reason::Cardinality, message })
    }
}

impl Interner for Catalog {
    fn intern(&self, spec: SpecId, key: &SeriesKey) -> Result<SeriesId, Refusal> {
        let spec = self.spec(spec);
        if let Some(id) = spec.ids.get(key) {
            return Ok(*id);
        }
        match spec.number(key, spec.limits.limit) {
            Some(id) => Ok(id),
            None => spec.overflow(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{LatePolicy, Retention, Spec, UnknownDimensions, WindowRules};

    const SPEC: SpecId = SpecId(0);

    pub(super) fn catalog(limit: u32, overflow: CardinalityOverflow) -> Catalog {
        Catalog::new(&Specs::new(vec![Spec {
            id: SPEC,
            name: "s".into(),
            precision: 1,
            dimensions: Vec::new(),
            unknown_dimensions: UnknownDimensions::Accept,
            fields: Vec::new(),
            metrics: Vec::new(),
            accumulators: Vec::new(),
            granularities: Vec::new(),
            window: WindowRules { wait: 0, idle: 0, max_ahead: 0, late: LatePolicy::Amend },
            retention: Retention { ticks: 1, bars: 1 },
            cardinality: Cardinality { limit, overflow },
            kafka: None,
        }]))
    }

    pub(super) fn key(pairs: &[(&str, &str)]) -> SeriesKey {
        SeriesKey::new(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn threads_agree_on_dense_numbers() {
        let catalog = catalog(10_000, CardinalityOverflow::Reject);
        let ids = |seed: u64| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut order: Vec<_> = (0..1_000).collect();
            random.shuffle(&mut order);
            let intern = |n: &u32| (*n, catalog.intern(SPEC, &key(&[("n", &n.to_string())])).unwrap());
            let mut ids: Vec<_> = order.iter().map(intern).collect();
            ids.sort_unstable();
            ids
        };
        let all = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || ids(seed))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
        let mut ids: Vec<_> = all[0].iter().map(|(_, id)| id.0).collect();
        ids.sort_unstable();
        assert_eq!(ids, (0..1_000).collect::<Vec<_>>());
        for (n, id) in &all[0] {
            assert_eq!(catalog.key(SPEC, *id).get("n"), Some(n.to_string().as_str()));
        }
    }

    #[test]
    fn beyond_the_limit_new_series_are_refused_and_known_ones_served() {
        let catalog = catalog(2, CardinalityOverflow::Reject);
        let known = catalog.intern(SPEC, &key(&[("n", "1")])).unwrap();
        catalog.intern(SPEC, &key(&[("n", "2")])).unwrap();
        let refusal = catalog.intern(SPEC, &key(&[("n", "3")])).unwrap_err();
        assert_eq!(refusal.reason, Reason::Cardinality);
        assert_eq!(catalog.intern(SPEC, &key(&[("n", "1")])), Ok(known));
        assert_eq!((catalog.len(SPEC), catalog.refused(SPEC)), (2, 1));
    }

    #[test]
    fn beyond_the_limit_new_series_fold_into_one() {
        let catalog = catalog(1, CardinalityOverflow::Fold);
        catalog.intern(SPEC, &key(&[("n", "1")])).unwrap();
        let fold = catalog.intern(SPEC, &key(&[("n", "2")])).unwrap();
        assert_eq!(catalog.intern(SPEC, &key(&[("n", "3")])), Ok(fold));
        assert_eq!(catalog.key(SPEC, fold), key(&[("overflow", "true")]));
        assert_eq!((catalog.len(SPEC), catalog.refused(SPEC)), (2, 2));
    }

    #[test]
    fn what_was_loaded_keeps_its_number_and_a_lost_key_keeps_it_taken() {
        let catalog = catalog(10, CardinalityOverflow::Reject);
        catalog.load(SPEC, SeriesId(0), Some(key(&[("n", "0")])));
        catalog.load(SPEC, SeriesId(2), None);
        assert_eq!(catalog.unpersisted(SPEC), 3..3);
        assert_eq!(catalog.intern(SPEC, &key(&[("n", "0")])), Ok(SeriesId(0)));
        assert_eq!(catalog.intern(SPEC, &key(&[("n", "9")])), Ok(SeriesId(3)));
        assert_eq!(catalog.unpersisted(SPEC), 3..4);
        catalog.mark_persisted(SPEC, 4);
        assert_eq!(catalog.unpersisted(SPEC), 4..4);
        assert_eq!(catalog.key(SPEC, SeriesId(2)), key(&[("lost_series", "2")]));
    }
}
