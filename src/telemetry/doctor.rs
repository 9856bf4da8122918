//! What two looks at the figures mean, in sentences: which stage limits the pipeline, what was lost, and which knob to turn.

use serde::Serialize;

use super::load;
use super::snapshot::{Point, Snapshot};
use super::table::{self, Instrument};

/// A mailbox filled to this share is full.
const FULL: f64 = 0.8;
/// A stage busy for this share of the time has nothing left.
const BUSY: f64 = 0.9;
/// A stage that waits for room for this share of the time is held up.
const HELD_UP: f64 = 0.2;
/// Lag that grows by this many seconds per second, beyond a second, never comes back by itself.
const GROWS: f64 = 0.5;

/// One thing to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is the matter.
    pub told: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// What an instance did between the looks.
struct Instance<'a> {
    stage: &'a str,
    number: &'a str,
    kind: &'a str,
    at_work: bool,
    busy: f64,
    backpressured: f64,
    depth: f64,
    capacity: f64,
    lag: f64,
    lag_grows: f64,
    /// Of a sink: the share of its spool that is taken.
    spool: Option<f64>,
}

/// What is the matter, the most important first; one sentence where nothing is.
pub fn findings(before: &Snapshot, after: &Snapshot) -> Vec<Finding> {
    let instances = instances(before, after);
    let held_up = instances.iter().any(Instance::is_held_up);
    let absents = instances.iter().filter(|instance| !instance.at_work && !instance.is_held_up());
    let mut found: Vec<Finding> = absents.map(absent).collect();
    let limit = instances.iter().rfind(|instance| instance.is_limit(held_up));
    found.extend(limit.map(|limit| limiting(limit, &instances)));
    found.extend(backlogs(before, after));
    found.extend(losses(before, after));
    if found.is_empty() {
        found.push(calm(before, after, &instances));
    }
    found
}

/// Every instance, upstream first, as the snapshot has them.
fn instances<'a>(before: &Snapshot, after: &'a Snapshot) -> Vec<Instance<'a>> {
    let seconds = ((after.at_ns - before.at_ns) as f64 / 1e9).max(1e-3);
    let instance = |point: &'a Point| {
        let attribute = |name: &str| point.attributes.get(name).map_or("", String::as_str);
        let (stage, number) = (attribute("stage"), attribute("instance"));
        let about = [("stage", stage), ("instance", number)];
        let get = |instrument: &Instrument| after.get(instrument, &about).unwrap_or(0.0);
        let phase = |phase: &str| {
            let about = [about[0], about[1], ("phase", phase)];
            grown(before, after, &table::TIME, &about) / seconds
        };
        Instance {
            stage,
            number,
            kind: attribute("kind"),
            at_work: point.as_number() == Some(1.0),
            busy: phase("busy"),
            backpressured: phase("backpressured"),
            depth: get(&table::DEPTH),
            capacity: get(&table::CAPACITY),
            lag: get(&table::LAG),
            lag_grows: (get(&table::LAG) - before.get(&table::LAG, &about).unwrap_or(0.0)) / seconds,
            spool: load::spool(after, stage),
        }
    };
    after.points(&table::UP).iter().map(instance).collect()
}

impl Instance<'_> {
    /// Whether it waits for room.
    fn is_held_up(&self) -> bool {
        self.backpressured >= HELD_UP
    }

    /// Whether it holds others up without being held up itself. What waits for a sink in the outbox holds nobody up before
    /// the spool is full, and then only where it is not the oldest that goes.
    fn is_limit(&self, held_up: bool) -> bool {
        let full = self.capacity > 0.0 && self.depth >= FULL * self.capacity;
        let falls_behind = match self.spool {
            Some(spool) => spool >= FULL && held_up,
            None => self.lag > 1.0 && self.lag_grows > GROWS,
        };
        !self.is_held_up() && (full || falls_behind || self.busy > BUSY)
    }
}

fn limiting(limit: &Instance<'_>, all: &[Instance<'_>]) -> Finding {
    let Instance { stage, number, busy, depth, capacity, lag, lag_grows, spool, .. } = limit;
    let mut told = format!("{stage} (instance {number}) limits the pipeline: it was busy {}", percent(*busy));
    match spool {
        Some(spool) => told += &format!(", its spool is {} full, the oldest bar in it {lag:.1} s old", percent(*spool)),
        None if *capacity > 0.0 => {
            told += &format!(", {depth} of {capacity} envelopes wait for it, the oldest is {lag:.1} s old");
        }
        None => {}
    }
    if *lag_grows > GROWS {
        told += &format!(" and its lag grows by {lag_grows:.1} s per second");
    }
    let waits = all.iter().filter(|instance| instance.is_held_up());
    let waits: Vec<String> =
        waits.map(|i| format!("{} {} ({})", i.stage, i.number, percent(i.backpressured))).collect();
    if !waits.is_empty() {
        told += &format!("; these wait for room: {}", waits.join(", "));
    }
    Finding { told, remedy: Some(knob(limit)) }
}

/// Which knob to turn for a stage of this kind.
fn knob(limit: &Instance<'_>) -> String {
    let stage = limit.stage;
    match limit.kind {
        "aggregator" => {
            format!("raise {stage}.instances (or its max) behind a shard_router, at most one per core that is free")
        }
        "journal" => format!(
            "raise {stage}.commit.every or {stage}.commit.bytes so that fewer commits wait for the device, or put data_dir on a faster one"
        ),
        "storage_writer" => {
            "put data_dir on a faster device, or let the specs have fewer bars: longer rollups, fewer granularities"
                .into()
        }
        "shard_router" => "raise batch.rows of the ingest stage, so that fewer and larger batches are split".into(),
        "grpc_ingest" => format!("raise {stage}.instances, or let the producers send larger messages"),
        "kafka_sink" => format!(
            "see to the broker (`barline query sinks` has its last error), raise {stage}.spool.bytes or {stage}.spool.age, or \
             set {stage}.on_failure to spool, which drops the oldest"
        ),
        "kafka_source" => "look whether the broker answers: its errors are in the log and in /api/v1/topology".into(),
        _ => format!("look at the last error of {stage} in /api/v1/topology"),
    }
}

/// Sinks whose backlog in the outbox does not become younger.
fn backlogs(before: &Snapshot, after: &Snapshot) -> Vec<Finding> {
    let seconds = ((after.at_ns - before.at_ns) as f64 / 1e9).max(1e-3);
    let backlog = |point: &Point| {
        let attribute = |name: &str| point.attributes.get(name).map_or("", String::as_str);
        let (stage, spec, age) = (attribute("stage"), attribute("spec"), point.as_number()?);
        let about = [("stage", stage), ("spec", spec)];
        let grows = grown(before, after, &table::OUTBOX_AGE, &about) / seconds;
        let down = after.get(&table::LINK, &about[..1]) == Some(0.0);
        let waits = after.get(&table::OUTBOX_DEPTH, &about).unwrap_or(0.0);
        let told =
            format!("{stage} falls behind: {waits} bars of {spec} wait in the outbox, the oldest for {age:.1} s");
        let (told, remedy) = if down {
            (
                told + ", and the broker does not answer",
                format!("bring the broker back; until then the spool of {stage} keeps what fits it"),
            )
        } else {
            (told, "look at barline.sink.delivery.duration: the step that takes long says who is slow".to_owned())
        };
        (waits > 0.0 && (down || age > 1.0 && grows > GROWS)).then_some(Finding { told, remedy: Some(remedy) })
    };
    after.points(&table::OUTBOX_AGE).iter().filter_map(backlog).collect()
}

fn absent(instance: &Instance<'_>) -> Finding {
    Finding {
        told: format!("{} (instance {}) is not at work", instance.stage, instance.number),
        remedy: Some("see /ready for the reason".to_owned()),
    }
}

/// What can be lost, what is told of it and what can be done.
const LOSSES: [(&Instrument, &str, &str); 8] = [
    (
        &table::DROPPED,
        "ticks were taken and then dropped",
        "see the spec's `late` policy, the mailboxes' `when_full` and docs/semantics.md",
    ),
    (&table::REJECTED, "ticks were refused", "the reason says what to change at the producer or in the spec"),
    (
        &table::SERIES_REFUSED,
        "times a new series was refused",
        "raise cardinality.limit of the spec, or look at the offenders in /api/v1/ledger",
    ),
    (
        &table::POISONED,
        "batches were given up because they made a stage fail",
        "the log says on what; please report it",
    ),
    (&table::RESTARTS, "times a stage was made anew after a failure", "the log says on what; please report it"),
    (
        &table::QUARANTINED,
        "values were found corrupt and put aside",
        "run `barline store verify --repair` and look after the device",
    ),
    (&table::LOGS_DROPPED, "lines of the log were dropped before they could be pushed", "look what it says so often"),
    (&table::SPANS_DROPPED, "spans were dropped before they could be pushed", "lower telemetry.traces.sample"),
];

/// Where what is pushed goes: what is said of one that takes nothing, and what to do about it.
const EXPORTERS: [(&str, &str, &str); 2] = [
    (
        "otlp",
        "the collector does not take what is pushed",
        "look whether the collector of telemetry.otlp.endpoint answers",
    ),
    (
        "kafka",
        "the topic of telemetry.kafka does not take metrics",
        "look whether its brokers answer and the topic is there",
    ),
];

fn losses(before: &Snapshot, after: &Snapshot) -> Vec<Finding> {
    let mut found = Vec::new();
    for (instrument, told, remedy) in LOSSES {
        for point in after.points(instrument) {
            let about: Vec<_> = point.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let lost = grown(before, after, instrument, &about);
            if lost > 0.0 {
                let about: Vec<String> = about.iter().map(|(name, value)| format!("{name} {value}")).collect();
                let told = format!("{lost} {told} ({})", about.join(", "));
                found.push(Finding { told, remedy: Some(remedy.to_owned()) });
            }
        }
    }
    for (destination, told, remedy) in EXPORTERS {
        let is_drop = |point: &&Point| {
            let is = |name: &str, value: &str| point.attributes.get(name).is_some_and(|found| found == value);
            is("destination", destination) && is("outcome", "dropped")
        };
        let dropped = |snapshot: &Snapshot| -> f64 {
            snapshot.points(&table::EXPORTS).iter().filter(is_drop).filter_map(Point::as_number).sum()
        };
        if dropped(after) > dropped(before) {
            found.push(Finding { told: told.to_owned(), remedy: Some(remedy.to_owned()) });
        }
    }
    found
}

fn calm(before: &Snapshot, after: &Snapshot, instances: &[Instance<'_>]) -> Finding {
    let seconds = ((after.at_ns - before.at_ns) as f64 / 1e9).max(1e-3);
    let specs = after.points(&table::ACCEPTED).iter().filter_map(|point| point.attributes.get("spec"));
    let ticks: f64 = specs.map(|spec| grown(before, after, &table::ACCEPTED, &[("spec", spec)])).sum();
    let busiest = instances.iter().max_by(|a, b| a.busy.total_cmp(&b.busy));
    let busiest =
        busiest.map_or_else(String::new, |i| format!("; the busiest stage is {}, {}", i.stage, percent(i.busy)));
    let told = format!("nothing limits the pipeline and nothing was lost at {:.0} ticks/s{busiest}", ticks / seconds);
    Finding { told, remedy: None }
}

fn grown(before: &Snapshot, after: &Snapshot, instrument: &Instrument, about: &[(&str, &str)]) -> f64 {
    let of = |snapshot: &Snapshot| snapshot.get(instrument, about).unwrap_or(0.0);
    of(after) - of(before)
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::SECOND;

    /// A look at `journal` → `aggregate` → `write` at so many seconds, of which each was (busy, backpressured) a share.
    fn look(seconds: i64, shares: [(f64, f64); 3], write_waits: f64) -> Snapshot {
        let mut snapshot = Snapshot::new("edge", 0, seconds * SECOND);
        let kinds = [("journal", "journal"), ("aggregate", "aggregator"), ("write", "storage_writer")];
        for ((stage, kind), (busy, backpressured)) in kinds.into_iter().zip(shares) {
            snapshot.number(&table::UP, &[stage, "0", kind], 1.0);
            snapshot.number(&table::CAPACITY, &[stage, "0"], 64.0);
            snapshot.number(&table::DEPTH, &[stage, "0"], if stage == "write" { write_waits } else { 64.0 });
            snapshot.number(&table::LAG, &[stage, "0"], seconds as f64);
            snapshot.number(&table::TIME, &[stage, "0", "busy"], busy * seconds as f64);
            snapshot.number(&table::TIME, &[stage, "0", "backpressured"], backpressured * seconds as f64);
        }
        snapshot
    }

    #[test]
    fn the_stage_that_holds_the_others_up_is_named_with_its_knob() {
        let shares = [(0.01, 0.99), (0.1, 0.9), (1.0, 0.0)];
        let found = findings(&look(10, shares, 64.0), &look(20, shares, 64.0));
        assert_eq!(found.len(), 1, "{found:?}");
        for part in
            ["write (instance 0) limits", "busy 100 %", "1.0 s per second", "journal 0 (99 %), aggregate 0 (90 %)"]
        {
            assert!(found[0].told.contains(part), "{part}: {found:?}");
        }
        assert!(found[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("data_dir")), "{found:?}");
    }

    #[test]
    fn a_sink_whose_spool_holds_up_the_writer_is_named_before_it_and_one_that_holds_up_nobody_is_behind() {
        let look = |seconds: i64, shares, spool| {
            let mut snapshot = look(seconds, shares, 64.0);
            snapshot.number(&table::UP, &["publish", "0", "kafka_sink"], 1.0);
            snapshot.number(&table::LAG, &["publish", "0"], seconds as f64);
            snapshot.number(&table::SPOOL, &["publish", "market"], spool);
            snapshot
        };
        let held = [(0.0, 1.0), (0.0, 1.0), (0.0, 1.0)];
        let found = findings(&look(10, held, 1.0), &look(20, held, 1.0));
        assert_eq!(found.len(), 1, "{found:?}");
        for part in ["publish (instance 0) limits", "its spool is 100 % full", "20.0 s old", "write 0 (100 %)"] {
            assert!(found[0].told.contains(part), "{part}: {found:?}");
        }
        assert!(found[0].remedy.as_ref().is_some_and(|remedy| remedy.contains("publish.on_failure")), "{found:?}");
        let free = [(0.1, 0.0); 3];
        let found = findings(&look(10, free, 1.0), &look(20, free, 1.0));
        assert!(!found.iter().any(|finding| finding.told.contains("publish (instance 0) limits")), "{found:?}");
    }

    #[test]
    fn a_sink_whose_broker_is_gone_is_named() {
        let look = |seconds: i64| {
            let mut snapshot = Snapshot::new("edge-kafka", 0, seconds * SECOND);
            snapshot.number(&table::OUTBOX_AGE, &["publish", "market"], seconds as f64);
            snapshot.number(&table::OUTBOX_DEPTH, &["publish", "market"], 12.0);
            snapshot.number(&table::LINK, &["publish"], 0.0);
            snapshot
        };
        let found = findings(&look(5), &look(10));
        assert!(found[0].told.starts_with("publish falls behind: 12 bars of market wait"), "{found:?}");
        assert!(found[0].told.contains("the broker does not answer") && found.len() == 1, "{found:?}");
    }

    #[test]
    fn what_was_lost_between_the_looks_is_told_and_what_was_lost_before_is_not() {
        let quiet = |seconds: i64, late: f64| {
            let mut snapshot = Snapshot::new("edge", 0, seconds * SECOND);
            snapshot.number(&table::DROPPED, &["market", "late"], late);
            snapshot
        };
        let found = findings(&quiet(1, 5.0), &quiet(2, 8.0));
        assert!(found[0].told.starts_with("3 ticks were taken and then dropped"), "{found:?}");
        let found = findings(&quiet(1, 5.0), &quiet(2, 5.0));
        assert!(found[0].told.starts_with("nothing limits") && found.len() == 1, "{found:?}");
    }
}
