//! What a daemon may do to its node beyond labels, as `daemon.nodeHealth` says: asked of the real API server with its policy.

use anyhow::{Context as _, ensure};
use berth_testkit::{eventually, rig::in_rig};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON, WAIT};

fn taint(key: &str, effect: &str) -> Value {
    json!({"spec": {"taints": [{"key": key, "effect": effect}]}})
}

fn cordon(is_on: &Value, mark: &Value) -> Value {
    json!({"spec": {"unschedulable": is_on}, "metadata": {"annotations": {"gpu.berth.dev/cordoned": mark}}})
}

async fn change(client: &Client, patch: &Value) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    nodes.patch("gpu-0000", &params, &patch).await.map(drop)
}

/// With the rights of the daemon's pod as it is now: an upgrade makes another one.
async fn daemon(cluster: &Cluster) -> Client {
    let pods = cluster.pods();
    let pod = cluster.pod("daemon", Some("gpu-0000")).await;
    pods.client(&pods.kubeconfig("berth-daemon", &pod)).await
}

#[test]
fn rig_chart_lets_a_daemon_mark_its_node_in_the_way_that_it_is_told_to_and_take_its_marks_away() {
    in_rig(
        "marks::rig_chart_lets_a_daemon_mark_its_node_in_the_way_that_it_is_told_to_and_take_its_marks_away",
        async || {
            let cluster = Cluster::up(1, false).await;
            cluster.helm(
                "install",
                &["scheduler.enabled=false"],
                &[&["--create-namespace"], WAIT].concat(),
            );
            let ours = taint("gpu.berth.dev/unhealthy", "NoSchedule");
            let foreign = taint("other", "NoSchedule");
            let sneaky = taint("gpu.berth.dev/unhealthy", "NoExecute");
            let untainted = json!({"spec": {"taints": null}});
            let own = cordon(&json!(true), &json!("true"));
            let free = cordon(&Value::Null, &Value::Null);
            let unmarked = json!({"spec": {"unschedulable": true}});
            // The first of what it may and the last of what it may not tell that the policy is the new one.
            for (mode, may, may_not) in [
                ("taint", vec![&ours, &untainted, &ours], vec![&foreign, &sneaky, &own]),
                // Before the node has the taint that Kubernetes gives to what is cordoned: that one is another's.
                (
                    "cordon",
                    vec![&untainted, &own, &free, &own],
                    vec![&foreign, &sneaky, &ours],
                ),
                ("label", vec![&free], vec![&ours, &foreign, &unmarked, &own]),
            ] {
                let set = format!("daemon.nodeHealth={mode}");
                cluster.helm("upgrade", &["scheduler.enabled=false", &set], WAIT);
                let is_new = async || {
                    let daemon = daemon(&cluster).await;
                    change(&daemon, may[0]).await?;
                    ensure!(
                        change(&daemon, may_not[may_not.len() - 1]).await.is_err(),
                        "{mode}: not yet"
                    );
                    Ok(daemon)
                };
                let daemon = eventually(SOON, is_new).await.unwrap();
                for patch in &may[1..] {
                    let changed = change(&daemon, patch).await;
                    changed.with_context(|| format!("{mode}: {patch}")).unwrap();
                }
                for patch in may_not {
                    let refused = change(&daemon, patch).await.unwrap_err().to_string();
                    assert!(refused.contains("berthd may"), "{mode}: {patch}: {refused}");
                }
            }
            // A person's cordon.
            change(&cluster.rig.client(), &unmarked).await.unwrap();
            let undo = json!({"spec": {"unschedulable": null}});
            let refused = change(&daemon(&cluster).await, &undo).await.unwrap_err().to_string();
            assert!(refused.contains("no cordon but its own"), "{refused}");
        },
    );
}
