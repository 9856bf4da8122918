//! What stands behind the `?` of an HTTP query, read strictly: an unknown or repeated parameter is an error.

use super::read::{ReadError, select};
use super::when;
use crate::catalog::Match;
use crate::codec::admit::quote;
use crate::model::TimeNs;

/// Rows in a reply unless said otherwise, and the most there may be.
pub const DEFAULT_LIMIT: u64 = 1_000;
/// The most rows in a reply.
pub const MAX_LIMIT: u64 = 100_000;

/// The parameters of a query; those not given have their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// `spec`; empty when not given.
    pub spec: String,
    /// `match=name=value`, any number of them, and `exact`.
    pub series: Match,
    /// `from`: the start of the time range.
    pub from: Option<TimeNs>,
    /// `to`: its end, exclusive.
    pub to: Option<TimeNs>,
    /// `granularity`; empty for the finest.
    pub granularity: String,
    /// `limit`, from 1 to [`MAX_LIMIT`].
    pub limit: u64,
    /// `late`: late ticks kept aside instead of the journal.
    pub late: bool,
}

impl Params {
    /// Reads decoded `pairs`, of which only those in `allowed` may occur. Times may be relative to `now`.
    ///
    /// # Errors
    /// A parameter that is unknown, repeated or not readable; a limit that is too large.
    pub fn read(pairs: Vec<(String, String)>, allowed: &[&str], now: TimeNs) -> Result<Self, ReadError> {
        let mut params = Self {
            spec: String::new(),
            series: Match::default(),
            from: None,
            to: None,
            granularity: String::new(),
            limit: DEFAULT_LIMIT,
            late: false,
        };
        let (mut seen, mut dimensions) = (Vec::new(), Vec::new());
        for (name, value) in pairs {
            let Some(known) = allowed.iter().find(|known| **known == name) else {
                let (name, allowed) = (quote(&name), list(allowed));
                return Err(ReadError::Invalid(format!("unknown parameter {name:?}, allowed here: {allowed}")));
            };
            if *known != "match" && seen.contains(known) {
                return Err(ReadError::Invalid(format!("parameter {known} is given twice")));
            }
            seen.push(*known);
            match *known {
                "match" => dimensions.push(select::pair(&value)?),
                known => params.set(known, value, now)?,
            }
        }
        params.series = select::matching(dimensions, params.series.is_exact)?;
        Ok(params)
    }

    fn set(&mut self, name: &str, value: String, now: TimeNs) -> Result<(), ReadError> {
        let time = |value: &str| {
            when::parse(value, now).map(Some).map_err(|error| ReadError::Invalid(format!("{name}: {error}")))
        };
        match name {
            "spec" => self.spec = value,
            "granularity" => self.granularity = value,
            "from" => self.from = time(&value)?,
            "to" => self.to = time(&value)?,
            "limit" => self.limit = limit(&value)?,
            "exact" => self.series.is_exact = flag(name, &value)?,
            _ => self.late = flag(name, &value)?,
        }
        Ok(())
    }
}

fn limit(value: &str) -> Result<u64, ReadError> {
    match value.parse() {
        Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Ok(1..) => {
            let remedy = "narrow the range with `from` and `to`, or use gRPC";
            Err(ReadError::TooLarge(format!("limit {value} is more than {MAX_LIMIT}; {remedy}")))
        }
        _ => Err(ReadError::Invalid(format!("limit {:?} is not in 1..={MAX_LIMIT}", quote(value)))),
    }
}

fn flag(name: &str, value: &str) -> Result<bool, ReadError> {
    match value {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(ReadError::Invalid(format!("{name} {:?} is neither true nor false", quote(value)))),
    }
}

fn list(allowed: &[&str]) -> String {
    if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::MINUTE;

    const ALL: [&str; 8] = ["spec", "match", "exact", "from", "to", "granularity", "limit", "late"];

    fn read(pairs: &[(&str, &str)]) -> Result<Params, ReadError> {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Params::read(pairs, &ALL, 10 * MINUTE)
    }

    #[test]
    fn every_parameter_is_read_and_matches_add_up() {
        let params =
            read(&[("spec", "s"), ("match", "a=1"), ("match", "b=*"), ("exact", ""), ("from", "-5m"), ("limit", "7")]);
        let params = params.unwrap();
        assert_eq!((params.spec.as_str(), params.from, params.to, params.limit), ("s", Some(5 * MINUTE), None, 7));
        assert_eq!(params.series, Match::exact([("a", "1"), ("b", "*")]));
    }

    #[test]
    fn what_is_unknown_repeated_or_unreadable_is_an_error() {
        let refused =
            [("sped", "s"), ("from", "soon"), ("limit", "0"), ("limit", "-1"), ("exact", "maybe"), ("match", "a")];
        for pair in refused {
            assert!(matches!(read(&[pair]), Err(ReadError::Invalid(_))), "{pair:?}");
        }
        assert!(matches!(read(&[("spec", "s"), ("spec", "s")]), Err(ReadError::Invalid(_))));
        assert!(matches!(read(&[("limit", "100001")]), Err(ReadError::TooLarge(_))));
        let many = [("match", "a=1")].repeat(65);
        assert!(matches!(read(&many), Err(ReadError::Invalid(_))));
    }
}
