//! Who makes too many series: bounded counts of the dimensions of refused ticks.

use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::model::SeriesKey;

/// Dimension names watched.
const NAMES: usize = 32;
/// Values counted per name, as many as are shown.
const VALUES: usize = 8;
/// Bits of a name's sketch of distinct values.
const BITS: usize = 8192;

/// A dimension among the series that met the limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// The dimension's name.
    pub name: String,
    /// Roughly how many different values it had; tens of thousands are not told apart.
    pub distinct: u64,
    /// Its most frequent values, the most frequent first, each with at most how often it came.
    pub values: Vec<(String, u64)>,
}

/// Watches refused series. A tick noted while another thread notes one may go unwatched.
#[derive(Default)]
pub(super) struct Offenders {
    names: Mutex<Vec<Watched>>,
}

struct Watched {
    name: String,
    /// Linear counting: a bit per hash of a value.
    seen: Box<[u64; BITS / 64]>,
    /// Space saving: the rarest makes room for a new value, which inherits its count.
    values: Vec<(String, u64)>,
}

impl Offenders {
    /// Notes a refused series.
    pub fn note(&self, key: &SeriesKey) {
        let Ok(mut names) = self.names.try_lock() else { return };
        for (name, value) in key.dimensions() {
            if let Some(watched) = names.iter_mut().find(|watched| watched.name == name) {
                watched.note(value);
            } else if names.len() < NAMES {
                let mut watched = Watched { name: name.into(), seen: Box::new([0; BITS / 64]), values: Vec::new() };
                watched.note(value);
                names.push(watched);
            }
        }
    }

    /// The dimensions, that with the most values first.
    pub fn worst(&self) -> Vec<Offender> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worst: Vec<_> = names.iter().map(Watched::told).collect();
        worst.sort_by(|a, b| b.distinct.cmp(&a.distinct).then_with(|| a.name.cmp(&b.name)));
        worst
    }
}

impl Watched {
    fn note(&mut self, value: &str) {
        let bit = xxh3_64(value.as_bytes()) as usize % BITS;
        self.seen[bit / 64] |= 1 << (bit % 64);
        if let Some(found) = self.values.iter_mut().find(|(known, _)| known == value) {
            found.1 += 1;
        } else if self.values.len() < VALUES {
            self.values.push((value.into(), 1));
        } else if let Some(rarest) = self.values.iter_mut().min_by_key(|(_, count)| *count) {
            rarest.0.clear();
            rarest.0.push_str(value);
            rarest.1 += 1;
        }
    }

    fn told(&self) -> Offender {
        let unseen = BITS as u32 - self.seen.iter().map(|word| word.count_ones()).sum::<u32>();
        let distinct = -(f64::from(unseen.max(1)) / BITS as f64).ln() * BITS as f64;
        let mut values = self.values.clone();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Offender { name: self.name.clone(), distinct: distinct.round() as u64, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dimension_with_the_most_values_is_named_first() {
        let offenders = Offenders::default();
        for n in 0..1_000 {
            let (request, host) = (n.to_string(), if n % 10 == 0 { "b" } else { "a" });
            offenders.note(&SeriesKey::new([("request", request.as_str()), ("host", host)]).unwrap());
        }
        let worst = offenders.worst();
        assert_eq!(worst[0].name, "request");
        assert!((950..1_050).contains(&worst[0].distinct), "{}", worst[0].distinct);
        assert_eq!(worst[0].values.len(), VALUES);
        assert_eq!(worst[1].values, [("a".to_owned(), 900), ("b".to_owned(), 100)]);
        assert_eq!(worst[1].distinct, 2);
    }
}
