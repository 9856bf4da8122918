//! Replay: the bars of a spec derived again from the ticks of the journal, compared with the stored ones, and installed
//! if asked for.
//!
//! A derived bar holds every tick of its window, whatever the spec's `late` rule made of it on arrival. So that it can be
//! compared with a stored one, and replace it while the pipeline runs, only *settled* ticks are taken: those below the
//! arrival number of which the aggregator instance of their series has said, in a checkpoint, that every tick below it is in stored
//! bars or was dropped for good. Of the derived bars these are left out and counted:
//!
//! - `in_flight`: the journal has a tick of the window that is not settled, or the window is a coarser one that the checkpoints
//!   do not call closed. Such a tick may be in the stored bar, in an open window or on its way; it would be lost or
//!   counted twice.
//! - `incomplete`: the journal lacks ticks of the window, because they have expired, their partition was dropped
//!   over budget, or their block is damaged.
//! - `richer`: the stored bar differs and has more ticks than were found: the store knows more.
//!
//! What is left equals the naive recomputation of its window from all its ticks, and nothing the pipeline holds will
//! be added to it a second time. Installing reads, judges and writes under [`Store::bars_lock`], which the writer holds
//! when it merges: no tick can come between. A replaced bar gets the next revision, an equal one is not touched. What is
//! written goes into the outbox, too, so that whoever follows the bars by position sees every revision. It is not counted
//! in the ledger, which tells of ticks on their first way into bars.

mod derive;
mod flight;
mod install;
mod judge;
mod names;
mod report;

use std::collections::HashSet;

pub use report::{Counts, Difference, ReplayReport};

use self::derive::{Derived, Slice};
use self::flight::Flight;
use self::judge::Judge;
use super::watch::{ToolError, Watch, tell};
use crate::catalog::Catalog;
use crate::model::{SeriesId, SpecId, TimeNs};
use crate::spec::{Spec, Specs};
use crate::store::{Store, TickScan};

/// What a replay works on.
#[derive(Clone, Copy)]
pub struct Grounds<'a> {
    /// The specs the store was opened with.
    pub specs: &'a Specs,
    /// Their series.
    pub catalog: &'a Catalog,
    /// The store.
    pub store: &'a Store,
    /// What time it is.
    pub now: TimeNs,
}

/// What to derive.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The spec whose bars are derived.
    pub spec: Spec,
    /// The spec whose ticks they are derived from, where it is another one.
    pub ticks_of: Option<String>,
    /// The lowest window start.
    pub from: TimeNs,
    /// The highest window end; `i64::MAX` leaves it open.
    pub to: TimeNs,
    /// How many differences are told one by one.
    pub examples: usize,
    /// Bytes of bars held at most, roughly; [`HELD_BYTES`] unless there is a reason.
    pub held_bytes: usize,
    /// Whether to write what is missing or differs.
    pub install: Option<Install>,
}

/// Bytes of derived bars held at most, roughly.
pub const HELD_BYTES: usize = 64 << 20;

/// What is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Install {
    /// Everything that is missing or differs.
    All,
    /// What is missing.
    Missing,
    /// These bars, where they are missing.
    These(HashSet<BarId>),
}

/// Granularity, series and window start.
pub type BarId = (u8, SeriesId, TimeNs);

/// Derives, compares, and installs what was asked for.
///
/// # Errors
/// What is asked for makes no sense here, `watch` breaks, or the store fails; what was installed until then stays.
pub fn replay(grounds: Grounds<'_>, job: &Replay, watch: &mut Watch<'_>) -> Result<ReplayReport, ToolError> {
    let source = source(grounds, job)?;
    let target = target(grounds, job, source)?;
    let mut flight = Flight::begin(grounds, job, source)?;
    let holes = grounds.store.holes(source)?;
    let scan = TickScan { spec: source, series: None, from: job.from, to: job.to, side: false };
    let total = grounds.store.count_ticks(&scan)?;
    let mut run = Run { grounds, job, source, read: 0, total, watch };
    let mut judge = Judge::new(grounds, job, source, target);
    let mut slices = vec![Slice::first(job)];
    while let Some(slice) = slices.pop() {
        match run.derive(&slice, &flight)? {
            Ok(derived) => judge.judge(&derived, &slice, &mut flight, &holes, run.watch)?,
            Err([first, second]) => slices.extend([second, first]),
        }
    }
    judge.finish(run.read)
}

/// A replay under way.
struct Run<'a, 'w> {
    grounds: Grounds<'a>,
    job: &'a Replay,
    source: SpecId,
    /// Ticks read, and how many there are.
    read: u64,
    total: u64,
    watch: &'a mut Watch<'w>,
}

impl Run<'_, '_> {
    /// Derives a slice, or gives its halves where it is too large.
    fn derive(&mut self, slice: &Slice, flight: &Flight) -> Result<Result<Derived, [Slice; 2]>, ToolError> {
        let (before, total, watch) = (self.read, self.total, &mut *self.watch);
        let tell = &mut |read: u64| tell(watch, "deriving", (before + read).min(total), total);
        let found = derive::derive(self.grounds.store, self.job, self.source, slice, flight, tell)?;
        Ok(found.map(|(derived, read)| {
            self.read = before + read;
            derived
        }))
    }
}

/// The spec whose ticks are read.
fn source(grounds: Grounds<'_>, job: &Replay) -> Result<SpecId, ToolError> {
    let name = job.ticks_of.as_deref().unwrap_or(&job.spec.name);
    grounds.specs.by_name(name).map(|spec| spec.id).ok_or_else(|| {
        let known: Vec<_> = grounds.specs.iter().map(|spec| spec.name.as_str()).collect();
        let remedy =
            if job.ticks_of.is_some() { "name one of these" } else { "say whose ticks to use with --ticks-of" };
        let known = known.join(", ");
        ToolError::Refused(format!("no ticks of {name:?} are recorded; there are: {known}; {remedy}"))
    })
}

/// The spec as it is configured, if it is; checked where bars are to be installed.
fn target(grounds: Grounds<'_>, job: &Replay, source: SpecId) -> Result<Option<SpecId>, ToolError> {
    let name = &job.spec.name;
    let configured = grounds.specs.by_name(name);
    if job.install.is_none() {
        return Ok(configured.map(|spec| spec.id));
    }
    let Some(configured) = configured else {
        return Err(ToolError::Refused(format!(
            "{name:?} is not among the configured specs, so its bars could not be read; put the file into the specs directory (and restart a running barline), then install"
        )));
    };
    if (Spec { id: configured.id, ..job.spec.clone() }) != **configured {
        return Err(ToolError::Refused(format!(
            "{name:?} is configured differently from the given file; put the file into the specs directory (and restart a running barline), then install"
        )));
    }
    let all = TickScan { spec: configured.id, series: None, from: TimeNs::MIN, to: TimeNs::MAX, side: false };
    if configured.id != source && grounds.store.count_ticks(&all)? > 0 {
        return Err(ToolError::Refused(format!(
            "{name:?} has ticks of its own; bars derived from another spec's ticks can be installed only where there are none"
        )));
    }
    Ok(Some(configured.id))
}
