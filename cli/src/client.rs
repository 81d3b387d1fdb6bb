//! berthd as berthctl sees it: each call with a deadline, answers in our own types, errors that say what to do.

use std::{future::Future, time::Duration};

use berth_placement::{LeaseId, PodRef, PodUid, Shape};
use berth_proto::node::v1::{self as pb, node_service_client::NodeServiceClient};
use berth_runtime::{
    args::ClientTlsArgs,
    dial::{self, Target},
    tls::ClientTls,
};
use tokio::time::timeout;
use tonic::{IntoRequest, Request, Response, Status, Streaming, transport::Channel};

use crate::{
    args::GlobalArgs,
    convert::{part, shape_to_wire},
    error::CliError,
    view::{Allocation, Book, Device, Node, Verdict},
};

/// One daemon. Connects when it is used, and again when the connection is lost.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    inner: NodeServiceClient<Channel>,
    target: Target,
    timeout: Duration,
}

/// A stream of states of the node.
#[derive(Debug)]
pub(crate) struct NodeStream {
    stream: Streaming<pb::WatchNodeResponse>,
    client: Client,
}

/// A lease: held as long as this is not dropped.
#[derive(Debug)]
pub(crate) struct LeaseStream {
    stream: Streaming<pb::AcquireLeaseResponse>,
    client: Client,
}

/// What the daemon tells of a lease.
#[derive(Debug)]
pub(crate) enum LeaseNews {
    Granted(Allocation),
    Waiting(String),
    Changed { allocation: Allocation, message: String },
    Revoked { reason: String, message: String },
}

// === impl Client ===

impl Client {
    /// # Errors
    /// There is no way to that address with these files.
    pub(crate) fn new(args: &GlobalArgs) -> Result<Self, CliError> {
        Ok(Self {
            inner: NodeServiceClient::new(channel(&args.address, &args.tls)?),
            target: args.address.clone(),
            timeout: args.timeout,
        })
    }

    pub(crate) async fn node(&self) -> Result<Node, CliError> {
        let mut inner = self.inner.clone();
        let answer = self.answer(inner.get_node(self.bounded(pb::GetNodeRequest {}))).await?;
        Ok(part(answer.node))
    }

    pub(crate) async fn book(&self) -> Result<Book, CliError> {
        let mut inner = self.inner.clone();
        let answer = self
            .answer(inner.list_allocations(self.bounded(pb::ListAllocationsRequest {})))
            .await?;
        Ok(answer.into())
    }

    /// States of the node from now on, beginning with the present one.
    pub(crate) async fn watch(&self) -> Result<NodeStream, CliError> {
        let mut inner = self.inner.clone();
        let stream = self
            .answer(inner.watch_node(pb::WatchNodeRequest { after_generation: 0 }))
            .await?;
        Ok(NodeStream {
            stream,
            client: self.clone(),
        })
    }

    pub(crate) async fn explain(&self, shape: &Shape) -> Result<Verdict, CliError> {
        let request = pb::ExplainFitRequest {
            shape: Some(shape_to_wire(shape)),
        };
        let mut inner = self.inner.clone();
        let answer = self.answer(inner.explain_fit(self.bounded(request))).await?;
        Ok(answer.into())
    }

    /// The grant, whether the pod held it already, and the generation. `ttl` `None`: the daemon's default.
    pub(crate) async fn reserve(
        &self,
        pod: PodRef,
        shape: &Shape,
        ttl: Option<Duration>,
    ) -> Result<(Allocation, bool, u64), CliError> {
        let request = pb::ReserveRequest {
            pod: Some(pb::PodRef {
                namespace: pod.namespace,
                name: pod.name,
                uid: pod.uid.into(),
            }),
            shape: Some(shape_to_wire(shape)),
            ttl_ms: ttl.map(milliseconds).unwrap_or_default(),
            preferred_devices: Vec::new(),
            decision_id: String::new(),
        };
        let mut inner = self.inner.clone();
        let answer = self.answer(inner.reserve(self.bounded(request))).await?;
        Ok((part(answer.allocation), answer.existing, answer.generation))
    }

    /// Whether the pod held anything, and the generation.
    pub(crate) async fn release_pod(&self, uid: PodUid) -> Result<(bool, u64), CliError> {
        self.release(pb::release_request::Holder::PodUid(uid.into())).await
    }

    /// Whether there was such a lease, and the generation.
    pub(crate) async fn release_lease(&self, lease: LeaseId) -> Result<(bool, u64), CliError> {
        self.release(pb::release_request::Holder::LeaseId(lease.into())).await
    }

    async fn release(&self, holder: pb::release_request::Holder) -> Result<(bool, u64), CliError> {
        let mut inner = self.inner.clone();
        let answer = self
            .answer(inner.release(self.bounded(pb::ReleaseRequest { holder: Some(holder) })))
            .await?;
        Ok((answer.released, answer.generation))
    }

    pub(crate) async fn set_schedulable(
        &self,
        device_uuid: String,
        schedulable: bool,
        message: String,
    ) -> Result<Device, CliError> {
        let request = pb::SetDeviceSchedulableRequest {
            device_uuid,
            schedulable,
            message,
        };
        let mut inner = self.inner.clone();
        let answer = self.answer(inner.set_device_schedulable(self.bounded(request))).await?;
        Ok(part(answer.device))
    }

    pub(crate) async fn acknowledge(&self, device_uuid: String, message: String) -> Result<Device, CliError> {
        let request = pb::AcknowledgeHealthRequest { device_uuid, message };
        let mut inner = self.inner.clone();
        let answer = self.answer(inner.acknowledge_health(self.bounded(request))).await?;
        Ok(part(answer.device))
    }

    /// Asks for a lease, and waits for room for up to `wait`. `waiting` is told why it does not come at once.
    ///
    /// # Errors
    /// Also where neither lease nor refusal came by `wait` and the timeout together.
    pub(crate) async fn lease(
        &self,
        shape: &Shape,
        label: String,
        wait: Duration,
        waiting: impl FnMut(&str),
    ) -> Result<(Allocation, LeaseStream), CliError> {
        let request = pb::AcquireLeaseRequest {
            shape: Some(shape_to_wire(shape)),
            client: label,
            wait_ms: milliseconds(wait),
        };
        let patient = Self {
            timeout: self.timeout.saturating_add(wait),
            ..self.clone()
        };
        let acquire = async {
            let mut inner = self.inner.clone();
            let stream = patient.answer(inner.acquire_lease(request)).await?;
            let mut lease = LeaseStream {
                stream,
                client: patient.clone(),
            };
            Ok((lease.granted(waiting).await?, lease))
        };
        timeout(patient.timeout, acquire)
            .await
            .unwrap_or_else(|_| Err(patient.timed_out()))
    }

    /// As [`Self::clone`], but more or less patient.
    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            timeout,
            ..self.clone()
        }
    }

    /// A request whose deadline the daemon knows.
    fn bounded<T>(&self, message: T) -> Request<T> {
        let mut request = message.into_request();
        request.set_timeout(self.timeout);
        request
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
        match timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(&status)),
            Err(_) => Err(self.timed_out()),
        }
    }

    fn error(&self, status: &Status) -> CliError {
        CliError::from_status(status, &self.target, self.timeout)
    }

    fn timed_out(&self) -> CliError {
        CliError::TimedOut {
            target: Box::new(self.target.clone()),
            after: self.timeout,
        }
    }
}

/// The way to a server, not used yet.
///
/// # Errors
/// There is none to that address with these files.
pub(crate) fn channel(target: &Target, files: &ClientTlsArgs) -> Result<Channel, CliError> {
    let tls = files.files().map(ClientTls::new);
    match (target, &tls) {
        // Bad files now, and not as a server that cannot be reached later.
        (Target::Https(_), Some(tls)) => drop(tls.load()?),
        (Target::Http(_), Some(_)) => return Err(CliError::NotEncrypted(Box::new(target.clone()))),
        _ => {}
    }
    dial::channel(target, tls.as_ref()).map_err(|error| CliError::Dial(Box::new(error)))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === impl NodeStream ===

impl NodeStream {
    /// The first state, within the timeout. `None` once the daemon ends the stream.
    pub(crate) async fn first(&mut self) -> Result<Option<Node>, CliError> {
        let within = self.client.timeout;
        timeout(within, self.next())
            .await
            .unwrap_or_else(|_| Err(self.client.timed_out()))
    }

    /// The next state, whenever there is one. `None` once the daemon ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<Node>, CliError> {
        match self.stream.message().await {
            Ok(message) => Ok(message.map(|message| part(message.node))),
            Err(status) => Err(self.client.error(&status)),
        }
    }
}

// === impl LeaseStream ===

impl LeaseStream {
    async fn granted(&mut self, mut waiting: impl FnMut(&str)) -> Result<Allocation, CliError> {
        loop {
            match self.next().await? {
                Some(LeaseNews::Granted(allocation)) => return Ok(allocation),
                Some(LeaseNews::Waiting(message)) => waiting(&message),
                Some(LeaseNews::Changed { .. }) => {}
                Some(LeaseNews::Revoked { reason, message }) => return Err(CliError::Refused { reason, message }),
                None => return Err(self.client.error(&Status::unavailable("the daemon ended the call"))),
            }
        }
    }

    /// The next news, whenever there is some. `None` once the daemon ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<LeaseNews>, CliError> {
        loop {
            let news = match self.stream.message().await {
                Ok(Some(news)) => news,
                Ok(None) => return Ok(None),
                Err(status) => return Err(self.client.error(&status)),
            };
            let event = news.event();
            let pb::AcquireLeaseResponse {
                allocation,
                reason,
                message,
                ..
            } = news;
            return Ok(Some(match event {
                pb::acquire_lease_response::Event::Granted => LeaseNews::Granted(part(allocation)),
                pb::acquire_lease_response::Event::Changed => LeaseNews::Changed {
                    allocation: part(allocation),
                    message,
                },
                pb::acquire_lease_response::Event::Revoked => LeaseNews::Revoked { reason, message },
                pb::acquire_lease_response::Event::Waiting => LeaseNews::Waiting(message),
                // From a newer daemon: nothing that we could act on.
                pb::acquire_lease_response::Event::Unspecified => continue,
            }));
        }
    }
}
