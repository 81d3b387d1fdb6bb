//! berthd and a real API server: what the cluster is told of the node, through everything that happens to either.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{fs::OpenOptions, io::Write as _, path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use berth_kube_api::{GpuNode, gpu_node::GpuNodeStatus};
use berth_testkit::{
    Program, eventually,
    rig::{Rig, RigConfig, in_rig},
};
use k8s_openapi::{
    api::core::v1::{Event, Node},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt as _,
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
            let label = async || {
                let labels = node.get("gpu-0000").await?.metadata.labels.context("no labels")?;
                labels.get("gpu.berth.dev/health").cloned().context("no label")
            };
            let healthy = eventually(SOON, async || label().await).await.unwrap();
            assert_eq!(healthy, "Healthy");

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
            let ill = async || {
                let value = label().await?;
                ensure!(value == "Unhealthy", "{value}");
                Ok(())
            };
            eventually(SOON, ill).await.unwrap();
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
