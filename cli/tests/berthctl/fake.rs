//! A NodeService on a unix socket that says what a test tells it to.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_proto::node::v1::{
    self as pb, acquire_lease_response::Event, node_service_server::NodeService, node_service_server::NodeServiceServer,
};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{
    net::UnixListener,
    runtime::{Builder, Runtime},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream, WatchStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The daemon. When this is dropped it ends without a word, as `kill -9` does, and leaves the socket's file behind.
pub(crate) struct Fake {
    pub(crate) state: Arc<State>,
    pub(crate) dir: Arc<TempDir>,
    /// Of its own, because connections outlive the server's task, but not their runtime.
    runtime: Option<Runtime>,
}

/// What it says and what it was told.
pub(crate) struct State {
    pub(crate) node: watch::Sender<pb::Node>,
    pub(crate) book: Mutex<pb::ListAllocationsResponse>,
    pub(crate) mood: Mutex<Mood>,
    /// The calls that change something, in order, as text.
    pub(crate) calls: Mutex<Vec<String>>,
    /// The request of the last AcquireLease, and the way to its stream.
    pub(crate) lease: Mutex<Option<(pb::AcquireLeaseRequest, LeaseSender)>>,
    /// Open AcquireLease streams.
    pub(crate) open_leases: watch::Sender<usize>,
}

pub(crate) type LeaseSender = mpsc::Sender<Result<pb::AcquireLeaseResponse, Status>>;

/// How it answers whatever it is asked.
#[derive(Clone, Default)]
pub(crate) enum Mood {
    #[default]
    Willing,
    /// Grants these devices to a lease.
    Grants(Vec<pb::Grant>),
    /// Lets a lease wait until the test says more.
    LetsWait,
    Refuses(Status),
    Hangs,
}

pub(crate) const LEASE: &str = "0192f3c4-5b5c-7a0e-8b6c-3d2f9c1a0b11";

pub(crate) fn uuid(index: u32) -> String {
    format!("GPU-{index:08x}-5b5c-7a0e-2b6c-3d2f9c1a0b11")
}

pub(crate) fn device(index: u32) -> pb::Device {
    let memory_bytes = 80 << 30;
    pb::Device {
        uuid: uuid(index),
        index,
        model: "H100".to_owned(),
        memory_bytes,
        health: Some(pb::Health {
            state: pb::HealthState::Healthy.into(),
            ..pb::Health::default()
        }),
        schedulable: true,
        free: Some(pb::Room {
            milli: 1000,
            memory_bytes,
        }),
        ..pb::Device::default()
    }
}

pub(crate) fn grant(index: u32) -> pb::Grant {
    pb::Grant {
        device_uuid: uuid(index),
        index,
        milli: 1000,
        memory_bytes: 80 << 30,
        ..pb::Grant::default()
    }
}

pub(crate) fn lease(grants: Vec<pb::Grant>) -> pb::Allocation {
    pb::Allocation {
        holder: Some(pb::allocation::Holder::LeaseId(LEASE.to_owned())),
        state: pb::AllocationState::Leased.into(),
        grants,
        ..pb::Allocation::default()
    }
}

pub(crate) fn news(event: Event, reason: &str, message: &str) -> pb::AcquireLeaseResponse {
    pb::AcquireLeaseResponse {
        event: event.into(),
        allocation: Some(lease(vec![grant(0)])),
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// As berthd refuses: with the reason in the details.
pub(crate) fn refusal(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "gpu.berth.dev", std::collections::HashMap::new());
    Status::with_error_details(code, message, details)
}

// === impl Fake ===

impl Fake {
    /// A node of two GPUs that nobody holds.
    pub(crate) fn start() -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), "instance-1")
    }

    /// In the place of another one that ended.
    pub(crate) fn start_in(dir: Arc<TempDir>, instance: &str) -> Self {
        let node = pb::Node {
            name: "fake-node".to_owned(),
            generation: 1,
            instance_id: instance.to_owned(),
            version: "0.1.0".to_owned(),
            devices: vec![device(0), device(1)],
            ..pb::Node::default()
        };
        let state = Arc::new(State {
            node: watch::Sender::new(node),
            book: Mutex::default(),
            mood: Mutex::default(),
            calls: Mutex::default(),
            lease: Mutex::default(),
            open_leases: watch::Sender::new(0),
        });
        let path = socket(dir.path());
        drop(std::fs::remove_file(&path));
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = NodeServiceServer::new(Service(Arc::clone(&state)));
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(path).unwrap()
        };
        let incoming = UnixListenerStream::new(listener);
        let server = Server::builder().add_service(service).serve_with_incoming(incoming);
        runtime.spawn(async move { server.await.unwrap() });
        Self {
            state,
            dir,
            runtime: Some(runtime),
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:{}", socket(self.dir.path()).display())
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.state.mood.lock() = mood;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.calls.lock().clone()
    }

    /// Changes the node as a new generation.
    pub(crate) fn change(&self, change: impl FnOnce(&mut pb::Node)) {
        self.state.node.send_modify(|node| {
            change(node);
            node.generation += 1;
        });
    }

    /// Tells the client of the open lease.
    pub(crate) async fn tell(&self, news: Result<pb::AcquireLeaseResponse, Status>) {
        let sender = self
            .state
            .lease
            .lock()
            .as_ref()
            .expect("a lease was asked for")
            .1
            .clone();
        sender.send(news).await.unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("berthd.sock")
}

// === impl State ===

impl State {
    async fn obey_mood(&self) -> Result<(), Status> {
        let mood = self.mood.lock().clone();
        match mood {
            Mood::Willing | Mood::Grants(_) | Mood::LetsWait => Ok(()),
            Mood::Refuses(status) => Err(status),
            Mood::Hangs => std::future::pending().await,
        }
    }

    fn note(&self, call: String) {
        self.calls.lock().push(call);
    }

    fn find(&self, uuid: &str) -> Option<pb::Device> {
        self.node
            .borrow()
            .devices
            .iter()
            .find(|device| device.uuid == uuid)
            .cloned()
    }
}

struct Service(Arc<State>);

type BoxStream<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Service {
    type WatchNodeStream = BoxStream<pb::WatchNodeResponse>;
    type AcquireLeaseStream = BoxStream<pb::AcquireLeaseResponse>;

    async fn get_node(&self, _: Request<pb::GetNodeRequest>) -> Result<Response<pb::GetNodeResponse>, Status> {
        self.0.obey_mood().await?;
        let node = self.0.node.borrow().clone();
        Ok(Response::new(pb::GetNodeResponse { node: Some(node) }))
    }

    async fn watch_node(&self, _: Request<pb::WatchNodeRequest>) -> Result<Response<Self::WatchNodeStream>, Status> {
        self.0.obey_mood().await?;
        let nodes = WatchStream::new(self.0.node.subscribe());
        let nodes = nodes.map(|node| Ok(pb::WatchNodeResponse { node: Some(node) }));
        Ok(Response::new(Box::pin(nodes)))
    }

    async fn list_allocations(
        &self,
        _: Request<pb::ListAllocationsRequest>,
    ) -> Result<Response<pb::ListAllocationsResponse>, Status> {
        self.0.obey_mood().await?;
        Ok(Response::new(self.0.book.lock().clone()))
    }

    async fn reserve(&self, request: Request<pb::ReserveRequest>) -> Result<Response<pb::ReserveResponse>, Status> {
        self.0.obey_mood().await?;
        let request = request.into_inner();
        self.0.note(format!("reserve {request:?}"));
        let allocation = pb::Allocation {
            holder: request.pod.map(pb::allocation::Holder::Pod),
            state: pb::AllocationState::Reserved.into(),
            shape: request.shape,
            grants: vec![grant(0)],
            ..pb::Allocation::default()
        };
        Ok(Response::new(pb::ReserveResponse {
            allocation: Some(allocation),
            existing: false,
            generation: 2,
        }))
    }

    async fn release(&self, request: Request<pb::ReleaseRequest>) -> Result<Response<pb::ReleaseResponse>, Status> {
        self.0.obey_mood().await?;
        self.0
            .note(format!("release {:?}", request.into_inner().holder.unwrap()));
        Ok(Response::new(pb::ReleaseResponse {
            released: true,
            generation: 3,
        }))
    }

    async fn explain_fit(&self, _: Request<pb::ExplainFitRequest>) -> Result<Response<pb::ExplainFitResponse>, Status> {
        self.0.obey_mood().await?;
        let no = pb::ExplainFitResponse {
            fits: false,
            reason: "InsufficientDevices".to_owned(),
            message: "2 of 2 GPUs: 2 DeviceHeld".to_owned(),
            ..pb::ExplainFitResponse::default()
        };
        Ok(Response::new(no))
    }

    async fn set_device_schedulable(
        &self,
        request: Request<pb::SetDeviceSchedulableRequest>,
    ) -> Result<Response<pb::SetDeviceSchedulableResponse>, Status> {
        self.0.obey_mood().await?;
        let pb::SetDeviceSchedulableRequest {
            device_uuid,
            schedulable,
            message,
        } = request.into_inner();
        self.0
            .note(format!("schedulable {device_uuid} {schedulable} {message}"));
        let device = self
            .0
            .find(&device_uuid)
            .map(|device| pb::Device { schedulable, ..device });
        Ok(Response::new(pb::SetDeviceSchedulableResponse { device }))
    }

    async fn acknowledge_health(
        &self,
        request: Request<pb::AcknowledgeHealthRequest>,
    ) -> Result<Response<pb::AcknowledgeHealthResponse>, Status> {
        self.0.obey_mood().await?;
        let pb::AcknowledgeHealthRequest { device_uuid, message } = request.into_inner();
        self.0.note(format!("acknowledge {device_uuid} {message}"));
        Ok(Response::new(pb::AcknowledgeHealthResponse {
            device: self.0.find(&device_uuid),
        }))
    }

    async fn acquire_lease(
        &self,
        request: Request<pb::AcquireLeaseRequest>,
    ) -> Result<Response<Self::AcquireLeaseStream>, Status> {
        self.0.obey_mood().await?;
        let (sender, receiver) = mpsc::channel(8);
        let mood = self.0.mood.lock().clone();
        let first = match mood {
            Mood::LetsWait => news(Event::Waiting, "InsufficientDevices", "2 of 2 GPUs: 2 DeviceHeld"),
            Mood::Grants(grants) => pb::AcquireLeaseResponse {
                allocation: Some(lease(grants)),
                ..news(Event::Granted, "Granted", "")
            },
            _ => news(Event::Granted, "Granted", ""),
        };
        sender.send(Ok(first)).await.unwrap();
        let state = Arc::clone(&self.0);
        state.open_leases.send_modify(|open| *open += 1);
        *state.lease.lock() = Some((request.into_inner(), sender.clone()));
        berth_testkit::spawn(async move {
            sender.closed().await;
            state.open_leases.send_modify(|open| *open -= 1);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
