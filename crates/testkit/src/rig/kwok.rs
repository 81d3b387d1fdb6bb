//! Nodes without machines: kwok keeps them Ready and lets their pods run, by stages of ours.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};

use super::{Part, RigError, control_plane};

/// What kwok manages, and nothing else.
const LABEL: (&str, &str) = ("type", "kwok");

/// What the kwok nodes of a rig look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeProfile {
    /// As `--profile` spells it.
    pub name: &'static str,
    gpus: u32,
    /// GPU Feature Discovery's labels.
    product: &'static str,
    memory_mib: u32,
    family: &'static str,
    cpu: u32,
    memory_gib: u32,
}

const PROFILES: &[NodeProfile] = &[
    NodeProfile {
        name: "dgx-h100",
        gpus: 8,
        product: "NVIDIA-H100-80GB-HBM3",
        memory_mib: 81_559,
        family: "hopper",
        cpu: 224,
        memory_gib: 2048,
    },
    NodeProfile {
        name: "dgx-a100",
        gpus: 8,
        product: "NVIDIA-A100-SXM4-80GB",
        memory_mib: 81_920,
        family: "ampere",
        cpu: 256,
        memory_gib: 2048,
    },
    NodeProfile {
        name: "l40s",
        gpus: 8,
        product: "NVIDIA-L40S",
        memory_mib: 46_068,
        family: "ada-lovelace",
        cpu: 128,
        memory_gib: 1024,
    },
];

impl NodeProfile {
    /// Eight H100.
    pub const fn dgx_h100() -> Self {
        let [h100, ..] = PROFILES else { unreachable!() };
        Self { ..*h100 }
    }

    /// By its name; the error lists the names.
    pub fn by_name(name: &str) -> Result<Self, String> {
        let names: Vec<_> = PROFILES.iter().map(|profile| profile.name).collect();
        let found = PROFILES.iter().find(|profile| profile.name == name).cloned();
        found.ok_or_else(|| format!("no profile is called {name}; there are {}", names.join(", ")))
    }

    fn node(&self, index: usize) -> Value {
        let name = format!("gpu-{index:04}");
        let resources = json!({
            "cpu": self.cpu.to_string(),
            "memory": format!("{}Gi", self.memory_gib),
            "pods": "110",
            "nvidia.com/gpu": self.gpus.to_string(),
        });
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": {
                LABEL.0: LABEL.1,
                "kubernetes.io/hostname": name,
                "nvidia.com/gpu.product": self.product,
                "nvidia.com/gpu.count": self.gpus.to_string(),
                "nvidia.com/gpu.memory": self.memory_mib.to_string(),
                "nvidia.com/gpu.family": self.family,
                "nvidia.com/gpu.present": "true",
            }},
            "status": {"allocatable": resources, "capacity": resources},
        })
    }
}

/// kwok as a bare program has no stages: these are ours.
const STAGES: &str = r#"
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-becomes-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
    - {key: '.status.conditions.[] | select( .type == "Ready" ) | .status', operator: NotIn, values: ["True"]}
  next:
    # All four conditions: without them the controller manager calls the node unknown after 90 s.
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      {{ range list "Ready" "MemoryPressure" "DiskPressure" "PIDPressure" }}
      - type: {{ . | Quote }}
        status: {{ if eq . "Ready" }}"True"{{ else }}"False"{{ end }}
        reason: Rig
        message: ""
        lastHeartbeatTime: {{ $now | Quote }}
        lastTransitionTime: {{ $now | Quote }}
      {{ end }}
      nodeInfo: {kubeletVersion: rig, operatingSystem: linux, architecture: amd64, osImage: "", containerRuntimeVersion: "",
        kubeProxyVersion: "", machineID: "", systemUUID: "", bootID: "", kernelVersion: ""}
      phase: Running
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
    - {key: .status.podIP, operator: DoesNotExist}
  next:
    statusTemplate: |
      {{ $now := Now }}
      conditions:
      {{ range list "PodScheduled" "Initialized" "ContainersReady" "Ready" }}
      - {type: {{ . | Quote }}, status: "True", lastTransitionTime: {{ $now | Quote }}}
      {{ end }}
      containerStatuses:
      {{ range .spec.containers }}
      - name: {{ .name | Quote }}
        image: {{ .image | Quote }}
        imageID: ""
        ready: true
        started: true
        restartCount: 0
        state: {running: {startedAt: {{ $now | Quote }}}}
      {{ end }}
      phase: Running
      podIP: 10.0.0.1
      startTime: {{ $now | Quote }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
    - {key: .metadata.deletionTimestamp, operator: Exists}
  next:
    finalizers: {empty: true}
    delete: true
"#;

/// Writes the stages and answers kwok's arguments.
pub(super) fn args(dir: &Path) -> Result<Vec<String>, RigError> {
    let stages = dir.join("kwok.yaml");
    fs::write(&stages, STAGES).map_err(|error| RigError::io(&stages, error))?;
    Ok(vec![
        format!("--kubeconfig={}", control_plane::kubeconfig(dir).display()),
        format!("--config={}", stages.display()),
        "--manage-all-nodes=false".to_owned(),
        format!("--manage-nodes-with-label-selector={}={}", LABEL.0, LABEL.1),
        "--node-lease-duration-seconds=40".to_owned(),
        "--server-address=127.0.0.1:10247".to_owned(),
        "--node-ip=10.0.0.2".to_owned(),
    ])
}

/// Creates `gpu-0000` and so on; kwok makes them Ready.
pub(super) async fn create_nodes(client: &Client, count: usize, profile: &NodeProfile) -> Result<(), RigError> {
    let api: Api<Node> = Api::all(client.clone());
    let nodes = (0..count).map(|index| serde_json::from_value::<Node>(profile.node(index)));
    let nodes: Vec<Node> = nodes
        .collect::<Result<_, _>>()
        .map_err(|error| RigError::api("a node of ours is malformed", kube::Error::SerdeError(error)))?;
    stream::iter(nodes)
        .map(|node| {
            let api = api.clone();
            async move { api.create(&PostParams::default(), &node).await }
        })
        .buffer_unordered(32)
        .try_for_each(|_| async { Ok(()) })
        .await
        .map_err(|error| RigError::api("a node was not created", error))
}

/// Waits until all of them are Ready and have a lease's worth of life.
pub(super) async fn wait_ready(
    client: &Client,
    parts: &mut BTreeMap<&'static str, Part>,
    count: usize,
    longest: Duration,
) -> Result<(), RigError> {
    let api: Api<Node> = Api::all(client.clone());
    control_plane::until(parts, "kwok", "the nodes are not Ready", longest, async || {
        let Ok(nodes) = api.list(&ListParams::default()).await else {
            return false;
        };
        nodes.items.iter().filter(|node| is_ready(node)).count() >= count
    })
    .await
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref())
        .flatten();
    let untainted = node
        .spec
        .iter()
        .filter_map(|spec| spec.taints.as_ref())
        .flatten()
        .next()
        .is_none();
    untainted
        && conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
