//! The bars a correct server must hold: recomputed tick by tick, with none of its code.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::{
    generate::{Fate, SEQUENCES, Tick},
    profile::{FieldType, Profile},
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
    values: Vec<Vec<i64>>,
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

/// What a metric must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Expected {
    /// Exactly this integer.
    Whole(i128),
    /// Exactly this double.
    Real(f64),
    /// This double, up to 1e-9 of it.
    Near(f64),
    /// A double in this range.
    Between(f64, f64),
}

/// One metric: which field it reads and where its words are.
#[derive(Debug, Clone, Copy)]
struct Gathered {
    aggregation: Aggregation,
    field: Option<usize>,
    /// Its first word.
    at: usize,
    float: bool,
    divisor: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Aggregation {
    /// Words: place, value.
    First,
    Last,
    /// Word: value.
    Min,
    Max,
    /// Words: the sum, 128 bits.
    Sum,
    Avg,
    /// Words: the sum and the sum of squares, 128 bits each.
    Stddev,
    /// None of its own.
    Count,
    /// Word: index into `values`.
    Quantile(f64),
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
            let place = |e: String| format!("metric {:?}: {e}", metric.name);
            let aggregation = Aggregation::read(&metric.aggregation).map_err(place)?;
            let field = match &metric.field {
                None if aggregation == Aggregation::Count => None,
                None => return Err(place("only `count` works without a field".to_owned())),
                Some(name) => {
                    let position = profile.fields.iter().position(|f| f.name == *name);
                    Some(position.ok_or_else(|| place(format!("{name:?} is no field of the profile")))?)
                }
            };
            let float = field.is_some_and(|f| profile.fields[f].ty == FieldType::Float64);
            let divisor = field.map_or(1.0, |f| profile.divisor(f));
            metrics.push(Gathered { aggregation, field, at: stride, float, divisor });
            stride += aggregation.words();
        }
        Ok(Self {
            window: profile.window.0,
            metrics,
            fields,
            stride,
            places: HashMap::default(),
            heads: Vec::new(),
            words: Vec::new(),
            values: Vec::new(),
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
        for metric in &self.metrics {
            let Some(field) = metric.field.filter(|f| tick.present >> f & 1 == 1) else { continue };
            let first = words[field] == 0;
            metric.aggregation.add(&mut words[metric.at..], &mut self.values, first, place, tick.values[field]);
        }
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
        let metric = &self.metrics[metric];
        let count = metric.field.map_or(self.heads[bar].ticks as i64, |field| words[field]);
        match (metric.aggregation, count) {
            (Aggregation::Count, count) => Some(Expected::Whole(count.into())),
            (_, 0) => None,
            (Aggregation::Quantile(rank), _) => {
                let mut values = self.values[words[metric.at] as usize].clone();
                values.sort_unstable();
                Some(quantile(&values, rank, metric.divisor))
            }
            _ => Some(metric.value(&words[metric.at..], count)),
        }
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

impl Aggregation {
    fn read(name: &str) -> Result<Self, String> {
        Ok(match name {
            "first" => Self::First,
            "last" => Self::Last,
            "min" => Self::Min,
            "max" => Self::Max,
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "stddev" => Self::Stddev,
            "count" => Self::Count,
            _ => {
                let percent =
                    name.strip_prefix('p').and_then(|p| p.parse::<f64>().ok()).filter(|p| *p > 0.0 && *p < 100.0);
                let allowed = "first, last, min, max, sum, count, avg, stddev and p1 to p99.9 are allowed";
                Self::Quantile(percent.ok_or_else(|| format!("aggregation {name:?} is unknown, {allowed}"))? / 100.0)
            }
        })
    }

    fn words(self) -> usize {
        match self {
            Self::Count => 0,
            Self::Min | Self::Max | Self::Quantile(_) => 1,
            Self::First | Self::Last | Self::Sum | Self::Avg => 2,
            Self::Stddev => 4,
        }
    }

    /// Adds a value to a metric's words; `first` where it is the first of its bar.
    #[inline]
    fn add(self, words: &mut [i64], values: &mut Vec<Vec<i64>>, first: bool, place: i64, value: i64) {
        match self {
            Self::First if first || place < words[0] => words[..2].copy_from_slice(&[place, value]),
            Self::Last if first || place >= words[0] => words[..2].copy_from_slice(&[place, value]),
            Self::Min if first || value < words[0] => words[0] = value,
            Self::Max if first || value > words[0] => words[0] = value,
            Self::First | Self::Last | Self::Min | Self::Max | Self::Count => {}
            Self::Sum | Self::Avg => add_wide(words, value.into()),
            Self::Stddev => {
                add_wide(words, value.into());
                add_wide(&mut words[2..], i128::from(value) * i128::from(value));
            }
            Self::Quantile(_) => {
                if first {
                    words[0] = values.len() as i64;
                    values.push(Vec::new());
                }
                values[words[0] as usize].push(value);
            }
        }
    }
}

impl Gathered {
    /// The metric's value, of at least one value of its field.
    fn value(&self, words: &[i64], count: i64) -> Expected {
        let real = |value: f64| value / self.divisor;
        match self.aggregation {
            Aggregation::First | Aggregation::Last if self.float => Expected::Real(real(words[1] as f64)),
            Aggregation::First | Aggregation::Last => Expected::Whole(words[1].into()),
            Aggregation::Min | Aggregation::Max if self.float => Expected::Real(real(words[0] as f64)),
            Aggregation::Min | Aggregation::Max => Expected::Whole(words[0].into()),
            Aggregation::Sum if self.float => Expected::Near(real(wide(words) as f64)),
            Aggregation::Sum => Expected::Whole(wide(words)),
            Aggregation::Avg => Expected::Near(real(wide(words) as f64 / count as f64)),
            Aggregation::Stddev => {
                let (n, sum, squares) = (i128::from(count), wide(words), wide(&words[2..]));
                let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
                Expected::Near(real(variance.sqrt()))
            }
            Aggregation::Count | Aggregation::Quantile(_) => Expected::Whole(count.into()),
        }
    }
}

/// The range a quantile must lie in: between the values at the neighbouring ranks, for there are several
/// definitions of a quantile, and 2 % beyond them.
fn quantile(sorted: &[i64], rank: f64, divisor: f64) -> Expected {
    let last = sorted.len() - 1;
    let low = (rank * last as f64).floor() as usize;
    let high = (rank * last as f64).ceil() as usize;
    let (low, high) = (sorted[low] as f64 / divisor, sorted[high] as f64 / divisor);
    Expected::Between(low - 0.02 * low.abs(), high + 0.02 * high.abs())
}

fn wide(words: &[i64]) -> i128 {
    i128::from(words[1]) << 64 | i128::from(words[0] as u64)
}

fn add_wide(words: &mut [i64], value: i128) {
    let sum = wide(words) + value;
    words[0] = sum as i64;
    words[1] = (sum >> 64) as i64;
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

    #[test]
    fn wide_sums_carry() {
        let mut words = [0, 0];
        for value in [i64::MAX, i64::MAX, i64::MAX, -5] {
            add_wide(&mut words, value.into());
        }
        assert_eq!(wide(&words), 3 * i128::from(i64::MAX) - 5);
        add_wide(&mut words, -3 * i128::from(i64::MAX));
        assert_eq!(wide(&words), -5);
    }
}
