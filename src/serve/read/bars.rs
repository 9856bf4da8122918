//! Stored bars of the series that match, by series and window start.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::ReadError;
use super::select::{self, Series};
use crate::model::{BarHead, SeriesKey, TimeNs, Value};
use crate::runtime::Context;
use crate::spec::Spec;
use crate::store::BarScan;
use crate::window::state;

/// Which bars are asked for.
#[derive(Debug, Clone)]
pub struct BarQuery {
    /// The spec.
    pub spec: Arc<Spec>,
    /// Index into its granularities.
    pub granularity: u8,
    /// Which series.
    pub series: Series,
    /// The lowest window start.
    pub from: TimeNs,
    /// Above the highest window start; `i64::MAX` leaves it open.
    pub to: TimeNs,
    /// The most bars; `u64::MAX` for all.
    pub limit: u64,
}

/// One stored bar.
#[derive(Debug)]
pub struct BarRow<'a> {
    /// Its spec.
    pub spec: &'a Spec,
    /// Its series.
    pub key: &'a SeriesKey,
    /// Its window and counts.
    pub head: &'a BarHead,
    /// In order of the spec's metrics; `None` where no tick of the window carried the field.
    pub metrics: Vec<Option<Value>>,
}

impl<'a> BarRow<'a> {
    /// The row of a bar with this accumulator state.
    pub fn new(spec: &'a Spec, key: &'a SeriesKey, head: &'a BarHead, words: &[u64]) -> Self {
        Self { spec, key, head, metrics: state::metrics(spec, head, words) }
    }

    /// The window's length and its name.
    pub fn granularity(&self) -> Option<&'a crate::spec::Granularity> {
        self.spec.granularities.get(self.head.granularity as usize)
    }

    /// The metrics that are there, by name.
    pub fn present(&self) -> impl Iterator<Item = (&'a str, Value)> + '_ {
        let named = self.spec.metrics.iter().zip(&self.metrics);
        named.filter_map(|(metric, value)| Some((metric.name.as_str(), (*value)?)))
    }
}

/// Visits the bars asked for, series after series, each in order of time, until `visit` breaks or `gone` says that
/// nobody waits any more.
///
/// # Errors
/// The store fails.
pub fn bars(
    context: &Context,
    query: &BarQuery,
    gone: &dyn Fn() -> bool,
    visit: &mut dyn FnMut(BarRow<'_>) -> ControlFlow<()>,
) -> Result<(), ReadError> {
    let mut left = query.limit;
    for series in select::series(&context.catalog, query.spec.id, &query.series) {
        if left == 0 || gone() {
            break;
        }
        let key = context.catalog.key(query.spec.id, series);
        let scan = BarScan {
            spec: query.spec.id,
            granularity: query.granularity,
            series: Some(series),
            from: query.from,
            to: query.to,
        };
        let mut flow = ControlFlow::Continue(());
        context.store.scan_bars(&scan, &mut |head, words| {
            flow = visit(BarRow::new(&query.spec, &key, head, words));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { flow }
        })?;
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}
