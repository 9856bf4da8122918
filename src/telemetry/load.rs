//! What every instance does right now: rates and shares between two snapshots. The page and `barline top` both show this.

use std::collections::BTreeMap;

use serde::Serialize;

use super::distribution::Distribution;
use super::snapshot::{Point, Snapshot};
use super::table::{self, Instrument};
use crate::model::TimeNs;

/// The whole topology between two moments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    /// The topology's name.
    pub topology: String,
    /// The later moment.
    pub at_ns: TimeNs,
    /// Seconds since the process started.
    pub uptime: f64,
    /// The stages, in the plan's order.
    pub stages: Vec<StageLoad>,
    /// The ledger, summed over the specs.
    pub ledger: LedgerLoad,
    /// Calls refused and connections closed since the start, by reason.
    pub refused: BTreeMap<String, f64>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageLoad {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its instances.
    pub instances: Vec<InstanceLoad>,
}

/// One instance: items a second, seconds, shares of the time between.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs)]
pub struct InstanceLoad {
    pub instance: String,
    pub up: bool,
    pub active: bool,
    pub items_in: f64,
    pub items_out: f64,
    pub lag: f64,
    pub busy: f64,
    pub idle: f64,
    pub backpressured: f64,
    pub depth: f64,
    pub capacity: f64,
    pub restarts: f64,
    pub poisoned: f64,
    pub windows: Option<f64>,
    pub watermark_delay: Option<f64>,
    /// Of a sink: the share of its spool that is taken.
    pub spool: Option<f64>,
    #[serde(skip)]
    pub queue: Distribution,
    #[serde(skip)]
    pub handling: Distribution,
}

/// The ledger of all specs together, in ticks.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[allow(missing_docs)]
pub struct LedgerLoad {
    pub accepted: f64,
    pub rejected: f64,
    pub duplicate: f64,
    pub in_bars: f64,
    pub open: f64,
    pub in_flight: f64,
    pub dropped: f64,
}

/// Where an instance or a stage stands in a chain of backpressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// It takes what comes.
    None,
    /// It waits for room downstream.
    Pressed,
    /// Others wait for it, and it for nobody.
    Limiting,
}

/// The share of its time above which an instance that waits is called pressed.
const PRESSED: f64 = 0.1;
/// The share of its mailbox, or spool, above which an instance that waits for nobody is what limits the others.
const CROWDED: f64 = 0.75;

impl Load {
    /// What happened from `before` to `after`; rates and shares are 0 where both are the same moment.
    pub fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let mut stages: Vec<StageLoad> = Vec::new();
        for point in after.points(&table::UP) {
            let attribute = |name| point.attributes.get(name).map_or("", String::as_str);
            let (name, kind) = (attribute("stage"), attribute("kind"));
            let instance = InstanceLoad {
                up: point.as_number() == Some(1.0),
                ..InstanceLoad::between(before, after, name, attribute("instance"))
            };
            match stages.last_mut().filter(|stage| stage.name == name) {
                Some(stage) => stage.instances.push(instance),
                None => {
                    let (name, kind) = (name.to_owned(), kind.to_owned());
                    stages.push(StageLoad { name, kind, instances: vec![instance] });
                }
            }
        }
        let uptime = after.get(&table::UPTIME, &[]).unwrap_or(0.0);
        let ledger = LedgerLoad::of(after);
        let refused = after.points(&table::REFUSED).iter();
        let refused = refused.filter_map(|point| Some((point.attributes.get("reason")?.clone(), point.as_number()?)));
        Self {
            topology: after.topology.clone(),
            at_ns: after.at_ns,
            uptime,
            stages,
            ledger,
            refused: refused.collect(),
        }
    }

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<&StageLoad> {
        self.stages.iter().find(|stage| stage.name == name)
    }
}

/// The share of its spool that a sink has taken, of those of its specs the most.
pub(super) fn spool(snapshot: &Snapshot, sink: &str) -> Option<f64> {
    let is_of = |point: &&Point| point.attributes.get("stage").is_some_and(|stage| stage == sink);
    snapshot.points(&table::SPOOL).iter().filter(is_of).filter_map(Point::as_number).reduce(f64::max)
}

impl InstanceLoad {
    fn between(before: &Snapshot, after: &Snapshot, stage: &str, instance: &str) -> Self {
        let about = [("stage", stage), ("instance", instance)];
        let now = |instrument: &Instrument| after.get(instrument, &about);
        let elapsed = (after.at_ns - before.at_ns) as f64 / 1e9;
        let rate = |instrument: &Instrument, name, value| {
            let about = [about[0], about[1], (name, value)];
            let [before, after] = [before, after].map(|at| at.get(instrument, &about).unwrap_or(0.0));
            if elapsed > 0.0 { ((after - before) / elapsed).max(0.0) } else { 0.0 }
        };
        let recent = |instrument: &Instrument| {
            let [before, after] = [before, after].map(|at| at.distribution(instrument, &about));
            match (before, after) {
                (Some(before), Some(after)) if elapsed > 0.0 => after.since(before),
                (_, after) => after.cloned().unwrap_or_default(),
            }
        };
        Self {
            instance: instance.to_owned(),
            up: false,
            active: now(&table::ACTIVE) != Some(0.0),
            items_in: rate(&table::ITEMS, "direction", "in"),
            items_out: rate(&table::ITEMS, "direction", "out"),
            lag: now(&table::LAG).unwrap_or(0.0),
            busy: rate(&table::TIME, "phase", "busy").min(1.0),
            idle: rate(&table::TIME, "phase", "idle").min(1.0),
            backpressured: rate(&table::TIME, "phase", "backpressured").min(1.0),
            depth: now(&table::DEPTH).unwrap_or(0.0),
            capacity: now(&table::CAPACITY).unwrap_or(0.0),
            restarts: now(&table::RESTARTS).unwrap_or(0.0),
            poisoned: now(&table::POISONED).unwrap_or(0.0),
            windows: now(&table::WINDOWS),
            watermark_delay: now(&table::WATERMARK),
            spool: spool(after, stage),
            queue: recent(&table::QUEUE),
            handling: recent(&table::HANDLING),
        }
    }

    /// The share of the mailbox that is taken, or of a sink's spool, where that is more.
    pub fn fill(&self) -> f64 {
        let mailbox = if self.capacity > 0.0 { self.depth / self.capacity } else { 0.0 };
        mailbox.max(self.spool.unwrap_or(0.0)).min(1.0)
    }

    /// Items a second: those taken in, or of a source those sent on.
    pub fn rate(&self) -> f64 {
        if self.capacity > 0.0 { self.items_in } else { self.items_out }
    }

    /// Where it stands in a chain of backpressure.
    pub fn pressure(&self) -> Pressure {
        match self {
            _ if self.backpressured >= PRESSED => Pressure::Pressed,
            _ if self.fill() >= CROWDED => Pressure::Limiting,
            _ => Pressure::None,
        }
    }
}

impl StageLoad {
    /// How many instances have a share of the work.
    pub fn active(&self) -> usize {
        self.instances.iter().filter(|instance| instance.active).count()
    }

    /// All active instances as one: sums of rates and depths, the worst lag, mean shares.
    pub fn total(&self) -> InstanceLoad {
        let count = self.active().max(1) as f64;
        let sum = |of: fn(&InstanceLoad) -> f64| self.instances.iter().filter(|i| i.active).map(of).sum::<f64>();
        InstanceLoad {
            up: self.instances.iter().all(|instance| instance.up),
            active: self.active() > 0,
            items_in: sum(|i| i.items_in),
            items_out: sum(|i| i.items_out),
            lag: self.instances.iter().map(|i| i.lag).fold(0.0, f64::max),
            busy: sum(|i| i.busy) / count,
            idle: sum(|i| i.idle) / count,
            backpressured: sum(|i| i.backpressured) / count,
            depth: sum(|i| i.depth),
            capacity: sum(|i| i.capacity),
            restarts: self.instances.iter().map(|i| i.restarts).sum(),
            poisoned: self.instances.iter().map(|i| i.poisoned).sum(),
            spool: self.instances.iter().filter_map(|i| i.spool).reduce(f64::max),
            ..InstanceLoad::default()
        }
    }

    /// The worst of its instances: one that limits the others says more than one that waits.
    pub fn pressure(&self) -> Pressure {
        let any = |wanted| self.instances.iter().any(|instance| instance.pressure() == wanted);
        match () {
            () if any(Pressure::Limiting) => Pressure::Limiting,
            () if any(Pressure::Pressed) => Pressure::Pressed,
            () => Pressure::None,
        }
    }
}

impl LedgerLoad {
    fn of(snapshot: &Snapshot) -> Self {
        // An empty `sum` of doubles is -0, and would be shown as that.
        let sum = |instrument| {
            snapshot.points(instrument).iter().filter_map(|point| point.as_number()).fold(0.0, |a, b| a + b)
        };
        Self {
            accepted: sum(&table::ACCEPTED),
            rejected: sum(&table::REJECTED),
            duplicate: sum(&table::DUPLICATE),
            in_bars: sum(&table::IN_BARS),
            open: sum(&table::OPEN),
            in_flight: sum(&table::IN_FLIGHT),
            dropped: sum(&table::DROPPED),
        }
    }
}

/// A number in at most three digits and a suffix: `1.23M`.
pub fn short(number: f64) -> String {
    let steps = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (unit, suffix) = steps.into_iter().find(|(unit, _)| number.abs() >= *unit).unwrap_or((1.0, ""));
    let scaled = number / unit;
    let digits = match scaled.abs() {
        s if suffix.is_empty() && s.fract() == 0.0 => 0,
        s if s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{suffix}")
}

/// A span of seconds in at most three digits and a unit: `1.20 ms`.
pub fn span(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "0".to_owned(),
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, items: f64, waited: f64, depth: f64) -> Snapshot {
        let mut snapshot = Snapshot::new("edge", 0, second * 1_000_000_000);
        snapshot.number(&table::UP, &["write", "0", "storage_writer"], 1.0);
        snapshot.number(&table::ITEMS, &["write", "0", "in"], items);
        snapshot.number(&table::TIME, &["write", "0", "backpressured"], waited);
        snapshot.number(&table::DEPTH, &["write", "0"], depth);
        snapshot.number(&table::CAPACITY, &["write", "0"], 64.0);
        snapshot
    }

    #[test]
    fn rates_and_shares_are_those_between_the_two_moments() {
        let load = Load::between(&at(10, 100.0, 3.0, 0.0), &at(12, 300.0, 4.0, 16.0));
        let write = &load.stage("write").unwrap().instances[0];
        assert_eq!((write.rate(), write.backpressured, write.fill()), (100.0, 0.5, 0.25));
        assert_eq!(write.pressure(), Pressure::Pressed);
        let same = Load::between(&at(10, 100.0, 3.0, 0.0), &at(10, 100.0, 3.0, 0.0));
        assert_eq!(same.stage("write").unwrap().total().rate(), 0.0);
    }

    #[test]
    fn a_full_mailbox_of_one_that_waits_for_nobody_is_what_limits() {
        let load = Load::between(&at(10, 0.0, 3.0, 64.0), &at(11, 0.0, 3.0, 64.0));
        assert_eq!(load.stage("write").unwrap().pressure(), Pressure::Limiting);
    }

    #[test]
    fn a_sink_whose_spool_is_spent_is_what_limits() {
        let spent = |share: f64| {
            let mut snapshot = at(10, 0.0, 0.0, 0.0);
            snapshot.number(&table::UP, &["publish", "0", "kafka_sink"], 1.0);
            snapshot.number(&table::SPOOL, &["publish", "market"], 0.1);
            snapshot.number(&table::SPOOL, &["publish", "flows"], share);
            let load = Load::between(&snapshot, &snapshot);
            (load.stage("publish").unwrap().pressure(), load.stage("write").unwrap().pressure())
        };
        assert_eq!(spent(1.01), (Pressure::Limiting, Pressure::None));
        assert_eq!(spent(0.2), (Pressure::None, Pressure::None));
    }

    #[test]
    fn numbers_and_spans_have_three_digits_at_most() {
        for (number, text) in [(0.0, "0"), (7.0, "7"), (1234.0, "1.23k"), (45_600_000.0, "45.6M"), (0.5, "0.50")] {
            assert_eq!(short(number), text);
        }
        for (seconds, text) in [(0.0, "0"), (0.0005, "500 µs"), (0.0123, "12.3 ms"), (12.34, "12.3 s")] {
            assert_eq!(span(seconds), text);
        }
    }
}
