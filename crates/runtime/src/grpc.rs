//! What every gRPC server of ours has besides its service: streams that end, reflection, health, refusals with reasons.
//!
//! Knows no service of ours.

pub mod health;
pub mod reflection;
pub mod status;
mod stream;

use std::{future::Future, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

pub use stream::{Closed, Sink, Streams, TooManyStreams, draining};
pub use tonic_reflection::server::Error as DescriptorError;

use crate::{listen::Incoming, telemetry::trace_context::request_span};

/// For one call that is no stream; a client may ask for less.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Calls and streams of one connection at a time; a client that wants more waits.
const MAX_CONCURRENT_CALLS: u32 = 256;
/// An open stream whose client vanished without a word ends after these two together.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);

/// Serves until `stop`, then until every call has ended. `traced`: each call gets a span, child of the caller's; without a
/// collector nobody would see it, and it costs a tenth of the shortest calls.
pub fn serve(
    routes: Routes,
    traced: bool,
    incoming: Incoming,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), tonic::transport::Error>> {
    let server = if traced {
        Server::builder().trace_fn(request_span)
    } else {
        Server::builder()
    };
    server
        .timeout(CALL_DEADLINE)
        .max_concurrent_streams(MAX_CONCURRENT_CALLS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_DEADLINE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
}
