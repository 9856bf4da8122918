//! One metric of a naive bar: what it keeps, and what comes of it.

use crate::{
    generate::Tick,
    profile::{FieldType, Metric, Profile},
};

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

/// One metric: how it is computed, which field it reads and where its words are among those of a bar.
#[derive(Debug, Clone, Copy)]
pub struct Gathered {
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
    /// Word: index of the list of all values.
    Quantile(f64),
}

impl Gathered {
    /// `metric` of `profile`, with its words from `at` on.
    ///
    /// # Errors
    /// An unknown field or aggregation.
    pub fn read(metric: &Metric, profile: &Profile, at: usize) -> Result<Self, String> {
        let place = |e: String| format!("metric {:?}: {e}", metric.name);
        let aggregation = Aggregation::read(&metric.aggregation).map_err(place)?;
        let position = |name: &String| {
            let position = profile.fields.iter().position(|f| f.name == *name);
            position.ok_or_else(|| place(format!("{name:?} is no field of the profile")))
        };
        let field = metric.field.as_ref().map(position).transpose()?;
        if field.is_none() && aggregation != Aggregation::Count {
            return Err(place("only `count` works without a field, name one".to_owned()));
        }
        let float = field.is_some_and(|f| profile.fields[f].ty == FieldType::Float64);
        let divisor = field.map_or(1.0, |f| profile.divisor(f));
        Ok(Self { aggregation, field, at, float, divisor })
    }

    /// How many words it needs.
    pub fn words(&self) -> usize {
        match self.aggregation {
            Aggregation::Count => 0,
            Aggregation::Min | Aggregation::Max | Aggregation::Quantile(_) => 1,
            Aggregation::First | Aggregation::Last | Aggregation::Sum | Aggregation::Avg => 2,
            Aggregation::Stddev => 4,
        }
    }

    /// Adds a tick at `place` to the words of its bar, which begin with how many ticks before it carry each
    /// field; lists of values are in `lists`.
    #[inline]
    pub fn add(&self, bar: &mut [i64], lists: &mut Vec<Vec<i64>>, place: i64, tick: &Tick) {
        use Aggregation::{Avg, Count, First, Last, Max, Min, Quantile, Stddev, Sum};
        let Some(field) = self.field.filter(|f| tick.present >> f & 1 == 1) else { return };
        let (first, value) = (bar[field] == 0, tick.values[field]);
        let words = &mut bar[self.at..];
        match self.aggregation {
            First if first || place < words[0] => words[..2].copy_from_slice(&[place, value]),
            Last if first || place >= words[0] => words[..2].copy_from_slice(&[place, value]),
            Min if first || value < words[0] => words[0] = value,
            Max if first || value > words[0] => words[0] = value,
            First | Last | Min | Max | Count => {}
            Sum | Avg => add_wide(words, value.into()),
            Stddev => {
                add_wide(words, value.into());
                add_wide(&mut words[2..], i128::from(value) * i128::from(value));
            }
            Quantile(_) => {
                if first {
                    words[0] = lists.len() as i64;
                    lists.push(Vec::new());
                }
                lists[words[0] as usize].push(value);
            }
        }
    }

    /// What the metric must be in a bar of `ticks` ticks; `None` where no tick carries its field.
    pub fn value(&self, bar: &[i64], lists: &[Vec<i64>], ticks: u64) -> Option<Expected> {
        use Aggregation::{Avg, Count, First, Last, Max, Min, Quantile, Stddev, Sum};
        let count = self.field.map_or(ticks as i64, |field| bar[field]);
        let words = &bar[self.at..];
        let real = |value: f64| value / self.divisor;
        Some(match self.aggregation {
            Count => Expected::Whole(count.into()),
            _ if count == 0 => return None,
            First | Last if self.float => Expected::Real(real(words[1] as f64)),
            First | Last => Expected::Whole(words[1].into()),
            Min | Max if self.float => Expected::Real(real(words[0] as f64)),
            Min | Max => Expected::Whole(words[0].into()),
            Sum if self.float => Expected::Near(real(wide(words) as f64)),
            Sum => Expected::Whole(wide(words)),
            Avg => Expected::Near(real(wide(words) as f64 / count as f64)),
            Stddev => {
                let (n, sum, squares) = (i128::from(count), wide(words), wide(&words[2..]));
                let variance = (n * squares - sum * sum) as f64 / (n * n) as f64;
                Expected::Near(real(variance.sqrt()))
            }
            Quantile(rank) => quantile(&lists[words[0] as usize], rank, self.divisor),
        })
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
                let percent = name.strip_prefix('p').and_then(|p| p.parse::<f64>().ok());
                let percent = percent.filter(|p| *p > 0.0 && *p < 100.0);
                let allowed = "first, last, min, max, sum, count, avg, stddev and p1 to p99.9 are allowed";
                Self::Quantile(percent.ok_or_else(|| format!("aggregation {name:?} is unknown, {allowed}"))? / 100.0)
            }
        })
    }
}

/// The range a quantile must lie in: between the values at the neighbouring ranks, for there are several
/// definitions of a quantile, and 2 % beyond them.
fn quantile(values: &[i64], rank: f64, divisor: f64) -> Expected {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
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
