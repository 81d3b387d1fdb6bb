//! The worker's environment as it comes: base64 of `KEY=VALUE` lines. It says what to run, and holds secrets. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{LaunchError, decode};

/// Not shown: it holds tokens.
pub(super) struct Environment(BTreeMap<String, String>);

#[derive(Deserialize)]
struct Pair {
    key: String,
    value: String,
}

impl Environment {
    pub(super) fn parse(base64: &str) -> Result<Self, LaunchError> {
        let bytes = decode("launchSpecification.environment", base64)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let pairs = lines.map(|line| {
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            (key.to_owned(), unquoted(value))
        });
        Ok(Self(pairs.collect()))
    }

    /// `None` where it is empty, as where it is missing.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    /// What the cluster says in place of what came; empty: nothing. Names may come in small letters.
    pub(super) fn override_with(&mut self, overrides: &BTreeMap<String, String>) {
        let overrides = overrides.iter();
        self.0
            .extend(overrides.map(|(name, value)| (name.to_ascii_uppercase(), value.clone())));
    }

    pub(super) fn into_map(self) -> BTreeMap<String, String> {
        self.0
    }

    /// The user's own: base64 of a JSON list of keys and values.
    pub(super) fn pairs(&self, name: &'static str) -> Result<BTreeMap<String, String>, LaunchError> {
        let Some(base64) = self.get(name) else {
            return Ok(BTreeMap::new());
        };
        let pairs: Vec<Pair> = serde_json::from_slice(&decode(name, base64)?)
            .map_err(|_| LaunchError::unreadable(name, "it is no list of keys and values as JSON"))?;
        Ok(pairs.into_iter().map(|pair| (pair.key, pair.value)).collect())
    }
}

/// `"1"` is `1`, as the senders of numbers write it.
fn unquoted(value: &str) -> String {
    if value.len() >= 2 && value.starts_with('"') {
        serde_json::from_str(value).unwrap_or_else(|_| value.to_owned())
    } else {
        value.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};

    use super::*;

    #[test]
    fn lines_are_read_with_what_is_in_them() {
        let text = "A=1\n\n  B=\"2\"\nTOKEN=a=b==\nEMPTY=\nC\nQ=\"half\n";
        let environment = Environment::parse(&BASE64_STANDARD.encode(text)).unwrap();
        for (name, value) in [
            ("A", Some("1")),
            ("B", Some("2")),
            ("TOKEN", Some("a=b==")),
            ("EMPTY", None),
            ("C", None),
            ("Q", Some("\"half")),
        ] {
            assert_eq!(environment.get(name), value, "{name}");
        }
        assert!(Environment::parse("%").is_err());
    }
}
