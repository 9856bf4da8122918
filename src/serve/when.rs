//! Points in time as people write and read them, for HTTP queries and the command line alike.

use jiff::Timestamp;

use crate::codec::admit::quote;
use crate::model::TimeNs;
use crate::spec::units::parse_duration;

/// What a point in time may look like, for error messages.
pub const ALLOWED: &str =
    "RFC 3339 as in 2026-01-31T12:00:00Z, nanoseconds since 1970, `now`, or a span before now as in -5m";

/// Reads a point in time: RFC 3339, an integer of nanoseconds since the Unix epoch, `now`, or a signed span relative
/// to `now` (`-5m`, `-1h30m`, `+10s`).
///
/// # Errors
/// The text is none of these, or outside of 1677–2262: a message with the text and what is allowed.
pub fn parse(text: &str, now: TimeNs) -> Result<TimeNs, String> {
    if text == "now" {
        return Ok(now);
    }
    if let Ok(ns) = text.parse() {
        return Ok(ns);
    }
    let relative = text.starts_with(['-', '+']).then(|| parse_duration(text)).flatten();
    if let Some(span) = relative {
        return Ok(now.saturating_add(span));
    }
    let instant: Option<Timestamp> = text.parse().ok();
    let ns = instant.and_then(|instant| TimeNs::try_from(instant.as_nanosecond()).ok());
    ns.ok_or_else(|| format!("{:?} is no point in time: {ALLOWED}", quote(text)))
}

/// RFC 3339 in UTC, with as many digits behind the second as it takes to be exact.
pub fn rfc3339(time: TimeNs) -> String {
    match Timestamp::from_nanosecond(time.into()) {
        Ok(instant) => instant.to_string(),
        // Out of reach: jiff covers the years -9999 to 9999, nanoseconds in 64 bits 1677 to 2262.
        Err(_) => time.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::{MINUTE, SECOND};
    use proptest::prelude::*;

    const NOW: TimeNs = 1_700_000_000 * SECOND;

    #[test]
    fn every_way_to_write_a_time_is_taken() {
        let cases = [
            ("now", NOW),
            ("-5m", NOW - 5 * MINUTE),
            ("+1.5s", NOW + SECOND + SECOND / 2),
            ("1700000000000000000", NOW),
            ("-1", -1),
            ("0", 0),
            ("2023-11-14T22:13:20Z", NOW),
            ("2023-11-14T23:13:20+01:00", NOW),
            ("2023-11-14T22:13:20.000000001Z", NOW + 1),
        ];
        for (text, time) in cases {
            assert_eq!(parse(text, NOW), Ok(time), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_what_is_allowed() {
        for text in ["", "5m", "yesterday", "-5parsecs", "2023-11-14", "9999-01-01T00:00:00Z", "1e9"] {
            assert!(parse(text, NOW).unwrap_err().contains("RFC 3339"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_shown_time_reads_back(time in any::<i64>()) {
            prop_assert_eq!(parse(&rfc3339(time), 0), Ok(time));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text, NOW);
        }
    }
}
