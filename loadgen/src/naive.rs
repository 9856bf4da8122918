//! The bars a correct server must hold: recomputed tick by tick, with none of its code.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::{
    aggregate::{Expected, Gathered},
    generate::{Fate, SEQUENCES, Tick},
    profile::Profile,
    units::Nanos,
};

/// Bars of one run, of the finest granularity.
#[derive(Debug)]
pub struct NaiveBars {
    window: Nanos,
    metrics: Vec<Gathered>,
    fields: usize,
    /// Words of state per bar: how many ticks carry each field, then the metrics' own.
    stride: usize,
    places: HashMap<(u32, i64), u32, FixedState>,
    heads: Vec<Head>,
    words: Vec<i64>,
    /// All values of a field in a bar, for quantiles.
    lists: Vec<Vec<i64>>,
    /// Per series: the window its last tick fell in, and that bar.
    recent: Vec<(i64, u32)>,
}

/// A bar without its metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The series' number.
    pub series: u32,
    /// Window start.
    pub start: Nanos,
    /// Ticks in the window.
    pub ticks: u64,
    /// The lowest event time.
    pub first: Nanos,
    /// The highest event time.
    pub last: Nanos,
}

impl NaiveBars {
    /// No bars yet, of what `profile` says its spec computes.
    ///
    /// # Errors
    /// A metric of an unknown field or aggregation.
    pub fn new(profile: &Profile) -> Result<Self, String> {
        let fields = profile.fields.len();
        let mut stride = fields;
        let mut metrics = Vec::new();
        for metric in &profile.metrics {
            let gathered = Gathered::read(metric, profile, stride)?;
            stride += gathered.words();
            metrics.push(gathered);
        }
        Ok(Self {
            window: profile.window.0,
            metrics,
            fields,
            stride,
            places: HashMap::default(),
            heads: Vec::new(),
            words: Vec::new(),
            lists: Vec::new(),
            recent: vec![(i64::MIN, 0); profile.series.0 as usize],
        })
    }

    /// Adds a tick, in the order of arrival within its series; one that must be rejected is left out.
    pub fn add(&mut self, tick: &Tick) {
        if tick.fate != Fate::Accepted {
            return;
        }
        let number = tick.timestamp.div_euclid(self.window);
        let recent = self.recent[tick.series as usize];
        let bar = if recent.0 == number { recent.1 } else { self.bar(tick.series, number) };
        let head = &mut self.heads[bar as usize];
        head.ticks += 1;
        head.first = head.first.min(tick.timestamp);
        head.last = head.last.max(tick.timestamp);
        // Time within the window, then sequence: one number that orders the ticks of a bar.
        let place = (tick.timestamp - head.start) * SEQUENCES as i64 + i64::from(tick.sequence);
        let words = &mut self.words[bar as usize * self.stride..][..self.stride];
        self.metrics.iter().for_each(|metric| metric.add(words, &mut self.lists, place, tick));
        for (field, count) in words[..self.fields].iter_mut().enumerate() {
            *count += i64::from(tick.present >> field & 1);
        }
    }

    /// How many bars there are.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// The number of the bar of `series` that starts at `start`.
    pub fn find(&self, series: u32, start: Nanos) -> Option<usize> {
        let aligned = start.rem_euclid(self.window) == 0;
        self.places.get(&(series, start.div_euclid(self.window))).filter(|_| aligned).map(|bar| *bar as usize)
    }

    /// Bar number `bar`.
    pub fn head(&self, bar: usize) -> Head {
        self.heads[bar]
    }

    /// The lowest and the highest window start.
    pub fn range(&self) -> Option<(Nanos, Nanos)> {
        let starts = || self.heads.iter().map(|head| head.start);
        Some((starts().min()?, starts().max()?))
    }

    /// Metric number `metric` of bar number `bar`; `None` where no tick carries its field.
    pub fn metric(&self, bar: usize, metric: usize) -> Option<Expected> {
        let words = &self.words[bar * self.stride..][..self.stride];
        self.metrics[metric].value(words, &self.lists, self.heads[bar].ticks)
    }

    fn bar(&mut self, series: u32, number: i64) -> u32 {
        let next = self.heads.len() as u32;
        let bar = *self.places.entry((series, number)).or_insert(next);
        if bar == next {
            let start = number * self.window;
            self.heads.push(Head { series, start, ticks: 0, first: Nanos::MAX, last: Nanos::MIN });
            self.words.resize(self.words.len() + self.stride, 0);
        }
        self.recent[series as usize] = (number, bar);
        bar
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::MAX_FIELDS;

    /// Metrics of one field `v`, one of each aggregation.
    fn bars(ty: &str) -> NaiveBars {
        let all = ["first", "last", "min", "max", "sum", "avg", "stddev", "count", "p50"];
        let metrics: Vec<String> = all.iter().map(|a| format!("{{name: {a}, field: v, aggregation: {a}}}")).collect();
        let overrides = [
            format!("fields=[{{name: v, type: {ty}, values: {{uniform: {{min: 0, max: 1}}}}}}]"),
            format!("metrics=[{}, {{name: n, aggregation: count}}]", metrics.join(", ")),
        ];
        NaiveBars::new(&Profile::load("market", &overrides).unwrap()).unwrap()
    }

    fn tick(timestamp: Nanos, sequence: u32, value: Option<i64>) -> Tick {
        let mut values = [0; MAX_FIELDS];
        values[0] = value.unwrap_or_default();
        Tick { series: 3, timestamp, sequence, fate: Fate::Accepted, present: u32::from(value.is_some()), values }
    }

    #[test]
    fn a_bar_is_what_one_computes_by_hand() {
        let mut bars = bars("int64");
        let second = 1_000_000_000;
        for (at, sequence, value) in [(300, 0, 7), (200, 1, -2), (200, 0, 4), (300, 0, 9), (100, 5, 2)] {
            bars.add(&tick(5 * second + at, sequence, Some(value)));
        }
        bars.add(&tick(5 * second + 50, 0, None));
        let bar = bars.find(3, 5 * second).unwrap();
        assert_eq!(
            bars.head(bar),
            Head { series: 3, start: 5 * second, ticks: 6, first: 5 * second + 50, last: 5 * second + 300 }
        );
        let metrics: Vec<Option<Expected>> = (0..10).map(|m| bars.metric(bar, m)).collect();
        use Expected::{Between, Near, Whole};
        let deviation = 14.8f64.sqrt();
        let expected = [Whole(2), Whole(9), Whole(-2), Whole(9), Whole(20), Near(4.0), Near(deviation), Whole(5)];
        assert_eq!(metrics[..8], expected.map(Some));
        assert_eq!(metrics[8], Some(Between(4.0 * 0.98, 4.0 * 1.02)));
        assert_eq!(metrics[9], Some(Whole(6)));
    }

    #[test]
    fn absent_is_not_zero_and_windows_are_apart_below_zero_too() {
        let mut bars = bars("float64");
        bars.add(&tick(-1, 0, None));
        bars.add(&tick(0, 0, Some(3)));
        let before = bars.find(3, -1_000_000_000).unwrap();
        assert_eq!((bars.metric(before, 0), bars.metric(before, 7)), (None, Some(Expected::Whole(0))));
        let after = bars.find(3, 0).unwrap();
        assert_eq!(bars.metric(after, 0), Some(Expected::Real(3.0)));
        assert_eq!((bars.find(3, 1), bars.find(4, 0), bars.len()), (None, None, 2));
    }
}
