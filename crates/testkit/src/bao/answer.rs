//! What the API answers: the envelope of a success, and the refusals with their status and words.

use serde_json::{Map, Value, json};
use thiserror::Error;
use uuid::Uuid;

/// A status and a body; `None`: no content.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Option<Value>,
}

/// Why a request is refused. The words are OpenBao's: clients match on some of them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("{0}")]
    BadRequest(String),
    #[error("permission denied")]
    BadToken,
    /// OpenBao wraps this one in the list format of its error library.
    #[error("1 error occurred:\n\t* permission denied\n\n")]
    Denied,
    /// Nothing there: a 404 without words.
    #[error("not found")]
    NotFound,
    #[error("1 error occurred:\n\t* unsupported operation\n\n")]
    UnsupportedOperation,
    #[error("no handler for route {0:?}. route entry not found.")]
    NoRoute(String),
    #[error("1 error occurred:\n\t* unsupported path\n\n")]
    UnsupportedPath,
    #[error("Vault is sealed")]
    Sealed,
    #[error("{0}")]
    Internal(String),
}

// === impl Answer ===

impl Answer {
    pub(super) fn nothing() -> Self {
        Self {
            status: 204,
            body: None,
        }
    }

    /// A body of its own form: `sys/health`, `jwks`.
    pub(super) fn raw(status: u16, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
        }
    }

    /// The envelope around data without a lease.
    pub(super) fn data(data: Value) -> Self {
        Self::envelope(200, &[("data", data)])
    }

    /// Data that goes with a 404: a deleted version's metadata.
    pub(super) fn gone(data: Value) -> Self {
        Self::envelope(404, &[("data", data)])
    }

    /// Data with a lease of so many seconds that cannot be renewed.
    pub(super) fn leased(data: Value, lease: &str, seconds: u64) -> Self {
        let fields = [
            ("data", data),
            ("lease_id", json!(lease)),
            ("lease_duration", json!(seconds)),
        ];
        Self::envelope(200, &fields)
    }

    pub(super) fn auth(auth: Value) -> Self {
        Self::envelope(200, &[("auth", auth)])
    }

    fn envelope(status: u16, fields: &[(&str, Value)]) -> Self {
        let mut body = json!({
            "request_id": Uuid::new_v4(), "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": null, "wrap_info": null, "warnings": null, "auth": null,
        });
        let object: Option<&mut Map<String, Value>> = body.as_object_mut();
        if let Some(object) = object {
            object.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        }
        Self {
            status,
            body: Some(body),
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let words = match &refusal {
            Refusal::NotFound => Vec::new(),
            other => vec![other.to_string()],
        };
        Self::raw(refusal.status(), json!({ "errors": words }))
    }
}

// === impl Refusal ===

impl Refusal {
    pub fn bad(words: impl Into<String>) -> Self {
        Self::BadRequest(words.into())
    }

    pub const fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::BadToken | Self::Denied => 403,
            Self::NotFound | Self::NoRoute(_) | Self::UnsupportedPath => 404,
            Self::UnsupportedOperation => 405,
            Self::Sealed => 503,
            Self::Internal(_) => 500,
        }
    }

    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "BadRequest",
            Self::BadToken => "BadToken",
            Self::Denied => "Denied",
            Self::NotFound => "NotFound",
            Self::UnsupportedOperation => "UnsupportedOperation",
            Self::NoRoute(_) => "NoRoute",
            Self::UnsupportedPath => "UnsupportedPath",
            Self::Sealed => "Sealed",
            Self::Internal(_) => "Internal",
        }
    }
}
