//! What one generation of a process leaves open for the next.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::model::SpecId;

/// The specs whose open windows the next generation rebuilds from the journal: this one must not close them when it
/// ends. Settled before the topology is stopped; none are while nobody has settled it.
#[derive(Debug, Default)]
pub struct HandOver(OnceLock<BTreeSet<SpecId>>);

impl HandOver {
    /// Hands over the open windows of these specs. Only the first call counts.
    pub fn settle(&self, specs: BTreeSet<SpecId>) {
        // A generation has one successor.
        let _ = self.0.set(specs);
    }

    /// Whether the open windows of `spec` are handed over.
    pub fn includes(&self, spec: SpecId) -> bool {
        self.0.get().is_some_and(|specs| specs.contains(&spec))
    }
}
