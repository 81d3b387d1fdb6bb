//! berth-scheduler as berthctl sees it: each call with a deadline, answers in our own types.

use std::{future::Future, time::Duration};

use berth_proto::scheduler::v1::{self as pb, placement_service_client::PlacementServiceClient};
use berth_runtime::dial::Target;
use tokio::time::timeout;
use tonic::{IntoRequest, Request, Response, Status, transport::Channel};

use crate::{
    args::{GlobalArgs, PodName, Simulated},
    client,
    convert::pod_shape,
    error::CliError,
    view::{ClusterNodes, Explained, SimulationResult},
};

/// Ten thousand nodes of GetCluster, a thousand of Explain.
const MAX_ANSWER: usize = 64 << 20;

/// One scheduler. Connects when it is used.
#[derive(Debug, Clone)]
pub(crate) struct Scheduler {
    inner: PlacementServiceClient<Channel>,
    target: Target,
    timeout: Duration,
}

/// Whose place is asked about.
#[derive(Debug)]
pub(crate) enum Subject<'a> {
    Pod(&'a PodName),
    Shape(&'a berth_placement::Shape),
}

impl Scheduler {
    /// # Errors
    /// There is no way to that address with these files.
    pub(crate) fn new(args: &GlobalArgs) -> Result<Self, CliError> {
        let channel = client::channel(&args.scheduler, &args.tls)?;
        Ok(Self {
            inner: PlacementServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER),
            target: args.scheduler.clone(),
            timeout: args.timeout,
        })
    }

    pub(crate) async fn cluster(&self) -> Result<ClusterNodes, CliError> {
        let mut inner = self.inner.clone();
        let request = self.bounded(pb::GetClusterRequest {});
        Ok(self.answer(inner.get_cluster(request)).await?.into())
    }

    pub(crate) async fn explain(&self, subject: Subject<'_>, limit: u32) -> Result<Explained, CliError> {
        let what = match subject {
            Subject::Pod(pod) => pb::explain_request::What::Pod(pb::PodName {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
            }),
            Subject::Shape(shape) => pb::explain_request::What::Shape(pod_shape(shape)),
        };
        let request = pb::ExplainRequest {
            what: Some(what),
            nodes: Vec::new(),
            limit,
        };
        let mut inner = self.inner.clone();
        Ok(self.answer(inner.explain(self.bounded(request))).await?.into())
    }

    pub(crate) async fn simulate(&self, pods: &[Simulated]) -> Result<SimulationResult, CliError> {
        let shapes = pods.iter().map(|it| pb::SimulatedShape {
            shape: Some(pod_shape(&it.shape)),
            count: it.count,
        });
        let request = pb::SimulateRequest {
            shapes: shapes.collect(),
        };
        let mut inner = self.inner.clone();
        Ok(self.answer(inner.simulate(self.bounded(request))).await?.into())
    }

    fn bounded<T>(&self, message: T) -> Request<T> {
        let mut request = message.into_request();
        request.set_timeout(self.timeout);
        request
    }

    async fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CliError> {
        match timeout(self.timeout, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(CliError::from_status(&status, &self.target, self.timeout).of_scheduler()),
            Err(_) => Err(CliError::TimedOut {
                target: Box::new(self.target.clone()),
                after: self.timeout,
            }),
        }
    }
}
