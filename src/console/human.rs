//! Numbers and names for people.

use crate::model::time::{MILLISECOND, SECOND};
use crate::model::{DurationNs, TimeNs, Value};
use crate::spec::units::{format_bytes, format_duration};

/// A metric's value with its unit, as short as it can be read: `1.2 GiB`, `3.4 %`, `12,345`, `0.0012`.
pub fn metric(value: Value, unit: Option<&str>) -> String {
    match unit {
        Some("By" | "B" | "byte" | "bytes") => bytes(value),
        Some("%" | "percent") => format!("{:.1} %", value.to_float()),
        _ => number(value),
    }
}

/// A count with its thousands apart: `12,345`.
pub fn count(count: u64) -> String {
    grouped(&count.to_string())
}

/// A span of time, no more exact than is of interest: whole seconds, or whole milliseconds below one.
pub fn span(span: DurationNs) -> String {
    let unit = if span >= SECOND { SECOND } else { MILLISECOND };
    format_duration(span - span % unit)
}

/// A point in time as RFC 3339 in UTC.
pub fn time(time: TimeNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time)).map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// A name from outside, safe for a terminal: what would control it is replaced.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// `text` in at most `most` characters.
pub fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

fn bytes(value: Value) -> String {
    let value = value.to_float();
    if !value.is_finite() {
        return value.to_string();
    }
    format!("{}{}", if value < 0.0 { "-" } else { "" }, format_bytes(value.abs().round() as u64))
}

fn number(value: Value) -> String {
    let Value::Float(value) = value else { return grouped(&value.to_string()) };
    let size = value.abs();
    if !value.is_finite() || value == 0.0 {
        value.to_string()
    } else if !(1e-4..1e15).contains(&size) {
        format!("{value:.3e}")
    } else {
        let places = if size < 1.0 { 4 } else { 2 };
        grouped(&format!("{value:.places$}"))
    }
}

/// Puts a comma before every third digit of the whole part.
fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("-", rest));
    let (whole, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut text = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_in_their_units() {
        let cases = [
            (Value::Uint(1_288_490_189), Some("By"), "1.2 GiB"),
            (Value::Float(-2048.0), Some("By"), "-2 KiB"),
            (Value::Float(3.449), Some("%"), "3.4 %"),
            (Value::Uint(12_345), Some("1"), "12,345"),
            (Value::Int(-1_234_567), None, "-1,234,567"),
            (Value::Int(-123), None, "-123"),
            (Value::Float(1234.5), Some("ms"), "1,234.50"),
            (Value::Float(0.00123), None, "0.0012"),
            (Value::Float(1.5e-7), None, "1.500e-7"),
            (Value::Float(-3e20), None, "-3.000e20"),
            (Value::Float(0.0), None, "0"),
            (Value::Float(f64::NAN), Some("By"), "NaN"),
        ];
        for (value, unit, text) in cases {
            assert_eq!(metric(value, unit), text);
        }
    }

    #[test]
    fn a_name_cannot_steer_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\nc\u{9b}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }

    #[test]
    fn spans_and_times_are_rounded_to_what_is_of_interest() {
        assert_eq!([span(123_456_789_000), span(1_999_999), span(0)], ["2m3s", "1ms", "0s"]);
        assert_eq!(time(1_500_000_000), "1970-01-01T00:00:01.5Z");
    }
}
