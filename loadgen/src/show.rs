//! `loadgen profiles` and `loadgen show`: what would be sent, in words.

use std::{fmt::Write, sync::Arc};

use crate::{
    generate::{Fate, Stream, Tick},
    load::SHIPPED,
    plan::{Limit, Plan},
    profile::Profile,
    units::SECOND,
};

/// The shipped profiles, one a line.
///
/// # Errors
/// A shipped profile that does not load.
pub fn profiles() -> Result<String, String> {
    let mut text = String::new();
    for (name, _) in SHIPPED {
        let profile = Profile::load(name, &[])?;
        let _ = writeln!(text, "{name:8}  {:14}  {}", profile.spec, profile.about);
    }
    Ok(text)
}

/// The first `count` ticks of every connection of `profile`, as of the run that begins at the epoch's second
/// 1 700 000 000.
///
/// # Errors
/// See [`Plan::new`].
pub fn ticks(profile: Profile, count: u64) -> Result<String, String> {
    let ticks = Limit::Ticks(count * profile.connections.0);
    let plan = Arc::new(Plan::new(profile, ticks, 1_700_000_000 * SECOND)?);
    let mut text = String::new();
    for connection in 0..plan.connections() {
        let mut stream = Stream::new(&plan, connection);
        for _ in 0..count {
            let line = line(&plan, stream.next());
            let _ = writeln!(text, "{connection}  {line}");
        }
    }
    Ok(text)
}

fn line(plan: &Plan, tick: &Tick) -> String {
    let pairs = plan.dimensions.names().zip(plan.dimensions.values(tick.series.into()));
    let series: Vec<String> = pairs.map(|(name, value)| format!("{name}={value}")).collect();
    let fields = plan.profile.fields.iter().enumerate().filter(|(f, _)| tick.present >> f & 1 == 1);
    let fields: Vec<String> = fields
        .map(|(f, field)| format!("{}={}", field.name, tick.values[f] as f64 / plan.profile.divisor(f)))
        .collect();
    let bad = if tick.fate == Fate::Accepted { String::new() } else { format!("  {:?}", tick.fate) };
    format!("{}.{:<5}  {}  {}{bad}", tick.timestamp, tick.sequence, series.join(" "), fields.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_profile_is_listed_and_shown() {
        assert_eq!(profiles().unwrap().lines().count(), SHIPPED.len());
        for (name, _) in SHIPPED {
            let profile = Profile::load(name, &["connections=2".to_owned()]).unwrap();
            assert_eq!(ticks(profile, 3).unwrap().lines().count(), 6, "{name}");
        }
    }
}
