//! What was dropped, counted: durable, in the same commit that dooms the partition.

use super::{DropReason, Dropped, Expired, Family, Kv, Op, Store, StoreError, meta};
use crate::model::SpecId;

impl Store {
    /// What was dropped of a spec because of its age or the budget, since its data began.
    ///
    /// # Errors
    /// The port fails, or the record is damaged.
    pub fn expired_totals(&self, spec: SpecId) -> Result<Expired, StoreError> {
        read(&*self.inner.kv, &self.spec(spec).spec.name)
    }
}

/// The write that adds what is about to be dropped.
///
/// # Errors
/// The port fails.
pub(super) fn add(kv: &dyn Kv, dropped: &Dropped) -> Result<Op, StoreError> {
    let mut totals = match read(kv, &dropped.spec) {
        Err(StoreError::Damaged { record }) => {
            tracing::error!(record, "the count of what has expired is damaged and begins anew");
            Expired::default()
        }
        totals => totals?,
    };
    let counts = match dropped.reason {
        DropReason::Expired => &mut totals.by_age,
        DropReason::OverBudget => &mut totals.by_budget,
    };
    match dropped.family {
        Family::Ticks | Family::Sorted => counts.ticks += dropped.ticks,
        Family::Side => counts.side += dropped.ticks,
        Family::Bars => counts.bars += dropped.bars,
    }
    // Numbers always have a JSON form.
    Ok(meta::put(&record(&dropped.spec), &serde_json::to_vec(&totals).unwrap_or_default()))
}

fn read(kv: &dyn Kv, spec: &str) -> Result<Expired, StoreError> {
    let record = record(spec);
    let Some(bytes) = meta::get(kv, &record)? else { return Ok(Expired::default()) };
    serde_json::from_slice(&bytes).map_err(|_| StoreError::Damaged { record })
}

fn record(spec: &str) -> String {
    format!("expired/{spec}")
}
