//! Installed, repaired, rolled out, watched.

use anyhow::ensure;
use berth_testkit::eventually;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::kit::{CLUSTER, GROUP, NAMESPACE, SOON, dto, in_rig};

#[test]
fn rig_operator_waits_for_the_registration_and_then_makes_and_tells_everything() {
    in_rig(
        "up::rig_operator_waits_for_the_registration_and_then_makes_and_tells_everything",
        async |scene| {
            // As after `helm install --skip-crds`.
            let definitions = scene.api("apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
            let name = "nvcfbackends.nvcf.nvidia.io";
            definitions.delete(name, &DeleteParams::default()).await.unwrap();
            let gone = eventually(SOON, async || {
                ensure!(definitions.get_opt(name).await?.is_none(), "{name} is still there");
                Ok(())
            });
            gone.await.unwrap();
            let operator = scene.operator();
            scene.chart().await;
            let waits = eventually(SOON, async || {
                ensure!(operator.stderr().contains("NotRegistered"), "{}", operator.stderr());
                Ok(())
            });
            waits.await.unwrap();
            assert!(
                scene
                    .backends()
                    .list(&kube::api::ListParams::default())
                    .await
                    .unwrap()
                    .items
                    .is_empty()
            );

            scene.register(CLUSTER).await;
            let template = scene.installed().await;
            assert_eq!(
                template["spec"]["containers"][0]["image"],
                "registry.example/nvca:2.52.1"
            );
            let backend = scene.backends().get("nvcf-default").await.unwrap();
            assert_eq!(backend.spec.cluster_config.cluster_id, CLUSTER);
            assert_eq!(backend.spec.cluster_config.cluster_group_id, GROUP);
            scene
                .condition("nvcf-default", "Registered", "True", "AsExpected")
                .await;
            scene.condition("nvcf-default", "Applied", "True", "AsExpected").await;
            let why = scene
                .condition("nvcf-default", "AgentHealthy", "Unknown", "AgentUnknown")
                .await;
            assert!(why.contains("not ready"), "{why}");

            let sis = json!({"Status": "unhealthy", "Errors": ["the token has expired"]});
            scene.agent_says(503, &json!({"Status": "unhealthy", "Components": {"sis": sis}}));
            let why = scene
                .condition("nvcf-default", "Ready", "False", "AgentUnhealthy")
                .await;
            assert_eq!(why, "sis: the token has expired");
            let usage = json!({"H100": {"available": 30, "capacity": 32, "allocated": 2}});
            scene.agent_says(200, &json!({"Status": "healthy", "GPUUsage": usage}));
            scene.condition("nvcf-default", "Ready", "True", "AsExpected").await;

            let wait =
                format!("wait nvcfbackend nvcf-default -n {NAMESPACE} --for=jsonpath={{.status.agentStatus}}=healthy");
            scene.kubectl(&wait);
            let table = scene.kubectl(&format!("get nvcfbackends -n {NAMESPACE}"));
            assert!(
                table.contains("VERSION") && table.contains("2.52.1") && table.contains("healthy"),
                "{table}"
            );
            let status = scene.kubectl(&format!(
                "get nvcfbackends -n {NAMESPACE} -o jsonpath={{.items[0].status}}"
            ));
            assert!(
                status.contains(r#""H100":{"allocated":2,"available":30,"capacity":32}"#),
                "{status}"
            );
            let told = scene.kubectl(&format!("describe nvcfbackends -n {NAMESPACE}"));
            assert!(told.contains("Starting ClusterAgent 2.52.1 installation"), "{told}");
            assert!(told.contains("health changed"), "{told}");
        },
    );
}

#[test]
fn rig_operator_puts_right_what_was_changed_and_leaves_what_is_the_users() {
    in_rig(
        "up::rig_operator_puts_right_what_was_changed_and_leaves_what_is_the_users",
        async |scene| {
            scene.chart().await;
            scene.register(CLUSTER).await;
            let mut operator = scene.operator();
            scene.installed().await;
            let policies = scene.api("networking.k8s.io/v1", "NetworkPolicy", Some("nvcf-backend"));
            let mine = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "mine", "namespace": "nvcf-backend"}, "spec": {"podSelector": {}},
            });
            scene.apply(mine).await;
            let services = scene.api("v1", "Service", Some("nvca-system"));
            let note = Patch::Merge(json!({"metadata": {"annotations": {"mine": "stays"}}}));
            services.patch("nvca", &PatchParams::default(), &note).await.unwrap();
            let secrets = scene.api("v1", "Secret", Some("nvca-system"));
            let authority = secrets.get("nvca-webhook-tls-ca-certs").await.unwrap().data;

            let hooks = scene.api(
                "admissionregistration.k8s.io/v1",
                "ValidatingWebhookConfiguration",
                None,
            );
            let roles = scene.api("rbac.authorization.k8s.io/v1", "ClusterRole", None);
            for (api, name) in [
                (scene.deployments(), "nvca"),
                (hooks, "nvca"),
                (roles, "nvca"),
                (secrets.clone(), "nvca-webhook-tls-server-certs"),
                (policies.clone(), "allow-ingress-monitoring"),
            ] {
                let before = api.get(name).await.unwrap().uid();
                api.delete(name, &DeleteParams::default()).await.unwrap();
                let back = eventually(SOON, async || {
                    ensure!(api.get(name).await?.uid() != before, "{name} is the old one");
                    Ok(())
                });
                back.await.unwrap();
            }
            let replicas = Patch::Merge(json!({"spec": {"replicas": 0}}));
            scene
                .deployments()
                .patch("nvca", &PatchParams::default(), &replicas)
                .await
                .unwrap();
            let back = eventually(SOON, async || {
                let deployment = scene.deployments().get("nvca").await?;
                ensure!(deployment.data["spec"]["replicas"] == 1, "still scaled down");
                Ok(())
            });
            back.await.unwrap();
            assert!(
                policies.get_opt("mine").await.unwrap().is_some(),
                "a policy of the user is gone"
            );
            let service = services.get("nvca").await.unwrap();
            assert_eq!(service.annotations()["mine"], "stays");
            assert_eq!(secrets.get("nvca-webhook-tls-ca-certs").await.unwrap().data, authority);

            // What happened while nobody looked, too; and a restart makes no new authority.
            operator.kill();
            scene
                .deployments()
                .delete("nvca", &DeleteParams::default())
                .await
                .unwrap();
            // The Lease of the one that was killed runs out first, or is given up.
            scene
                .api("coordination.k8s.io/v1", "Lease", Some(NAMESPACE))
                .delete("nvca-operator", &DeleteParams::default())
                .await
                .unwrap();
            // An earlier release's resource: Helm does not upgrade it.
            let definitions = scene.api("apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
            let name = "nvcfbackends.nvcf.nvidia.io";
            let mut old = definitions.get(name).await.unwrap();
            old.data["spec"]["versions"][0]["additionalPrinterColumns"] = json!([]);
            definitions.replace(name, &PostParams::default(), &old).await.unwrap();
            let _operator = scene.operator();
            scene.installed().await;
            assert_eq!(secrets.get("nvca-webhook-tls-ca-certs").await.unwrap().data, authority);
            let columns =
                definitions.get(name).await.unwrap().data["spec"]["versions"][0]["additionalPrinterColumns"].take();
            assert!(columns.as_array().is_some_and(|all| !all.is_empty()), "{columns}");
        },
    );
}

#[test]
fn rig_operator_rolls_out_each_change_without_a_restart() {
    in_rig(
        "up::rig_operator_rolls_out_each_change_without_a_restart",
        async |scene| {
            scene.chart().await;
            scene.register(CLUSTER).await;
            let operator = scene.operator();
            let mut template = scene.installed().await;
            let backend =
                Patch::Merge(json!({"metadata": {"annotations": {"nvca.nvcf.nvidia.io/forcedRolloutAt": "now"}}}));
            let overrides =
                Patch::Merge(json!({"spec": {"overrides": {"featureGate": {"values": ["CordonMaintenance"]}}}}));
            for change in ["registration", "chart", "annotation", "merge", "overrides"] {
                match change {
                    "registration" => scene.register("22222222-2222-2222-2222-222222222222").await,
                    "chart" => {
                        let chart = json!({"cluster-dto.yaml": dto("2.52.2")});
                        scene.map("nvcfbackend-self-managed", chart).await;
                    }
                    "annotation" => {
                        scene
                            .backends()
                            .patch("nvcf-default", &PatchParams::default(), &backend)
                            .await
                            .map(drop)
                            .unwrap();
                    }
                    "merge" => {
                        let text = "workload: {podScheduledThreshold: 20m}";
                        scene.map("agent-config-merge", json!({"config.yaml": text})).await;
                    }
                    _ => {
                        scene
                            .backends()
                            .patch("nvcf-default", &PatchParams::default(), &overrides)
                            .await
                            .map(drop)
                            .unwrap();
                    }
                }
                let rolled = eventually(SOON, async || {
                    let now = scene.installed().await;
                    ensure!(
                        now != template,
                        "the same pod after another {change}: {}",
                        operator.stderr()
                    );
                    Ok(now)
                });
                template = rolled.await.unwrap();
            }
            let maps = scene.api("v1", "ConfigMap", Some("nvca-system"));
            let config = maps.get("agent-config").await.unwrap().data["data"]["config.yaml"].to_string();
            assert!(
                config.contains("22222222-2222-2222-2222-222222222222")
                    && config.contains("CordonMaintenance")
                    && config.contains("podScheduledThreshold: 20m"),
                "{config}"
            );
            assert_eq!(
                scene.backends().get("nvcf-default").await.unwrap().spec.version,
                "2.52.2"
            );
            let told = scene.kubectl(&format!("describe nvcfbackends -n {NAMESPACE}"));
            assert!(told.contains("Upgrading ClusterAgent from 2.52.1 to 2.52.2"), "{told}");
        },
    );
}

#[test]
fn rig_operator_lets_a_superfluous_backend_go_and_takes_nothing_down() {
    in_rig(
        "up::rig_operator_lets_a_superfluous_backend_go_and_takes_nothing_down",
        async |scene| {
            scene.chart().await;
            scene.register(CLUSTER).await;
            let _operator = scene.operator();
            scene.installed().await;
            let other = json!({
                "apiVersion": "nvcf.nvidia.io/v1", "kind": "NVCFBackend",
                "metadata": {
                    "name": "other", "namespace": NAMESPACE, "finalizers": ["nvca-operator.finalizers.nvidia.io"],
                },
                "spec": {"version": "9"},
            });
            scene.apply(other).await;
            let why = scene.condition("other", "Ready", "False", "SuperfluousBackend").await;
            assert!(why.contains("other is no backend of this cluster"), "{why}");
            scene
                .backends()
                .delete("other", &DeleteParams::default())
                .await
                .map(drop)
                .unwrap();
            let agent = scene.deployments().get("nvca").await.unwrap().uid();
            let gone = eventually(SOON, async || {
                ensure!(
                    scene.backends().get_opt("other").await?.is_none(),
                    "other is still there"
                );
                Ok(())
            });
            gone.await.unwrap();
            let events = scene.kubectl(&format!("get events -n {NAMESPACE}"));
            assert!(events.contains("nothing is taken down"), "{events}");
            assert_eq!(scene.deployments().get("nvca").await.unwrap().uid(), agent);
        },
    );
}

#[test]
fn rig_operator_tells_bad_input_in_a_condition_and_goes_on() {
    in_rig(
        "up::rig_operator_tells_bad_input_in_a_condition_and_goes_on",
        async |scene| {
            scene.chart().await;
            scene.register(CLUSTER).await;
            let operator = scene.operator();
            scene.installed().await;
            let policies = scene.api("networking.k8s.io/v1", "NetworkPolicy", Some("nvcf-backend"));
            let ports = async |wanted: serde_json::Value| {
                let so = eventually(SOON, async || {
                    let policy = policies.get("mine").await?;
                    let ports = &policy.data["spec"]["ingress"][0]["ports"];
                    ensure!(*ports == wanted, "{ports}");
                    Ok(())
                });
                so.await.unwrap();
            };
            let metadata = "kind: NetworkPolicy\nmetadata: {name: mine}\n";
            let narrow = format!("{metadata}spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: 1}}]}}]}}");
            scene.map("nvcf-custom-network-policies", json!({"mine": narrow})).await;
            ports(json!([{"port": 1, "protocol": "TCP"}])).await;
            let wide = format!("{metadata}spec: {{podSelector: {{}}, ingress: [{{}}]}}");
            scene.map("nvcf-custom-network-policies", json!({"mine": wide})).await;
            ports(json!(null)).await;
            scene
                .map("nvcf-custom-network-policies", json!({"mine": "kind: Pod"}))
                .await;
            let why = scene
                .condition("nvcf-default", "ConfigurationValid", "False", "NetworkPolicyInvalid")
                .await;
            assert!(why.contains("mine") && why.contains("kept"), "{why}");
            ports(json!(null)).await;
            scene.map("nvcf-custom-network-policies", json!({})).await;
            let gone = eventually(SOON, async || {
                ensure!(policies.get_opt("mine").await?.is_none(), "mine is still there");
                Ok(())
            });
            gone.await.unwrap();
            let maps = scene.api("v1", "ConfigMap", Some(NAMESPACE));
            maps.delete("nvca-namespace-pod-annotations", &DeleteParams::default())
                .await
                .unwrap();
            scene
                .condition("nvcf-default", "ConfigurationValid", "False", "PodAnnotationsMissing")
                .await;
            scene
                .map("nvca-namespace-pod-annotations", json!({"annotations": "{}"}))
                .await;
            scene
                .condition("nvcf-default", "ConfigurationValid", "True", "AsExpected")
                .await;
            let merge = async |text: &str| scene.map("agent-config-merge", json!({"config.yaml": text})).await;
            merge("workload: {podScheduledThreshold: soon}").await;
            let why = scene
                .condition("nvcf-default", "Applied", "False", "MergeConfigInvalid")
                .await;
            assert!(why.contains("`soon` is no duration"), "{why}");
            merge("cluster: {validationPolicy: {name: Unrestricted}}").await;
            let why = scene
                .condition("nvcf-default", "ConfigurationValid", "False", "MergeConfigUnused")
                .await;
            assert!(why.contains("cluster.validationPolicy"), "{why}");
            scene.condition("nvcf-default", "Applied", "True", "AsExpected").await;
            // A wrong type does not get as far as the operator.
            let wrong = Patch::Merge(json!({"spec": {"clusterConfig": {"clusterID": true}}}));
            let refused = scene
                .backends()
                .patch("nvcf-default", &PatchParams::default(), &wrong)
                .await
                .unwrap_err();
            assert!(refused.to_string().contains("clusterID"), "{refused}");
            assert!(!operator.stderr().contains("\"ERROR\""), "{}", operator.stderr());
        },
    );
}

#[test]
fn rig_operator_survives_the_api_server_and_hands_over() {
    in_rig(
        "up::rig_operator_survives_the_api_server_and_hands_over",
        async |scene| {
            scene.chart().await;
            scene.register(CLUSTER).await;
            let first = scene.operator();
            scene.installed().await;
            let second = scene.operator();
            scene.rig.part("kube-apiserver").unwrap().kill();
            scene.rig.part("kube-apiserver").unwrap().restart().unwrap();
            scene.rig.wait_ready().await.unwrap();
            scene.register("22222222-2222-2222-2222-222222222222").await;
            let followed = eventually(SOON, async || {
                let backend = scene.backends().get("nvcf-default").await?;
                ensure!(
                    backend.spec.cluster_config.cluster_id.starts_with('2'),
                    "{}",
                    first.stderr()
                );
                Ok(())
            });
            followed.await.unwrap();
            assert!(!second.stderr().contains("is at work"), "{}", second.stderr());
            first.terminate().unwrap();
            let over = eventually(SOON, async || {
                ensure!(second.stderr().contains("is at work"), "{}", second.stderr());
                Ok(())
            });
            over.await.unwrap();
            scene
                .deployments()
                .delete("nvca", &DeleteParams::default())
                .await
                .unwrap();
            scene.installed().await;
        },
    );
}
