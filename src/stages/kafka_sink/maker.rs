//! From a stored bar to a record.

use std::sync::Arc;

use super::config::{Amendments, Policy};
use super::lane::Outbound;
use crate::catalog::Catalog;
use crate::codec::bar::{self, Outgoing, Previous};
use crate::model::{BarHead, Record, TimeNs};
use crate::spec::Spec;
use crate::window::{bounds, state};

/// Makes records of the bars of one spec.
pub(super) struct Maker {
    pub spec: Arc<Spec>,
    pub policy: Policy,
    pub service: String,
}

impl Maker {
    /// Whether the revision before has to be known.
    pub fn wants_previous(&self) -> bool {
        self.policy.amendments == Amendments::Increment
    }

    /// The record of a bar; `None` where it is an amendment and those are not sent.
    pub fn make(
        &self,
        catalog: &Catalog,
        head: &BarHead,
        words: &[u64],
        previous: Option<&(BarHead, Vec<u64>)>,
        stored_at: Option<TimeNs>,
    ) -> Option<Outbound> {
        if head.revision > 0 && self.policy.amendments == Amendments::None {
            return None;
        }
        let granularity = usize::from(head.granularity);
        let topic = self.policy.topics.get(granularity)?.clone()?;
        let key = catalog.key(self.spec.id, head.series);
        let metrics = |head: &BarHead, words: &[u64]| state::metrics(&self.spec, head, words);
        let previous = previous.map(|(head, words)| Previous { ticks: head.ticks, metrics: metrics(head, words) });
        let bar = Outgoing { spec: &self.spec, key: &key, head, metrics: metrics(head, words), previous };
        let mut value = Vec::with_capacity(512);
        self.policy.encoding.write(&self.service, &bar, &mut value);
        let length = self.spec.granularities.get(granularity).map_or(0, |granularity| granularity.length);
        let record = Record { topic, key: bar::record_key(&key), value, headers: bar::headers(&bar) };
        let window_end = bounds::end_of(head.start, length);
        Some(Outbound { record, series: head.series, window_end, stored_at, sent_at: 0 })
    }
}
