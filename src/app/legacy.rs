//! What one generation of a process leaves to the next, beside the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Ledger, LedgerSnapshot, TimeNs};
use crate::runtime::{Listeners, Producers};
use crate::spec::Specs;
use crate::telemetry::{Observed, Snapshot};

/// See the module's text. The first generation has an empty one.
#[derive(Default)]
pub struct Legacy {
    /// When the process started.
    pub(super) started: Option<TimeNs>,
    /// Its figures at the end, so that no counter goes back.
    pub(super) figures: Option<Arc<Snapshot>>,
    /// Which batches it had taken.
    pub(super) producers: Option<Arc<Producers>>,
    /// Where it listens.
    pub(super) listeners: Arc<Listeners>,
    /// What it counted, by spec; ticks that named none under the empty name.
    counted: BTreeMap<String, LedgerSnapshot>,
}

impl Legacy {
    /// What is left of a generation that has ended.
    pub fn of(ended: &Observed) -> Self {
        let context = &ended.context;
        let counted = context.specs.iter().map(|spec| (spec.name.clone(), context.ledger.spec(spec.id).snapshot()));
        let unknown = [(String::new(), context.ledger.unknown().snapshot())];
        Self {
            started: Some(ended.started),
            figures: Some(Arc::new(ended.snapshot())),
            producers: Some(context.producers.clone()),
            listeners: context.listeners.clone(),
            counted: counted.chain(unknown).collect(),
        }
    }

    /// Lets `ledger` go on from what was counted, where no journal has kept it.
    pub(super) fn restore(&self, specs: &Specs, ledger: &Ledger) {
        let known = specs.iter().map(|spec| (spec.name.as_str(), ledger.spec(spec.id)));
        for (name, counters) in known.chain([("", ledger.unknown())]) {
            if let Some(counted) = self.counted.get(name) {
                counters.restore(counted, 0);
            }
        }
    }
}
