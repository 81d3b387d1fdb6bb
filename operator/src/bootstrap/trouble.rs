//! Why an attempt brought no registration, and what that means: whether waiting helps, and for what. Pure.

use std::time::Duration;

use berth_runtime::kubernetes::ApiError;
use berth_sis::{SetupError, SisError, check::Problems};
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

/// SIS never answers its cluster calls with these; a gateway before it does while SIS is being rolled out.
const OF_A_GATEWAY: [u16; 4] = [404, 405, 408, 425];
/// Whoever asks to wait longer is asked again all the same.
const LONGEST_SILENCE: Duration = Duration::from_mins(10);

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
            Self::Register(RegisterError::Sis(error)) => {
                let is_of_gateway = error.status().is_some_and(|status| OF_A_GATEWAY.contains(&status));
                !error.is_transient() && !error.is_about_token() && !is_of_gateway
            }
        }
    }

    /// SIS could not be asked, or does not want what it is asked: what is recorded stays true as far as anybody knows.
    pub const fn leaves_the_record_true(&self) -> bool {
        match self {
            Self::Register(RegisterError::ClientIdTaken { .. } | RegisterError::Sis(SisError::ClientIdTaken)) => false,
            Self::Register(_) => true,
            _ => false,
        }
    }

    /// A new token may help.
    pub const fn is_about_token(&self) -> bool {
        match self {
            Self::Register(RegisterError::Sis(error)) => error.is_about_token(),
            _ => false,
        }
    }

    /// What SIS asked to wait, within reason.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Register(RegisterError::Sis(error)) => error.retry_after().map(|asked| asked.min(LONGEST_SILENCE)),
            _ => None,
        }
    }
}

fn is_forbidden(error: &ApiError) -> bool {
    error.reason() == "ApiForbidden"
}

#[cfg(test)]
mod tests {
    use berth_sis::TokenError;
    use kube::core::Status;

    use super::*;

    fn sis(error: SisError) -> Trouble {
        Trouble::Register(error.into())
    }

    fn refused(status: u16) -> Trouble {
        sis(SisError::Refused {
            status,
            text: String::new(),
        })
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
        for permanent in [
            refused(409),
            refused(412),
            sis(SisError::ClientIdTaken),
            api(403, "Forbidden"),
            api(422, "Invalid"),
        ] {
            assert!(permanent.is_permanent(), "{permanent:?}");
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
            assert!(!passing.is_permanent(), "{passing:?}");
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
            assert!(!api.is_permanent(), "{api:?}");
        }
        assert!(api(403, "Forbidden").to_string().contains("Role"));
    }

    #[test]
    fn what_a_gateway_before_sis_answers_passes() {
        let not_found = SisError::NotFound {
            text: "no route".to_owned(),
        };
        for passing in [sis(not_found), refused(405), refused(408), refused(425)] {
            assert!(
                !passing.is_permanent() && passing.leaves_the_record_true(),
                "{passing:?}"
            );
        }
    }

    #[test]
    fn the_record_stays_true_whatever_sis_says_unless_another_cluster_has_the_client_id() {
        for trouble in [
            refused(400),
            refused(412),
            sis(SisError::KeySetOutage),
            sis(SisError::Forbidden),
        ] {
            assert!(trouble.leaves_the_record_true(), "{trouble:?}");
        }
        assert!(!sis(SisError::ClientIdTaken).leaves_the_record_true());
        assert!(!api(503, "ServiceUnavailable").leaves_the_record_true());
    }

    #[test]
    fn sis_is_asked_again_however_long_it_wants_to_be_left_alone() {
        let busy = |seconds| {
            sis(SisError::Busy {
                retry_after: Some(Duration::from_secs(seconds)),
            })
        };
        assert_eq!(busy(65).retry_after(), Some(Duration::from_secs(65)));
        assert_eq!(busy(1_000_000).retry_after(), Some(Duration::from_mins(10)));
    }
}
