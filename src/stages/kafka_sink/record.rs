//! A stored bar becomes a record.

use std::sync::Arc;

use super::config::Policy;
use crate::codec::bar::{Outgoing, Previous, headers, record_key};
use crate::model::{BarHead, Record, SeriesKey, TimeNs};
use crate::spec::Spec;
use crate::window::state;

/// Makes the records of one spec's bars.
pub(super) struct Maker {
    spec: Arc<Spec>,
    service: Arc<str>,
    /// By granularity.
    topics: Vec<Option<Arc<str>>>,
}

impl Maker {
    pub fn new(spec: Arc<Spec>, service: &str, policy: &Policy) -> Self {
        let topics = policy.topics.iter().map(|topic| topic.as_deref().map(Arc::from)).collect();
        Self { spec, service: service.into(), topics }
    }

    /// The record of a bar; of what `previous` lacks, where that is given. `None` where bars of its granularity have no
    /// topic.
    pub fn make(
        &self,
        policy: &Policy,
        key: &SeriesKey,
        head: &BarHead,
        words: &[u64],
        previous: Option<&(BarHead, Vec<u64>)>,
    ) -> Option<Record> {
        let topic = self.topics.get(usize::from(head.granularity))?.clone()?;
        let metrics = |head: &BarHead, words: &[u64]| state::metrics(&self.spec, head, words);
        let previous = previous.map(|(head, words)| Previous { ticks: head.ticks, metrics: metrics(head, words) });
        let outgoing = Outgoing { spec: &self.spec, key, head, metrics: metrics(head, words), previous };
        let mut value = Vec::with_capacity(512);
        policy.encoding.write(&self.service, &outgoing, &mut value);
        let key = record_key(key);
        let headers = headers(&outgoing, &key);
        Some(Record { topic, key, value, headers })
    }

    /// Where the window of a bar ends.
    pub fn end(&self, head: &BarHead) -> TimeNs {
        let granularity = self.spec.granularities.get(usize::from(head.granularity));
        head.start.saturating_add(granularity.map_or(0, |granularity| granularity.length))
    }

    pub fn spec_name(&self) -> &str {
        &self.spec.name
    }
}
