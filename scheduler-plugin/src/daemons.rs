//! The way to each configured daemon: one channel, shared by watching and reserving.

use std::time::Duration;

use berth_placement::{Plan, PodRef, Shape};
use berth_proto::node::v1::{self as wire, node_service_client::NodeServiceClient};
use berth_runtime::{
    dial::{self, DialError, Target},
    telemetry::trace_context::inject_grpc,
    tls::ClientTls,
};
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

/// In the order of `--nodes`.
#[derive(Debug, Clone)]
pub(crate) struct Daemons {
    clients: Vec<Client>,
}

impl Daemons {
    /// Connects to nobody yet.
    pub(crate) fn new(targets: &[Target], tls: Option<&ClientTls>) -> Result<Self, DialError> {
        let client = |target| {
            let channel = dial::channel(target, tls)?;
            let client = NodeServiceClient::with_interceptor(channel, inject_grpc as Inject);
            Ok(client.max_decoding_message_size(MAX_MESSAGE))
        };
        Ok(Self {
            clients: targets.iter().map(client).collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn client(&self, id: MemberId) -> Option<Client> {
        self.clients.get(id.0).cloned()
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
        message: "no daemon is configured for it".to_owned(),
        outcome_unknown: false,
    }
}
