//! The same series in two specs.

use std::collections::HashMap;

use super::Grounds;
use crate::model::{SeriesId, SpecId};

/// Series numbers of one spec and the same series' numbers in another.
#[derive(Default)]
pub(super) struct Names {
    pub to_target: HashMap<SeriesId, SeriesId>,
    pub to_source: HashMap<SeriesId, SeriesId>,
}

impl Names {
    /// Those that both have by now.
    pub fn of(grounds: Grounds<'_>, source: SpecId, target: Option<SpecId>) -> Self {
        let mut names = Self::default();
        let Some(target) = target else { return names };
        for series in (0..grounds.catalog.len(source) as u32).map(SeriesId) {
            let key = grounds.catalog.key(source, series);
            if let Some(there) = grounds.catalog.find(target, &key) {
                names.note(series, there);
            }
        }
        names
    }

    pub fn note(&mut self, source: SeriesId, target: SeriesId) {
        self.to_target.insert(source, target);
        self.to_source.insert(target, source);
    }
}
