//! Spans of time, sizes in bytes and addresses as people write them.
//!
//! Time is written as Go's `time.ParseDuration` takes it (`1s`, `100ms`, `1h30m`, `1.5s`), plus `d` for days.

use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, de};

use crate::model::DurationNs;
use crate::model::time::{DAY, HOUR, MICROSECOND, MILLISECOND, MINUTE, SECOND};

/// What a span of time may look like, for error messages.
pub const DURATION_ALLOWED: &str = "a number and a unit (ns, us, ms, s, m, h, d), as in 100ms, 1.5s or 1h30m";
/// What a size may look like, for error messages.
pub const BYTES_ALLOWED: &str =
    "a number of bytes, or one with a unit (KiB, MiB, GiB, TiB, KB, MB, GB, TB), as in 4MiB";

/// Longer units first where one begins with another.
const DURATION_UNITS: [(&str, DurationNs); 9] = [
    ("ns", 1),
    ("us", MICROSECOND),
    ("µs", MICROSECOND),
    ("μs", MICROSECOND),
    ("ms", MILLISECOND),
    ("s", SECOND),
    ("m", MINUTE),
    ("h", HOUR),
    ("d", DAY),
];

const BYTE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Nanoseconds of `text`; `None` where it is no span of time or longer than 292 years.
pub fn parse_duration(text: &str) -> Option<DurationNs> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    loop {
        let (number, after) = split_number(rest)?;
        let (unit, length) = DURATION_UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        total += scale(number, i128::from(*length))?;
        rest = &after[unit.len()..];
        if rest.is_empty() {
            return DurationNs::try_from(if negative { -total } else { total }).ok();
        }
    }
}

/// Bytes of `text`; `None` where it is no size.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let (_, length) = BYTE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim_start()))?;
    u64::try_from(scale(number, i128::from(*length))?).ok()
}

/// A span of time as [`parse_duration`] takes it, exact.
pub fn format_duration(span: DurationNs) -> String {
    if span == 0 {
        return "0s".into();
    }
    let mut text = String::from(if span < 0 { "-" } else { "" });
    let mut rest = span.unsigned_abs();
    let units =
        [(DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"), (MILLISECOND, "ms"), (MICROSECOND, "us"), (1, "ns")];
    for (length, unit) in units {
        let length = length.unsigned_abs();
        if rest >= length {
            text += &format!("{}{unit}", rest / length);
            rest %= length;
        }
    }
    text
}

/// A size to be read: three digits at most, exact where that is.
pub fn format_bytes(bytes: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let Some((length, unit)) = units.into_iter().find(|(length, _)| bytes >= *length) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(length) / 2) / u128::from(length);
    match tenths {
        100.. => format!("{} {unit}", (tenths + 5) / 10),
        _ if tenths % 10 == 0 => format!("{} {unit}", tenths / 10),
        _ => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

/// A span of time in a stage's config, in nanoseconds, 0 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationText(pub DurationNs);

/// A size in a stage's config, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// An address to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl<'de> Deserialize<'de> for DurationText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match parse_duration(&text) {
            Some(span) if span >= 0 => Ok(Self(span)),
            Some(_) => Err(de::Error::custom(format!("a span of {text}\n0s or longer"))),
            None => Err(de::Error::custom(format!("`{text}` is no span of time\n{DURATION_ALLOWED}"))),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = parse_bytes(&text);
        bytes.map(Self).ok_or_else(|| de::Error::custom(format!("`{text}` is no size\n{BYTES_ALLOWED}")))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || format!("`{text}` is no address\nan IP address and a port, as in 127.0.0.1:9876 or [::1]:9876");
        text.parse().map(Self).map_err(|_| de::Error::custom(wrong()))
    }
}

/// Splits a number with an optional fraction off the front: its digits without the point, and how many of them
/// stand behind it.
fn split_number(text: &str) -> Option<((i128, u32), &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    Some(((digits.parse().ok()?, fraction.len() as u32), rest))
}

/// `digits / 10^places * unit`, rounded towards zero.
fn scale((digits, places): (i128, u32), unit: i128) -> Option<i128> {
    Some(digits.checked_mul(unit)? / 10_i128.checked_pow(places)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_what_go_makes_of_them() {
        let cases = [
            ("1s", SECOND),
            ("100ms", 100 * MILLISECOND),
            ("1h30m", 90 * MINUTE),
            ("1.5s", 1_500 * MILLISECOND),
            (".5s", 500 * MILLISECOND),
            ("1.s", SECOND),
            ("-1s", -SECOND),
            ("+2us", 2 * MICROSECOND),
            ("2µs", 2 * MICROSECOND),
            ("0", 0),
            ("7d", 7 * DAY),
            ("0.3ns", 0),
        ];
        for (text, span) in cases {
            assert_eq!(parse_duration(text), Some(span), "{text}");
        }
        for text in ["", "1", "s", "1x", "1s ", " 1s", "1.2.3s", ".s", "1s-1s", "--1s", "300y", "200000d", "9e9s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_take_binary_and_decimal_units() {
        let cases = [("1024", 1024), ("4MiB", 4 << 20), ("50GB", 50_000_000_000), ("1.5 KiB", 1536), ("2gib", 2 << 30)];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "-1", "MiB", "1 parsec", "99999999TiB", "0x10"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
        assert_eq!([1023, 4 << 20, 1_600_000, 1 << 34].map(format_bytes), ["1023 B", "4 MiB", "1.5 MiB", "16 GiB"]);
    }

    proptest! {
        #[test]
        fn a_formatted_duration_parses_back(span in any::<i64>()) {
            prop_assert_eq!(parse_duration(&format_duration(span)), Some(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = (parse_duration(&text), parse_bytes(&text));
        }
    }
}
