//! What a profile's types cannot say: everything out of bounds is found before anything is sent.

use crate::{
    dimensions::Dimensions,
    naive::NaiveBars,
    profile::{Field, FieldType, MAX_FIELDS, Profile},
    units::SECOND,
};

/// Disorder and lateness reach back at most an hour.
const OLDEST: u64 = 3_600 * SECOND as u64;

impl Profile {
    /// Checks everything the types cannot.
    ///
    /// # Errors
    /// The first thing that is out of bounds, with what is allowed.
    pub fn check(&self) -> Result<(), String> {
        self.check_numbers()?;
        self.check_oddities()?;
        self.check_fields()?;
        NaiveBars::new(self)?;
        Dimensions::new(self, "R0")?.check_distinct(self.series.0)
    }

    fn check_numbers(&self) -> Result<(), String> {
        within("series", self.series.0, 1, 1 << 24)?;
        within("connections", self.connections.0, 1, 256)?;
        within("batch", self.batch.0, 1, 50_000)?;
        within("in_flight", self.in_flight.0, 1, 65_536)?;
        within("event_rate", self.event_rate.0, 1, SECOND as u64)?;
        within("window in nanoseconds", self.window.0 as u64, 1, 86_400 * SECOND as u64)?;
        real("skew", self.skew, 0.0, 10.0)?;
        if !self.shared_series && self.series.0 < self.connections.0 {
            return Err(format!(
                "{} series cannot be shared out over {} connections, lower `connections` or set `shared_series: true`",
                self.series.0, self.connections.0
            ));
        }
        Ok(())
    }

    fn check_oddities(&self) -> Result<(), String> {
        if let Some(burst) = self.burst {
            within("burst.every in nanoseconds", burst.every.0 as u64, 1_000_000, 86_400 * SECOND as u64)?;
            real("burst.factor", burst.factor, 1.0, 1_000.0)?;
        }
        // Older ticks would expire rather than be late.
        within("late.by in nanoseconds", self.late.map_or(0, |l| l.by.0 as u64), 0, OLDEST)?;
        within("disorder.up_to in nanoseconds", self.disorder.map_or(0, |d| d.up_to.0 as u64), 0, OLDEST)?;
        let shares = [
            ("disorder.fraction", self.disorder.map(|d| d.fraction)),
            ("late.fraction", self.late.map(|l| l.fraction)),
            ("duplicates.fraction", self.duplicates.map(|d| d.fraction)),
            ("bad.fraction", self.bad.map(|b| b.fraction)),
        ]
        .map(|(name, share)| (name, share.unwrap_or_default()));
        shares.iter().try_for_each(|(name, share)| real(name, *share, 0.0, 1.0))?;
        real(
            "the sum of the fractions of disorder, late, duplicates and bad",
            shares.iter().map(|s| s.1).sum(),
            0.0,
            1.0,
        )
    }

    fn check_fields(&self) -> Result<(), String> {
        within("the number of fields", self.fields.len() as u64, 1, MAX_FIELDS as u64)?;
        for (index, field) in self.fields.iter().enumerate() {
            let place = format!("field {:?}", field.name);
            if self.fields[..index].iter().any(|other| other.name == field.name) {
                return Err(format!("{place} is there twice, give it another name"));
            }
            if let Some(other) = field.when.keys().find(|name| !self.dimensions.iter().any(|d| d.name == **name)) {
                return Err(format!("{place}: `when` names {other:?}, which is no dimension of the profile"));
            }
            field.check().map_err(|e| format!("{place}: {e}"))?;
        }
        Ok(())
    }
}

impl Field {
    fn check(&self) -> Result<(), String> {
        within("the length of the name", self.name.len() as u64, 1, 100)?;
        real("absent", self.absent, 0.0, 1.0)?;
        real("divisor", self.divisor, 1e-9, 1e12)?;
        self.values.check()?;
        if self.ty == FieldType::Uint64 && self.values.lowest() < 0 {
            return Err("values below 0 do not fit uint64, raise `min` or use int64".to_owned());
        }
        Ok(())
    }
}

fn within(what: &str, value: u64, low: u64, high: u64) -> Result<(), String> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(format!("{what} is {value}, {low} to {high} is allowed")) }
}

fn real(what: &str, value: f64, low: f64, high: f64) -> Result<(), String> {
    if (low..=high).contains(&value) { Ok(()) } else { Err(format!("{what} is {value}, {low} to {high} is allowed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_numbers_are_refused_with_what_is_allowed() {
        let check = |text: &str| Profile::load("market", &[text.to_owned()]).unwrap().check().unwrap_err();
        assert!(check("series=0").contains("1 to"));
        assert!(check("late={fraction: 2, by: 1s}").contains("0 to 1"));
        assert!(check("connections=300").contains("1 to 256"));
        assert!(check("series=1").contains("shared_series"));
        assert!(check("late={fraction: 0.1, by: 25h}").contains("late.by"));
        assert!(check("metrics=[{name: open, field: prize, aggregation: first}]").contains("no field"));
        assert!(check("metrics=[{name: open, field: price, aggregation: frist}]").contains("stddev"));
        assert!(check("burst={every: 10s, factor: 0.5}").contains("1 to 1000"));
    }
}
