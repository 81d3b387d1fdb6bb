//! What every test needs: a daemon with a client, shapes, reasons, waiting for a state of the node.

use std::{io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use berth_proto::node::v1::{
    Allocation, Condition, GetNodeRequest, GpuShare, ListAllocationsRequest, Node, PodRef, ReleaseRequest,
    ReserveRequest, ReserveResponse, Shape, WholeGpus, node_service_client::NodeServiceClient, release_request, shape,
};
use berth_runtime::dial::{self, Target};
use berth_testkit::{Process, Program, eventually};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

pub(crate) type Client = NodeServiceClient<Channel>;

/// For things that take milliseconds, on a machine that also compiles.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A running berthd and a client over its unix socket.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) client: Client,
}

/// Eight simulated GPUs, no kubelet, orders for the machine from a file.
pub(crate) fn simulated() -> Program {
    Program::berthd()
        .arg("--simulate", "dgx-h100")
        .arg("--simulate-control", "{dir}/orders")
        .arg("--kubelet-socket", "none")
}

impl Daemon {
    /// Starts it and waits until it grants.
    pub(crate) async fn start(program: Program) -> Self {
        let mut daemon = Self::start_closed(program).await;
        daemon.until_condition("LedgerReconciled", true).await;
        daemon
    }

    /// Starts it and waits for nothing.
    pub(crate) async fn start_closed(program: Program) -> Self {
        let process = program.start().await.expect("berthd starts");
        let client = client(&Target::Unix(process.socket()));
        Self { process, client }
    }

    pub(crate) async fn node(&mut self) -> Node {
        node(&mut self.client).await.expect("GetNode")
    }

    pub(crate) async fn until_condition(&mut self, kind: &str, status: bool) -> Condition {
        let client = &mut self.client;
        let found = eventually(SOON, async || {
            let node = node(client).await?;
            let condition = condition(&node, kind);
            ensure!(condition.status == status, "{condition:?}");
            Ok(condition)
        });
        found.await.expect("the condition comes about")
    }

    /// Gives an order to the simulated machine.
    pub(crate) fn order(&self, json: &str) {
        order(self.process.dir(), json);
    }

    pub(crate) async fn reserve(&mut self, uid: &str, shape: Shape) -> Result<Allocation, Status> {
        reserve(&mut self.client, uid, shape)
            .await
            .map(|response| response.allocation.expect("an allocation"))
    }

    pub(crate) async fn release(&mut self, uid: &str) -> Result<bool, Status> {
        let holder = Some(release_request::Holder::PodUid(uid.to_owned()));
        Ok(self
            .client
            .release(ReleaseRequest { holder })
            .await?
            .into_inner()
            .released)
    }

    pub(crate) async fn allocations(&mut self) -> Vec<Allocation> {
        allocations(&mut self.client).await.expect("ListAllocations")
    }

    pub(crate) async fn end(mut self) -> Process {
        self.process.terminate().expect("it runs");
        let status = self.process.wait(SOON).await.expect("it ends");
        assert!(status.success(), "{status}:\n{}", self.process.stderr());
        self.process
    }
}

pub(crate) fn client(target: &Target) -> Client {
    Client::new(dial::channel(target, None).expect("a channel"))
}

pub(crate) async fn node(client: &mut Client) -> anyhow::Result<Node> {
    client
        .get_node(GetNodeRequest {})
        .await?
        .into_inner()
        .node
        .context("a node")
}

pub(crate) async fn allocations(client: &mut Client) -> Result<Vec<Allocation>, Status> {
    Ok(client
        .list_allocations(ListAllocationsRequest {})
        .await?
        .into_inner()
        .allocations)
}

pub(crate) async fn reserve(client: &mut Client, uid: &str, shape: Shape) -> Result<ReserveResponse, Status> {
    let pod = Some(pod(uid));
    let request = ReserveRequest {
        pod,
        shape: Some(shape),
        ..ReserveRequest::default()
    };
    Ok(client.reserve(request).await?.into_inner())
}

/// In namespace `sr-test`, named as its UID.
pub(crate) fn pod(uid: &str) -> PodRef {
    PodRef {
        namespace: "sr-test".to_owned(),
        name: uid.to_owned(),
        uid: uid.to_owned(),
    }
}

pub(crate) fn whole(count: u32) -> Shape {
    Shape {
        gpu: Some(shape::Gpu::Whole(WholeGpus { count })),
        models: Vec::new(),
    }
}

pub(crate) fn share(milli: u32) -> Shape {
    let share = GpuShare {
        milli,
        memory_bytes: 0,
        count: 1,
    };
    Shape {
        gpu: Some(shape::Gpu::Share(share)),
        models: Vec::new(),
    }
}

pub(crate) fn devices(allocation: &Allocation) -> Vec<String> {
    allocation
        .grants
        .iter()
        .map(|grant| grant.device_uuid.clone())
        .collect()
}

pub(crate) fn condition(node: &Node, kind: &str) -> Condition {
    node.conditions
        .iter()
        .find(|condition| condition.r#type == kind)
        .expect("every condition is listed")
        .clone()
}

/// The stable reason in the status's details.
pub(crate) fn reason(status: &Status) -> String {
    let info = status
        .get_details_error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "gpu.berth.dev");
    info.reason
}

pub(crate) fn order(dir: &Path, json: &str) {
    let path = dir.join("orders");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    writeln!(file.expect("a writable directory"), "{json}").expect("room for a line");
}
