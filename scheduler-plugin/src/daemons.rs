//! The way to each daemon: one channel, shared by watching and reserving.

use std::{collections::HashMap, sync::Arc, time::Duration};

use berth_placement::{Plan, PodRef, Shape};
use berth_proto::node::v1::{self as wire, node_service_client::NodeServiceClient};
use berth_runtime::{
    dial::{self, DialError, Target},
    telemetry::trace_context::inject_grpc,
    tls::ClientTls,
};
use parking_lot::RwLock;
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Channel};
use uuid::Uuid;

use crate::{
    cluster::MemberId,
    convert::{self, CallError, Granted},
};

pub(crate) type Client = NodeServiceClient<InterceptedService<Channel, Inject>>;
type Inject = fn(Request<()>) -> Result<Request<()>, Status>;

/// Nodes have at most a few dozen devices; a state of this size is no state.
const MAX_MESSAGE: usize = 4 << 20;

/// By node of the cluster. Clones share what is known.
#[derive(Debug, Clone)]
pub(crate) struct Daemons {
    tls: Option<ClientTls>,
    clients: Arc<RwLock<HashMap<MemberId, Client>>>,
}

impl Daemons {
    pub(crate) fn new(tls: Option<ClientTls>) -> Self {
        Self {
            tls,
            clients: Arc::default(),
        }
    }

    /// From now on the daemon is there. Connects when it is asked something.
    pub(crate) fn set(&self, id: MemberId, target: &Target) -> Result<Client, DialError> {
        let channel = dial::channel(target, self.tls.as_ref())?;
        let client = NodeServiceClient::with_interceptor(channel, inject_grpc as Inject);
        let client = client.max_decoding_message_size(MAX_MESSAGE);
        self.clients.write().insert(id, client.clone());
        Ok(client)
    }

    pub(crate) fn forget(&self, id: MemberId) {
        self.clients.write().remove(&id);
    }

    pub(crate) fn client(&self, id: MemberId) -> Option<Client> {
        self.clients.read().get(&id).cloned()
    }

    /// Asks the daemon for devices; `plan` is what the scheduler would take.
    pub(crate) async fn reserve(
        &self,
        id: MemberId,
        (pod, shape, plan): (&PodRef, &Shape, &Plan),
        decision: Uuid,
        deadline: Duration,
    ) -> Result<Granted, CallError> {
        let mut client = self.client(id).ok_or_else(unknown)?;
        let request = with_deadline(
            convert::reserve_request(pod, shape, plan, decision.to_string()),
            deadline,
        );
        let answer = tokio::time::timeout(deadline, client.reserve(request)).await;
        let response = answer
            .map_err(|_| late(deadline))?
            .map_err(|status| convert::call_error(&status))?;
        convert::granted(response.into_inner()).map_err(|error| CallError {
            reason: "DaemonError".to_owned(),
            message: error.to_string(),
            outcome_unknown: true,
        })
    }

    /// Gives back whatever the pod holds there.
    pub(crate) async fn release(&self, id: MemberId, pod: &PodRef, deadline: Duration) -> Result<bool, CallError> {
        let mut client = self.client(id).ok_or_else(unknown)?;
        let request = with_deadline(convert::release_request(pod), deadline);
        let answer = tokio::time::timeout(deadline, client.release(request)).await;
        let response: Result<tonic::Response<wire::ReleaseResponse>, Status> = answer.map_err(|_| late(deadline))?;
        Ok(response
            .map_err(|status| convert::call_error(&status))?
            .into_inner()
            .released)
    }
}

/// The daemon is told the deadline too, so that it does not work for nobody.
fn with_deadline<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

fn late(deadline: Duration) -> CallError {
    CallError {
        reason: "DaemonTimeout".to_owned(),
        message: format!("the daemon did not answer within {deadline:?}"),
        outcome_unknown: true,
    }
}

fn unknown() -> CallError {
    CallError {
        reason: "UnknownNode".to_owned(),
        message: "no daemon is known there".to_owned(),
        outcome_unknown: false,
    }
}
