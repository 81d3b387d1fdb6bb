//! Deleted: drained, waited for, told; and nothing left.

use std::time::Duration;

use anyhow::ensure;
use berth_testkit::{Process, Program, eventually};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::kit::{CLUSTER, NAMESPACE, SOON, Scene, dto, in_rig};

/// An operator with everything installed, and functions that hold something.
async fn at_work(scene: &Scene) -> Process {
    scene.chart().await;
    scene.register(CLUSTER).await;
    let operator = scene.operator();
    scene.installed().await;
    stuck(scene).await;
    operator
}

/// What functions hold, with finalizers that nobody serves.
async fn stuck(scene: &Scene) {
    let finalizers = json!(["nvca.nvcf.nvidia.io/miniservice-finalizer"]);
    scene
        .apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "sr-1", "labels": {"nvca.nvcf.nvidia.io/workload-instance-type": "miniservice"}}}))
        .await;
    scene
        .apply(
            json!({"apiVersion": "nvca.nvcf.nvidia.io/v1alpha1", "kind": "MiniService",
        "metadata": {"name": "m", "finalizers": finalizers}, "spec": {"namespace": "sr-1"}}),
        )
        .await;
    scene
        .apply(json!({"apiVersion": "nvca.nvcf.nvidia.io/v1", "kind": "StorageRequest",
        "metadata": {"name": "s", "namespace": "sr-1", "finalizers": finalizers}, "spec": {}}))
        .await;
    scene.apply(json!({"apiVersion": "nvca.nvcf.nvidia.io/v2beta1", "kind": "ICMSRequest",
        "metadata": {"name": "r", "namespace": "nvcf-backend", "finalizers": ["nvca.finalizers.nvidia.io"]}, "spec": {}}))
        .await;
}

async fn nothing_is_left(scene: &Scene) {
    let namespaces = scene.api("v1", "Namespace", None);
    let gone = eventually(SOON, async || {
        for name in ["nvca-system", "nvcf-backend", "sr-1"] {
            ensure!(
                namespaces.get_opt(name).await?.is_none(),
                "the namespace {name} is there"
            );
        }
        Ok(())
    });
    gone.await.unwrap();
    for (api, kind) in [
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ] {
        let gone = eventually(SOON, async || {
            let left = scene.api(api, kind, None).get_opt("nvca").await?;
            ensure!(left.is_none(), "{kind} nvca is there");
            Ok(())
        });
        gone.await.unwrap();
    }
    let labelled = ListParams::default().labels("nvca.nvcf.nvidia.io/instance-type");
    assert!(
        scene
            .api("v1", "Node", None)
            .list(&labelled)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

/// As the agent does.
async fn label_a_node(scene: &Scene) {
    let label = Patch::Apply(json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"labels": {"nvca.nvcf.nvidia.io/instance-type": "NCP.GPU.H100"}}}));
    scene
        .api("v1", "Node", None)
        .patch("gpu-0000", &PatchParams::apply("nvca").force(), &label)
        .await
        .unwrap();
}

#[test]
fn rig_operator_takes_down_what_nobody_serves_and_makes_nothing_again() {
    in_rig(
        "down::rig_operator_takes_down_what_nobody_serves_and_makes_nothing_again",
        async |scene| {
            scene.chart().await;
            scene.register(CLUSTER).await;
            let operator = scene.operator();
            scene.installed().await;
            scene.condition("nvcf-default", "Applied", "True", "AsExpected").await;
            stuck(scene).await;
            label_a_node(scene).await;
            // The page's command, to the letter.
            let told = scene.kubectl("delete nvcfbackends --all -n nvca-operator --timeout=60s");
            assert!(told.contains("deleted"), "{told}");
            let pods = scene.kubectl("get pods -n nvca-system");
            assert!(pods.contains("No resources found in nvca-system namespace."), "{pods}");
            nothing_is_left(scene).await;
            let events = scene.kubectl(&format!("get events -n {NAMESPACE}"));
            assert!(events.contains("everything of the agent is gone"), "{events}");
            assert!(events.contains("MiniService m"), "{events}");

            // The chart's ConfigMap is there still: only a change of it is a wish for a new one.
            assert!(
                scene.backends().get_opt("nvcf-default").await.unwrap().is_none(),
                "{}",
                operator.stderr()
            );
            scene
                .map("nvcfbackend-self-managed", json!({"cluster-dto.yaml": dto("2.52.2")}))
                .await;
            let template = scene.installed().await;
            assert_eq!(
                template["spec"]["containers"][0]["image"],
                "registry.example/nvca:2.52.2"
            );
        },
    );
}

#[test]
fn rig_operator_waits_for_an_agent_that_is_alive_to_end_its_functions() {
    in_rig(
        "down::rig_operator_waits_for_an_agent_that_is_alive_to_end_its_functions",
        async |scene| {
            let _operator = at_work(scene).await;
            let ready = Patch::Merge(json!({"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}}));
            // Nobody but this test says how the agent's pod is.
            scene.rig.part("kube-controller-manager").unwrap().pause();
            let deployments = scene.deployments();
            deployments
                .patch_status("nvca", &PatchParams::default(), &ready)
                .await
                .unwrap();
            scene
                .backends()
                .delete("nvcf-default", &DeleteParams::default())
                .await
                .map(drop)
                .unwrap();
            let why = scene.condition("nvcf-default", "Ready", "False", "Deleting").await;
            assert!(why.contains("draining: 3 requests"), "{why}");
            // The agent does its part.
            let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            for (api, kind, namespace, name) in [
                ("nvca.nvcf.nvidia.io/v1alpha1", "MiniService", None, "m"),
                ("nvca.nvcf.nvidia.io/v1", "StorageRequest", Some("sr-1"), "s"),
                ("nvca.nvcf.nvidia.io/v2beta1", "ICMSRequest", Some("nvcf-backend"), "r"),
            ] {
                scene
                    .api(api, kind, namespace)
                    .patch(name, &PatchParams::default(), &none)
                    .await
                    .unwrap();
            }
            scene.rig.part("kube-controller-manager").unwrap().resume();
            nothing_is_left(scene).await;
            let gone = eventually(SOON, async || {
                ensure!(
                    scene.backends().get_opt("nvcf-default").await?.is_none(),
                    "the NVCFBackend is there"
                );
                Ok(())
            });
            gone.await.unwrap();
            let events = scene.kubectl(&format!("get events -n {NAMESPACE}"));
            assert!(!events.contains("freed of finalizers"), "{events}");
        },
    );
}

#[test]
fn rig_operator_frees_what_comes_up_when_the_drain_is_over() {
    in_rig(
        "down::rig_operator_frees_what_comes_up_when_the_drain_is_over",
        async |scene| {
            let operator = at_work(scene).await;
            // A user's own, which keeps the namespace for as long as the user wants.
            let user = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "user", "namespace": "sr-1", "finalizers": ["example.com/user"]}});
            scene.apply(user).await;
            scene
                .backends()
                .delete("nvcf-default", &DeleteParams::default())
                .await
                .map(drop)
                .unwrap();
            let waits = eventually(SOON, async || {
                let backend = scene.backends().get("nvcf-default").await?;
                let told = format!("{:?}", backend.status);
                ensure!(told.contains("waiting for namespaces to go: sr-1"), "{told}");
                Ok(())
            });
            waits.await.unwrap();

            // What the agent took on in its last moments.
            let services = scene.api("nvca.nvcf.nvidia.io/v1alpha1", "MiniService", None);
            let finalizers = json!(["nvca.nvcf.nvidia.io/miniservice-finalizer"]);
            scene
                .apply(
                    json!({"apiVersion": "nvca.nvcf.nvidia.io/v1alpha1", "kind": "MiniService",
                "metadata": {"name": "late", "finalizers": finalizers}, "spec": {"namespace": "sr-1"}}),
                )
                .await;
            let freed = eventually(SOON, async || {
                ensure!(services.get_opt("late").await?.is_none(), "{}", operator.stderr());
                Ok(())
            });
            freed.await.unwrap();
            let there = scene.api("v1", "Namespace", None).get_opt("sr-1").await.unwrap();
            assert!(there.is_some(), "the user's object kept the namespace");

            let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let maps = scene.api("v1", "ConfigMap", Some("sr-1"));
            maps.patch("user", &PatchParams::default(), &none).await.unwrap();
            nothing_is_left(scene).await;
            let told = eventually(SOON, async || {
                let events = scene.kubectl(&format!("get events -n {NAMESPACE}"));
                ensure!(events.contains("MiniService late"), "{events}");
                Ok(())
            });
            told.await.unwrap();
        },
    );
}

#[test]
fn rig_operator_cleanup_does_it_where_no_operator_does() {
    in_rig(
        "down::rig_operator_cleanup_does_it_where_no_operator_does",
        async |scene| {
            let mut operator = at_work(scene).await;
            label_a_node(scene).await;
            operator.kill();
            scene
                .apply(
                    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "rules": [],
            "metadata": {"name": "nvca-operator", "finalizers": ["nvca.nvcf.nvidia.io/operator-cleanup"]}}),
                )
                .await;
            for round in 0..2 {
                let cleanup = Program::new("nvca-operator-cleanup", "berth-operator")
                    .arg("--kubeconfig", scene.rig.kubeconfig().to_str().unwrap())
                    .arg("--drain-timeout", "5s");
                let mut process = cleanup.spawn().unwrap();
                let status = process.wait(Duration::from_mins(2)).await.unwrap();
                let log = process.stderr();
                // Namespaces may take longer than that the first time; it says so then.
                assert!(status.success() || round == 0 && log.contains("still there"), "{log}");
                nothing_is_left(scene).await;
            }
            assert!(scene.backends().get_opt("nvcf-default").await.unwrap().is_none());
            let roles = scene.api("rbac.authorization.k8s.io/v1", "ClusterRole", None);
            let role = roles.get("nvca-operator").await.unwrap();
            assert_eq!(role.metadata.finalizers.unwrap_or_default(), Vec::<String>::new());
        },
    );
}
