//! The ledger and the running topology as plain, serialisable rows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ReadError;
use super::select;
use crate::catalog::Offender;
use crate::codec::admit::quote;
use crate::model::{LedgerSnapshot, Reason};
use crate::runtime::{Context, InstanceState, Meter};
use crate::serve::Served;
use crate::spec::Spec;

/// The ledger of one spec.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct LedgerRow {
    /// The spec; empty for ticks that named none of this server's.
    pub spec: String,
    /// `accepted + rejected + duplicate`.
    pub received: u64,
    /// Ticks taken.
    pub accepted: u64,
    /// Ticks refused, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Ticks of batches already taken before.
    pub duplicate: u64,
    /// Ticks in stored bars of the finest granularity.
    pub in_bars: u64,
    /// Ticks in open windows.
    pub open: u64,
    /// Ticks on their way: what is left of `accepted`. 0 at rest.
    pub in_flight: i64,
    /// Ticks taken and then given up, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// How many times a further series met the cardinality limit.
    pub refused_series: u64,
    /// The dimensions of those series, the one with the most values first.
    pub offenders: Vec<OffenderRow>,
}

/// A dimension of the series that met the cardinality limit.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct OffenderRow {
    /// Its name.
    pub dimension: String,
    /// Roughly how many different values it had.
    pub distinct: u64,
    /// The beginnings of its most frequent values, the most frequent first.
    pub values: Vec<String>,
}

/// The running topology.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct TopologyRow {
    /// Its name.
    pub name: String,
    /// Its stages, upstream first.
    pub stages: Vec<StageRow>,
}

/// One stage.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct StageRow {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// The stages it takes from.
    pub from: Vec<String>,
    /// How many of its instances have a share of its work; the others are on standby.
    pub active: u32,
    /// Its instances; none before the launch.
    pub instances: Vec<InstanceRow>,
}

/// One instance of a stage: its counters since the launch, times in nanoseconds.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct InstanceRow {
    pub instance: u16,
    pub state: &'static str,
    pub last_error: Option<String>,
    pub mailbox_depth: u64,
    pub mailbox_capacity: u64,
    pub batches_in: u64,
    pub rows_in: u64,
    pub batches_out: u64,
    pub rows_out: u64,
    pub busy_ns: u64,
    pub backpressured_ns: u64,
    pub restarts: u64,
    pub poisoned: u64,
}

/// The ledger of `spec`, or of all specs where it is empty; then also of ticks that named none, if there were any.
///
/// # Errors
/// There is no such spec.
pub fn ledger(served: &Served, spec: &str) -> Result<Vec<LedgerRow>, ReadError> {
    let Context { specs, ledger, catalog, .. } = &served.context;
    let row = |spec: &Spec| LedgerRow {
        refused_series: catalog.refused(spec.id),
        offenders: catalog.offenders(spec.id).into_iter().map(OffenderRow::from).collect(),
        ..LedgerRow::new(&spec.name, ledger.spec(spec.id).snapshot())
    };
    if !spec.is_empty() {
        return Ok(vec![row(select::spec(specs, spec)?)]);
    }
    let mut rows: Vec<_> = specs.iter().map(|spec| row(spec)).collect();
    let unknown = LedgerRow::new("", ledger.unknown().snapshot());
    rows.extend(Some(unknown).filter(|row| row.received > 0));
    Ok(rows)
}

/// The running topology.
pub fn topology(served: &Served) -> TopologyRow {
    let plan = &served.plan;
    let name = |index: &usize| plan.stages.get(*index).map(|stage| stage.name.clone());
    let stage = |stage: &crate::topology::StagePlan| {
        let instances = served.meters().iter().filter(|m| m.stage == stage.name);
        StageRow {
            name: stage.name.clone(),
            kind: stage.kind.name.to_owned(),
            from: stage.from.iter().filter_map(name).collect(),
            active: instances.clone().filter(|m| m.state() != InstanceState::Standby).count() as u32,
            instances: instances.map(|m| InstanceRow::new(m)).collect(),
        }
    };
    TopologyRow { name: plan.name.clone(), stages: plan.stages.iter().map(stage).collect() }
}

impl LedgerRow {
    fn new(spec: &str, counts: LedgerSnapshot) -> Self {
        let named = |reasons: &[(Reason, u64)]| reasons.iter().map(|(reason, n)| (reason.name(), *n)).collect();
        Self {
            spec: spec.to_owned(),
            received: counts.received(),
            accepted: counts.accepted,
            rejected: named(&counts.rejected),
            duplicate: counts.duplicate,
            in_bars: counts.in_bars,
            // Read while others count, so it may be off by a batch for a moment, but it never is below zero.
            open: u64::try_from(counts.open).unwrap_or(0),
            in_flight: counts.in_flight(),
            dropped: named(&counts.dropped),
            refused_series: 0,
            offenders: Vec::new(),
        }
    }
}

impl From<Offender> for OffenderRow {
    fn from(offender: Offender) -> Self {
        // Cut, so that what a client sent cannot make a reply too large for others to take.
        let values = offender.values.iter().map(|(value, _)| quote(value).to_owned()).collect();
        Self { dimension: offender.name, distinct: offender.distinct, values }
    }
}

impl InstanceRow {
    fn new(meter: &Meter) -> Self {
        let spent = meter.spent();
        Self {
            instance: meter.instance,
            state: meter.state().name(),
            last_error: meter.last_error(),
            mailbox_depth: meter.depth(),
            mailbox_capacity: meter.capacity(),
            batches_in: meter.batches_in.get(),
            rows_in: meter.rows_in.get(),
            batches_out: meter.batches_out.get(),
            rows_out: meter.rows_out.get(),
            busy_ns: spent.busy.as_nanos() as u64,
            backpressured_ns: spent.backpressured.as_nanos() as u64,
            restarts: meter.restarts.get(),
            poisoned: meter.poisoned.get(),
        }
    }
}
