//! Durations and counts as people write them: `250ms`, `30s`, `100k`, `2M`.

use serde::{Deserialize, Serialize, Serializer};

/// A span of time in nanoseconds.
pub type Nanos = i64;

/// Nanoseconds in a second.
pub const SECOND: Nanos = 1_000_000_000;

/// A duration as written in a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Nanos);

/// A whole number as written in a profile: `5000` or `5k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Count(pub u64);

/// How fast ticks are sent, over all connections.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub enum Rate {
    /// As fast as the server takes them.
    Max,
    /// Ticks per second.
    PerSecond(f64),
}

/// A YAML scalar that is a number, or a number with a suffix.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Whole(u64),
    Real(f64),
    Text(String),
}

/// Reads `1h`, `2m`, `30s`, `1.5s`, `250ms`, `10us` or `5ns` as nanoseconds.
///
/// # Errors
/// Anything else, a negative or an overlong duration.
pub fn duration(text: &str) -> Result<Nanos, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return Err(format!("duration {text:?} has no known unit, write one of ns, us, ms, s, m, h as in 250ms")),
    };
    match number.parse::<f64>() {
        Ok(value) if value >= 0.0 && value * scale < 9.2e18 => Ok((value * scale).round() as Nanos),
        _ => Err(format!("duration {text:?} is not a number and a unit, write it as in 250ms")),
    }
}

/// Reads `5000`, `5k`, `2M`, `1.5M` or `1G` as a whole number.
///
/// # Errors
/// Anything else, a negative or fractional number.
pub fn count(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a whole number, write it as in 5000, 5k or 2M");
    let (number, scale) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1e3),
        Some(b'M') => (&text[..text.len() - 1], 1e6),
        Some(b'G') => (&text[..text.len() - 1], 1e9),
        _ => return text.parse().map_err(|_| wrong()),
    };
    let value = number.parse::<f64>().map_err(|_| wrong())? * scale;
    if (0.0..9e15).contains(&value) && value.fract() == 0.0 { Ok(value as u64) } else { Err(wrong()) }
}

/// Reads `max` or ticks per second as in `20000`, `100k`, `0.5`.
///
/// # Errors
/// Anything else, and a rate that is not above zero.
pub fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let value = text.parse::<f64>().ok().or_else(|| count(text).ok().map(|n| n as f64));
    match value {
        Some(value) if value > 0.0 && value <= 1e9 => Ok(Rate::PerSecond(value)),
        _ => Err(format!("rate {text:?} is neither `max` nor ticks per second in (0, 1G], write it as in 100k")),
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ns", self.0))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Max => serializer.serialize_str("max"),
            Self::PerSecond(rate) => serializer.serialize_f64(*rate),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        duration(&text).map(Self)
    }
}

impl TryFrom<Written> for Count {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        count(&written.text()).map(Self)
    }
}

impl TryFrom<Written> for Rate {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        rate(&written.text())
    }
}

impl Written {
    fn text(&self) -> String {
        match self {
            Self::Whole(n) => n.to_string(),
            Self::Real(n) => n.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_counts_are_read_with_their_units() {
        assert_eq!(duration("1.5s"), Ok(1_500_000_000));
        assert_eq!(duration("250ms"), Ok(250_000_000));
        assert_eq!(count("1.5M"), Ok(1_500_000));
        assert_eq!(rate("max"), Ok(Rate::Max));
        assert_eq!(rate("20k"), Ok(Rate::PerSecond(20_000.0)));
    }

    #[test]
    fn nonsense_is_answered_with_what_is_allowed() {
        assert!(duration("5").unwrap_err().contains("250ms"));
        assert!(duration("-1s").is_err());
        assert!(count("1.5").is_err());
        assert!(rate("0").unwrap_err().contains("max"));
        assert!(rate("NaN").is_err());
    }
}
