//! The gRPC server: `berth.node.v1` with reflection and health, the same on every listener.

mod convert;
mod lease;
mod node;
pub(crate) mod status;
mod watch;

use std::sync::Arc;

use berth_gpu::MonitorHandle;
use berth_proto::{
    FILE_DESCRIPTOR_SET,
    node::v1::node_service_server::{NodeServiceServer, SERVICE_NAME},
};
use berth_runtime::{
    Readiness, Tasks,
    grpc::{DescriptorError, Streams, health, reflection},
    identity::IdentityRules,
};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub(crate) use convert::node::{Identity, node as wire_node};
use node::NodeApi;

use crate::{book::Book, metrics::Metrics};

/// The largest request is a Reserve with 256 preferred devices: about 30 KiB.
const MAX_REQUEST: usize = 256 << 10;
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
    Descriptors(#[source] DescriptorError),
}

/// The services, ready to be served.
pub(crate) fn routes(parts: Parts) -> Result<Routes, ServeError> {
    let streams = Streams::new(parts.end_streams.clone(), parts.tasks.clone());
    let health = health::service(SERVICE_NAME, parts.readiness.clone(), streams.clone());
    let end = parts.end_streams.clone();
    let node = NodeServiceServer::new(NodeApi::new(parts, streams)).max_decoding_message_size(MAX_REQUEST);
    let mut routes = Routes::builder();
    routes.add_service(node).add_service(health);
    reflection::add(&mut routes, &[SERVICE_NAME], FILE_DESCRIPTOR_SET, &end).map_err(ServeError::Descriptors)?;
    Ok(routes.routes().prepare())
}
