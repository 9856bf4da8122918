//! Reads every figure from where it is kept: meters, ledger, catalog, store. Nothing is asked of a stage, so that one that
//! stands still is seen standing still.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::distribution::Distribution;
use super::exports::Exports;
use super::logs;
use super::sinks;
use super::snapshot::Snapshot;
use super::table::{self, Instrument};
use crate::model::{LedgerSnapshot, Reason, TimeNs};
use crate::runtime::measures::span;
use crate::runtime::refusals;
use crate::runtime::{Context, InstanceState, Meter};
use crate::times::Times;
use crate::topology::{Flow, Plan};

/// Where the figures are.
#[derive(Clone)]
pub struct Observed {
    /// What runs.
    pub plan: Arc<Plan>,
    /// What its stages share.
    pub context: Context,
    /// The counters of every instance, once the topology is launched.
    pub meters: Arc<OnceLock<Vec<Arc<Meter>>>>,
    /// When the process started.
    pub started: TimeNs,
    /// What became of what was pushed.
    pub exports: Arc<Exports>,
    /// The figures at the end of the generation before.
    pub before: Option<Arc<Snapshot>>,
}

/// What only grows and is kept in the store, handed on by the ledger, or the process's: it goes on over generations by itself.
const CONTINUED: [Instrument; 8] = [
    table::ACCEPTED,
    table::REJECTED,
    table::DUPLICATE,
    table::IN_BARS,
    table::DROPPED,
    table::QUARANTINED,
    table::OUTBOX_BARS,
    table::LOGS_DROPPED,
];

impl Observed {
    /// Every figure, now.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.context.clock.now();
        let mut into = Snapshot::new(&self.plan.name, self.started, now);
        into.number(&table::UPTIME, &[], seconds(span(self.started, now)));
        for meter in self.meters.get().into_iter().flatten() {
            let kind = self.plan.stage(&meter.stage).map_or("", |stage| stage.kind.name);
            instance(&mut into, meter, kind, sinks::lag(&self.context, &meter.stage, now));
        }
        self.windows(&mut into, now);
        self.ledger(&mut into);
        self.store(&mut into);
        sinks::read(&mut into, &self.context, now);
        let measures = &self.context.measures;
        times(&mut into, &table::TICK_TO_ACK, &[], &measures.tick_to_ack);
        times(&mut into, &table::WINDOW_TO_STORED, &[], &measures.window_to_stored);
        let guard = &self.context.guard;
        for (listener, connections) in guard.connections() {
            into.number(&table::CONNECTIONS, &[&listener], connections as f64);
        }
        for reason in refusals::Reason::ALL {
            into.number(&table::REFUSED, &[reason.name()], guard.refusals.count(reason) as f64);
        }
        for (signal, destination, outcome, count) in self.exports.counts() {
            into.number(&table::EXPORTS, &[signal, destination, outcome], count as f64);
        }
        into.number(&table::LOGS_DROPPED, &[], logs::dropped() as f64);
        let dropped = self.context.tracer.as_ref().map_or(0, |tracer| tracer.dropped.get());
        into.number(&table::SPANS_DROPPED, &[], dropped as f64);
        if let Some(before) = &self.before {
            into.go_on_from(before, &CONTINUED);
        }
        into
    }

    /// The aggregators' figures.
    fn windows(&self, into: &mut Snapshot, now: TimeNs) {
        let aggregates = |stage: &&crate::topology::StagePlan| {
            stage.kind.takes == Some(Flow::Ticks) && stage.kind.gives == Some(Flow::Bars)
        };
        let Some(stage) = self.plan.stages.iter().find(aggregates) else { return };
        for (instance, windows) in self.context.measures.windows.iter().enumerate() {
            let about = [stage.name.as_str(), &instance.to_string()];
            into.number(&table::WINDOWS, &about, windows.open() as f64);
            if let Some(behind) = windows.behind(now) {
                into.number(&table::WATERMARK, &about, seconds(behind));
            }
        }
    }

    fn ledger(&self, into: &mut Snapshot) {
        let Context { specs, ledger, catalog, .. } = &self.context;
        for spec in specs.iter() {
            counts(into, &spec.name, &ledger.spec(spec.id).snapshot());
            into.number(&table::SERIES, &[&spec.name], catalog.len(spec.id) as f64);
            into.number(&table::SERIES_REFUSED, &[&spec.name], catalog.refused(spec.id) as f64);
        }
        let unknown = ledger.unknown().snapshot();
        if unknown.received() > 0 {
            counts(into, "", &unknown);
        }
    }

    fn store(&self, into: &mut Snapshot) {
        let Context { specs, store, .. } = &self.context;
        let (commits, usage) = (store.commits(), store.usage());
        times(into, &table::COMMIT, &["synced"], &commits.synced);
        times(into, &table::COMMIT, &["process"], &commits.process);
        into.number(&table::JOURNAL_WRITTEN, &[], commits.journal_bytes() as f64);
        for (spec, usage) in specs.iter().zip(&usage.specs) {
            for (data, bytes) in [("ticks", usage.ticks), ("late", usage.side), ("bars", usage.bars)] {
                into.number(&table::SIZE, &[&spec.name, data], bytes as f64);
            }
        }
        for (kind, count) in &usage.quarantined {
            into.number(&table::QUARANTINED, &[kind.name()], *count as f64);
        }
    }
}

/// What the shell measures of every instance; `outbox` is how long what it is to send has waited there.
fn instance(into: &mut Snapshot, meter: &Meter, kind: &str, outbox: Duration) {
    let number = meter.instance.to_string();
    let about = [meter.stage.as_str(), &number];
    let at_work = meter.state().is_up();
    into.number(&table::UP, &[about[0], about[1], kind], f64::from(u8::from(at_work)));
    let is_active = meter.state() != InstanceState::Standby;
    into.number(&table::ACTIVE, &about, f64::from(u8::from(is_active)));
    into.number(&table::LAG, &about, seconds(meter.lag().max(outbox)));
    let spent = meter.spent();
    for (phase, time) in [("busy", spent.busy), ("idle", spent.idle), ("backpressured", spent.backpressured)] {
        into.number(&table::TIME, &[about[0], about[1], phase], seconds(time));
    }
    let flows = [("in", &meter.batches_in, &meter.rows_in), ("out", &meter.batches_out, &meter.rows_out)];
    for (direction, batches, items) in flows {
        into.number(&table::BATCHES, &[about[0], about[1], direction], batches.get() as f64);
        into.number(&table::ITEMS, &[about[0], about[1], direction], items.get() as f64);
    }
    into.number(&table::RESTARTS, &about, meter.restarts.get() as f64);
    into.number(&table::POISONED, &about, meter.poisoned.get() as f64);
    // A source has no mailbox, and nothing waits in it.
    if !meter.lanes().is_empty() {
        times(into, &table::QUEUE, &about, &meter.queue);
        times(into, &table::HANDLING, &about, &meter.handling);
        into.number(&table::DEPTH, &about, meter.depth() as f64);
        into.number(&table::CAPACITY, &about, meter.capacity() as f64);
        into.number(&table::PEAK, &about, meter.peak() as f64);
    }
}

fn counts(into: &mut Snapshot, spec: &str, counts: &LedgerSnapshot) {
    into.number(&table::ACCEPTED, &[spec], counts.accepted as f64);
    into.number(&table::DUPLICATE, &[spec], counts.duplicate as f64);
    into.number(&table::IN_BARS, &[spec], counts.in_bars as f64);
    into.number(&table::OPEN, &[spec], counts.open as f64);
    into.number(&table::IN_FLIGHT, &[spec], counts.in_flight() as f64);
    let by_reason = [(&table::REJECTED, &counts.rejected), (&table::DROPPED, &counts.dropped)];
    for (instrument, reasons) in by_reason {
        let mut add = |(reason, ticks): &(Reason, u64)| into.number(instrument, &[spec, reason.name()], *ticks as f64);
        reasons.iter().for_each(&mut add);
    }
}

fn times(into: &mut Snapshot, instrument: &Instrument, values: &[&str], times: &Times) {
    into.histogram(instrument, values, Distribution::of(&times.read()));
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
