//! What the tests say, in the API's words: pods to make, and conditions to wait for.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use berth_testkit::{
    eventually,
    kai::{
        self, BindRequest, BindRequestSpec, BindRequestStatus, PodGroup, PodGroupSpec, ReceivedGpu,
        SchedulingCondition, names,
    },
    rig::{Rig, RigConfig},
};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, Patch, PatchParams,
        PostParams,
    },
};
use serde_json::{Value, json};

/// A cycle takes a second and the binder is quick; a machine that also compiles is slow.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct KaiRig {
    pub(crate) rig: Rig,
    pub(crate) client: Client,
}

/// A pod to be made.
pub(crate) struct Draft(Value);

/// A pod as it is.
pub(crate) struct Seen(Pod);

pub(crate) fn gpus(count: u32) -> Value {
    json!({names::GPU: count.to_string()})
}

/// A pod of KAI's with these limits.
pub(crate) fn pod(name: &str, limits: impl Into<Value>) -> Draft {
    let limits: Value = limits.into();
    Draft(json!({
        "metadata": {"name": name, "labels": {}, "annotations": {}},
        "spec": {"schedulerName": names::SCHEDULER, "terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "none", "resources": {"limits": limits}}]},
    }))
}

/// A node as kwok would have it.
pub(crate) fn gpu_node(name: &str, gpus: u32) -> Value {
    let resources = json!({"cpu": "64", "memory": "256Gi", "pods": "110", names::GPU: gpus.to_string()});
    json!({
        "metadata": {"name": name, "labels": {"type": "kwok", "kubernetes.io/hostname": name, names::NODE_GPU_MEMORY: "81559"}},
        "status": {"allocatable": resources, "capacity": resources},
    })
}

impl Draft {
    fn with(mut self, pointer: &str, key: &str, value: Value) -> Self {
        self.0.pointer_mut(pointer).unwrap()[key] = value;
        self
    }

    fn label(self, key: &str, value: &str) -> Self {
        self.with("/metadata/labels", key, json!(value))
    }

    fn annotation(self, key: &str, value: &str) -> Self {
        self.with("/metadata/annotations", key, json!(value))
    }

    /// Only there, by node selector.
    pub(crate) fn on(self, node: &str) -> Self {
        self.with("/spec", "nodeSelector", json!({"kubernetes.io/hostname": node}))
    }

    pub(crate) fn gated(self, gate: &str) -> Self {
        self.with("/spec", "schedulingGates", json!([{"name": gate}]))
    }

    pub(crate) fn tolerates(self, key: &str) -> Self {
        self.with("/spec", "tolerations", json!([{"key": key, "operator": "Exists"}]))
    }

    /// Node affinity.
    pub(crate) fn affinity(self, affinity: &Value) -> Self {
        self.with("/spec", "affinity", json!({"nodeAffinity": affinity}))
    }

    pub(crate) fn queue(self, queue: &str) -> Self {
        self.label(names::QUEUE, queue)
    }

    pub(crate) fn priority(self, class: &str) -> Self {
        self.label(names::PRIORITY_CLASS, class)
    }

    pub(crate) fn non_preemptible(self) -> Self {
        self.label(names::PREEMPTIBILITY, "non-preemptible")
    }

    /// A group that somebody else makes, now or later: podgrouper leaves the pod alone.
    pub(crate) fn in_group(self, group: &str) -> Self {
        self.annotation(names::POD_GROUP, group)
            .annotation(names::SKIP_PODGROUPER, "true")
    }

    /// As KAI's admission leaves it.
    pub(crate) fn fraction(self, portion: &str) -> Self {
        let prefix = format!("{}-gpu", self.0["metadata"]["name"].as_str().unwrap());
        self.annotation(names::GPU_FRACTION, portion)
            .annotation(names::SHARED_GPU_CONFIG_MAP, &prefix)
    }
}

impl Draft {
    pub(crate) fn finalizer(self, name: &str) -> Self {
        self.with("/metadata", "finalizers", json!([name]))
    }

    /// That part on each of so many GPUs.
    pub(crate) fn on_devices(self, count: u32) -> Self {
        self.annotation(names::GPU_FRACTION_DEVICES, &count.to_string())
    }

    /// A part of one GPU, by its size.
    pub(crate) fn mebibytes(self, size: u32) -> Self {
        let mut draft = self.fraction("");
        draft.0["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .remove(names::GPU_FRACTION);
        draft.annotation(names::GPU_MEMORY, &size.to_string())
    }

    pub(crate) fn unseen_by_admission(mut self) -> Self {
        self.0["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .remove(names::SHARED_GPU_CONFIG_MAP);
        self
    }
}

impl Seen {
    pub(crate) fn uid(&self) -> String {
        self.0.uid().unwrap()
    }

    pub(crate) fn node(&self) -> Option<String> {
        self.0.spec.as_ref().and_then(|spec| spec.node_name.clone())
    }

    pub(crate) fn leaves(&self) -> bool {
        self.0.metadata.deletion_timestamp.is_some()
    }

    /// Empty where there is none.
    pub(crate) fn label(&self, key: &str) -> String {
        self.0.labels().get(key).cloned().unwrap_or_default()
    }

    /// Empty where there is none.
    pub(crate) fn annotation(&self, key: &str) -> String {
        self.0.annotations().get(key).cloned().unwrap_or_default()
    }
}

impl KaiRig {
    /// Nodes `gpu-0000` and so on, with eight GPUs each.
    pub(crate) async fn up(nodes: usize) -> Self {
        let rig = Rig::up(RigConfig {
            nodes,
            kai: true,
            ..RigConfig::default()
        })
        .await
        .unwrap();
        Self {
            client: rig.client(),
            rig,
        }
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client.clone())
    }

    fn requests(&self) -> Api<BindRequest> {
        Api::default_namespaced(self.client.clone())
    }

    fn groups(&self) -> Api<PodGroup> {
        Api::default_namespaced(self.client.clone())
    }

    pub(crate) async fn create(&self, draft: &Draft) {
        let pod = serde_json::from_value(draft.0.clone()).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
    }

    pub(crate) async fn delete(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub(crate) async fn pod(&self, name: &str) -> Seen {
        Seen(self.pods().get(name).await.unwrap())
    }

    /// Waits for it to be bound.
    pub(crate) async fn node_of(&self, name: &str) -> String {
        let told = format!("{name} is bound");
        self.wait(&told, async || self.pod(name).await.node().context("not bound"))
            .await
    }

    /// Waits for it to run; answers its node.
    pub(crate) async fn runs(&self, name: &str) -> String {
        self.wait(&format!("{name} runs"), async || {
            let pod = self.pods().get(name).await?;
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.clone())
                .unwrap_or_default();
            ensure!(phase == "Running", "{phase}");
            Seen(pod).node().context("running nowhere")
        })
        .await
    }

    pub(crate) async fn gone(&self, name: &str) {
        self.wait(&format!("{name} is gone"), async || {
            ensure!(self.pods().get_opt(name).await?.is_none(), "still there");
            Ok(())
        })
        .await;
    }

    /// Waits until exactly so many of them are bound.
    pub(crate) async fn bound(&self, pods: &[&str], count: usize) {
        self.wait(&format!("{count} of {pods:?} are bound"), async || {
            let mut bound = 0;
            for name in pods {
                bound += usize::from(self.pod(name).await.node().is_some());
            }
            ensure!(bound == count, "{bound} are");
            Ok(())
        })
        .await;
    }

    /// Two pods like this one, by a controller.
    pub(crate) async fn create_owner(&self, api_version: &str, kind: &str, name: &str, like: &Draft) {
        let mut template = like.0.clone();
        template["metadata"]["labels"]["made-by"] = json!(name);
        template["metadata"].as_object_mut().unwrap().remove("name");
        let (group, version) = api_version.split_once('/').unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let owner = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"made-by": name}}, "template": template}});
        let owners: Api<DynamicObject> = Api::default_namespaced_with(self.client.clone(), &resource);
        owners
            .create(&PostParams::default(), &serde_json::from_value(owner).unwrap())
            .await
            .unwrap();
    }

    /// Waits for that many pods of a controller; answers names and UIDs.
    pub(crate) async fn pods_of(&self, owner: &str, count: usize) -> Vec<(String, String)> {
        let made = ListParams::default().labels(&format!("made-by={owner}"));
        self.wait(&format!("{owner} has {count} pods"), async || {
            let pods = self.pods().list(&made).await?;
            ensure!(pods.items.len() == count, "{}", pods.items.len());
            Ok(pods.iter().map(|pod| (pod.name_any(), pod.uid().unwrap())).collect())
        })
        .await
    }

    pub(crate) async fn drop_finalizers(&self, name: &str) {
        let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.pods().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Waits for an event on the pod.
    pub(crate) async fn event(&self, name: &str, reason: &str) {
        let events: Api<Event> = Api::default_namespaced(self.client.clone());
        let of_pod = ListParams::default().fields(&format!("involvedObject.name={name},reason={reason}"));
        self.wait(&format!("{name} has an event {reason}"), async || {
            ensure!(!events.list(&of_pod).await?.items.is_empty(), "none");
            Ok(())
        })
        .await;
    }

    /// Waits for its group.
    pub(crate) async fn group_of(&self, name: &str) -> PodGroup {
        self.wait(&format!("{name} has a group"), async || {
            let group = self.pod(name).await.annotation(names::POD_GROUP);
            ensure!(!group.is_empty(), "no annotation");
            Ok(self.groups().get(&group).await?)
        })
        .await
    }

    /// Waits for KAI to say why it does not place the pod's group.
    pub(crate) async fn refused(&self, name: &str) -> SchedulingCondition {
        let group = self.group_of(name).await.name_any();
        self.group_refused(&group).await
    }

    pub(crate) async fn group_refused(&self, group: &str) -> SchedulingCondition {
        self.wait(&format!("{group} is refused"), async || {
            let status = self.groups().get(group).await?.status.context("no status")?;
            status
                .scheduling_conditions
                .into_iter()
                .next_back()
                .context("no condition")
        })
        .await
    }

    /// Waits until KAI ran so many whole cycles more: each new pod that asks for more than there is gets its refusal from one.
    pub(crate) async fn cycles(&self, count: usize) {
        for _ in 0..count {
            let name = format!(
                "probe-{}",
                self.pods()
                    .list(&ListParams::default())
                    .await
                    .unwrap()
                    .metadata
                    .resource_version
                    .unwrap()
            );
            self.create(&pod(&name, gpus(1000))).await;
            self.refused(&name).await;
            self.delete(&name).await;
        }
    }

    pub(crate) async fn nominate(&self, name: &str, node: &str) {
        let patch = Patch::Merge(json!({"status": {"nominatedNodeName": node}}));
        self.pods()
            .patch_status(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn ungate(&self, name: &str) {
        let patch = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
        self.pods().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Past all schedulers.
    pub(crate) async fn bind(&self, name: &str, node: &str) {
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let _status: Value = self
            .pods()
            .create_subresource("binding", name, &PostParams::default(), &binding)
            .await
            .unwrap();
    }

    pub(crate) async fn create_group(&self, name: &str, min_member: i32, queue: &str, preemptibility: &str) {
        let spec = PodGroupSpec {
            min_member,
            queue: queue.to_owned(),
            preemptibility: preemptibility.to_owned(),
            ..PodGroupSpec::default()
        };
        self.groups()
            .create(&PostParams::default(), &PodGroup::new(name, spec))
            .await
            .unwrap();
    }

    pub(crate) async fn request_bind(&self, name: &str, node: &str) {
        let received_gpu = Some(ReceivedGpu {
            count: 1,
            portion: "1.00".to_owned(),
        });
        let spec = BindRequestSpec {
            received_resource_type: "Regular".to_owned(),
            received_gpu,
            ..Default::default()
        };
        self.request(name, node, spec).await;
    }

    pub(crate) async fn request_bind_with_backoff(&self, name: &str, node: &str, limit: i32) {
        let spec = BindRequestSpec {
            received_resource_type: "Regular".to_owned(),
            backoff_limit: Some(limit),
            ..Default::default()
        };
        self.request(name, node, spec).await;
    }

    /// Takes the request's owner away.
    pub(crate) async fn disown(&self, name: &str) {
        let patch = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
        self.requests()
            .patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) async fn delete_request(&self, name: &str) {
        self.requests().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Half of a GPU.
    pub(crate) async fn request_share(&self, name: &str, node: &str, group: &str) {
        let spec = BindRequestSpec {
            received_resource_type: "Fraction".to_owned(),
            received_gpu: Some(ReceivedGpu {
                count: 1,
                portion: "0.50".to_owned(),
            }),
            selected_gpu_groups: vec![group.to_owned()],
            ..Default::default()
        };
        self.request(name, node, spec).await;
    }

    /// Named as the pod and owned by it, if there is one.
    async fn request(&self, name: &str, node: &str, spec: BindRequestSpec) {
        let spec = BindRequestSpec {
            pod_name: name.to_owned(),
            selected_node: node.to_owned(),
            ..spec
        };
        let owner = self
            .pods()
            .get_opt(name)
            .await
            .unwrap()
            .and_then(|pod| kube::Resource::owner_ref(&pod, &()));
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(names::SELECTED_NODE.to_owned(), node.to_owned())].into()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let request = BindRequest {
            metadata,
            spec,
            status: None,
        };
        self.requests().create(&PostParams::default(), &request).await.unwrap();
    }

    pub(crate) async fn succeeded(&self, name: &str) -> BindRequest {
        self.wait(&format!("the BindRequest {name} succeeds"), async || {
            let request = self.requests().get(name).await?;
            ensure!(request.phase() == "Succeeded", "{:?}", request.status);
            Ok(request)
        })
        .await
    }

    pub(crate) async fn failed(&self, name: &str) -> BindRequestStatus {
        self.wait(&format!("the BindRequest {name} fails"), async || {
            let request = self.requests().get(name).await?;
            ensure!(request.phase() == "Failed", "{:?}", request.status);
            request.status.context("no status")
        })
        .await
    }

    pub(crate) async fn no_request(&self, name: &str) {
        self.wait(&format!("there is no BindRequest {name}"), async || {
            ensure!(self.requests().get_opt(name).await?.is_none(), "still there");
            Ok(())
        })
        .await;
    }

    pub(crate) async fn add_node(&self, node: Value) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let name = node["metadata"]["name"].as_str().unwrap().to_owned();
        nodes
            .create(&PostParams::default(), &serde_json::from_value(node.clone()).unwrap())
            .await
            .unwrap();
        // The API server taints what is not Ready yet, and the controller manager takes the taint away.
        if node["metadata"]["labels"]["type"] == "kwok" {
            self.wait(&format!("{name} is Ready"), async || {
                let taints = nodes
                    .get(&name)
                    .await?
                    .spec
                    .and_then(|spec| spec.taints)
                    .unwrap_or_default();
                ensure!(
                    taints.iter().all(|taint| !taint.key.starts_with("node.kubernetes.io")),
                    "{taints:?}"
                );
                Ok(())
            })
            .await;
        }
    }

    pub(crate) async fn patch_node(&self, name: &str, patch: Value) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
    }

    /// An empty one where there is none.
    pub(crate) async fn config_map(&self, name: &str) -> BTreeMap<String, String> {
        let maps: Api<ConfigMap> = Api::default_namespaced(self.client.clone());
        maps.get(name).await.unwrap().data.unwrap_or_default()
    }

    /// The pods that hold shared GPUs.
    pub(crate) async fn reservations(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), names::RESERVATION_NAMESPACE);
        pods.list(&ListParams::default()).await.unwrap().items
    }

    pub(crate) async fn no_reservations(&self) {
        self.wait("no GPU is held", async || {
            let held = self.reservations().await.len();
            ensure!(held == 0, "{held} are");
            Ok(())
        })
        .await;
    }

    /// A queue of its own with so many GPUs as its limit and quota.
    pub(crate) async fn queue(&self, name: &str, parent: &str, limit: f64, quota: f64) {
        let gpu = kai::QueueResource {
            quota,
            limit,
            over_quota_weight: 1.0,
        };
        let resources = kai::QueueResources {
            gpu,
            ..kai::unlimited()
        };
        kai::queue(&self.client, name, parent, resources).await.unwrap();
    }

    /// What KAI said of it, for a failure's message.
    async fn wait<T>(&self, what: &str, probe: impl AsyncFnMut() -> anyhow::Result<T>) -> T {
        match eventually(PATIENCE, probe).await {
            Ok(value) => value,
            Err(error) => {
                let events: Api<Event> = Api::all(self.client.clone());
                for event in events.list(&ListParams::default()).await.unwrap() {
                    let object = event.involved_object.name.unwrap_or_default();
                    eprintln!(
                        "{object}: {}: {}",
                        event.reason.unwrap_or_default(),
                        event.message.unwrap_or_default()
                    );
                }
                for request in self.requests().list(&ListParams::default()).await.unwrap() {
                    eprintln!("BindRequest {}: {:?}", request.name_any(), request.status);
                }
                for group in self.groups().list(&ListParams::default()).await.unwrap() {
                    eprintln!("PodGroup {}", group.name_any());
                }
                for pod in self.pods().list(&ListParams::default()).await.unwrap() {
                    let (name, annotations) = (pod.name_any(), pod.annotations());
                    eprintln!(
                        "Pod {name}: {annotations:?}, goes at {:?}",
                        pod.metadata.deletion_timestamp
                    );
                }
                for part in ["kai-podgrouper", "kai-scheduler", "kai-binder"] {
                    let log = self.rig.dir().join("logs").join(format!("{part}.log"));
                    let log = std::fs::read_to_string(log).unwrap_or_default();
                    let lines: Vec<_> = log.lines().collect();
                    eprintln!("{part}:\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
                }
                panic!("not: {what}: {error:#}");
            }
        }
    }
}
