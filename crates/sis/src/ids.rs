//! Names that the service gives or takes, parsed once: cluster ids and accounts. Knows no request.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

mod md5;

/// Longer is no id of anybody's.
const LONGEST: usize = 256;

/// A cluster's id, as the service gave it. Never empty, and safe in a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterId(String);

/// The id of a cluster group. As [`ClusterId`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterGroupId(String);

/// An account of the control plane (NCA id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NcaId(String);

/// A text that cannot be such an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("the {what} is empty")]
    Empty { what: &'static str },
    #[error(
        "the {what} {value:?} holds {found:?}, which cannot be part of a request's path; use letters, digits, - and _"
    )]
    Character {
        what: &'static str,
        value: String,
        found: char,
    },
    #[error("the {what} has {length} characters, at most {LONGEST}")]
    TooLong { what: &'static str, length: usize },
}

// === impl ClusterId ===

impl ClusterId {
    /// The id that the service derives from an OAuth client id: the MD5 of its bytes as a version 3 UUID, without a
    /// name space (Java's `UUID.nameUUIDFromBytes`).
    pub fn of_client(client_id: &str) -> Self {
        let mut bytes = md5::digest(client_id.as_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x30;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 0xf), 16).unwrap_or('0'));
        }
        Self(text)
    }

    /// Whether a token with this `sub` may act for the cluster: the service's rule.
    pub fn is_identity_of(&self, subject: &str) -> bool {
        self.0 == subject || *self == Self::of_client(subject)
    }
}

// === impl IdError ===

impl IdError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Empty { .. } => "IdEmpty",
            Self::Character { .. } => "IdCharacter",
            Self::TooLong { .. } => "IdTooLong",
        }
    }
}

fn parsed(what: &'static str, value: &str) -> Result<String, IdError> {
    let value = value.trim();
    if value.is_empty() {
        return Err(IdError::Empty { what });
    }
    if value.len() > LONGEST {
        let length = value.len();
        return Err(IdError::TooLong { what, length });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':');
    if let Some(found) = value.chars().find(|c| !allowed(c)) {
        let value = value.to_owned();
        return Err(IdError::Character { what, value, found });
    }
    if value.contains("..") || value == "." {
        let (value, found) = (value.to_owned(), '.');
        return Err(IdError::Character { what, value, found });
    }
    Ok(value.to_owned())
}

macro_rules! id {
    ($name:ident, $what:literal) => {
        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(value: &str) -> Result<Self, IdError> {
                parsed($what, value).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(value: String) -> Result<Self, IdError> {
                value.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(ClusterId, "cluster id");
id!(ClusterGroupId, "cluster group id");
id!(NcaId, "account (NCA id)");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_client_is_the_one_that_the_service_gives() {
        // Observed on the real service for the client id `nvca`.
        assert_eq!(
            ClusterId::of_client("nvca").as_str(),
            "56f71ab9-94a3-320a-9fd9-457477edeea2"
        );
        let id = ClusterId::of_client("nvca");
        assert!(id.is_identity_of("nvca") && id.is_identity_of(id.as_str()) && !id.is_identity_of("nvca-operator"));
    }

    #[test]
    fn an_id_is_never_empty_and_never_leaves_its_place_in_a_path() {
        for bad in ["", "  ", "a/b", "a b", "..", "a..b", "a%2Fb", "a;b", "a?b", "ä"] {
            assert!(bad.parse::<ClusterId>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<NcaId>(bad.into()).is_err(), "{bad:?}");
        }
        assert_eq!(" nvcf-default\n".parse::<NcaId>().unwrap().as_str(), "nvcf-default");
    }
}
