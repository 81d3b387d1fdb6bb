//! `berth.scheduler.v1.PlacementService`: each method checks, converts, asks the cluster, converts back.

use std::{future::Future, sync::Arc};

use berth_placement::{Engine, Shape};
use berth_proto::scheduler::v1::{
    ExplainRequest, ExplainResponse, GetClusterRequest, GetClusterResponse, PlaceRequest, PlaceResponse,
    SimulateRequest, SimulateResponse, SimulatedPod, WatchDecisionsRequest, WatchDecisionsResponse, explain_request,
    placement_service_server::PlacementService,
};
use berth_runtime::{grpc::Streams, listen::PeerInfo};
use tonic::{Request, Response, Status, codegen::BoxStream};

use super::{
    Parts, convert,
    status::{ApiError, InvalidValue},
    watch,
};
use crate::{
    decide::Verdict,
    pods::Ask,
    reserve::{BindError, Reserved},
};

/// Nodes that Place names and Explain tells where the asker does not say, and at most.
const TOP: (u32, u32) = (5, 100);
const TOLD: (u32, u32) = (50, 1000);
/// Nodes that are asked in turn to reserve.
const ATTEMPTS: usize = 3;

#[derive(Debug)]
pub(super) struct Placement {
    parts: Parts,
    streams: Streams,
}

impl Placement {
    pub(super) fn new(parts: Parts, streams: Streams) -> Self {
        Self { parts, streams }
    }

    /// Counts a call, and turns its error into a status.
    async fn call<T>(
        &self,
        method: &'static str,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<Response<T>, Status> {
        let answer = work.await;
        let reason = answer.as_ref().err().map_or("", ApiError::reason);
        self.parts.metrics.called(method, reason);
        answer.map(Response::new).map_err(|error| {
            tracing::debug!(method, reason = error.reason(), error = %error, "refused");
            error.into()
        })
    }

    /// An answer about a cluster that was not heard of would be wrong.
    fn known(&self) -> Result<(), ApiError> {
        if self.parts.decider.cluster.is_known() {
            Ok(())
        } else {
            Err(ApiError::ClusterUnknown)
        }
    }

    async fn place(&self, request: Request<PlaceRequest>) -> Result<PlaceResponse, ApiError> {
        let peer = request.extensions().get::<PeerInfo>().cloned();
        let request = request.into_inner();
        let shape = convert::shape(request.shape)?;
        let names = convert::names(&request.nodes)?;
        let top = limit(request.top, TOP);
        let pod = request.pod.as_ref().map(convert::pod).transpose()?;
        if request.reserve {
            // Every listener of ours tells who is there.
            let peer = peer.ok_or(ApiError::Lost)?;
            self.parts.may_reserve.allows(peer.identity())?;
            if pod.is_none() {
                return Err(InvalidValue::Missing.of("pod"));
            }
        }
        self.known()?;

        let Parts { decider, pods, .. } = &self.parts;
        let cluster = &decider.cluster;
        let held = pod.as_ref().and_then(|pod| pods.held(&pod.uid));
        let (candidates, decision) = cluster.decide(&shape, names.as_deref(), held.as_ref(), top.max(ATTEMPTS));
        let best = decision.ranked.first().map(|ranked| (&ranked.node, &ranked.plan));
        let verdict = Verdict {
            candidates,
            fitting: decision.fitting,
            ranked: decision.ranked.iter().map(|ranked| ranked.node.to_string()).collect(),
            best,
            refused: decision
                .refused
                .iter()
                .map(|(node, why)| (node.as_str(), why))
                .collect(),
        };
        let mut answer = PlaceResponse {
            policy: cluster.policy().as_str().to_owned(),
            ranked: decision.ranked.iter().take(top).map(convert::ranked).collect(),
            fitting: convert::count(decision.fitting),
            candidates: convert::count(candidates),
            refused: convert::counts(&verdict.reasons()),
            ..PlaceResponse::default()
        };
        if let Some(pod) = pod {
            let id = decider.decided(&pod, &shape, verdict);
            answer.decision_id = id.to_string();
            let ask = Ask {
                shape: shape.clone(),
                decision: id,
            };
            let uid = pod.uid.clone();
            if pods.remember(pod, ask.clone()) {
                cluster.observe(&shape);
            }
            if request.reserve {
                let nodes = decision.ranked.into_iter().take(ATTEMPTS).map(|ranked| ranked.node);
                let seen = pods.get(&uid).ok_or(BindError::UnknownPod)?;
                let reserved: Reserved = self.parts.reserver.reserve(seen, nodes.collect(), ask).await?;
                answer.reservation = Some(convert::reservation(&reserved));
            }
        }
        Ok(answer)
    }

    async fn explain(&self, request: ExplainRequest) -> Result<ExplainResponse, ApiError> {
        let names = convert::names(&request.nodes)?;
        let told = limit(request.limit, TOLD);
        let (shape, decision) = match request.what {
            None => return Err(InvalidValue::Missing.of("what")),
            Some(explain_request::What::Shape(shape)) => (convert::shape(Some(shape))?, None),
            Some(explain_request::What::Pod(pod)) => {
                let decision = self.parts.decider.decisions.of_pod(&pod.namespace, &pod.name);
                let decision =
                    decision.ok_or_else(|| ApiError::UnknownPod(format!("{}/{}", pod.namespace, pod.name)))?;
                (decision.shape.clone(), Some(decision))
            }
        };
        self.known()?;
        let asks = shape.to_string();
        let mut nodes = self.on_a_copy(move |engine| engine.explain(&shape)).await?;
        if let Some(names) = &names {
            nodes.retain(|node| names.contains(&node.node));
        }
        let verdict = Verdict {
            refused: nodes
                .iter()
                .filter_map(|node| Some((node.node.as_str(), node.verdict.plan.as_ref().err()?)))
                .collect(),
            ..Verdict::default()
        };
        Ok(ExplainResponse {
            asks,
            policy: self.parts.decider.cluster.policy().as_str().to_owned(),
            fitting: convert::count(nodes.len() - verdict.refused.len()),
            candidates: convert::count(nodes.len()),
            refused: convert::counts(&verdict.reasons()),
            nodes: nodes.iter().take(told).map(convert::verdict).collect(),
            decision: decision.as_ref().map(convert::decision),
        })
    }

    async fn simulate(&self, request: SimulateRequest) -> Result<SimulateResponse, ApiError> {
        let pods = convert::simulated(request)?;
        self.known()?;
        let (positions, shapes): (Vec<u32>, Vec<Shape>) = pods.into_iter().unzip();
        let work = move |engine: Engine| {
            let before: u64 = engine.nodes().map(convert::free_milli).sum();
            (engine.simulate(&shapes).placed, before)
        };
        let (placed, before) = self.on_a_copy(work).await?;
        let taken: u64 = placed.iter().flatten().map(|ranked| convert::milli(&ranked.plan)).sum();
        Ok(SimulateResponse {
            placed: convert::count(placed.iter().flatten().count()),
            free_milli_before: before,
            free_milli_after: before.saturating_sub(taken),
            pods: positions
                .into_iter()
                .zip(&placed)
                .map(|(shape, ranked)| SimulatedPod {
                    shape,
                    node: ranked.as_ref().map(|it| it.node.to_string()).unwrap_or_default(),
                    grants: ranked.as_ref().map(|it| convert::grants(&it.plan)).unwrap_or_default(),
                })
                .collect(),
        })
    }

    /// On a thread for blocking work: decisions for pods go on meanwhile.
    async fn on_a_copy<T: Send + 'static>(
        &self,
        work: impl FnOnce(Engine) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let copy = self.parts.decider.cluster.snapshot();
        tokio::task::spawn_blocking(move || work(copy))
            .await
            .map_err(|_| ApiError::Lost)
    }
}

fn limit(asked: u32, (default, most): (u32, u32)) -> usize {
    (if asked == 0 { default } else { asked.min(most) }) as usize
}

#[tonic::async_trait]
impl PlacementService for Placement {
    async fn place(&self, request: Request<PlaceRequest>) -> Result<Response<PlaceResponse>, Status> {
        self.call("Place", Self::place(self, request)).await
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        self.call("Explain", Self::explain(self, request.into_inner())).await
    }

    async fn simulate(&self, request: Request<SimulateRequest>) -> Result<Response<SimulateResponse>, Status> {
        self.call("Simulate", Self::simulate(self, request.into_inner())).await
    }

    async fn get_cluster(&self, _: Request<GetClusterRequest>) -> Result<Response<GetClusterResponse>, Status> {
        let cluster = &self.parts.decider.cluster;
        let answer = async {
            Ok(GetClusterResponse {
                policy: cluster.policy().as_str().to_owned(),
                nodes: cluster.summary().iter().map(convert::summary).collect(),
            })
        };
        self.call("GetCluster", answer).await
    }

    type WatchDecisionsStream = BoxStream<WatchDecisionsResponse>;

    async fn watch_decisions(
        &self,
        request: Request<WatchDecisionsRequest>,
    ) -> Result<Response<Self::WatchDecisionsStream>, Status> {
        let history = request.into_inner().history;
        let decisions = Arc::clone(&self.parts.decider.decisions);
        let stream = self.streams.open("watch-decisions", |sink| async move {
            watch::follow(&decisions, history, sink).await;
        });
        self.call("WatchDecisions", async { Ok(stream?) }).await
    }
}
