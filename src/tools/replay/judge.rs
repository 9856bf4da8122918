//! Derived bars against stored ones.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::derive::{Derived, Slice};
use super::flight::Flight;
use super::install::Installer;
use super::names::Names;
use super::report::{Counts, Difference, ReplayReport};
use super::{BarId, Grounds, Install, Replay};
use crate::model::{BarHead, SeriesId, SpecId, TimeNs, Value};
use crate::spec::Spec;
use crate::store::{BarScan, Holes};
use crate::tools::{ToolError, Watch};
use crate::window::{bounds, state};

/// How a derived bar stands to the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Same,
    Changed,
    Richer,
}

/// Judges slice after slice, and installs what is to be.
pub(super) struct Judge<'a> {
    grounds: Grounds<'a>,
    job: &'a Replay,
    source: SpecId,
    /// The spec as it is configured, if it is.
    target: Option<SpecId>,
    /// The series of the source in the target, where they are two.
    names: Option<Names>,
    /// Neither end of a window may lie outside, nor below this.
    from: TimeNs,
    report: ReplayReport,
    installer: Installer<'a>,
}

impl<'a> Judge<'a> {
    pub fn new(grounds: Grounds<'a>, job: &'a Replay, source: SpecId, target: Option<SpecId>) -> Self {
        let names = (target != Some(source)).then(|| Names::of(grounds, source, target));
        let counts = |granularity: &crate::spec::Granularity| Counts {
            granularity: granularity.name.clone(),
            ..Counts::default()
        };
        let report = ReplayReport {
            spec: job.spec.name.clone(),
            ticks_of: grounds.specs.get(source).name.clone(),
            configured: target.is_some(),
            install: job.install.is_some(),
            granularities: job.spec.granularities.iter().map(counts).collect(),
            ..ReplayReport::default()
        };
        let cutoff = target.map_or(TimeNs::MIN, |target| grounds.store.cutoffs(target).bars);
        let from = job.from.max(cutoff);
        Self { grounds, job, source, target, names, from, report, installer: Installer::new(grounds, source) }
    }

    /// Compares the derived bars of a slice with the stored ones, and installs what is to be.
    pub fn judge(
        &mut self,
        derived: &Derived,
        slice: &Slice,
        flight: &mut Flight,
        holes: &Holes,
        watch: &mut Watch<'_>,
    ) -> Result<(), ToolError> {
        let mut open: HashMap<BarId, Option<Verdict>> = HashMap::with_capacity(derived.len());
        for id in derived.keys() {
            if !self.is_inside(*id) {
                continue;
            }
            let counts = &mut self.report.granularities[usize::from(id.0)];
            counts.derived += 1;
            if flight.has(*id) {
                counts.in_flight += 1;
            } else if holes.touch(id.2, end_of(&self.job.spec, *id)) {
                counts.incomplete += 1;
            } else {
                open.insert(*id, None);
            }
        }
        self.compare(derived, &mut open, slice, flight, holes)?;
        let mut wanted = Vec::new();
        for (id, verdict) in open {
            let counts = &mut self.report.granularities[usize::from(id.0)];
            match verdict {
                Some(Verdict::Same) => counts.same += 1,
                Some(Verdict::Changed) => counts.changed += 1,
                Some(Verdict::Richer) => counts.richer += 1,
                None => {
                    counts.new += 1;
                    self.example(id, "bar", None, Some(ticks(derived[&id].0.ticks)));
                }
            }
            let is_wanted = match &self.job.install {
                None => false,
                Some(Install::All) => matches!(verdict, None | Some(Verdict::Changed)),
                Some(Install::Missing) => verdict.is_none(),
                Some(Install::These(these)) => verdict.is_none() && these.contains(&id),
            };
            if is_wanted {
                wanted.push(id);
            }
        }
        wanted.sort_unstable();
        if let Some(target) = self.target {
            self.installer.install(target, &wanted, derived, flight, self.names.as_mut(), &mut self.report, watch)?;
        }
        Ok(())
    }

    /// Reads the stored bars of a slice: gives those in `open` their verdict, and counts those that were not derived.
    fn compare(
        &mut self,
        derived: &Derived,
        open: &mut HashMap<BarId, Option<Verdict>>,
        slice: &Slice,
        flight: &Flight,
        holes: &Holes,
    ) -> Result<(), ToolError> {
        let Some(target) = self.target else { return Ok(()) };
        let configured = self.grounds.specs.get(target).clone();
        for (granularity, rule) in (0..).zip(&self.job.spec.granularities) {
            let stored_as = (0..).zip(&configured.granularities).find(|(_, known)| known.length == rule.length);
            let Some((stored_as, _)) = stored_as else { continue };
            let scan = BarScan { spec: target, granularity: stored_as, series: None, from: slice.from, to: slice.to };
            self.grounds.store.clone().scan_bars(&scan, &mut |head, state| {
                let Some(series) = self.source_of(head.series, slice) else { return ControlFlow::Continue(()) };
                let id = (granularity, series, head.start);
                if let Some(verdict) = open.get_mut(&id) {
                    let bar = &derived[&id];
                    let stored = (head, state::metrics(&configured, head, state));
                    *verdict = Some(self.verdict(id, (&configured, stored), (&bar.0, &bar.1)));
                } else if !derived.contains_key(&id) && self.is_inside(id) {
                    let counts = &mut self.report.granularities[usize::from(granularity)];
                    if flight.has(id) {
                        counts.in_flight += 1;
                    } else if holes.touch(id.2, end_of(&self.job.spec, id)) {
                        counts.incomplete += 1;
                    } else {
                        counts.missing += 1;
                        self.example(id, "bar", Some(ticks(head.ticks)), None);
                    }
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(())
    }

    /// Compares what people see of two bars: metrics by name, ticks, first and last time.
    fn verdict(
        &mut self,
        id: BarId,
        (configured, (stored, stored_metrics)): (&Spec, (&BarHead, Vec<Option<Value>>)),
        (derived, words): (&BarHead, &[u64]),
    ) -> Verdict {
        let metrics = state::metrics(&self.job.spec, derived, words);
        let mut differences = Vec::new();
        for (metric, value) in self.job.spec.metrics.iter().zip(metrics) {
            let known = configured.metrics.iter().position(|known| known.name == metric.name);
            let stored = known.and_then(|at| stored_metrics[at]);
            if !is_same(stored, value) {
                let shown = |value: Option<Value>| value.map(|value| value.to_string());
                differences.push((metric.name.clone(), shown(stored), shown(value)));
            }
        }
        let facts = |head: &BarHead| [("ticks", head.ticks as i64), ("first", head.first), ("last", head.last)];
        for ((what, stored), (_, value)) in facts(stored).into_iter().zip(facts(derived)) {
            if stored != value {
                differences.push((what.to_owned(), Some(stored.to_string()), Some(value.to_string())));
            }
        }
        let is_same = differences.is_empty();
        for (what, stored, derived) in differences {
            self.example(id, &what, stored, derived);
        }
        match is_same {
            true => Verdict::Same,
            false if stored.ticks > derived.ticks => Verdict::Richer,
            false => Verdict::Changed,
        }
    }

    /// The number in the source of a series of the target, if it is one of this slice. One the source does not have is
    /// of the first slice of series.
    fn source_of(&self, series: SeriesId, slice: &Slice) -> Option<SeriesId> {
        let Some(names) = &self.names else { return Some(series).filter(|series| slice.has_series(series.0)) };
        names.to_source.get(&series).copied().filter(|series| slice.has_series(series.0))
    }

    fn is_inside(&self, id: BarId) -> bool {
        id.2 >= self.from && end_of(&self.job.spec, id) <= self.job.to
    }

    fn example(&mut self, id: BarId, what: &str, stored: Option<String>, derived: Option<String>) {
        if self.report.differences.len() >= self.job.examples {
            return;
        }
        self.report.differences.push(Difference {
            granularity: self.report.granularities[usize::from(id.0)].granularity.clone(),
            series: self.grounds.catalog.key(self.source, id.1).to_string(),
            start_ns: id.2,
            what: what.to_owned(),
            stored,
            derived,
        });
    }

    /// Makes what was installed durable, and gives the report.
    pub fn finish(mut self, read: u64) -> Result<ReplayReport, ToolError> {
        self.installer.finish()?;
        self.report.ticks = read;
        self.report.differences.sort_by(|a, b| (a.start_ns, &a.series, &a.what).cmp(&(b.start_ns, &b.series, &b.what)));
        let Some(target) = self.target else { return Ok(self.report) };
        let known = |spec: &Spec, name: &str| spec.metrics.iter().any(|metric| metric.name == name);
        let configured = self.grounds.specs.get(target);
        for metric in configured.metrics.iter().filter(|metric| !known(&self.job.spec, &metric.name)) {
            self.report.notes.push(format!("stored bars have a metric {:?} that the given spec lacks", metric.name));
        }
        for metric in self.job.spec.metrics.iter().filter(|metric| !known(configured, &metric.name)) {
            self.report.notes.push(format!("stored bars lack the metric {:?} of the given spec", metric.name));
        }
        Ok(self.report)
    }
}

/// The end of a window.
pub(super) fn end_of(spec: &Spec, (granularity, _, start): BarId) -> TimeNs {
    bounds::end_of(start, spec.granularities[usize::from(granularity)].length)
}

/// Whether two values are the same: bit by bit, or the same number where their types differ.
fn is_same(stored: Option<Value>, derived: Option<Value>) -> bool {
    match (stored, derived) {
        (Some(Value::Float(a)), Some(Value::Float(b))) => a.to_bits() == b.to_bits(),
        (Some(a), Some(b)) => a == b || a.to_float() == b.to_float() && a.to_int() == b.to_int(),
        (a, b) => a.is_none() && b.is_none(),
    }
}

fn ticks(ticks: u64) -> String {
    format!("{ticks} ticks")
}
