//! From errors to what goes over the wire: which code and reason each has.
//!
//! Every status carries `google.rpc.ErrorInfo` with the stable reason, and `google.rpc.BadRequest` where one field is to
//! blame. A code says what a client may do: `UNAVAILABLE` may be tried again here, `RESOURCE_EXHAUSTED` elsewhere or
//! later, the rest not before something is changed.

use berth_ledger::RequestRefused;
use berth_placement::{ParseIdError, ShapeError};
use berth_runtime::{
    grpc::{TooManyStreams, status},
    identity::Denied,
};
use thiserror::Error;
use tonic::{Code, Status};

use crate::book::BookError;

/// Why a call did not do what it was asked.
#[derive(Debug, Clone, Error)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Book(#[from] BookError),
    #[error("the driver's monitor cannot take this now")]
    MonitorBusy,
    #[error(transparent)]
    Streams(#[from] TooManyStreams),
    #[error("the daemon is shutting down")]
    Draining,
}

/// A field of a request that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub(crate) struct InvalidField {
    pub(crate) field: &'static str,
    pub(crate) problem: InvalidValue,
}

/// What is wrong with the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidValue {
    #[error("it is missing")]
    Missing,
    #[error("it has more than {limit} bytes")]
    TooLong { limit: usize },
    #[error("it has more than {limit} entries")]
    TooMany { limit: usize },
    #[error(transparent)]
    Id(#[from] ParseIdError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
}

impl InvalidValue {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "FieldMissing",
            Self::TooLong { .. } | Self::TooMany { .. } => "FieldTooLarge",
            Self::Id(_) => "FieldInvalid",
            Self::Shape(error) => error.reason(),
        }
    }

    pub(crate) fn of(self, field: &'static str) -> InvalidField {
        InvalidField { field, problem: self }
    }
}

impl ApiError {
    /// Stable CamelCase name: `ErrorInfo.reason`, and the metric's label.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(field) => field.problem.reason(),
            Self::Denied(denied) => denied.reason(),
            Self::Book(error) => error.reason(),
            Self::MonitorBusy => "MonitorBusy",
            Self::Streams(_) => "TooManyStreams",
            Self::Draining => "Draining",
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Denied(_) => Code::PermissionDenied,
            Self::Book(BookError::Refused(refused)) => match refused {
                RequestRefused::NotReconciled => Code::Unavailable,
                RequestRefused::NoRoom(_) => Code::ResourceExhausted,
                RequestRefused::HolderHasOther { .. } => Code::AlreadyExists,
                RequestRefused::UnknownDevice(_) => Code::NotFound,
                RequestRefused::NothingAsked => Code::InvalidArgument,
            },
            Self::Book(BookError::JournalUnavailable { .. } | BookError::Closed)
            | Self::MonitorBusy
            | Self::Draining => Code::Unavailable,
            Self::Streams(_) => Code::ResourceExhausted,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        match &error {
            ApiError::Invalid(InvalidField { field, problem }) => {
                status::bad_field(problem.reason(), field, &problem.to_string())
            }
            _ => status::refusal(error.code(), error.reason(), error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    #[test]
    fn a_status_carries_the_reason_and_the_field() {
        let status = Status::from(ApiError::from(
            InvalidValue::from(ShapeError::Count(0)).of("shape.whole.count"),
        ));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("InvalidGpuCount", "gpu.berth.dev")
        );
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "shape.whole.count"
        );
    }

    #[test]
    fn the_code_tells_a_client_what_to_do() {
        let code = |refused| ApiError::Book(BookError::Refused(refused)).code();
        assert_eq!(code(RequestRefused::NotReconciled), Code::Unavailable);
        assert_eq!(code(RequestRefused::NothingAsked), Code::InvalidArgument);
        assert_eq!(
            code(RequestRefused::UnknownDevice("GPU-1".parse().unwrap())),
            Code::NotFound
        );
        assert_eq!(ApiError::Draining.code(), Code::Unavailable);
    }
}
