//! From YAML and `key=value` overrides to a [`Profile`].

use std::path::Path;

use crate::profile::Profile;

/// The profiles that come with the program, by name.
pub const SHIPPED: [(&str, &str); 4] = [
    ("market", include_str!("../profiles/market.yaml")),
    ("network", include_str!("../profiles/network.yaml")),
    ("asic", include_str!("../profiles/asic.yaml")),
    ("host", include_str!("../profiles/host.yaml")),
];

impl Profile {
    /// Reads the shipped profile `name`, or the file of that name, and applies `key=value` overrides.
    /// The numbers are not checked yet: see [`Profile::check`].
    ///
    /// # Errors
    /// A file that cannot be read, YAML that does not fit, an override that names no key.
    pub fn load(name: &str, overrides: &[String]) -> Result<Self, String> {
        let text = match SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            Some((_, text)) => (*text).to_owned(),
            None => std::fs::read_to_string(Path::new(name)).map_err(|e| {
                let shipped: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
                format!("profile {name:?} is no file ({e}) and none of {}", shipped.join(", "))
            })?,
        };
        let profile: Self = yaml(&text).map_err(|e| format!("profile {name}: {e}"))?;
        if overrides.is_empty() { Ok(profile) } else { overridden(name, &text, overrides) }
    }
}

/// Reads YAML in which only `true` and `false` are booleans, so that `n` or `off` can be a name or a value.
fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, serde_yaml::Error> {
    serde_yaml::from_str_with_options(text, serde_yaml::options! { strict_booleans: true })
}

/// Lays `key=value` pairs over the profile's YAML; a key may be a path as in `disorder.fraction`.
fn overridden(name: &str, text: &str, overrides: &[String]) -> Result<Profile, String> {
    let mut root: serde_json::Value = yaml(text).map_err(|e| format!("profile {name}: {e}"))?;
    for written in overrides {
        let (path, value) = written
            .split_once('=')
            .ok_or_else(|| format!("--set {written}: write it as key=value, as in series=5000"))?;
        let value = yaml(value).map_err(|e| format!("--set {written}: {e}"))?;
        let mut place = &mut root;
        for key in path.split('.') {
            if place.is_null() {
                *place = serde_json::Value::Object(serde_json::Map::new());
            }
            let keys =
                place.as_object_mut().ok_or_else(|| format!("--set {written}: {key:?} is below a plain value"))?;
            place = keys.entry(key).or_insert(serde_json::Value::Null);
        }
        *place = value;
    }
    serde_json::from_value(root).map_err(|e| format!("--set {}: {e}", overrides.join(" --set ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Rate, Span};

    #[test]
    fn every_shipped_profile_is_sound() {
        for (name, _) in SHIPPED {
            Profile::load(name, &[]).unwrap().check().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }

    #[test]
    fn an_override_reaches_a_nested_key_and_a_wrong_one_is_named() {
        let set = |text: &str| Profile::load("market", &[text.to_owned()]);
        let disorder = set("disorder={fraction: 0.25, up_to: 50ms}").unwrap().disorder.unwrap();
        assert_eq!((disorder.fraction, disorder.up_to), (0.25, Span(50_000_000)));
        assert_eq!(set("rate=max").unwrap().rate, Rate::Max);
        assert!(set("late.by=2s").unwrap_err().contains("fraction"));
        assert!(set("colour=red").unwrap_err().contains("colour"));
        assert!(set("series").unwrap_err().contains("key=value"));
    }
}
