//! What an answer of the service means: the one place that reads its statuses and texts.
//!
//! Texts: the project's notes on the real service. An outage and a refused token both come as 401; they differ in
//! `WWW-Authenticate`: without `error=` the service could not even look at the token.

use std::time::Duration;

use crate::{TokenError, check::Problems};

/// A call that brought no result. Never holds a token.
#[derive(Debug, thiserror::Error)]
pub enum SisError {
    #[error("no request was sent")]
    Token(#[from] TokenError),
    #[error("no request was sent")]
    Problems(#[from] Problems),
    #[error("SIS cannot be reached at {url}")]
    Unreachable {
        url: String,
        #[source]
        source: Box<reqwest::Error>,
    },
    #[error("SIS did not answer within {limit:?}")]
    Deadline { limit: Duration },
    #[error(
        "SIS could not check the token (401 without an error): its key set at OpenBao is out of its reach, or it does not \
         know the issuer"
    )]
    KeySetOutage,
    #[error("SIS refused the token: {why}")]
    TokenRefused { why: String },
    #[error("SIS refused the call (403): the token lacks the scope for it")]
    Forbidden,
    #[error("SIS refused the token: it is longer than 2048 bytes")]
    TokenTooLong,
    #[error("a cluster of this name exists already")]
    NameExists,
    #[error("the client id belongs to another cluster: one cluster per client id; give this one another oAuthClientId")]
    ClientIdTaken,
    #[error("the token is another cluster's: {text}")]
    Identity { text: String },
    #[error("SIS knows no such thing: {text}")]
    NotFound { text: String },
    #[error("SIS refused the request ({status}): {text}")]
    Refused { status: u16, text: String },
    #[error("SIS has too many requests to answer")]
    Busy { retry_after: Option<Duration> },
    #[error("SIS failed ({status}): {text}")]
    Failed {
        status: u16,
        text: String,
        retry_after: Option<Duration>,
    },
    #[error("what answered at {url} is not SIS: {why}")]
    Nonsense { url: String, why: String },
}

/// The parts of an answer that an error is made of.
#[derive(Debug, Default)]
pub(crate) struct Refusal<'a> {
    pub(crate) status: u16,
    pub(crate) authenticate: &'a str,
    pub(crate) retry_after: Option<Duration>,
    /// `error` or `detail` of the body, or the start of the body.
    pub(crate) text: String,
}

// === impl SisError ===

impl SisError {
    /// Stable, for conditions, events and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Token(error) => error.reason(),
            Self::Problems(problems) => problems.reason(),
            Self::Unreachable { .. } => "SisUnreachable",
            Self::Deadline { .. } => "SisDeadline",
            Self::KeySetOutage => "SisCannotCheckToken",
            Self::TokenRefused { .. } => "TokenRefused",
            Self::Forbidden => "TokenScope",
            Self::TokenTooLong => "TokenTooLong",
            Self::NameExists => "ClusterNameExists",
            Self::ClientIdTaken => "ClientIdTaken",
            Self::Identity { .. } => "TokenSubject",
            Self::NotFound { .. } => "SisNotFound",
            Self::Refused { .. } => "SisRefused",
            Self::Busy { .. } => "SisTooManyRequests",
            Self::Failed { .. } => "SisFailed",
            Self::Nonsense { .. } => "SisNonsense",
        }
    }

    /// The same request may succeed later without anybody doing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Deadline { .. }
                | Self::KeySetOutage
                | Self::Busy { .. }
                | Self::Failed { .. }
                | Self::Nonsense { .. }
        )
    }

    /// It is about the token: a new one in the file may help.
    pub const fn is_about_token(&self) -> bool {
        matches!(
            self,
            Self::Token(_) | Self::TokenRefused { .. } | Self::Forbidden | Self::TokenTooLong | Self::Identity { .. }
        )
    }

    /// The request may have been carried out although there is no answer: look before asking again.
    pub const fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Deadline { .. } | Self::Failed { .. } | Self::Nonsense { .. }
        )
    }

    /// What the service asked to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after } | Self::Failed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The status that was answered, where there was an answer.
    pub const fn status(&self) -> Option<u16> {
        Some(match self {
            Self::KeySetOutage | Self::TokenRefused { .. } => 401,
            Self::Forbidden => 403,
            Self::TokenTooLong => 431,
            Self::NameExists => 400,
            Self::ClientIdTaken | Self::Identity { .. } => 409,
            Self::NotFound { .. } => 404,
            Self::Busy { .. } => 429,
            Self::Refused { status, .. } | Self::Failed { status, .. } => *status,
            _ => return None,
        })
    }

    /// Itself and its causes, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}

// === impl Refusal ===

impl Refusal<'_> {
    pub(crate) fn into_error(self) -> SisError {
        let Self {
            status,
            authenticate,
            retry_after,
            text,
        } = self;
        match status {
            401 if authenticate.contains("error=") => SisError::TokenRefused {
                why: description(authenticate).map_or(text, str::to_owned),
            },
            401 => SisError::KeySetOutage,
            403 => SisError::Forbidden,
            431 => SisError::TokenTooLong,
            400 if text.starts_with("Cluster with clusterName ") && text.ends_with(" already exists") => {
                SisError::NameExists
            }
            409 if text.starts_with("Provided ") && text.ends_with("is already registered with another cluster") => {
                SisError::ClientIdTaken
            }
            409 if text.contains("provided clusterId is not matching with")
                || text.starts_with("PSAT token audience does not match") =>
            {
                SisError::Identity { text }
            }
            404 => SisError::NotFound { text },
            429 => SisError::Busy { retry_after },
            500.. => SisError::Failed {
                status,
                text,
                retry_after,
            },
            _ => SisError::Refused { status, text },
        }
    }
}

/// `error_description="…"` of a `WWW-Authenticate`.
fn description(authenticate: &str) -> Option<&str> {
    let (_, rest) = authenticate.split_once("error_description=\"")?;
    rest.split_once('"').map(|(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, authenticate: &str, text: &str) -> SisError {
        Refusal {
            status,
            authenticate,
            retry_after: None,
            text: text.to_owned(),
        }
        .into_error()
    }

    #[test]
    fn a_401_without_error_is_an_outage_and_one_with_it_is_about_the_token() {
        let bare = r#"Bearer resource_metadata="http://sis/.well-known/oauth-protected-resource""#;
        let outage = refused(401, bare, "Authentication failure - Full authentication is required");
        assert_eq!((outage.reason(), outage.is_transient()), ("SisCannotCheckToken", true));
        let full =
            r#"Bearer error="invalid_token", error_description="Jwt expired at 2026-11-23T01:06:46Z", error_uri="x""#;
        let about = refused(401, full, "Authentication failure - …");
        assert_eq!(
            (about.reason(), about.is_transient(), about.is_about_token()),
            ("TokenRefused", false, true)
        );
        assert_eq!(
            about.to_string(),
            "SIS refused the token: Jwt expired at 2026-11-23T01:06:46Z"
        );
    }

    #[test]
    fn the_texts_of_the_service_are_known_and_strange_ones_are_passed_on() {
        for (status, text, reason) in [
            (400, "Cluster with clusterName c1 already exists", "ClusterNameExists"),
            (
                409,
                "Provided nvca client ID is already registered with another cluster",
                "ClientIdTaken",
            ),
            (
                409,
                "x provided clusterId is not matching with y clientId from auth token",
                "TokenSubject",
            ),
            (
                409,
                "x provided clusterId is not matching with OIDC workload token issuer y",
                "TokenSubject",
            ),
            (
                409,
                "Specified cloudProvider AWS is different than cloudProvider of clusterGroup",
                "SisRefused",
            ),
            (404, "Cluster with clusterId x doesn't exists", "SisNotFound"),
            (412, "The cluster name x exceeds the limit of 32 chars", "SisRefused"),
            (500, "Internal Server Error", "SisFailed"),
            (503, "", "SisFailed"),
        ] {
            let error = refused(status, "", text);
            assert_eq!((error.reason(), error.status()), (reason, Some(status)), "{text}");
        }
    }
}
