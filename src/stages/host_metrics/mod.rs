//! `host_metrics`: this machine's own CPU, memory, disk and network readings, as ticks of the spec `host_metrics`.
//!
//! CPU, memory and network are read `every` 100 ms, disks once a second. Reading must not become the load it
//! reports: a reading that was slow (hundreds of interfaces, a crowded `/proc`) is repeated less often.

mod machine;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sysinfo::System;
use tokio::time::{MissedTickBehavior, interval};

use crate::codec::Interner;
use crate::codec::admit::admit_series;
use crate::model::time::MILLISECOND;
use crate::model::{DurationNs, FieldType, Ledger, Reason, SeriesId, TickBatch, TimeNs, Value};
use crate::runtime::outlet::Sent;
use crate::runtime::source::Running;
use crate::runtime::{Built, Context, InstanceState, Source, SourceContext, StageError};
use crate::spec::units::{DurationText, format_duration};
use crate::spec::{Spec, UnknownDimensions};
use crate::topology::{Complaint, Facts, Flow, Kind, Plan, Role, StageConfig, StagePlan, parse_config};
use machine::{Machine, Resource};

/// The kind's row in the topology's table.
pub const KIND: Kind = Kind {
    name: "host_metrics",
    summary: "reads this machine's CPU, memory, disks and network",
    role: Role::Source,
    takes: None,
    gives: Some(Flow::Ticks),
    max_instances: 1,
    // Two of them would send every reading twice.
    unique: true,
    parse: parse_config::<Config>,
};

/// The spec its ticks belong to, and the dimensions that tell its series apart.
const SPEC: &str = "host_metrics";
const DIMENSIONS: [&str; 3] = ["host", "resource", "device"];
/// The shortest `every`.
const SHORTEST: DurationNs = 10 * MILLISECOND;

/// The stage's `config`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Time between two readings; at least 10 ms.
    pub every: DurationText,
}

impl Default for Config {
    fn default() -> Self {
        Self { every: DurationText(100 * MILLISECOND) }
    }
}

impl StageConfig for Config {
    fn facts(&self) -> Facts {
        // A reading of a few hundred cores, disks and interfaces.
        Facts { batch_bytes: 64 << 10, memory: 1 << 20, ..Facts::default() }
    }

    fn check(&self) -> Vec<Complaint> {
        let too_often = (self.every.0 < SHORTEST)
            .then(|| ("every".into(), format!("a reading every {}\n10ms or longer", format_duration(self.every.0))));
        too_often.into_iter().collect()
    }
}

/// Makes the stage.
pub fn build(context: &Context, _plan: &Plan, stage: &StagePlan) -> Result<Built, StageError> {
    let config: Arc<Config> = super::config_of(stage)?;
    let missing = || StageError::fatal(format!("no spec {SPEC:?}: add specs/{SPEC}.yaml, or leave the stage out"));
    let spec = context.specs.by_name(SPEC).ok_or_else(missing)?.clone();
    check_dimensions(&spec)?;
    let (catalog, ledger) = (context.catalog.clone(), context.ledger.clone());
    let every = Duration::from_nanos(config.every.0.max(SHORTEST) as u64);
    Ok(Built::Source(Box::new(move |_| {
        let (spec, series, ledger) = (spec.clone(), catalog.clone(), ledger.clone());
        Ok(Box::new(HostMetrics { spec, series, ledger, every }))
    })))
}

/// Readings of two devices must never share a series.
fn check_dimensions(spec: &Spec) -> Result<(), StageError> {
    let missing = DIMENSIONS.iter().find(|name| !spec.dimensions.iter().any(|declared| declared == *name));
    match missing {
        Some(name) if spec.unknown_dimensions == UnknownDimensions::Reject => Err(StageError::fatal(format!(
            "spec {SPEC:?} declares no dimension {name:?} and rejects what it does not declare: \
             declare host, resource and device, or accept unknown dimensions"
        ))),
        _ => Ok(()),
    }
}

struct HostMetrics {
    spec: Arc<Spec>,
    series: Arc<dyn Interner + Send + Sync>,
    ledger: Arc<Ledger>,
    every: Duration,
}

impl Source for HostMetrics {
    fn run(self: Box<Self>, source: SourceContext) -> Running {
        Box::pin(async move {
            let mut machine = Machine::new(self.every).map_err(StageError::fatal)?;
            let ledger = self.ledger.clone();
            let counters = ledger.spec(self.spec.id);
            let mut ticks = Ticks::new(self.spec, self.series, self.ledger);
            let mut beat = interval(self.every);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            source.meter.set_state(InstanceState::Running);
            loop {
                tokio::select! {
                    biased;
                    () = source.stop.cancelled() => return Ok(()),
                    _ = beat.tick() => {}
                }
                ticks.now = source.clock.now();
                machine.read(&mut ticks);
                let batch = ticks.take();
                if batch.is_empty() {
                    continue;
                }
                let rows = batch.len() as u64;
                counters.accept(rows);
                let gone = |_| StageError::fatal("the stage behind it is gone");
                if source.outlet.send(batch).await.map_err(gone)? == Sent::Dropped {
                    counters.drop(Reason::MailboxFull, rows);
                }
            }
        })
    }
}

/// The batch under construction, and the series seen so far.
struct Ticks {
    spec: Arc<Spec>,
    interner: Arc<dyn Interner + Send + Sync>,
    ledger: Arc<Ledger>,
    host: String,
    known: HashMap<Resource, HashMap<String, SeriesId>>,
    batch: TickBatch,
    now: TimeNs,
}

impl Ticks {
    fn new(spec: Arc<Spec>, interner: Arc<dyn Interner + Send + Sync>, ledger: Arc<Ledger>) -> Self {
        let host = System::host_name().unwrap_or_else(|_| "localhost".to_owned());
        let batch = TickBatch::new(spec.id, spec.fields.len());
        Self { spec, interner, ledger, host, known: HashMap::new(), batch, now: 0 }
    }

    /// Appends one reading; what the spec does not declare of it is left out.
    fn add(&mut self, resource: Resource, device: &str, values: &[(&str, Value)]) {
        let Some(series) = self.series(resource, device) else { return };
        let row = self.batch.len();
        self.batch.series.push(series.0);
        self.batch.timestamps.push(self.now);
        for (field, column) in self.spec.fields.iter().zip(&mut self.batch.fields) {
            let value = values.iter().find(|(name, _)| *name == field.name);
            let bits = value.and_then(|(_, value)| bits_of(field.ty, *value));
            column.bits.push(bits.unwrap_or(0));
            if bits.is_none() {
                column.set_absent(row);
            }
        }
    }

    fn series(&mut self, resource: Resource, device: &str) -> Option<SeriesId> {
        let known = self.known.entry(resource).or_default();
        if let Some(series) = known.get(device) {
            return Some(*series);
        }
        let dimensions = DIMENSIONS.into_iter().zip([self.host.as_str(), resource.name(), device]);
        match admit_series(&self.spec, dimensions, self.interner.as_ref()) {
            Ok(series) => {
                known.insert(device.to_owned(), series);
                Some(series)
            }
            Err(refusal) => {
                self.ledger.spec(self.spec.id).reject(refusal.reason, 1);
                None
            }
        }
    }

    fn take(&mut self) -> TickBatch {
        let empty = TickBatch::new(self.spec.id, self.spec.fields.len());
        std::mem::replace(&mut self.batch, empty)
    }
}

/// A reading in the type the spec gives its field; `None` where it does not fit.
fn bits_of(ty: FieldType, value: Value) -> Option<u64> {
    match (ty, value) {
        (FieldType::Float64, value) => Some(value.to_float().to_bits()),
        (_, Value::Uint(value)) => ty.bits_of_uint(value),
        (_, value) => ty.bits_of_int(value.to_int()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::codec::Refusal;
    use crate::model::{Envelope, SeriesKey, SpecId};
    use crate::runtime::lane::{LaneReceiver, Posted, lane};
    use crate::runtime::outlet::{Outlet, SourceOutlet};
    use crate::runtime::{Meter, SystemClock};
    use crate::spec::{Specs, load_texts};
    use crate::topology::ConfigNode;

    /// Numbers keys in order; refuses those of networks.
    #[derive(Default)]
    struct Keys(std::sync::Mutex<Vec<SeriesKey>>);

    impl Interner for Keys {
        fn intern(&self, _spec: SpecId, key: &SeriesKey) -> Result<SeriesId, Refusal> {
            if key.get("resource") == Some("network") {
                return Err(Refusal { reason: Reason::Cardinality, message: String::new() });
            }
            let mut keys = self.0.lock().unwrap();
            assert!(!keys.contains(key), "{key:?} was known");
            keys.push(key.clone());
            Ok(SeriesId(keys.len() as u32 - 1))
        }
    }

    fn specs(metrics: &str) -> Specs {
        let text = format!(
            "series: host_metrics\ntimestamp: {{field: t, precision: nanosecond}}\n\
             dimensions: [{{name: host, type: string}}, {{name: resource, type: string}}]\n\
             metrics: [{metrics}]\ngranularity: {{rollup: 1s}}\n"
        );
        load_texts([("host_metrics.yaml".to_owned(), text)]).unwrap()
    }

    fn ticks(specs: &Specs, keys: &Arc<Keys>, ledger: &Arc<Ledger>) -> Ticks {
        Ticks::new(specs.by_name(SPEC).unwrap().clone(), keys.clone(), ledger.clone())
    }

    const USAGE: &str = "{name: usage_last, field: usage, type: float64, aggregation: last}";
    const USED: &str = "{name: used, field: used_bytes, type: uint64, aggregation: last}";

    #[test]
    fn a_reading_has_the_fields_the_spec_declares_and_lacks_the_others() {
        let specs = specs(&format!("{USED}, {USAGE}"));
        let (keys, ledger) = (Arc::new(Keys::default()), Arc::new(Ledger::new(1)));
        let mut ticks = ticks(&specs, &keys, &ledger);
        ticks.now = 7;
        ticks.add(Resource::Memory, "ram", &[("used_bytes", Value::Uint(1))]);
        ticks.add(Resource::Cpu, "total", &[("usage", Value::Float(12.5)), ("undeclared", Value::Uint(1))]);
        ticks.add(Resource::Memory, "ram", &[("usage", Value::Float(50.0)), ("used_bytes", Value::Uint(2))]);
        let batch = ticks.take();
        assert_eq!((batch.series, batch.timestamps), (vec![0, 1, 0], vec![7, 7, 7]));
        let column = |at: usize| (0..3).map(|row| batch.fields[at].get(row)).collect::<Vec<_>>();
        assert_eq!(column(0), [Some(1), None, Some(2)]);
        assert_eq!(column(1), [None, Some(12.5), Some(50.0)].map(|usage: Option<f64>| usage.map(f64::to_bits)));
        assert!(ticks.take().is_empty());
        let key = &keys.0.lock().unwrap()[1];
        assert_eq!((key.get("resource"), key.get("device")), (Some("cpu"), Some("total")));
    }

    #[test]
    fn a_refused_series_is_counted_at_each_reading() {
        let specs = specs(USAGE);
        let (keys, ledger) = (Arc::new(Keys::default()), Arc::new(Ledger::new(1)));
        let mut ticks = ticks(&specs, &keys, &ledger);
        for _ in 0..3 {
            ticks.add(Resource::Network, "eth0", &[]);
        }
        assert!(ticks.take().is_empty());
        assert_eq!(ledger.spec(SpecId(0)).snapshot().rejected, [(Reason::Cardinality, 3)]);
    }

    #[test]
    fn a_spec_that_would_merge_two_devices_is_refused_with_the_remedy() {
        let specs = specs(USAGE);
        let spec = specs.by_name(SPEC).unwrap();
        check_dimensions(spec).unwrap();
        let strict = Spec { unknown_dimensions: UnknownDimensions::Reject, ..Spec::clone(spec) };
        let error = check_dimensions(&strict).unwrap_err();
        assert!(error.message.contains("declare host, resource and device"), "{error}");
    }

    #[test]
    fn readings_more_often_than_every_10ms_are_refused() {
        let parse = |text| (KIND.parse)(&ConfigNode::of_text(text).unwrap());
        assert_eq!(parse("every: 9ms").err().unwrap()[0].allowed.as_deref(), Some("10ms or longer"));
        let every = |text| parse(text).unwrap().value.downcast_ref::<Config>().unwrap().every.0;
        assert_eq!((every("every: 10ms"), every("")), (SHORTEST, 100 * MILLISECOND));
    }

    /// A source on this machine, at 10 ms, with the receiving end of a lane of `capacity`.
    fn source(capacity: usize, drop_newest: bool) -> (Box<HostMetrics>, SourceContext, LaneReceiver) {
        let specs = specs(&format!("{USED}, {USAGE}"));
        let ledger = Arc::new(Ledger::new(1));
        let series: Arc<Keys> = Arc::default();
        let spec = specs.by_name(SPEC).unwrap().clone();
        let (sender, receiver) = lane(capacity);
        let meter = Meter::new("host", 0);
        let outlet = Outlet::new(vec![vec![sender]], meter.clone());
        let outlet = SourceOutlet::new(outlet, drop_newest, Arc::new(AtomicU64::new(0)));
        let context = SourceContext { outlet, stop: CancellationToken::new(), clock: Arc::new(SystemClock), meter };
        (Box::new(HostMetrics { spec, series, ledger, every: Duration::from_millis(10) }), context, receiver)
    }

    #[tokio::test]
    async fn this_machine_has_memory_in_use_and_every_accepted_tick_is_sent() {
        let (source, context, lane) = source(1024, false);
        let (ledger, stop) = (source.ledger.clone(), context.stop.clone());
        let running = source.run(context.clone());
        let reader = async {
            let Some(Posted { envelope: Envelope::Ticks(first), .. }) = lane.take().await else { panic!("no ticks") };
            stop.cancel();
            first
        };
        let (ended, first) = tokio::join!(running, reader);
        ended.unwrap();
        let mut sent = first.len() as u64;
        while let Some(Some(Posted { envelope: Envelope::Ticks(more), .. })) = lane.try_take() {
            sent += more.len() as u64;
        }
        assert_eq!(ledger.spec(SpecId(0)).snapshot().accepted, sent);
        assert!(first.batch.fields[0].get(0).is_some_and(|used| used > 0), "no memory in use");
        assert_eq!(context.meter.state(), InstanceState::Running);
    }

    #[tokio::test]
    async fn under_drop_newest_a_full_lane_never_holds_it_up_and_what_is_dropped_is_counted() {
        let (source, context, lane) = source(1, true);
        let (ledger, stop) = (source.ledger.clone(), context.stop.clone());
        let stopper = async {
            while ledger.spec(SpecId(0)).snapshot().dropped.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            stop.cancel();
        };
        let (ended, ()) = tokio::join!(source.run(context), stopper);
        ended.unwrap();
        let Some(Some(Posted { envelope: Envelope::Ticks(only), .. })) = lane.try_take() else { panic!("no ticks") };
        let counted = ledger.spec(SpecId(0)).snapshot();
        assert_eq!(counted.in_flight(), only.len() as i64);
        assert_eq!(counted.dropped[0].0, Reason::MailboxFull);
    }
}
