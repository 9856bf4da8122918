//! The clocks of series that were there before this instance was: under `late: drop` and `side_output` a tick must not be on
//! time because its series' clock began anew.
//!
//! They are found when a series is met again, not at the start: a start waits for no series that sends nothing.

use crate::model::{SeriesId, SpecId, TickSlice, TimeNs};
use crate::routing;
use crate::runtime::Context;
use crate::spec::{LatePolicy, Spec};
use crate::store::StoreError;
use crate::window::Windows;
use crate::window::clock::Told;

/// What is left to be found, by spec.
pub(super) struct Clocks(Vec<Unmet>);

/// Series whose stored bars have not been asked yet.
struct Unmet {
    /// No series from this number on has a stored bar.
    known: u32,
    /// How many of this instance's are left.
    left: usize,
}

impl Clocks {
    /// Of all series this instance has a share of.
    pub(super) fn new(context: &Context, instance: u16, instances: u16) -> Self {
        let unmet = |spec: &Spec| {
            // Bars are stored no sooner than their series.
            let amends = spec.window.late == LatePolicy::Amend;
            let known = if amends { 0 } else { context.catalog.unpersisted(spec.id).start };
            let is_mine = |id: &u32| routing::instance_of(routing::shard_of(SeriesId(*id)), instances) == instance;
            Unmet { known, left: (0..known).filter(is_mine).count() }
        };
        Self(context.specs.iter().map(|spec| unmet(spec)).collect())
    }

    /// Winds the clocks of the series of `slice` that are met for the first time.
    pub(super) fn meet_all(
        &mut self,
        windows: &mut Windows,
        slice: &TickSlice,
        context: &Context,
    ) -> Result<(), StoreError> {
        let spec = slice.batch.spec;
        if self.0[spec.0 as usize].left == 0 {
            return Ok(());
        }
        windows.strangers(slice).into_iter().try_for_each(|series| self.meet(windows, (spec, series), context))
    }

    /// Winds the clock of a series that `windows` does not know yet.
    pub(super) fn meet(
        &mut self,
        windows: &mut Windows,
        (spec, series): (SpecId, SeriesId),
        context: &Context,
    ) -> Result<(), StoreError> {
        let unmet = &mut self.0[spec.0 as usize];
        if series.0 < unmet.known && !windows.knows(series) {
            windows.wind(series, high_of(context, spec, series)?);
            unmet.left = unmet.left.saturating_sub(1);
        }
        Ok(())
    }
}

/// How far the clock of a series has come, as its stored bars tell.
fn high_of(context: &Context, spec: SpecId, series: SeriesId) -> Result<TimeNs, StoreError> {
    let (rules, mut told) = (context.specs.get(spec), Told::NOTHING);
    for granularity in 0..rules.granularities.len() as u8 {
        context.store.newest_bars(spec, granularity, series, &mut |head| told.hear(rules, head))?;
    }
    Ok(told.high())
}
