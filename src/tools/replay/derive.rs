//! Bars from ticks, a slice of time and of series at a time, so that memory is bounded however much there is.
//!
//! A slice that turns out too large is cut in half and begun anew: first by time, down to one window of the coarsest
//! granularity, then by series.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::flight::Flight;
use super::{BarId, Replay};
use crate::codec::block::Block;
use crate::model::{BarBatch, BarHead, Rows, SeriesId, SpecId, TickSlice, TimeNs};
use crate::spec::{LatePolicy, Spec, WindowRules};
use crate::store::{Store, TickScan};
use crate::tools::ToolError;
use crate::window::{Windows, bounds, state};

/// Bytes a bar takes beside its state.
const BAR: usize = 200;

/// Whole bars by identity.
pub(super) type Derived = HashMap<BarId, (BarHead, Vec<u64>)>;

/// A piece of the work: windows that start in `[from, to)`, of the series numbered `[first, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub from: TimeNs,
    pub to: TimeNs,
    pub first: u32,
    /// `u32::MAX` leaves it open.
    pub end: u32,
}

impl Slice {
    /// All of it.
    pub fn first(job: &Replay) -> Self {
        Self { from: job.from, to: job.to, first: 0, end: u32::MAX }
    }

    /// Whether a series is of this slice.
    pub fn has_series(&self, series: u32) -> bool {
        self.first <= series && (series < self.end || self.end == u32::MAX)
    }

    /// Its two halves, given what was found in it: by time down to one window of length `coarsest`, then by series.
    /// `None` where it is one window of one series.
    fn cut(&self, derived: &Derived, coarsest: i64) -> Option<[Self; 2]> {
        let starts = derived.keys().map(|(_, _, start)| bounds::start_of(*start, coarsest));
        if let Some(at) = upper_half(starts) {
            return Some([Self { to: at, ..*self }, Self { from: at, ..*self }]);
        }
        let at = upper_half(derived.keys().map(|(_, series, _)| series.0))?;
        Some([Self { end: at, ..*self }, Self { first: at, ..*self }])
    }
}

/// Where about the upper half of some numbers begins; `None` where all are the same.
fn upper_half<T: Copy + Ord>(numbers: impl Iterator<Item = T>) -> Option<T> {
    let mut numbers: Vec<T> = numbers.collect();
    numbers.sort_unstable();
    let (lowest, median) = (*numbers.first()?, *numbers.get(numbers.len() / 2)?);
    if median > lowest { Some(median) } else { numbers.into_iter().find(|number| *number > lowest) }
}

/// Derives the bars of a slice from all settled ticks of `source`, and tells how many ticks were read; or gives a
/// its two halves where it is too large.
///
/// # Errors
/// `tell` says to stop, or the store fails.
pub(super) fn derive(
    store: &Store,
    job: &Replay,
    source: SpecId,
    slice: &Slice,
    flight: &Flight,
    tell: &mut dyn FnMut(u64) -> Result<(), ToolError>,
) -> Result<Result<(Derived, u64), [Slice; 2]>, ToolError> {
    let spec = all_ticks_count(&job.spec);
    let coarsest = spec.granularities.last().map_or(1, |granularity| granularity.length);
    let mut gathering = Gathering::new(spec);
    let (mut failed, mut gave_up, mut read) = (None, false, 0);
    let scan = TickScan { spec: source, series: None, from: slice.from, to: slice.to, side: false };
    store.scan_ticks(&scan, &mut |block, times| {
        read += block.header.rows as u64;
        if let Err(error) = tell(read) {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        let rows = rows_of(block, slice, times.start.max(slice.from)..times.end, flight);
        gathering.take(block.clone(), rows);
        gave_up = gathering.bytes() > job.held_bytes && gathering.can_be_cut();
        if gave_up { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let derived = gathering.end();
    let cut = if gave_up { slice.cut(&derived, coarsest) } else { None };
    Ok(cut.map_or(Ok((derived, read)), Err))
}

/// The rows of a block that count: of the slice, in time, and settled.
fn rows_of(block: &Block, slice: &Slice, times: std::ops::Range<TimeNs>, flight: &Flight) -> Vec<u32> {
    let rows = (0u32..).zip(&block.timestamps).zip(&block.series);
    let wanted = rows.filter(|((row, time), series)| {
        let number = block.header.offset + u64::from(*row);
        times.contains(*time) && slice.has_series(**series) && flight.counts(number, SeriesId(**series))
    });
    wanted.map(|((row, _), _)| row).collect()
}

/// The spec under which every tick goes into its bar.
fn all_ticks_count(spec: &Spec) -> Arc<Spec> {
    let window = WindowRules { late: LatePolicy::Amend, ..spec.window };
    Arc::new(Spec { window, ..spec.clone() })
}

/// Windows fed in order of arrival, and the whole bars of what they gave.
struct Gathering {
    spec: Arc<Spec>,
    windows: Windows,
    bars: BarBatch,
    derived: Derived,
    held: usize,
    /// The highest event time: the only clock.
    now: TimeNs,
    lowest: TimeNs,
    arrived: u64,
}

impl Gathering {
    fn new(spec: Arc<Spec>) -> Self {
        let (windows, bars) = (Windows::new(spec.clone()), BarBatch::new(spec.id));
        Self {
            spec,
            windows,
            bars,
            derived: Derived::new(),
            held: 0,
            now: TimeNs::MIN,
            lowest: TimeNs::MAX,
            arrived: 0,
        }
    }

    fn take(&mut self, block: Block, rows: Vec<u32>) {
        let times = || rows.iter().map(|row| block.timestamps[*row as usize]);
        let (Some(lowest), Some(highest)) = (times().min(), times().max()) else { return };
        (self.lowest, self.now) = (self.lowest.min(lowest), self.now.max(highest));
        let offset = block.header.offset.max(self.arrived);
        self.arrived = offset + block.header.rows as u64;
        let batch = Arc::new(block.into_batch(&self.spec));
        self.windows.apply(&TickSlice { batch, rows: Rows::Picked(rows), offset }, self.now, &mut self.bars);
        self.gather();
    }

    fn end(mut self) -> Derived {
        self.windows.close_all(TimeNs::MAX, &mut self.bars);
        self.gather();
        self.derived
    }

    /// Adds what has closed to the bars it belongs to.
    fn gather(&mut self) {
        for head in &self.bars.heads {
            let state = self.bars.state(head);
            let id = (head.granularity, head.series, head.start);
            match self.derived.get_mut(&id) {
                Some(bar) => state::merge(&self.spec, bar, head, state),
                None => {
                    self.held += BAR + state.len() * 8;
                    self.derived.insert(id, (*head, state.to_vec()));
                }
            }
        }
        self.bars.heads.clear();
        self.bars.words.clear();
    }

    /// Whether what is held is more than one series, or one window of the coarsest granularity.
    fn can_be_cut(&self) -> bool {
        let coarsest = self.spec.granularities.last().map_or(1, |granularity| granularity.length);
        self.windows.series() > 1 || self.lowest.saturating_add(coarsest) <= self.now
    }

    fn bytes(&self) -> usize {
        let state: usize = self.spec.accumulators.len() * 32;
        self.held + self.windows.open_windows() * (BAR + state)
    }
}
