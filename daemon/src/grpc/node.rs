//! `berth.node.v1.NodeService`: each method checks who asks, converts, asks the book, converts back.

use std::{future::Future, sync::Arc, time::Duration};

use berth_gpu::AcknowledgeError;
use berth_ledger::{Event, Reply, RequestRefused};
use berth_placement::DeviceUuid;
use berth_proto::node::v1::{
    AcknowledgeHealthRequest, AcknowledgeHealthResponse, AcquireLeaseRequest, AcquireLeaseResponse, ExplainFitRequest,
    ExplainFitResponse, GetNodeRequest, GetNodeResponse, ListAllocationsRequest, ListAllocationsResponse,
    ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse, SetDeviceSchedulableRequest,
    SetDeviceSchedulableResponse, WatchNodeRequest, WatchNodeResponse, node_service_server::NodeService,
};
use berth_runtime::{grpc::Streams, listen::PeerInfo};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status, codegen::BoxStream};
use uuid::Uuid;

use super::{
    Parts,
    convert::{self, device, node, node::Identity},
    lease,
    status::{ApiError, InvalidValue},
    watch::{self, PacedViews},
};
use crate::{
    book::{BookError, NodeView},
    metrics::Method,
};

/// The longest that a client may wait for a lease: a day.
const MAX_WAIT: Duration = Duration::from_hours(24);

#[derive(Debug)]
pub(super) struct NodeApi {
    parts: Parts,
    identity: Arc<Identity>,
    streams: Streams,
}

impl NodeApi {
    pub(super) fn new(parts: Parts, streams: Streams) -> Self {
        let identity = Arc::clone(&parts.identity);
        Self {
            parts,
            identity,
            streams,
        }
    }

    /// Counts and measures a call, and turns its error into a status.
    async fn call<T>(
        &self,
        method: Method,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Response<T>, Status> {
        let call = self.parts.metrics.call(method);
        match work.await {
            Ok(answer) => {
                call.ok();
                Ok(Response::new(answer))
            }
            Err(error) => {
                tracing::debug!(method = method.as_str(), reason = error.reason(), error = %error, "refused");
                call.refused(error.code(), error.reason());
                Err(error.into())
            }
        }
    }

    /// Who changes something: an allowed client, and not while the daemon ends.
    fn changer<T>(&self, request: &Request<T>) -> Result<String, ApiError> {
        if self.parts.refuse.is_cancelled() {
            return Err(ApiError::Draining);
        }
        let Some(peer) = request.extensions().get::<PeerInfo>() else {
            // Every listener of ours tells who is there.
            return Err(ApiError::Book(BookError::Closed));
        };
        self.parts.may_change.allows(peer.identity())?;
        Ok(peer.identity().to_string())
    }

    fn view_with_readings(&self) -> NodeView {
        let view = self.parts.book.views().current();
        view.with_readings(&self.parts.monitor.inventory.borrow())
    }

    async fn reserve_for_pod(&self, request: Request<ReserveRequest>) -> Result<ReserveResponse, ApiError> {
        let client = self.changer(&request)?;
        let answer = self
            .parts
            .book
            .request(convert::reserve(request.into_inner(), client)?)
            .await?;
        let Reply::Granted { claim, existing } = answer.reply else {
            return Err(ApiError::Book(BookError::Closed));
        };
        Ok(ReserveResponse {
            allocation: Some(convert::allocation(&claim, &answer.view.book)),
            existing,
            generation: answer.view.generation(),
        })
    }

    async fn give_back(&self, request: Request<ReleaseRequest>) -> Result<ReleaseResponse, ApiError> {
        self.changer(&request)?;
        let holder = convert::released_holder(request.into_inner())?;
        let answer = self.parts.book.request(Event::Release { holder }).await?;
        let released = matches!(answer.reply, Reply::Released { was_held: true });
        Ok(ReleaseResponse {
            released,
            generation: answer.view.generation(),
        })
    }

    async fn explain(&self, request: ExplainFitRequest) -> Result<ExplainFitResponse, ApiError> {
        let shape = convert::shape(request.shape)?;
        let (verdict, view) = self.parts.book.explain(shape).await?;
        Ok(convert::verdict(&verdict, &view))
    }

    async fn set_schedulable(
        &self,
        request: Request<SetDeviceSchedulableRequest>,
    ) -> Result<SetDeviceSchedulableResponse, ApiError> {
        let client = self.changer(&request)?;
        let SetDeviceSchedulableRequest {
            device_uuid,
            schedulable,
            message,
        } = request.into_inner();
        let device: DeviceUuid = convert::id(&device_uuid, "device_uuid")?;
        let message = convert::text(message, "message")?;
        tracing::info!(%device, schedulable, message, client, "SetDeviceSchedulable");
        let event = Event::SetSchedulable {
            device: device.clone(),
            schedulable,
            message,
        };
        let answer = self.parts.book.request(event).await?;
        Ok(SetDeviceSchedulableResponse {
            device: node::device(&answer.view, &device),
        })
    }

    async fn acknowledge(
        &self,
        request: Request<AcknowledgeHealthRequest>,
    ) -> Result<AcknowledgeHealthResponse, ApiError> {
        let client = self.changer(&request)?;
        let AcknowledgeHealthRequest { device_uuid, message } = request.into_inner();
        let uuid: DeviceUuid = convert::id(&device_uuid, "device_uuid")?;
        let message = convert::text(message, "message")?;
        tracing::info!(device = %uuid, message, client, "AcknowledgeHealth");
        let acknowledged =
            self.parts
                .monitor
                .acknowledge(uuid.clone(), message)
                .await
                .map_err(|error| match error {
                    AcknowledgeError::UnknownDevice(uuid) => {
                        ApiError::Book(BookError::Refused(RequestRefused::UnknownDevice(uuid)))
                    }
                    AcknowledgeError::Busy => ApiError::MonitorBusy,
                    AcknowledgeError::Stopped => ApiError::Draining,
                })?;
        // The view follows within a moment; the answer does not wait for it.
        let device = node::device(&self.parts.book.views().current(), &uuid);
        let device = device.map(|known| berth_proto::node::v1::Device {
            health: Some(device::health(&acknowledged.health)),
            ..known
        });
        Ok(AcknowledgeHealthResponse { device })
    }

    async fn lease(&self, request: Request<AcquireLeaseRequest>) -> Result<BoxStream<AcquireLeaseResponse>, ApiError> {
        let identity = self.changer(&request)?;
        let AcquireLeaseRequest { shape, client, wait_ms } = request.into_inner();
        let client = convert::text(client, "client")?;
        let wanted = lease::Request {
            lease: Uuid::new_v4()
                .to_string()
                .parse()
                .map_err(|error| InvalidValue::Id(error).of("lease_id"))?,
            shape: convert::shape(shape)?,
            client: if client.is_empty() {
                identity
            } else {
                format!("{identity}, {client}")
            },
            wait: Duration::from_millis(wait_ms).min(MAX_WAIT),
        };
        let (started, start) = oneshot::channel();
        let book = self.parts.book.clone();
        let stream = self
            .streams
            .open("lease", |sink| lease::run(sink, book, wanted, started))?;
        start.await.map_err(|_| ApiError::Draining)??;
        Ok(stream)
    }

    fn watch(&self, request: WatchNodeRequest) -> Result<BoxStream<WatchNodeResponse>, ApiError> {
        let follow = watch::Follow {
            views: PacedViews::new(self.parts.book.views().subscribe()),
            readings: self.parts.monitor.inventory.clone(),
            identity: Arc::clone(&self.identity),
            after_generation: request.after_generation,
        };
        Ok(self.streams.open("watch-node", |sink| follow.run(sink))?)
    }
}

#[tonic::async_trait]
impl NodeService for NodeApi {
    type WatchNodeStream = BoxStream<WatchNodeResponse>;
    type AcquireLeaseStream = BoxStream<AcquireLeaseResponse>;

    async fn get_node(&self, _: Request<GetNodeRequest>) -> Result<Response<GetNodeResponse>, Status> {
        let work = async {
            Ok(GetNodeResponse {
                node: Some(node::node(&self.view_with_readings(), &self.identity)),
            })
        };
        self.call(Method::GetNode, work).await
    }

    async fn watch_node(&self, request: Request<WatchNodeRequest>) -> Result<Response<Self::WatchNodeStream>, Status> {
        self.call(Method::WatchNode, async { self.watch(request.into_inner()) })
            .await
    }

    async fn list_allocations(
        &self,
        _: Request<ListAllocationsRequest>,
    ) -> Result<Response<ListAllocationsResponse>, Status> {
        let work = async { Ok(node::allocations(&self.parts.book.views().current())) };
        self.call(Method::ListAllocations, work).await
    }

    async fn reserve(&self, request: Request<ReserveRequest>) -> Result<Response<ReserveResponse>, Status> {
        self.call(Method::Reserve, self.reserve_for_pod(request)).await
    }

    async fn release(&self, request: Request<ReleaseRequest>) -> Result<Response<ReleaseResponse>, Status> {
        self.call(Method::Release, self.give_back(request)).await
    }

    async fn explain_fit(&self, request: Request<ExplainFitRequest>) -> Result<Response<ExplainFitResponse>, Status> {
        self.call(Method::ExplainFit, self.explain(request.into_inner())).await
    }

    async fn set_device_schedulable(
        &self,
        request: Request<SetDeviceSchedulableRequest>,
    ) -> Result<Response<SetDeviceSchedulableResponse>, Status> {
        self.call(Method::SetDeviceSchedulable, self.set_schedulable(request))
            .await
    }

    async fn acknowledge_health(
        &self,
        request: Request<AcknowledgeHealthRequest>,
    ) -> Result<Response<AcknowledgeHealthResponse>, Status> {
        self.call(Method::AcknowledgeHealth, self.acknowledge(request)).await
    }

    async fn acquire_lease(
        &self,
        request: Request<AcquireLeaseRequest>,
    ) -> Result<Response<Self::AcquireLeaseStream>, Status> {
        self.call(Method::AcquireLease, self.lease(request)).await
    }
}
