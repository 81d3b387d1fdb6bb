//! The Node that the daemon runs on: its labels and marks as the health says, and which Node it is.
//!
//! Owns when to look at it: whenever something else is to be said of it, and now and then, since a Node may be deleted and
//! registered anew, and others may edit it. A look is one read; it writes only what differs.

use std::{collections::BTreeMap, time::Duration};

use berth_kube_api::{gpu_node::GpuNodeStatus, names::berth as names};
use berth_placement::NodeName;
use berth_runtime::kubernetes::{ApiError, DEADLINE, within};
use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::Instant;

use super::{
    MANAGER,
    mark::{self, NodeHealth},
};

/// Between two looks at a Node of which nothing else is to be said.
const LOOK: Duration = Duration::from_mins(3);
/// And at one that is not there: it may join.
const ABSENT_LOOK: Duration = Duration::from_secs(10);

pub(super) struct OwnNode {
    api: Api<Node>,
    name: NodeName,
    mode: NodeHealth,
    /// What it was made to say last; `None`: nothing yet.
    said: Option<Said>,
    presence: Presence,
    next_look: Instant,
}

/// Whether the Node is there.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Presence {
    /// Never seen: a machine that has not joined the cluster, or is to stay outside.
    Unjoined,
    /// With its owner reference.
    Present(OwnerReference),
    /// It was there: the machine has left the cluster.
    Left,
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    labels: BTreeMap<&'static str, String>,
    /// All its GPUs are broken, or they are not; `None`: not known, the marks stay as they are.
    is_unhealthy: Option<bool>,
}

impl OwnNode {
    pub(super) fn new(client: &Client, name: &NodeName, mode: NodeHealth) -> Self {
        Self {
            api: Api::all(client.clone()),
            name: name.clone(),
            mode,
            said: None,
            presence: Presence::Unjoined,
            next_look: Instant::now(),
        }
    }

    /// As of the last look.
    pub(super) fn presence(&self) -> &Presence {
        &self.presence
    }

    pub(super) fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Something happened that the Node may be the cause of.
    pub(super) fn look_soon(&mut self) {
        self.next_look = Instant::now();
    }

    /// Looks whether the Node is there, if a look is due.
    pub(super) async fn find(&mut self, status: &GpuNodeStatus) -> Result<Option<Node>, ApiError> {
        let is_said = self.said.as_ref() == Some(&Said::of(status)) || self.is_absent();
        if is_said && Instant::now() < self.next_look {
            return Ok(None);
        }
        let node = within(DEADLINE, self.api.get_opt(self.name.as_str())).await?;
        self.presence = match (&node, &self.presence) {
            (Some(node), _) => node.owner_ref(&()).map_or(Presence::Unjoined, Presence::Present),
            (None, Presence::Unjoined) => Presence::Unjoined,
            (None, Presence::Present(_) | Presence::Left) => Presence::Left,
        };
        if node.is_none() {
            self.next_look = Instant::now() + ABSENT_LOOK;
        }
        Ok(node)
    }

    /// Makes the Node, as it was just found, say what the status says.
    pub(super) async fn tell(&mut self, node: Node, status: &GpuNodeStatus) -> Result<(), ApiError> {
        let said = Said::of(status);
        let has = node.labels();
        if said.labels.iter().any(|(key, value)| has.get(*key) != Some(value)) {
            let labels = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name.as_str(), "labels": said.labels}});
            let as_ours = PatchParams::apply(MANAGER).force();
            within(
                DEADLINE,
                self.api.patch(self.name.as_str(), &as_ours, &Patch::Apply(labels)),
            )
            .await?;
        }
        if let Some(is_unhealthy) = said.is_unhealthy {
            mark::mark(&self.api, &self.name, node, self.mode, is_unhealthy).await?;
        }
        self.said = Some(said);
        self.next_look = Instant::now() + LOOK;
        Ok(())
    }

    fn is_absent(&self) -> bool {
        !matches!(self.presence, Presence::Present(_))
    }
}

impl Said {
    fn of(status: &GpuNodeStatus) -> Self {
        // Several models of one node: a label takes no comma.
        let model = status.summary.model.replace(',', "_");
        Self {
            labels: BTreeMap::from([(names::HEALTH, status.summary.health.clone()), (names::MODEL, model)]),
            is_unhealthy: mark::is_unhealthy(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::Value;

    use super::*;

    const NONE: [Method; 0] = [];

    /// An API server with at most one Node, and what was asked of it.
    #[derive(Clone, Default)]
    struct Cluster {
        node: Arc<Mutex<Option<Value>>>,
        asked: Arc<Mutex<Vec<Method>>>,
    }

    impl Cluster {
        fn answer(&self, method: &Method) -> (u16, Value) {
            self.asked.lock().push(method.clone());
            let gone = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": ""});
            self.node.lock().clone().map_or((404, gone), |node| (200, node))
        }

        fn own_node(&self) -> OwnNode {
            let cluster = self.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let (code, answer) = cluster.answer(request.method());
                let answer = Body::from(answer.to_string().into_bytes());
                async move { Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap()) }
            });
            let client = Client::new(service, "default");
            OwnNode::new(&client, &"n".parse().unwrap(), NodeHealth::Label)
        }

        fn has(&self, uid: &str, health: &str) {
            let labels = json!({"gpu.berth.dev/health": health, "gpu.berth.dev/model": ""});
            let node = json!({"kind": "Node", "metadata": {"name": "n", "uid": uid, "labels": labels}});
            *self.node.lock() = Some(node);
        }

        /// What one turn of the mirror asks.
        async fn turn(&self, own: &mut OwnNode) -> Vec<Method> {
            let mut status = GpuNodeStatus::default();
            "Healthy".clone_into(&mut status.summary.health);
            if let Some(node) = own.find(&status).await.unwrap() {
                own.tell(node, &status).await.unwrap();
            }
            std::mem::take(&mut self.asked.lock())
        }
    }

    #[tokio::test]
    async fn a_node_is_looked_at_now_and_then_and_written_only_where_it_differs() {
        let cluster = Cluster::default();
        cluster.has("u1", "Healthy");
        let mut own = cluster.own_node();
        assert_eq!(cluster.turn(&mut own).await, [Method::GET]);
        assert_eq!(cluster.turn(&mut own).await, NONE, "nothing is due");
        assert!(own.next_look() <= Instant::now() + LOOK);
        own.look_soon();
        assert_eq!(cluster.turn(&mut own).await, [Method::GET], "it is as it is to be");
        // Registered anew.
        cluster.has("u2", "");
        own.look_soon();
        assert_eq!(cluster.turn(&mut own).await, [Method::GET, Method::PATCH]);
        assert!(matches!(own.presence(), Presence::Present(owner) if owner.uid == "u2"));
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_not_done_with() {
        let cluster = Cluster::default();
        let mut own = cluster.own_node();
        assert_eq!(cluster.turn(&mut own).await, [Method::GET]);
        assert_eq!(cluster.turn(&mut own).await, NONE, "nor asked for all the time");
        assert!(own.next_look() <= Instant::now() + ABSENT_LOOK);
        assert_eq!(*own.presence(), Presence::Unjoined);
        cluster.has("u1", "");
        own.look_soon();
        assert_eq!(cluster.turn(&mut own).await, [Method::GET, Method::PATCH]);
        *cluster.node.lock() = None;
        own.look_soon();
        assert_eq!(cluster.turn(&mut own).await, [Method::GET]);
        assert_eq!(*own.presence(), Presence::Left);
    }
}
