//! A word that must not be seen: where it comes from is written down, what it is never is.

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A secret, read when it is needed.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The environment variable it is in.
    Env(String),
    /// The file it is in; white space at its end does not count.
    File(String),
    /// Itself, as written in the topology file: for tests.
    Plain(String),
}

impl Secret {
    /// Reads it.
    ///
    /// # Errors
    /// There is no such variable or file.
    pub fn read(&self) -> Result<String, String> {
        match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|error| format!("environment variable {name}: {error}\n\nset it"))
            }
            Self::File(path) => {
                let read = std::fs::read_to_string(path);
                let text = read.map_err(|error| format!("cannot read {path}: {error}\n\nname a readable file"))?;
                Ok(text.trim_end().to_owned())
            }
            Self::Plain(text) => Ok(text.clone()),
        }
    }
}

/// Says where it comes from.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "Secret(env {name})"),
            Self::File(path) => write!(f, "Secret(file {path})"),
            Self::Plain(_) => f.write_str("Secret(hidden)"),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{env: NAME}, {file: PATH} or text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::Plain(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value::<String>()?;
            let secret = match key.as_str() {
                "env" => Secret::Env(value),
                "file" => Secret::File(value),
                _ => return Err(Error::unknown_field(&key, &["env", "file"])),
            };
            if found.replace(secret).is_some() {
                return Err(Error::custom("both env and file are given\none of them"));
            }
        }
        found.ok_or_else(|| Error::custom("a secret from nowhere\n{env: NAME} or {file: PATH}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_where_it_says_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hush\n").unwrap();
        let path = path.display().to_string();
        assert_eq!(Secret::File(path.clone()).read().as_deref(), Ok("hush"));
        assert!(Secret::File(format!("{path}.gone")).read().unwrap_err().contains("name a readable file"));
        assert!(
            Secret::Env("BARLINE_NO_SUCH_VARIABLE".into()).read().unwrap_err().contains("BARLINE_NO_SUCH_VARIABLE")
        );
        assert!(!format!("{:?}", Secret::Plain("hush".into())).contains("hush"));
    }
}
