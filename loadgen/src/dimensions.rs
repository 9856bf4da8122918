//! The dimensions of the run's series: a pure function of (profile, run, series number).

use std::collections::{BTreeMap, HashMap};

use crate::profile::{DimensionRule, Profile};

/// Makes the dimensions of every series of a run.
#[derive(Debug, Clone)]
pub struct Dimensions {
    run: String,
    rules: Vec<(String, Rule)>,
}

#[derive(Debug, Clone)]
enum Rule {
    Template(Vec<Part>),
    InTurn(Vec<String>),
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Run,
    /// `series / divisor % modulus`.
    Series {
        divisor: u64,
        modulus: u64,
    },
}

impl Dimensions {
    /// Reads the rules of `profile` for the run named `run`.
    ///
    /// # Errors
    /// A template that does not parse, a dimension with no rule or two, and no `{run}` anywhere.
    pub fn new(profile: &Profile, run: &str) -> Result<Self, String> {
        let mut rules: Vec<(String, Rule)> = Vec::new();
        for written in &profile.dimensions {
            if rules.iter().any(|(name, _)| *name == written.name) {
                return Err(format!("dimension {:?} is there twice, give it another name", written.name));
            }
            let rule = Rule::read(written).map_err(|e| format!("dimension {:?}: {e}", written.name))?;
            rules.push((written.name.clone(), rule));
        }
        if !rules.iter().any(|(_, rule)| rule.names_the_run()) {
            return Err("no dimension has {run} in its value, so that two runs would share their series".to_owned());
        }
        Ok(Self { run: run.to_owned(), rules })
    }

    /// The dimensions' names, in the profile's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|(name, _)| name.as_str())
    }

    /// The values of `series`, in the profile's order.
    pub fn values(&self, series: u64) -> impl Iterator<Item = String> + '_ {
        self.rules.iter().map(move |(_, rule)| rule.value(&self.run, series))
    }

    /// Whether the dimensions of `series` have one of the values `when` asks for, in every dimension it names.
    pub fn fit(&self, series: u64, when: &BTreeMap<String, Vec<String>>) -> bool {
        let fits = |(name, allowed): (&String, &Vec<String>)| {
            let rule = self.rules.iter().find(|(n, _)| n == name);
            rule.is_some_and(|(_, rule)| allowed.contains(&rule.value(&self.run, series)))
        };
        when.iter().all(fits)
    }

    /// The values of `series` as one string, distinct for distinct values.
    pub fn key(&self, series: u64) -> String {
        joined(self.values(series))
    }

    /// The same of dimensions a server sent; `None` where they are not those of the profile.
    pub fn key_of(&self, dimensions: &HashMap<String, String>) -> Option<String> {
        if dimensions.len() != self.rules.len() {
            return None;
        }
        let values: Option<Vec<&str>> = self.names().map(|name| dimensions.get(name).map(String::as_str)).collect();
        Some(joined(values?))
    }

    /// Checks that the first `series` series differ.
    ///
    /// # Errors
    /// The first two that do not.
    pub fn check_distinct(&self, series: u64) -> Result<(), String> {
        let mut seen = HashMap::with_capacity(series as usize);
        for number in 0..series {
            if let Some(other) = seen.insert(self.key(number), number) {
                return Err(format!(
                    "series {other} and {number} have the same dimensions, use {{series}} in one of them or lower `series`"
                ));
            }
        }
        Ok(())
    }
}

impl Rule {
    fn read(written: &DimensionRule) -> Result<Self, String> {
        match (&written.value, &written.values) {
            (Some(template), None) => parts(template).map(Self::Template),
            (None, Some(values)) if !values.is_empty() => Ok(Self::InTurn(values.clone())),
            _ => Err("give either `value` (a template) or `values` (a list that is not empty)".to_owned()),
        }
    }

    fn names_the_run(&self) -> bool {
        matches!(self, Self::Template(parts) if parts.iter().any(|part| matches!(part, Part::Run)))
    }

    fn value(&self, run: &str, series: u64) -> String {
        match self {
            Self::InTurn(values) => values[series as usize % values.len()].clone(),
            Self::Template(parts) => parts.iter().map(|part| part.text(run, series)).collect(),
        }
    }
}

impl Part {
    fn text(&self, run: &str, series: u64) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Run => run.to_owned(),
            Self::Series { divisor, modulus } => (series / divisor % modulus).to_string(),
        }
    }
}

/// Splits a template into its parts.
fn parts(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').ok_or_else(|| format!("{template:?} has a `{{` without its `}}`"))? + open;
        parts.push(Part::Text(rest[..open].to_owned()));
        parts.push(placeholder(&rest[open + 1..close])?);
        rest = &rest[close + 1..];
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

fn placeholder(name: &str) -> Result<Part, String> {
    let wrong = || {
        format!("{{{name}}} is unknown, {{run}}, {{series}}, {{series/N}}, {{series%M}} and {{series/N%M}} are allowed")
    };
    if name == "run" {
        return Ok(Part::Run);
    }
    let arithmetic = name.strip_prefix("series").ok_or_else(wrong)?;
    let (division, modulus) = arithmetic.split_once('%').unwrap_or((arithmetic, ""));
    let number = |text: &str, default: u64| match text {
        "" => Ok(default),
        text => text.parse().ok().filter(|n| *n > 0).ok_or_else(wrong),
    };
    let divisor = match division.strip_prefix('/') {
        Some(divisor) => number(divisor, 0).and_then(|n| if n == 0 { Err(wrong()) } else { Ok(n) })?,
        None if division.is_empty() => 1,
        None => return Err(wrong()),
    };
    Ok(Part::Series { divisor, modulus: number(modulus, u64::MAX)? })
}

/// Joins values behind their lengths, so that no two different lists become the same string.
fn joined<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> String {
    let mut key = String::new();
    for value in values {
        key.push_str(&value.as_ref().len().to_string());
        key.push(':');
        key.push_str(value.as_ref());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_divides_and_takes_the_rest() {
        let rule = Rule::Template(parts("{run}-{series/10%4}.{series%10}").unwrap());
        assert_eq!(rule.value("R1", 57), "R1-1.7");
    }

    #[test]
    fn a_wrong_placeholder_is_answered_with_the_right_ones() {
        for template in ["{sereis}", "{series*2}", "{series/0}", "{series%x}", "{series/}"] {
            assert!(parts(template).unwrap_err().contains("{series/N}"), "{template}");
        }
        assert!(parts("{run").is_err());
    }

    #[test]
    fn a_server_s_dimensions_lead_back_to_the_series() {
        let profile = Profile::load("network", &[]).unwrap();
        let dimensions = Dimensions::new(&profile, "R7").unwrap();
        let sent = dimensions.names().map(str::to_owned).zip(dimensions.values(123)).collect();
        assert_eq!(dimensions.key_of(&sent), Some(dimensions.key(123)));
    }
}
