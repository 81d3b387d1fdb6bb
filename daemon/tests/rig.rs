//! berthd and a real API server: what the cluster is told of the node, through everything that happens to either.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{fs::OpenOptions, io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use berth_kube_api::{GpuNode, gpu_node::GpuNodeStatus};
use berth_testkit::{
    Process, Program, eventually,
    rig::{Rig, RigConfig, in_rig},
};
use k8s_openapi::{
    api::core::v1::{Event, Node},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt as _, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

fn order(dir: &Path, json: &str) {
    let file = OpenOptions::new().create(true).append(true).open(dir.join("orders"));
    writeln!(file.unwrap(), "{json}").unwrap();
}

/// Waits for the GpuNode to be as the check wants it.
async fn becomes(
    nodes: &Api<GpuNode>,
    what: &str,
    check: impl Fn(&GpuNodeStatus) -> bool,
) -> anyhow::Result<GpuNodeStatus> {
    let found = eventually(SOON, async || {
        let status = nodes.get("gpu-0000").await?.status.context("no status")?;
        ensure!(check(&status), "{:?} {:?}", status.summary, status.conditions);
        Ok(status)
    });
    found.await.with_context(|| what.to_owned())
}

#[test]
fn rig_the_api_server_has_the_node_as_the_daemon_sees_it_whatever_happens() {
    in_rig(
        "rig_the_api_server_has_the_node_as_the_daemon_sees_it_whatever_happens",
        async || {
            let config = RigConfig {
                nodes: 1,
                ..RigConfig::default()
            };
            let mut rig = Rig::up(config).await.unwrap();
            let client = rig.client();
            let nodes: Api<GpuNode> = Api::all(client.clone());
            // The daemon is there before its resource is: it tries on.
            let daemon = Program::berthd()
                .arg("--node-name", "gpu-0000")
                .arg("--simulate", "dgx-h100")
                .arg("--simulate-control", "{dir}/orders")
                .arg("--kubelet-socket", "none")
                .arg("--kubeconfig", rig.kubeconfig().to_str().unwrap())
                .arg("--advertise-host", "127.0.0.1")
                .start()
                .await
                .unwrap();
            let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
            definitions
                .create(&PostParams::default(), &GpuNode::crd())
                .await
                .unwrap();

            let status = becomes(&nodes, "it appears", |status| status.holds("LedgerReconciled"))
                .await
                .unwrap();
            assert_eq!(status.address, format!("http://{}", daemon.address("grpc")));
            let summary = &status.summary;
            assert_eq!((summary.model.as_str(), summary.gpus, summary.free), ("H100", 8, 8));
            assert_eq!(summary.health, "Healthy");
            let node: Api<Node> = Api::all(client.clone());
            // It follows the resource a moment later.
            let label = async |wanted: &str| {
                let labelled = eventually(SOON, async || {
                    let labels = node.get("gpu-0000").await?.metadata.labels.context("no labels")?;
                    let value = labels.get("gpu.berth.dev/health").context("no label")?;
                    ensure!(value == wanted, "{value}");
                    Ok(())
                });
                labelled.await.unwrap();
            };
            label("Healthy").await;

            // A fault: in the resource, in the label, as an event.
            order(daemon.dir(), r#"{"xid":{"gpu":3,"code":79}}"#);
            let status = becomes(&nodes, "it falls ill", |status| status.summary.health == "Unhealthy")
                .await
                .unwrap();
            assert_eq!((status.devices[3].free_milli, status.summary.free), (0, 7));
            assert!(
                status.devices[3].health_reasons[0].contains("79"),
                "{:?}",
                status.devices[3]
            );
            label("Unhealthy").await;
            let events: Api<Event> = Api::namespaced(client.clone(), "default");
            let told = async || {
                let all = events.list(&ListParams::default()).await?;
                let event = all
                    .into_iter()
                    .find(|event| event.reason.as_deref() == Some("GpuUnhealthy"));
                event.and_then(|event| event.message).context("no event")
            };
            let message = eventually(SOON, async || told().await).await.unwrap();
            assert!(message.contains("GPU 3") && message.contains("79"), "{message}");

            // Somebody changes it, somebody deletes it: it is as it was.
            let lie = Patch::Merge(json!({"status": {"summary": {"free": 1000}}}));
            nodes
                .patch_status("gpu-0000", &PatchParams::default(), &lie)
                .await
                .unwrap();
            becomes(&nodes, "the lie goes", |status| status.summary.free == 7)
                .await
                .unwrap();
            nodes.delete("gpu-0000", &DeleteParams::default()).await.unwrap();
            becomes(&nodes, "it comes back", |status| status.devices.len() == 8)
                .await
                .unwrap();

            // The API server is away: what happens meanwhile is there once it is back.
            rig.part("kube-apiserver").unwrap().pause();
            order(daemon.dir(), r#"{"lose":{"gpu":5}}"#);
            let metrics = format!("{}/metrics", daemon.admin());
            let failed = async || {
                let page = berth_testkit::http::get(&metrics).await?.body;
                ensure!(
                    page.contains("berth_mirror_syncs_total{reason=\"ApiDeadline\"}"),
                    "not yet"
                );
                Ok(())
            };
            eventually(SOON, failed).await.unwrap();
            rig.part("kube-apiserver").unwrap().resume();
            becomes(&nodes, "it catches up", |status| status.summary.free == 6)
                .await
                .unwrap();
        },
    );
}

/// With both GPUs broken, and mended again.
async fn break_all(daemon: &Process, nodes: &Api<GpuNode>) {
    for gpu in 0..2 {
        order(daemon.dir(), &format!(r#"{{"xid":{{"gpu":{gpu},"code":79}}}}"#));
    }
    let is_broken = |status: &GpuNodeStatus| status.devices.iter().all(|device| device.health == "Unhealthy");
    becomes(nodes, "both break", is_broken).await.unwrap();
}

async fn mend_all(daemon: &Process, nodes: &Api<GpuNode>) {
    for gpu in 0..2 {
        order(daemon.dir(), &format!(r#"{{"restore":{{"gpu":{gpu}}}}}"#));
        let address = format!("unix:{}", daemon.socket().display());
        let told = eventually(SOON, async || {
            let berthctl = Program::berthctl().raw_args(&["--address", &address, "ack", &gpu.to_string()]);
            let ended = berthctl.run(SOON).await?;
            ensure!(ended.status.success(), "{ended:?}");
            Ok(())
        });
        told.await.unwrap();
    }
    becomes(nodes, "both are mended", |status| status.summary.health == "Healthy")
        .await
        .unwrap();
}

/// Waits for the node's own word on who may come: taints (less those of Kubernetes itself), cordon, and whose cordon that is.
async fn says(node: &Api<Node>, taints: &[&str], is_cordoned: bool, is_ours: bool) {
    let said = eventually(SOON, async || {
        let node = node.get("gpu-0000").await?;
        let is_marked = node.annotations().contains_key("gpu.berth.dev/cordoned");
        let spec = node.spec.unwrap_or_default();
        let has = spec.taints.unwrap_or_default().into_iter().map(|taint| taint.key);
        let has: Vec<_> = has.filter(|key| !key.starts_with("node.kubernetes.io/")).collect();
        let seen = (spec.unschedulable == Some(true), is_marked);
        ensure!(has == taints && seen == (is_cordoned, is_ours), "{has:?} {seen:?}");
        Ok(())
    });
    said.await.unwrap();
}

/// A control plane with one node and the definition of GpuNodes.
async fn up() -> (Rig, Api<GpuNode>, Api<Node>) {
    let config = RigConfig {
        nodes: 1,
        ..RigConfig::default()
    };
    let rig = Rig::up(config).await.unwrap();
    let client = rig.client();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition = GpuNode::crd();
    definitions.create(&PostParams::default(), &definition).await.unwrap();
    (rig, Api::all(client.clone()), Api::all(client))
}

#[test]
fn rig_a_node_whose_gpus_are_all_broken_is_tainted_or_cordoned_until_one_recovers() {
    in_rig(
        "rig_a_node_whose_gpus_are_all_broken_is_tainted_or_cordoned_until_one_recovers",
        async || {
            let (rig, nodes, node) = up().await;
            let change = async |patch: serde_json::Value| {
                let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
                node.patch("gpu-0000", &params, &patch).await.unwrap();
            };
            change(json!({"spec": {"taints": [{"key": "other", "effect": "NoSchedule"}]}})).await;
            let berthd = |mode: &str| {
                Program::berthd()
                    .arg("--node-name", "gpu-0000")
                    .arg("--simulate", "l40sx2")
                    .arg("--simulate-control", "{dir}/orders")
                    .arg("--kubelet-socket", "none")
                    .arg("--kubeconfig", rig.kubeconfig().to_str().unwrap())
                    .arg("--node-health", mode)
            };
            let daemon = berthd("taint").start().await.unwrap();
            order(daemon.dir(), r#"{"xid":{"gpu":0,"code":79}}"#);
            becomes(&nodes, "one breaks", |status| status.summary.health == "Unhealthy")
                .await
                .unwrap();
            says(&node, &["other"], false, false).await;
            break_all(&daemon, &nodes).await;
            says(&node, &["other", "gpu.berth.dev/unhealthy"], false, false).await;

            // In another mode: what the former left is taken away. A restart makes nothing well.
            let mut former = daemon;
            former.kill();
            let daemon = berthd("cordon").in_dir_of(&former).start().await.unwrap();
            says(&node, &["other"], true, true).await;
            mend_all(&daemon, &nodes).await;
            says(&node, &["other"], false, false).await;

            // A person's cordon is a person's.
            change(json!({"spec": {"unschedulable": true}})).await;
            break_all(&daemon, &nodes).await;
            says(&node, &["other"], true, false).await;
            mend_all(&daemon, &nodes).await;
            says(&node, &["other"], true, false).await;
        },
    );
}

#[test]
fn rig_a_node_that_leaves_takes_its_gpu_node_along_and_one_that_comes_again_is_labelled_and_marked() {
    in_rig(
        "rig_a_node_that_leaves_takes_its_gpu_node_along_and_one_that_comes_again_is_labelled_and_marked",
        async || {
            let (rig, nodes, node) = up().await;
            let daemon = Program::berthd()
                .arg("--node-name", "gpu-0000")
                .arg("--simulate", "l40sx2")
                .arg("--simulate-control", "{dir}/orders")
                .arg("--kubelet-socket", "none")
                .arg("--kubeconfig", rig.kubeconfig().to_str().unwrap())
                .arg("--node-health", "taint")
                .start()
                .await
                .unwrap();
            break_all(&daemon, &nodes).await;
            says(&node, &["gpu.berth.dev/unhealthy"], false, false).await;
            belongs(&nodes, &node).await;

            let mut anew = node.get("gpu-0000").await.unwrap();
            node.delete("gpu-0000", &DeleteParams::default()).await.unwrap();
            // By the garbage collector, which learns of a new resource within half a minute.
            let gone = eventually(SOON * 4, async || {
                ensure!(nodes.get_opt("gpu-0000").await?.is_none(), "it is there");
                Ok(())
            });
            gone.await.unwrap();
            // What changes meanwhile makes it no GpuNode that belongs to nobody.
            let looks = format!("{}/metrics", daemon.admin());
            let passes = async || -> anyhow::Result<u64> {
                let page = berth_testkit::http::get(&looks).await?.body;
                let line = page
                    .lines()
                    .find_map(|line| line.strip_prefix("berth_mirror_syncs_total{reason=\"\"} "));
                Ok(line.context("no passes")?.parse()?)
            };
            let before = passes().await.unwrap();
            order(daemon.dir(), r#"{"restore":{"gpu":1}}"#);
            let passed = eventually(SOON * 2, async || {
                ensure!(passes().await? >= before + 2, "not yet");
                Ok(())
            });
            passed.await.unwrap();
            assert!(nodes.get_opt("gpu-0000").await.unwrap().is_none());

            anew.metadata.resource_version = None;
            anew.metadata.uid = None;
            anew.metadata.managed_fields = None;
            let labels = anew.metadata.labels.get_or_insert_default();
            labels.retain(|key, _| !key.starts_with("gpu.berth.dev/"));
            anew.spec.get_or_insert_default().taints = None;
            node.create(&PostParams::default(), &anew).await.unwrap();
            says(&node, &["gpu.berth.dev/unhealthy"], false, false).await;
            belongs(&nodes, &node).await;
            let labels = node.get("gpu-0000").await.unwrap().metadata.labels.unwrap();
            assert!(labels.contains_key("gpu.berth.dev/health"), "{labels:?}");
        },
    );
}

/// Waits for the GpuNode to belong to the Node as it is now.
async fn belongs(nodes: &Api<GpuNode>, node: &Api<Node>) {
    let belongs = eventually(SOON, async || {
        let uid = node.get("gpu-0000").await?.metadata.uid;
        let owners = nodes.get("gpu-0000").await?.metadata.owner_references;
        let owners: Vec<_> = owners.into_iter().flatten().map(|owner| Some(owner.uid)).collect();
        ensure!(owners == [uid.clone()], "{owners:?}, not {uid:?}");
        Ok(())
    });
    belongs.await.unwrap();
}
