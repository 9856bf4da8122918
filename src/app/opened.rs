//! The store as one generation of a process opens it.

use std::sync::Arc;

use super::{Legacy, StartError};
use crate::catalog::Catalog;
use crate::model::Ledger;
use crate::runtime::{Clock, Producers, Recovery, load_catalog};
use crate::spec::Specs;
use crate::stages;
use crate::store::{Kv, Store};
use crate::topology::Plan;
use crate::window::state;

/// The store, and what it and the generation before say of what was counted.
pub struct Opened {
    pub(super) specs: Arc<Specs>,
    pub(super) store: Store,
    pub(super) catalog: Catalog,
    pub(super) ledger: Ledger,
    pub(super) recovery: Recovery,
    pub(super) producers: Arc<Producers>,
    pub(super) journaled: bool,
}

impl Opened {
    /// Opens what `kv` holds for the specs of a generation. Blocks while it reads.
    ///
    /// # Errors
    /// What is there cannot be used.
    pub fn open(
        kv: Arc<dyn Kv>,
        clock: &Arc<dyn Clock>,
        plan: &Plan,
        specs: Specs,
        legacy: &Legacy,
    ) -> Result<Self, StartError> {
        let specs = Arc::new(specs);
        let store = Store::open(kv, &specs, state::convert)?;
        let catalog = load_catalog(&store, &specs)?;
        let ledger = Ledger::new(specs.len());
        let journaled = is_journaled(plan);
        // Without a journal only the process itself knows what it had accepted.
        let recovery = if journaled {
            Recovery::begin(&store, &specs, &ledger)?
        } else {
            legacy.restore(&specs, &ledger);
            Recovery::default()
        };
        let kept = legacy.producers.clone().filter(|_| !journaled);
        let producers = match kept {
            Some(kept) => kept,
            None => Arc::new(Producers::load(&store, clock.now())?),
        };
        Ok(Self { specs, store, catalog, ledger, recovery, producers, journaled })
    }
}

/// Whether the topology has a journal.
pub(super) fn is_journaled(plan: &Plan) -> bool {
    plan.stages.iter().any(|stage| stage.kind.name == stages::journal::KIND.name)
}
