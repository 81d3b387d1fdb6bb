//! A real control plane with nodes that have addresses, and the release's life on it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use berth_testkit::{
    eventually, http,
    rig::{Rig, RigConfig},
};
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Node, Pod, Secret},
        node::v1::RuntimeClass,
    },
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    kit::{NAMESPACE, Tools},
    programs::Pods,
};

pub(crate) const SOON: Duration = Duration::from_mins(1);
pub(crate) const WAIT: &[&str] = &["--wait", "--timeout", "2m"];

pub(crate) struct Cluster {
    pub(crate) rig: Rig,
    pub(crate) tools: Tools,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Nodes with addresses, and the NVIDIA runtime's class.
    pub(crate) async fn up(nodes: usize, kai: bool) -> Self {
        let config = RigConfig {
            nodes,
            kai,
            ..RigConfig::default()
        };
        let rig = Rig::up(config).await.unwrap();
        let tools = Tools::new(Some(rig.kubeconfig()));
        let classes: Api<RuntimeClass> = Api::all(rig.client());
        let class = json!({"metadata": {"name": "nvidia"}, "handler": "nvidia"});
        let class = serde_json::from_value(class).unwrap();
        classes.create(&PostParams::default(), &class).await.unwrap();
        let cluster = Self {
            rig,
            tools,
            dir: tempfile::tempdir().unwrap(),
        };
        for node in 0..nodes {
            cluster
                .address(&format!("gpu-{node:04}"), &format!("10.7.0.{node}"))
                .await;
        }
        cluster
    }

    pub(crate) async fn address(&self, node: &str, address: &str) {
        let nodes: Api<Node> = Api::all(self.rig.client());
        let patch = json!({"status": {"addresses": [{"type": "InternalIP", "address": address}]}});
        let patch = Patch::Merge(patch);
        nodes.patch_status(node, &PatchParams::default(), &patch).await.unwrap();
    }

    pub(crate) fn helm(&self, verb: &str, set: &[&str], more: &[&str]) -> String {
        let told = self.tools.helm(verb, set, more);
        told.unwrap_or_else(|told| panic!("helm {verb} {set:?}: {told}"))
    }

    pub(crate) async fn secret(&self, name: &str, key: &str) -> Vec<u8> {
        let secrets: Api<Secret> = Api::namespaced(self.rig.client(), NAMESPACE);
        let ByteString(bytes) = secrets.get(name).await.unwrap().data.unwrap()[key].clone();
        bytes
    }

    /// The name of a pod of that component on that node, or on any.
    pub(crate) async fn pod(&self, component: &str, node: Option<&str>) -> String {
        let pods: Api<Pod> = Api::namespaced(self.rig.client(), NAMESPACE);
        let of = ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        let is_there = |pod: &Pod| {
            let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            on.is_some() && (node.is_none() || on == node)
        };
        let all = pods.list(&of).await.unwrap();
        let pod = all.iter().find(|pod| is_there(pod));
        pod.unwrap_or_else(|| panic!("no {component} on {node:?}")).name_any()
    }

    pub(crate) fn pods(&self) -> Pods<'_> {
        Pods {
            rig: &self.rig,
            tools: &self.tools,
            dir: self.dir.path(),
        }
    }

    /// Until the scheduler would place on so many nodes by their daemons' word.
    pub(crate) async fn until_usable(&self, nodes: usize) {
        let known = eventually(SOON, async || {
            let page = http::get("http://127.0.0.1:9452/debug/cluster").await?;
            let view: Value = serde_json::from_str(&page.body)?;
            let all = view["nodes"].as_array().context("no nodes")?;
            let is_usable =
                |node: &&Value| node["verified"] == true && node["reachable"] == true && node["contact"] == "Up";
            let usable = all.iter().filter(is_usable).count();
            ensure!(usable == nodes, "{usable} of {nodes}: {view}");
            Ok(())
        });
        known.await.unwrap();
    }

    /// Until the pod is bound with an annotation that tells a daemon's word.
    pub(crate) async fn placed(&self, name: &str) -> Value {
        let pods: Api<Pod> = Api::default_namespaced(self.rig.client());
        let placed = eventually(SOON, async || {
            let pod = pods.get(name).await?;
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let placement = pod.annotations().get("gpu.berth.dev/placement");
            let placement = placement.with_context(|| format!("{name} has no place"))?;
            let placement: Value = serde_json::from_str(placement)?;
            ensure!(
                node.is_some_and(|node| placement["node"] == node),
                "{name} is not bound there"
            );
            Ok(placement)
        });
        let placed = placed.await.unwrap_or_else(|error| {
            let of = format!("involvedObject.name={name}");
            let events = self.tools.kubectl(&["get", "events", "--field-selector", &of]);
            panic!("{error:#}\n{events}")
        });
        assert_eq!(placed["verified"], true, "{placed}");
        placed
    }

    pub(crate) async fn create(&self, pod: Value) {
        let pods: Api<Pod> = Api::default_namespaced(self.rig.client());
        let pod: Pod = serde_json::from_value(pod).unwrap();
        pods.create(&PostParams::default(), &pod).await.unwrap();
    }
}
