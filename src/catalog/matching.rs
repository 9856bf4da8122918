//! Which series a query means.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::Catalog;
use crate::model::{SeriesId, SeriesKey, SpecId};

/// Series looked at between two looks for new ones, so that interning never waits long.
const CHUNK: usize = 4096;

/// What a series must have to be meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Match {
    /// Dimensions and their values; `*` stands for any value, but the dimension must be there.
    pub pairs: Vec<(String, String)>,
    /// The series must have no other dimensions.
    pub is_exact: bool,
}

impl Match {
    /// Series that have at least these dimensions; all series where there are none.
    pub fn subset<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self { pairs: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect(), is_exact: false }
    }

    /// The series that has these dimensions and no other.
    pub fn exact<N: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        Self { is_exact: true, ..Self::subset(pairs) }
    }

    /// Whether a series is meant.
    pub fn accepts(&self, key: &SeriesKey) -> bool {
        let has = |(name, value): &(String, String)| key.get(name).is_some_and(|found| value == "*" || found == value);
        self.pairs.iter().all(has)
            && (!self.is_exact || key.dimensions().all(|(name, _)| self.pairs.iter().any(|(n, _)| n == name)))
    }

    /// The one key it can mean, where it names every value.
    fn key(&self) -> Option<SeriesKey> {
        let is_plain = self.is_exact && self.pairs.iter().all(|(_, value)| value != "*");
        let pairs = self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        SeriesKey::new(pairs).ok().filter(|_| is_plain)
    }
}

impl Catalog {
    /// Visits the series that match, in order of their numbers, until `visit` breaks. New series may appear
    /// meanwhile.
    pub fn matching(
        &self,
        spec: SpecId,
        pattern: &Match,
        visit: &mut dyn FnMut(SeriesId, &SeriesKey) -> ControlFlow<()>,
    ) {
        if let Some(key) = pattern.key() {
            if let Some(id) = self.find(spec, &key) {
                let _ = visit(id, &key);
            }
            return;
        }
        let mut from = 0;
        loop {
            let chunk: Vec<_> = self.spec(spec).read().iter().skip(from).take(CHUNK).cloned().collect();
            for (i, key) in chunk.iter().enumerate() {
                if let Some(key) = key.as_ref().filter(|key| pattern.accepts(key))
                    && visit(SeriesId((from + i) as u32), key).is_break()
                {
                    return;
                }
            }
            if chunk.len() < CHUNK {
                return;
            }
            from += CHUNK;
        }
    }

    /// The lowest `limit` values of a dimension among the series that match, ascending.
    pub fn dimension_values(&self, spec: SpecId, name: &str, pattern: &Match, limit: usize) -> Vec<String> {
        let mut values = BTreeSet::new();
        self.matching(spec, pattern, &mut |_, key| {
            if let Some(value) = key.get(name)
                && (values.len() < limit || values.last().is_some_and(|last: &String| value < last.as_str()))
            {
                values.insert(value.to_owned());
                if values.len() > limit {
                    values.pop_last();
                }
            }
            ControlFlow::Continue(())
        });
        values.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{catalog, key};
    use super::*;
    use crate::codec::admit::Interner;
    use crate::spec::CardinalityOverflow;

    const SPEC: SpecId = SpecId(0);

    fn filled() -> Catalog {
        let catalog = catalog(100_000, CardinalityOverflow::Reject);
        for n in 0..9_000 {
            let (n, parity) = (n.to_string(), if n % 2 == 0 { "even" } else { "odd" });
            catalog.intern(SPEC, &key(&[("n", &n), ("parity", parity)])).unwrap();
        }
        catalog.intern(SPEC, &key(&[("n", "1")])).unwrap();
        catalog
    }

    fn ids(catalog: &Catalog, pattern: &Match) -> Vec<u32> {
        let mut ids = Vec::new();
        catalog.matching(SPEC, pattern, &mut |id, found| {
            assert_eq!(*found, catalog.key(SPEC, id));
            ids.push(id.0);
            ControlFlow::Continue(())
        });
        ids
    }

    #[test]
    fn subsets_wildcards_and_exact_matches_mean_what_they_say() {
        let catalog = filled();
        assert_eq!(ids(&catalog, &Match::subset([("n", "1")])), [1, 9_000]);
        assert_eq!(ids(&catalog, &Match::exact([("n", "1")])), [9_000]);
        assert_eq!(ids(&catalog, &Match::exact([("n", "*")])), [9_000]);
        assert_eq!(ids(&catalog, &Match::exact([("n", "1"), ("parity", "*")])), [1]);
        assert_eq!(ids(&catalog, &Match::subset([("parity", "odd")])).len(), 4_500);
        assert_eq!(ids(&catalog, &Match::default()).len(), 9_001);
        assert!(ids(&catalog, &Match::subset([("none", "*")])).is_empty());
    }

    #[test]
    fn the_lowest_values_of_a_dimension_are_listed_once_each() {
        let catalog = filled();
        let all = Match::default();
        assert_eq!(catalog.dimension_values(SPEC, "parity", &all, 10), ["even", "odd"]);
        assert_eq!(catalog.dimension_values(SPEC, "n", &all, 3), ["0", "1", "10"]);
        assert_eq!(catalog.dimension_values(SPEC, "n", &Match::subset([("parity", "odd")]), 2), ["1", "1001"]);
        assert_eq!(catalog.dimension_values(SPEC, "n", &all, 0), [""; 0]);
    }
}
