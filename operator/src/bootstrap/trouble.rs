//! Why an attempt brought no registration, and what that means: whether waiting helps, and for what. Pure.

use std::time::Duration;

use berth_runtime::kubernetes::ApiError;
use berth_sis::{SetupError, check::Problems};
use thiserror::Error;

use crate::{cluster_dto::DtoError, names, registration::RegisterError};

/// An attempt that failed. Never holds a token.
#[derive(Debug, Error)]
pub enum Trouble {
    #[error(
        "there is no ConfigMap {map} in the namespace {namespace}: is the chart installed there, or is --system-namespace another?",
        map = names::CLUSTER_DTO
    )]
    NoDto { namespace: String },
    #[error(transparent)]
    Dto(#[from] DtoError),
    #[error(
        "SIS would refuse the cluster as the ConfigMap {map} describes it: correct the chart's values",
        map = names::CLUSTER_DTO
    )]
    Cluster(#[from] Problems),
    #[error("SIS cannot be asked: look at icmsConfig in the ConfigMap {map}, or at --sis-url", map = names::CLUSTER_DTO)]
    Setup(#[from] SetupError),
    #[error(
        "cannot {doing} in the namespace {namespace}{hint}",
        hint = if is_forbidden(source) { ": the chart's Role must allow it to the service account" } else { "" }
    )]
    Api {
        doing: &'static str,
        namespace: String,
        #[source]
        source: ApiError,
    },
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error("another process has taken the Lease over while the cluster was being registered")]
    LeaseLost,
}

impl Trouble {
    /// Stable, for logs and metric labels.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoDto { .. } => "ClusterDtoMissing",
            Self::Dto(error) => error.reason(),
            Self::Cluster(problems) => problems.reason(),
            Self::Setup(error) => error.reason(),
            Self::Api { source, .. } => source.reason(),
            Self::Register(error) => error.reason(),
            Self::LeaseLost => "LeaseLost",
        }
    }

    /// Waiting does not help: somebody has to change something first.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Dto(_) | Self::Cluster(_) | Self::Setup(_) | Self::Register(RegisterError::ClientIdTaken { .. }) => {
                true
            }
            Self::NoDto { .. } | Self::LeaseLost | Self::Register(RegisterError::NotListed { .. }) => false,
            // The kubelet renews the service account's token.
            Self::Api { source, .. } => {
                !source.is_transient() && !source.is_conflict() && source.reason() != "ApiUnauthorized"
            }
            Self::Register(RegisterError::Sis(error)) => !error.is_transient() && !error.is_about_token(),
        }
    }

    /// SIS could not be asked, or the token is not good for it: what is recorded stays true as far as anybody knows.
    pub fn is_of_sis(&self) -> bool {
        matches!(self, Self::Register(_)) && !self.is_permanent()
    }

    /// A new token may help.
    pub const fn is_about_token(&self) -> bool {
        match self {
            Self::Register(RegisterError::Sis(error)) => error.is_about_token(),
            _ => false,
        }
    }

    /// What SIS asked to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Register(RegisterError::Sis(error)) => error.retry_after(),
            _ => None,
        }
    }
}

fn is_forbidden(error: &ApiError) -> bool {
    error.reason() == "ApiForbidden"
}

#[cfg(test)]
mod tests {
    use berth_sis::{SisError, TokenError};
    use kube::core::Status;

    use super::*;

    fn sis(error: SisError) -> Trouble {
        Trouble::Register(error.into())
    }

    fn api(code: u16, reason: &str) -> Trouble {
        let status = Status::failure("x", reason).with_code(code);
        Trouble::Api {
            doing: "read the ConfigMap",
            namespace: "nvca-operator".to_owned(),
            source: ApiError::Refused(Box::new(status)),
        }
    }

    #[test]
    fn what_a_person_must_change_is_permanent_and_what_passes_is_not() {
        let refused = |status| {
            sis(SisError::Refused {
                status,
                text: String::new(),
            })
        };
        for permanent in [
            refused(409),
            refused(412),
            sis(SisError::ClientIdTaken),
            api(403, "Forbidden"),
            api(422, "Invalid"),
        ] {
            assert!(permanent.is_permanent() && !permanent.is_of_sis(), "{permanent:?}");
        }
        let busy = SisError::Busy {
            retry_after: Some(Duration::from_secs(65)),
        };
        let expired = SisError::Token(TokenError::Expired { seconds: 9 });
        for passing in [
            sis(busy),
            sis(SisError::KeySetOutage),
            sis(expired),
            sis(SisError::Forbidden),
        ] {
            assert!(!passing.is_permanent() && passing.is_of_sis(), "{passing:?}");
        }
        let identity = sis(SisError::Identity {
            text: "x provided clusterId".into(),
        });
        assert!(
            identity.is_about_token() && !identity.is_permanent() && identity.to_string().contains("another cluster's")
        );
        for api in [
            api(401, "Unauthorized"),
            api(503, "ServiceUnavailable"),
            api(409, "Conflict"),
        ] {
            assert!(!api.is_permanent() && !api.is_of_sis(), "{api:?}");
        }
        assert!(api(403, "Forbidden").to_string().contains("Role"));
    }
}
