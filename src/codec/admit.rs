//! Admission: which ticks are taken, and what is said about those that are not.
//!
//! Every protocol asks in the same order, so that one tick gets the same reason on each: first the time,
//! then the dimensions, then the cardinality, then the fields.

use super::wire::BadWire;
use crate::model::{DurationNs, Reason, SeriesId, SeriesKey, SpecId, TimeNs};
use crate::spec::{Spec, Specs, UnknownDimensions};

/// The most undeclared fields one tick may carry.
pub const MAX_EXTRAS: usize = 64;
/// How many rows of each reason a reply names.
pub const EXAMPLES: usize = 5;
/// The longest piece of a client's own text that a message repeats, in bytes.
const MAX_QUOTE: usize = 64;

/// Gives every series its number; the catalog does.
pub trait Interner {
    /// The number of the series with this key, which may be new.
    ///
    /// # Errors
    /// The series is new and there is no room for it.
    fn intern(&self, spec: SpecId, key: &SeriesKey) -> Result<SeriesId, Refusal>;
}

/// Why a tick is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason it is counted under.
    pub reason: Reason,
    /// What was wrong and what is allowed, for people.
    pub message: String,
}

/// Bytes that are no message of the protocol; the stream ends with `INVALID_ARGUMENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {what}, in the field at byte {at}")]
pub struct Malformed {
    /// What is wrong.
    pub what: BadWire,
    /// Where the message's own field that holds the fault begins.
    pub at: usize,
}

/// What became of the ticks of one message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decoded {
    /// The spec the message names; `None` where there is none of that name.
    pub spec: Option<SpecId>,
    /// Ticks appended.
    pub accepted: u64,
    /// The others.
    pub rejected: Rejections,
}

/// Ticks not taken, by reason. Allocates nothing while it is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rejections {
    by_reason: Vec<Rejection>,
}

/// Ticks of one message not taken for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// How many.
    pub rows: u64,
    /// The first [`EXAMPLES`] of them, counted from 0 within the message.
    pub examples: Vec<u32>,
    /// What was wrong with the first and what is allowed.
    pub message: String,
}

impl Rejections {
    /// Counts row `row`; `message` is asked for only where it is the first of its reason.
    pub fn add(&mut self, row: u32, reason: Reason, message: impl FnOnce() -> String) {
        let rejection = match self.by_reason.iter().position(|r| r.reason == reason) {
            Some(at) => &mut self.by_reason[at],
            None => {
                let fresh = Rejection { reason, rows: 0, examples: Vec::new(), message: message() };
                self.by_reason.push_mut(fresh)
            }
        };
        rejection.rows += 1;
        if rejection.examples.len() < EXAMPLES {
            rejection.examples.push(row);
        }
    }

    /// Counts all of `rows` rows.
    pub fn add_all(&mut self, rows: usize, reason: Reason, message: String) {
        if rows > 0 {
            let examples = (0..rows.min(EXAMPLES) as u32).collect();
            self.by_reason.push(Rejection { reason, rows: rows as u64, examples, message });
        }
    }

    /// One entry per reason, in order of first occurrence.
    pub fn iter(&self) -> impl Iterator<Item = &Rejection> {
        self.by_reason.iter()
    }

    /// All ticks not taken.
    pub fn rows(&self) -> u64 {
        self.by_reason.iter().map(|r| r.rows).sum()
    }

    /// Whether every tick was taken.
    pub fn is_empty(&self) -> bool {
        self.by_reason.is_empty()
    }
}

/// The event times a spec takes at one moment.
#[derive(Debug, Clone, Copy)]
pub struct TimeGate {
    precision: DurationNs,
    oldest: TimeNs,
    newest: TimeNs,
}

impl TimeGate {
    /// What `spec` takes at `now`.
    pub fn new(spec: &Spec, now: TimeNs) -> Self {
        Self {
            precision: spec.precision,
            oldest: now.saturating_sub(spec.retention.ticks),
            newest: now.saturating_add(spec.window.max_ahead),
        }
    }

    /// The event time of a timestamp in the spec's precision.
    ///
    /// # Errors
    /// Outside of what nanoseconds in an `i64` can say, too old, or too far ahead.
    #[inline]
    pub fn admit(&self, raw: i64) -> Result<TimeNs, Reason> {
        let time = raw.checked_mul(self.precision).ok_or(Reason::BadTimestamp)?;
        if time < self.oldest {
            return Err(Reason::Expired);
        }
        if time > self.newest { Err(Reason::Ahead) } else { Ok(time) }
    }

    /// As [`TimeGate::admit`], for protocols with unsigned timestamps.
    ///
    /// # Errors
    /// As [`TimeGate::admit`].
    #[inline]
    pub fn admit_unsigned(&self, raw: u64) -> Result<TimeNs, Reason> {
        self.admit(i64::try_from(raw).map_err(|_| Reason::BadTimestamp)?)
    }

    /// What was wrong with a timestamp refused for `reason`.
    pub fn explain(&self, reason: Reason, raw: impl std::fmt::Display) -> String {
        let (unit, oldest, newest) = (self.precision, self.oldest, self.newest);
        match reason {
            Reason::Expired => {
                format!("timestamp {raw} (in units of {unit} ns) is older than the spec keeps: at least {oldest} ns")
            }
            Reason::Ahead => {
                format!("timestamp {raw} (in units of {unit} ns) is too far ahead: at most {newest} ns at the moment")
            }
            _ => format!("timestamp {raw} (in units of {unit} ns) does not fit into 64-bit nanoseconds"),
        }
    }
}

/// The number of the series with these dimensions; of equal names the last counts.
///
/// # Errors
/// Dimensions that are too many, too long or undeclared where the spec refuses that; no room for a new series.
pub fn admit_series<'a>(
    spec: &Spec,
    dimensions: impl IntoIterator<Item = (&'a str, &'a str)>,
    interner: &dyn Interner,
) -> Result<SeriesId, Refusal> {
    let bad = |message| Refusal { reason: Reason::BadDimensions, message };
    let key = SeriesKey::new(dimensions).map_err(|e| bad(e.to_string()))?;
    if spec.unknown_dimensions == UnknownDimensions::Reject
        && let Some((name, _)) = key.dimensions().find(|(name, _)| !spec.dimensions.iter().any(|d| d == name))
    {
        let declared = spec.dimensions.join(", ");
        let name = quote(name);
        return Err(bad(format!("{} declares no dimension {name:?}, it has: {declared}", spec.name)));
    }
    interner.intern(spec.id, &key)
}

/// What is said of ticks that name no spec.
pub fn unknown_spec(name: &str, specs: &Specs) -> String {
    let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    format!("unknown series {:?}, known are: {}", quote(name), known.join(", "))
}

/// The beginning of a client's text, short enough to repeat.
pub fn quote(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_QUOTE)]
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::FieldType::{Float64, Int64, Uint64};
    use crate::model::time::{HOUR, SECOND};
    use crate::spec::{Cardinality, CardinalityOverflow, Field, Granularity, LatePolicy, Retention, WindowRules};

    /// `market`: dimension `symbol`; fields `price` int64, `quantity` uint64, `level` float64; nanoseconds.
    pub(crate) fn spec() -> Spec {
        let fields = [("price", Int64), ("quantity", Uint64), ("level", Float64)];
        Spec {
            id: SpecId(0),
            name: "market".into(),
            precision: 1,
            dimensions: vec!["symbol".into()],
            unknown_dimensions: UnknownDimensions::Accept,
            fields: fields.map(|(name, ty)| Field { name: name.into(), ty }).into(),
            metrics: Vec::new(),
            accumulators: Vec::new(),
            granularities: vec![Granularity { name: "1s".into(), length: SECOND }],
            window: WindowRules { wait: 0, idle: SECOND, max_ahead: 10 * SECOND, late: LatePolicy::Amend },
            retention: Retention { ticks: HOUR, bars: HOUR },
            cardinality: Cardinality { limit: u32::MAX, overflow: CardinalityOverflow::Reject },
            kafka: None,
        }
    }

    #[test]
    fn rejections_keep_the_first_rows_and_the_first_message_of_each_reason() {
        let mut rejections = Rejections::default();
        for row in 0..9 {
            rejections.add(row, Reason::Expired, || format!("row {row}"));
        }
        rejections.add(9, Reason::Ahead, || "other".into());
        let first = rejections.iter().next().unwrap();
        assert_eq!((first.rows, first.examples.as_slice()), (9, [0, 1, 2, 3, 4].as_slice()));
        assert_eq!(first.message, "row 0");
        assert_eq!(rejections.rows(), 10);
    }

    #[test]
    fn times_at_the_ends_of_the_range_are_taken_and_those_beyond_have_their_reason() {
        let gate = TimeGate { precision: 1_000, oldest: 5_000, newest: 9_000 };
        assert_eq!(gate.admit(5), Ok(5_000));
        assert_eq!(gate.admit(9), Ok(9_000));
        assert_eq!(gate.admit(4), Err(Reason::Expired));
        assert_eq!(gate.admit(10), Err(Reason::Ahead));
        assert_eq!(gate.admit(i64::MAX / 999), Err(Reason::BadTimestamp));
        assert_eq!(gate.admit_unsigned(u64::MAX), Err(Reason::BadTimestamp));
    }

    #[test]
    fn a_quote_is_short_and_never_splits_a_character() {
        assert_eq!(quote("abc"), "abc");
        assert_eq!(quote(&"€".repeat(100)).len(), 63);
    }
}
