//! KAI fed by a scheduler with the chart's arguments and rights, in both modes.

use anyhow::ensure;
use berth_testkit::{
    eventually,
    kai::{PodGroup, PodGroupSpec},
    rig::in_rig,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, api::PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, SOON, WAIT};

/// A function's pod on the node with a daemon.
fn pod(name: &str, annotations: &Value, limits: &Value) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"function-version-id": "v1"}, "annotations": annotations},
        "spec": {
            "schedulerName": "kai-scheduler", "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"kubernetes.io/hostname": "gpu-0000"},
            "containers": [{"name": "c", "image": "none", "resources": {"limits": limits}}],
        },
    })
}

/// Until the API server asks the webhook, which it can only with what berth-scheduler was allowed to write.
async fn until_reviewed(cluster: &Cluster) {
    let pods: Api<Pod> = Api::default_namespaced(cluster.rig.client());
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let probe = serde_json::from_value(pod("probe", &json!({}), &json!({"nvidia.com/gpu": "1"}))).unwrap();
    let asked = eventually(SOON, async || {
        let pod = pods.create(&dry, &probe).await?;
        let is_marked = pod.annotations().contains_key("gpu.berth.dev/kai-bind");
        let is_gated = pod.spec.is_some_and(|spec| spec.scheduling_gates.is_some());
        ensure!(is_marked || is_gated, "a pod goes by unseen");
        Ok(())
    });
    asked.await.unwrap();
}

/// Two pods of a group that somebody else made, which Berth has to read and to keep from being evicted.
async fn gang(cluster: &Cluster) {
    let groups: Api<PodGroup> = Api::default_namespaced(cluster.rig.client());
    let spec = PodGroupSpec {
        min_member: 2,
        queue: "default-queue".to_owned(),
        ..PodGroupSpec::default()
    };
    let group = PodGroup::new("gang", spec);
    groups.create(&PostParams::default(), &group).await.unwrap();
    for name in ["m1", "m2"] {
        let of = json!({"pod-group-name": "gang"});
        cluster.create(pod(name, &of, &json!({"nvidia.com/gpu": "1"}))).await;
    }
    for name in ["m1", "m2"] {
        cluster.placed(name).await;
    }
}

#[test]
fn rig_chart_feeds_kai_with_no_right_too_few() {
    in_rig("kai::rig_chart_feeds_kai_with_no_right_too_few", async || {
        let cluster = Cluster::up(1, true).await;
        let pods = cluster.pods();
        let mut daemon = None;
        for (verb, mode) in [("install", "hint"), ("upgrade", "bind")] {
            let set = [
                &format!("kai.mode={mode}"),
                "daemon.simulate=dgx-h100",
                "scheduler.replicas=1",
                // A program with debug assertions on a machine that does other things, too.
                "scheduler.extraArgs={--kai-deadline=10s}",
            ];
            let more: &[&str] = if verb == "install" {
                &["--create-namespace"]
            } else {
                &[]
            };
            cluster.helm(verb, &set, &[more, WAIT].concat());
            if daemon.is_none() {
                let name = cluster.pod("daemon", None).await;
                daemon = Some(pods.daemon("gpu-0000", &pods.kubeconfig("berth-daemon", &name)).await);
            }
            let name = cluster.pod("scheduler", None).await;
            let _scheduler = pods.scheduler(&pods.kubeconfig("berth-scheduler", &name)).await;
            cluster.until_usable(1).await;
            until_reviewed(&cluster).await;
            let whole = format!("whole-{mode}");
            cluster
                .create(pod(&whole, &json!({}), &json!({"nvidia.com/gpu": "2"})))
                .await;
            assert_eq!(cluster.placed(&whole).await["devices"].as_array().unwrap().len(), 2);
            if mode == "bind" {
                let part = json!({"gpu-fraction": "0.25", "runai/shared-gpu-configmap": "part-gpu"});
                cluster.create(pod("part", &part, &json!({}))).await;
                cluster.placed("part").await;
                gang(&cluster).await;
            }
        }
    });
}
