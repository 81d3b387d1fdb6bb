//! A daemon with a book so simple that its answers are known in advance: whole GPUs of one model.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use berth_proto::node::v1::{
    self as wire,
    node_service_server::{NodeService, NodeServiceServer},
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{TcpListenerStream, WatchStream},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the next Reserve does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum NextReserve {
    #[default]
    Answer,
    /// The grant is made and the answer is lost.
    LoseAnswer,
    /// The grant is made and the answer comes after this long.
    AnswerAfter(Duration),
}

#[derive(Debug, Clone)]
pub(crate) struct FakeNode {
    book: Arc<Mutex<Book>>,
    state: Arc<watch::Sender<wire::Node>>,
    addr: SocketAddr,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Book {
    name: String,
    gpus: u32,
    generation: u64,
    /// By pod UID.
    held: BTreeMap<String, Vec<u32>>,
    ill: BTreeSet<u32>,
    next_reserve: NextReserve,
    /// Reserve and Release, in order: `reserve UID`, `release UID`.
    calls: Vec<String>,
    /// Answers nothing any more, though it is connected.
    mute: bool,
}

impl FakeNode {
    pub(crate) async fn start(name: &str, gpus: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let book = Book {
            name: name.to_owned(),
            gpus,
            generation: 1,
            held: BTreeMap::new(),
            ill: BTreeSet::new(),
            next_reserve: NextReserve::Answer,
            calls: Vec::new(),
            mute: false,
        };
        let state = Arc::new(watch::Sender::new(book.node()));
        let node = Self {
            book: Arc::new(Mutex::new(book)),
            state,
            addr,
            stop: CancellationToken::new(),
        };
        node.serve(listener);
        node
    }

    fn serve(&self, listener: TcpListener) {
        let service = NodeServiceServer::new(self.clone());
        let stop = self.stop.clone().cancelled_owned();
        let incoming = TcpListenerStream::new(listener);
        berth_testkit::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming_shutdown(incoming, stop).await.unwrap();
        });
    }

    /// Ends as a daemon that is stopped does.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// As the same daemon started again: same address, same book.
    pub(crate) async fn restart(&mut self) {
        self.stop = CancellationToken::new();
        self.serve(TcpListener::bind(self.addr).await.unwrap());
    }

    pub(crate) fn target(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn next_reserve(&self, next: NextReserve) {
        self.book.lock().next_reserve = next;
    }

    pub(crate) fn set_mute(&self, mute: bool) {
        self.book.lock().mute = mute;
    }

    /// Who holds how many GPUs.
    pub(crate) fn held(&self) -> BTreeMap<String, usize> {
        self.book
            .lock()
            .held
            .iter()
            .map(|(uid, gpus)| (uid.clone(), gpus.len()))
            .collect()
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.book.lock().calls.clone()
    }

    /// Somebody else gets GPUs, and the schedulers hear of it only when `tell` says so.
    pub(crate) fn taken_by(&self, uid: &str, count: u32, tell: bool) {
        let mut book = self.book.lock();
        book.grant(uid, count, &[]).unwrap();
        if tell {
            self.state.send_replace(book.node());
        }
    }

    pub(crate) fn set_ill(&self, index: u32) {
        let mut book = self.book.lock();
        book.ill.insert(index);
        book.generation += 1;
        self.state.send_replace(book.node());
    }
}

impl Book {
    fn node(&self) -> wire::Node {
        let device = |index: u32| {
            let is_free = !self.held.values().flatten().any(|held| *held == index);
            let room = wire::Room {
                milli: 1000,
                memory_bytes: 80 << 30,
            };
            let state = if self.ill.contains(&index) {
                wire::HealthState::Unhealthy
            } else {
                wire::HealthState::Healthy
            };
            wire::Device {
                uuid: self.uuid(index),
                index,
                model: "H100".to_owned(),
                memory_bytes: 80 << 30,
                schedulable: true,
                free: is_free.then_some(room),
                health: Some(wire::Health {
                    state: state.into(),
                    ..wire::Health::default()
                }),
                ..wire::Device::default()
            }
        };
        wire::Node {
            name: self.name.clone(),
            generation: self.generation,
            instance_id: "fake".to_owned(),
            devices: (0..self.gpus).map(device).collect(),
            ..wire::Node::default()
        }
    }

    fn uuid(&self, index: u32) -> String {
        format!("GPU-{}-{index}", self.name)
    }

    /// The GPUs, and whether the pod had them already.
    fn grant(&mut self, uid: &str, count: u32, preferred: &[String]) -> Result<(Vec<u32>, bool), Status> {
        if let Some(held) = self.held.get(uid) {
            return Ok((held.clone(), true));
        }
        let mut free: Vec<u32> = (0..self.gpus)
            .filter(|index| !self.ill.contains(index) && !self.held.values().flatten().any(|held| held == index))
            .collect();
        free.sort_by_key(|index| !preferred.contains(&self.uuid(*index)));
        if free.len() < count as usize {
            let mut details = ErrorDetails::new();
            details.set_error_info("DeviceHeld", "gpu.berth.dev", std::collections::HashMap::new());
            return Err(Status::with_error_details(
                Code::ResourceExhausted,
                "too few are free",
                details,
            ));
        }
        free.truncate(count as usize);
        self.held.insert(uid.to_owned(), free.clone());
        self.generation += 1;
        Ok((free, false))
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Nodes = Pin<Box<dyn Stream<Item = Result<wire::WatchNodeResponse, Status>> + Send>>;
type Leases = Pin<Box<dyn Stream<Item = Result<wire::AcquireLeaseResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for FakeNode {
    type WatchNodeStream = Nodes;
    type AcquireLeaseStream = Leases;

    async fn get_node(&self, _: Request<wire::GetNodeRequest>) -> Answer<wire::GetNodeResponse> {
        if self.book.lock().mute {
            std::future::pending::<()>().await;
        }
        let node = Some(self.state.borrow().clone());
        Ok(Response::new(wire::GetNodeResponse { node }))
    }

    async fn watch_node(&self, _: Request<wire::WatchNodeRequest>) -> Answer<Nodes> {
        if self.book.lock().mute {
            std::future::pending::<()>().await;
        }
        let states = WatchStream::new(self.state.subscribe());
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let stop = self.stop.clone();
        berth_testkit::spawn(stop.run_until_cancelled_owned(async move {
            let mut states = states;
            while let Some(node) = states.next().await {
                if sender
                    .send(Ok(wire::WatchNodeResponse { node: Some(node) }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
        }));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(
            receiver,
        ))))
    }

    async fn reserve(&self, request: Request<wire::ReserveRequest>) -> Answer<wire::ReserveResponse> {
        let request = request.into_inner();
        let uid = request.pod.unwrap().uid;
        let Some(wire::shape::Gpu::Whole(whole)) = request.shape.unwrap().gpu else {
            return Err(Status::unimplemented("whole GPUs only"));
        };
        let (response, next) = {
            let mut book = self.book.lock();
            book.calls.push(format!("reserve {uid}"));
            let (gpus, existing) = book.grant(&uid, whole.count, &request.preferred_devices)?;
            let grant = |index: u32| wire::Grant {
                device_uuid: book.uuid(index),
                index,
                milli: 1000,
                memory_bytes: 80 << 30,
                ..wire::Grant::default()
            };
            let allocation = wire::Allocation {
                grants: gpus.into_iter().map(grant).collect(),
                decision_id: request.decision_id,
                ..wire::Allocation::default()
            };
            let response = wire::ReserveResponse {
                allocation: Some(allocation),
                existing,
                generation: book.generation,
            };
            self.state.send_replace(book.node());
            (response, std::mem::take(&mut book.next_reserve))
        };
        match next {
            NextReserve::Answer => {}
            NextReserve::LoseAnswer => return Err(Status::unavailable("the connection broke")),
            NextReserve::AnswerAfter(delay) => tokio::time::sleep(delay).await,
        }
        Ok(Response::new(response))
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Answer<wire::ReleaseResponse> {
        let Some(wire::release_request::Holder::PodUid(uid)) = request.into_inner().holder else {
            return Err(Status::unimplemented("pods only"));
        };
        let mut book = self.book.lock();
        book.calls.push(format!("release {uid}"));
        let released = book.held.remove(&uid).is_some();
        book.generation += u64::from(released);
        self.state.send_replace(book.node());
        let generation = book.generation;
        Ok(Response::new(wire::ReleaseResponse { released, generation }))
    }

    async fn list_allocations(
        &self,
        _: Request<wire::ListAllocationsRequest>,
    ) -> Answer<wire::ListAllocationsResponse> {
        Err(Status::unimplemented("the scheduler does not ask"))
    }

    async fn explain_fit(&self, _: Request<wire::ExplainFitRequest>) -> Answer<wire::ExplainFitResponse> {
        Err(Status::unimplemented("the scheduler does not ask"))
    }

    async fn set_device_schedulable(
        &self,
        _: Request<wire::SetDeviceSchedulableRequest>,
    ) -> Answer<wire::SetDeviceSchedulableResponse> {
        Err(Status::unimplemented("the scheduler does not ask"))
    }

    async fn acknowledge_health(
        &self,
        _: Request<wire::AcknowledgeHealthRequest>,
    ) -> Answer<wire::AcknowledgeHealthResponse> {
        Err(Status::unimplemented("the scheduler does not ask"))
    }

    async fn acquire_lease(&self, _: Request<wire::AcquireLeaseRequest>) -> Answer<Leases> {
        Err(Status::unimplemented("the scheduler does not ask"))
    }
}
