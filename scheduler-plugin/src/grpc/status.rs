//! From errors to what goes over the wire: which code and reason each has.

use berth_placement::{ParseIdError, ShapeError};
use berth_runtime::{
    grpc::{TooManyStreams, status},
    identity::Denied,
};
use thiserror::Error;
use tonic::{Code, Status};

use crate::reserve::BindError;

/// Why a call did not do what it was asked.
#[derive(Debug, Clone, Error)]
pub(super) enum ApiError {
    #[error("{field}: {problem}")]
    Invalid { field: &'static str, problem: InvalidValue },
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Reserve(#[from] BindError),
    #[error(transparent)]
    Streams(#[from] TooManyStreams),
    #[error("no pod {0} asked this scheduler lately: explain its shape instead")]
    UnknownPod(String),
    #[error("the API server has not told yet which nodes there are: try again")]
    ClusterUnknown,
    #[error("the work ended without an answer; see the scheduler's log")]
    Lost,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum InvalidValue {
    #[error("it is missing")]
    Missing,
    #[error("it asks for more than {limit}")]
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
            Self::TooMany { .. } => "FieldTooLarge",
            Self::Id(_) => "FieldInvalid",
            Self::Shape(error) => error.reason(),
        }
    }

    pub(super) fn of(self, field: &'static str) -> ApiError {
        ApiError::Invalid { field, problem: self }
    }
}

impl ApiError {
    /// Stable CamelCase name: `ErrorInfo.reason`, and the metric's label.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Invalid { problem, .. } => problem.reason(),
            Self::Denied(denied) => denied.reason(),
            Self::Reserve(error) => error.reason(),
            Self::Streams(_) => "TooManyStreams",
            Self::UnknownPod(_) => "UnknownPod",
            Self::ClusterUnknown => "ClusterUnknown",
            Self::Lost => "Lost",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::Denied(_) => Code::PermissionDenied,
            Self::UnknownPod(_) => Code::NotFound,
            Self::Streams(_) => Code::ResourceExhausted,
            Self::Reserve(error) => match error {
                BindError::Daemon(error) if error.outcome_unknown => Code::Unavailable,
                BindError::NoRoom(_) | BindError::Daemon(_) => Code::ResourceExhausted,
                BindError::Id(_) | BindError::UnknownPod | BindError::OtherPod { .. } => Code::InvalidArgument,
                BindError::Late(_) | BindError::InProgress(_) | BindError::BinderLate(_) => Code::DeadlineExceeded,
                BindError::Draining | BindError::Binder(_) => Code::Unavailable,
                BindError::Lost => Code::Internal,
            },
            Self::ClusterUnknown => Code::Unavailable,
            Self::Lost => Code::Internal,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        match &error {
            ApiError::Invalid { field, problem } => status::bad_field(problem.reason(), field, &problem.to_string()),
            _ => status::refusal(error.code(), error.reason(), error.to_string()),
        }
    }
}
