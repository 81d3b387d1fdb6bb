//! `berth.scheduler.v1` over gRPC, with reflection and health: for people, scripts and other schedulers.
//!
//! Knows the wire of that service and nothing of kube-scheduler's.

mod convert;
mod service;
mod status;
mod watch;

use std::{net::SocketAddr, sync::Arc};

use berth_proto::{
    FILE_DESCRIPTOR_SET,
    scheduler::v1::placement_service_server::{PlacementServiceServer, SERVICE_NAME},
};
use berth_runtime::{
    Readiness, Tasks,
    grpc::{self, DescriptorError, Streams, health, reflection},
    identity::IdentityRules,
    listen::Listen,
    tls::ServerTls,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing::error;

use crate::{app::BuildError, decide::Decider, metrics::Metrics, pods::Pods, reserve::Reserver};

/// 10,000 node names of 253 bytes.
const MAX_REQUEST: usize = 4 << 20;

/// What the service is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) decider: Arc<Decider>,
    pub(crate) pods: Arc<Pods>,
    pub(crate) reserver: Reserver,
    pub(crate) metrics: Metrics,
    pub(crate) may_reserve: IdentityRules,
    pub(crate) readiness: Readiness,
    pub(crate) tasks: Tasks,
    /// Cancelled: every stream ends.
    pub(crate) end_streams: CancellationToken,
}

/// Bound, not served yet.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) end_streams: CancellationToken,
    listen: Listen,
    routes: Routes,
}

impl Server {
    /// Loopback is plain unless there is TLS; anything else needs it.
    pub(crate) fn bind(addr: SocketAddr, tls: Option<ServerTls>, parts: Parts) -> Result<Self, BuildError> {
        let mut listen = Listen::new();
        Ok(Self {
            addr: listen.tcp(addr, tls)?,
            end_streams: parts.end_streams.clone(),
            listen,
            routes: routes(parts)?,
        })
    }

    /// Serves until `stop`, then until every call has ended.
    pub(crate) fn start(self, tasks: &Tasks, stop: CancellationToken) -> JoinHandle<()> {
        let incoming = self.listen.start(tasks, &stop);
        let routes = self.routes;
        tasks.spawn("grpc", async move {
            if let Err(error) = grpc::serve(routes, true, incoming, stop).await {
                error!(error = &error as &dyn std::error::Error, "gRPC ended");
            }
        })
    }
}

fn routes(parts: Parts) -> Result<Routes, DescriptorError> {
    let streams = Streams::new(parts.end_streams.clone(), parts.tasks.clone());
    let health = health::service(SERVICE_NAME, parts.readiness.clone(), streams.clone());
    let end = parts.end_streams.clone();
    let service = PlacementServiceServer::new(service::Placement::new(parts, streams));
    let mut routes = Routes::builder();
    routes
        .add_service(service.max_decoding_message_size(MAX_REQUEST))
        .add_service(health);
    reflection::add(&mut routes, &[SERVICE_NAME], FILE_DESCRIPTOR_SET, &end)?;
    Ok(routes.routes().prepare())
}
