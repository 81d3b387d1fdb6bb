//! The gRPC server: `berth.node.v1` with reflection and health, the same on every listener.

mod convert;
mod health;
mod lease;
mod node;
mod reflection;
pub(crate) mod status;
mod stream;
mod watch;

use std::{future::Future, sync::Arc, time::Duration};

use berth_gpu::MonitorHandle;
use berth_proto::node::v1::node_service_server::NodeServiceServer;
use berth_runtime::{
    Readiness, Tasks, identity::IdentityRules, listen::Incoming, telemetry::trace_context::request_span,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

pub(crate) use convert::node::{Identity, node as wire_node};
use node::NodeApi;
use stream::Streams;

use crate::{book::Book, metrics::Metrics};

/// For one call that is no stream; a client may ask for less.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Calls and streams of one connection at a time; a client that wants more waits.
const MAX_CONCURRENT_CALLS: u32 = 256;
/// The largest request is a Reserve with 256 preferred devices: about 30 KiB.
const MAX_REQUEST: usize = 256 << 10;
/// An open stream whose client vanished without a word ends after these two together.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);

/// What the services are made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) book: Book,
    pub(crate) monitor: Arc<MonitorHandle>,
    pub(crate) may_change: IdentityRules,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    pub(crate) tasks: Tasks,
    pub(crate) identity: Arc<Identity>,
    /// Cancelled: nothing new is granted.
    pub(crate) refuse: CancellationToken,
    /// Cancelled: every stream ends.
    pub(crate) end_streams: CancellationToken,
}

/// The server cannot be put together or ended by an error.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    #[error("the gRPC descriptors cannot be read")]
    Descriptors(#[source] tonic_reflection::server::Error),
}

/// The services, ready to be served.
pub(crate) fn routes(parts: Parts) -> Result<Routes, ServeError> {
    let streams = Streams::new(parts.end_streams.clone(), parts.tasks.clone());
    let health = health::service(parts.readiness.clone(), streams.clone());
    let end = parts.end_streams.clone();
    let node = NodeServiceServer::new(NodeApi::new(parts, streams)).max_decoding_message_size(MAX_REQUEST);
    let mut routes = Routes::builder();
    routes.add_service(node).add_service(health);
    reflection::add(&mut routes, &end).map_err(ServeError::Descriptors)?;
    Ok(routes.routes().prepare())
}

/// Serves until `stop`, then until every call has ended. `traced`: each call gets a span, child of the caller's; without a
/// collector nobody would see it, and it costs a tenth of a Reserve.
pub(crate) fn serve(
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
