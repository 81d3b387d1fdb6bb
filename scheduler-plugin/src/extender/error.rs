//! Requests that get no answer of their verb.

use std::time::Duration;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use thiserror::Error;

use super::{Answer, error_body};

/// Why a request was not served. kube-scheduler logs the status only; a person with curl sees the text.
#[derive(Debug, Error)]
pub(super) enum ExtenderError {
    #[error("the body is not {what}: {source}")]
    Malformed {
        what: &'static str,
        // Not only linked but told: it names line and column, and this text is all that the client gets.
        source: serde_json::Error,
    },
    #[error(
        "the body is larger than {0} bytes: set nodeCacheCapable: true in kube-scheduler's configuration, or raise --max-body"
    )]
    TooLarge(usize),
    #[error("the body could not be read: {0}")]
    BodyBroken(String),
    #[error("the body was not complete after {0:?}")]
    BodyLate(Duration),
    #[error("what follows the verb's `?` is not understood: {0}; filter takes ?top=NUMBER, the others nothing")]
    Query(String),
    #[error("{0} requests are being served already: try again, or raise --max-requests")]
    Overloaded(usize),
    /// Prioritize and preempt have no field for an error.
    #[error("{message}")]
    Protocol { reason: &'static str, message: String },
}

impl ExtenderError {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "MalformedBody",
            Self::TooLarge(_) => "BodyTooLarge",
            Self::BodyBroken(_) => "BodyBroken",
            Self::BodyLate(_) => "BodyTimeout",
            Self::Query(_) => "InvalidQuery",
            Self::Overloaded(_) => "Overloaded",
            Self::Protocol { reason, .. } => reason,
        }
    }

    const fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed { .. } | Self::BodyBroken(_) | Self::Query(_) | Self::Protocol { .. } => {
                (StatusCode::BAD_REQUEST, "bad_request")
            }
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::BodyLate(_) => (StatusCode::REQUEST_TIMEOUT, "timeout"),
            Self::Overloaded(_) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
        }
    }

    pub(super) fn answer(&self) -> Answer {
        let (status, outcome) = self.status();
        let body = Json(error_body(format!("{}: {self}", self.reason())));
        let response: Response = (status, body).into_response();
        Answer { response, outcome }
    }
}
