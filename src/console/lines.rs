//! Bars as plain lines, for files and pipes: one each, up to so many a second, the rest as a number.

use std::fmt::Write;

use super::human;
use crate::catalog::Catalog;
use crate::model::{BarBatch, BarHead, SeriesKey};
use crate::spec::Spec;
use crate::window::state;

/// The most lines a second.
const MOST_LINES: usize = 20;

/// How many lines went out this second, and how many did not.
#[derive(Debug, Default)]
pub struct Lines {
    written: usize,
    left_out: u64,
}

impl Lines {
    /// The lines of `bars`, as far as this second still has room for them.
    pub fn take(&mut self, bars: &BarBatch, spec: &Spec, catalog: &Catalog) -> String {
        let shown = bars.len().min(MOST_LINES - self.written);
        self.written += shown;
        self.left_out += (bars.len() - shown) as u64;
        let mut text = String::new();
        for head in &bars.heads[..shown] {
            line(&mut text, spec, head, &catalog.key(spec.id, head.series), bars.state(head));
        }
        text
    }

    /// Begins the next second; tells of what the last one had no room for.
    pub fn beat(&mut self) -> String {
        let left_out = std::mem::take(self).left_out;
        if left_out == 0 { String::new() } else { format!("… {} more bars\n", human::count(left_out)) }
    }
}

/// `<window start> <spec> <granularity> <series> <metric>=<value>… ticks=<n> rev=<n>`, then the flags.
fn line(text: &mut String, spec: &Spec, head: &BarHead, key: &SeriesKey, words: &[u64]) {
    let granularity = spec.granularities.get(head.granularity as usize).map_or("?", |g| g.name.as_str());
    let series = human::clean(&key.to_string());
    // Writing to a string cannot fail.
    let _ = write!(text, "{} {} {granularity} {series}", human::time(head.start), spec.name);
    for (metric, value) in spec.metrics.iter().zip(state::metrics(spec, head, words)) {
        if let Some(value) = value {
            let value = human::metric(value, metric.unit.as_deref()).replace([' ', ','], "");
            let _ = write!(text, " {}={value}", metric.name);
        }
    }
    let _ = write!(text, " ticks={} rev={}", head.ticks, head.revision);
    for flag in flags(head) {
        let _ = write!(text, " {flag}");
    }
    text.push('\n');
}

/// What is to be known of a bar besides its numbers.
pub fn flags(head: &BarHead) -> impl Iterator<Item = &'static str> {
    head.flags.names()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::fixtures::{bars, catalog, specs};
    use crate::model::SpecId;

    #[test]
    fn a_bar_is_one_line_with_what_it_has() {
        let specs = specs();
        let text = Lines::default().take(&bars(1, SpecId(0)), specs.get(SpecId(0)), &catalog(&specs));
        assert_eq!(
            text,
            "1970-01-01T00:00:01Z host_metrics 1s device=cpu0|host=vm|resource=cpu usage_max=12.5% samples=10 ticks=10 rev=0 partial\n"
        );
    }

    #[test]
    fn beyond_twenty_lines_a_second_bars_are_only_counted() {
        let specs = specs();
        let (spec, catalog, mut lines) = (specs.get(SpecId(0)), catalog(&specs), Lines::default());
        let mut count = |bars: &BarBatch| lines.take(bars, spec, &catalog).lines().count();
        assert_eq!([count(&bars(15, spec.id)), count(&bars(15, spec.id)), count(&bars(4_990, spec.id))], [15, 5, 0]);
        assert_eq!(lines.beat(), "… 5,000 more bars\n");
        assert_eq!(lines.beat(), "");
        assert_eq!(lines.take(&bars(15, spec.id), spec, &catalog).lines().count(), 15);
    }
}
