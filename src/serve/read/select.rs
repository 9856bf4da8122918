//! From the names in a query to numbers: specs, granularities, series.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::ReadError;
use crate::catalog::{Catalog, Match};
use crate::codec::admit::{quote, unknown_spec};
use crate::model::series::MAX_DIMENSIONS;
use crate::model::{SeriesId, SeriesKey, SpecId};
use crate::spec::units::parse_duration;
use crate::spec::{Spec, Specs};
use crate::topology::{Plan, StagePlan};

/// Which series are asked for.
#[derive(Debug, Clone)]
pub enum Series {
    /// The one with exactly this key.
    One(SeriesKey),
    /// Those that match.
    Matching(Match),
}

/// Series numbers to tell ticks by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Every series.
    All,
    /// These, ascending.
    These(Arc<[SeriesId]>),
}

/// The spec of this name.
///
/// # Errors
/// There is none; the known are named.
pub fn spec<'a>(specs: &'a Specs, name: &str) -> Result<&'a Arc<Spec>, ReadError> {
    specs.by_name(name).ok_or_else(|| ReadError::NotFound(unknown_spec(name, specs)))
}

/// The stage of this name.
///
/// # Errors
/// There is none; those there are, are named.
pub fn stage<'a>(plan: &'a Plan, name: &str) -> Result<&'a StagePlan, ReadError> {
    plan.stage(name).ok_or_else(|| {
        let names: Vec<&str> = plan.stages.iter().map(|stage| stage.name.as_str()).collect();
        ReadError::NotFound(format!("no stage {:?}, there are: {}", quote(name), names.join(", ")))
    })
}

/// The number of a granularity: by its name as written, by an equal span (`60s` for `1m`), or the finest where `name`
/// is empty.
///
/// # Errors
/// The spec has no such granularity; those it has are named.
pub fn granularity(spec: &Spec, name: &str) -> Result<u8, ReadError> {
    let length = parse_duration(name);
    let same = |g: &crate::spec::Granularity| name.is_empty() || g.name == name || Some(g.length) == length;
    let index = spec.granularities.iter().position(same).and_then(|index| u8::try_from(index).ok());
    index.ok_or_else(|| {
        let known: Vec<&str> = spec.granularities.iter().map(|g| g.name.as_str()).collect();
        let known = known.join(", ");
        ReadError::Invalid(format!("{} has no granularity {:?}, it has: {known}", spec.name, quote(name)))
    })
}

/// What a series must have to be meant.
///
/// # Errors
/// More dimensions than any series can have.
pub fn matching(pairs: Vec<(String, String)>, is_exact: bool) -> Result<Match, ReadError> {
    if pairs.len() > MAX_DIMENSIONS {
        let count = pairs.len();
        return Err(ReadError::Invalid(format!("{count} dimensions to match, at most {MAX_DIMENSIONS} are allowed")));
    }
    Ok(Match { pairs, is_exact })
}

/// Reads `name=value`; `\` before `\`, `=` or `|` takes the character as it is, as in Kafka keys.
///
/// # Errors
/// There is no `=`, or nothing before it.
pub fn pair(text: &str) -> Result<(String, String), ReadError> {
    let (mut name, mut value, mut chars) = (String::new(), None::<String>, text.chars().peekable());
    while let Some(c) = chars.next() {
        let escaped = (c == '\\').then(|| chars.next_if(|next| matches!(next, '\\' | '=' | '|'))).flatten();
        match (escaped, &mut value) {
            (None, None) if c == '=' => value = Some(String::new()),
            (escaped, None) => name.push(escaped.unwrap_or(c)),
            (escaped, Some(value)) => value.push(escaped.unwrap_or(c)),
        }
    }
    let what = || ReadError::Invalid(format!("match {:?} is not NAME=VALUE; VALUE may be * for any", quote(text)));
    value.filter(|_| !name.is_empty()).map(|value| (name, value)).ok_or_else(what)
}

/// The range `[from, to)` where an end may be open.
///
/// # Errors
/// It ends before it begins.
pub fn range(from: Option<i64>, to: Option<i64>) -> Result<(i64, i64), ReadError> {
    let (from, to) = (from.unwrap_or(i64::MIN), to.unwrap_or(i64::MAX));
    if to <= from {
        return Err(ReadError::Invalid(format!("the time range ends at {to} ns, not after its start at {from} ns")));
    }
    Ok((from, to))
}

/// The numbers of the series asked for, ascending.
pub fn series(catalog: &Catalog, spec: SpecId, wanted: &Series) -> Vec<SeriesId> {
    let pattern = match wanted {
        Series::One(key) => return catalog.find(spec, key).into_iter().collect(),
        Series::Matching(pattern) => pattern,
    };
    let mut found = Vec::new();
    catalog.matching(spec, pattern, &mut |id, _| {
        found.push(id);
        ControlFlow::Continue(())
    });
    found
}

impl Wanted {
    /// The series asked for.
    pub fn of(catalog: &Catalog, spec: SpecId, wanted: &Series) -> Self {
        match wanted {
            Series::Matching(pattern) if pattern.pairs.is_empty() && !pattern.is_exact => Self::All,
            _ => Self::These(series(catalog, spec, wanted).into_iter().collect()),
        }
    }

    /// Whether a series is among them.
    pub fn contains(&self, series: SeriesId) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.binary_search(&series).is_ok(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::These(these) if these.is_empty())
    }

    /// The series, ascending, where they are not all.
    pub fn these(&self) -> Option<Arc<[SeriesId]>> {
        match self {
            Self::All => None,
            Self::These(these) => Some(these.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_ends_its_name_at_the_first_bare_equals_sign() {
        let cases = [
            ("a=b", ("a", "b")),
            ("a=", ("a", "")),
            ("a=b=c", ("a", "b=c")),
            (r"a\=b=c", ("a=b", "c")),
            (r"path=C:\x", ("path", r"C:\x")),
            (r"a=\\", ("a", r"\")),
            ("a=*", ("a", "*")),
        ];
        for (text, (name, value)) in cases {
            assert_eq!(pair(text), Ok((name.to_owned(), value.to_owned())), "{text}");
        }
        for text in ["", "=", "=b", "ab", r"a\=b"] {
            assert!(matches!(pair(text), Err(ReadError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_range_must_end_after_it_begins_and_may_be_open() {
        assert_eq!(range(None, None), Ok((i64::MIN, i64::MAX)));
        assert_eq!(range(Some(-5), Some(-4)), Ok((-5, -4)));
        assert!(range(Some(5), Some(5)).is_err());
    }
}
