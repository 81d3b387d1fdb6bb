//! What a refusal looks like on the wire: the only place that makes a `tonic::Status` with details.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::stream::TooManyStreams;

/// The domain of every reason.
const ERROR_DOMAIN: &str = "gpu.berth.dev";

/// A status with `google.rpc.ErrorInfo`, which carries the stable reason.
pub fn refusal(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, info(reason))
}

/// [`refusal`] of a request in which one field is to blame, with `google.rpc.BadRequest`.
pub fn bad_field(reason: &str, field: &str, problem: &str) -> Status {
    let mut details = info(reason);
    details.add_bad_request_violation(field, problem);
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {problem}"), details)
}

fn info(reason: &str) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, ERROR_DOMAIN, std::collections::HashMap::new());
    details
}

impl From<TooManyStreams> for Status {
    fn from(error: TooManyStreams) -> Self {
        refusal(Code::ResourceExhausted, "TooManyStreams", error.to_string())
    }
}
