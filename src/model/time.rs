//! Time as integers: nanoseconds since the Unix epoch, and spans of nanoseconds.

/// A point in time: nanoseconds since the Unix epoch, negative before it.
pub type TimeNs = i64;

/// A span of time in nanoseconds.
pub type DurationNs = i64;

/// Nanoseconds in a microsecond.
pub const MICROSECOND: DurationNs = 1_000;
/// Nanoseconds in a millisecond.
pub const MILLISECOND: DurationNs = 1_000_000;
/// Nanoseconds in a second.
pub const SECOND: DurationNs = 1_000_000_000;
/// Nanoseconds in a minute.
pub const MINUTE: DurationNs = 60 * SECOND;
/// Nanoseconds in an hour.
pub const HOUR: DurationNs = 60 * MINUTE;
/// Nanoseconds in a day.
pub const DAY: DurationNs = 24 * HOUR;
