//! The page from "Image Pull Secrets" to "Verify", and every program with the rights of its service account.

use anyhow::ensure;
use berth_testkit::{eventually, http};
use serde_json::Value;

use crate::{
    cluster::{Cluster, SOON, in_rig},
    kit::{ORIGINAL, VALUES, names},
    pods::is_allowed,
    work,
};

const PULL_SECRETS: &str = r#"
for ns in nvca-operator nvcf-backend; do
  kubectl create namespace "$ns" --dry-run=client -o yaml | kubectl apply -f -
  kubectl create secret docker-registry nvcr-pull-secret \
    --docker-server=registry.example \
    --docker-username='$oauthtoken' \
    --docker-password="$REGISTRY_PASSWORD" \
    --namespace="$ns" \
    --dry-run=client -o yaml | kubectl apply -f -
done
"#;

#[test]
fn rig_nvca_chart_installs_what_registers_runs_and_lacks_no_right() {
    in_rig(
        "install::rig_nvca_chart_installs_what_registers_runs_and_lacks_no_right",
        async |cluster| {
            cluster
                .tools
                .shell(&format!("REGISTRY_PASSWORD=secret; {PULL_SECRETS}"));
            let denials = cluster.denials();
            let notes = cluster.install("--set imagePullSecrets[0].name=nvcr-pull-secret");
            assert!(
                notes.contains("cluster `nvcf-default`") && !notes.contains("IGNORED"),
                "{notes}"
            );
            let pods = cluster.tools.shell("kubectl get pods -n nvca-operator");
            assert!(pods.contains("4/4") && pods.contains("Running"), "{pods}");
            let place = cluster
                .running("nvca-operator", "app.kubernetes.io/name=nvca-operator")
                .await;
            let spec = &place.pod["spec"];
            assert_eq!(
                names(&spec["initContainers"]),
                ["vault-agent-init", "nvca-self-managed-bootstrap"]
            );
            assert_eq!(
                names(&spec["containers"]),
                ["nvca-operator", "nvca-mirror", "nvca-bootstrap-watch", "vault-agent"]
            );
            secrets_are_mounted(spec);

            let log = cluster.bootstrap(&place).await;
            let (cluster_id, group_id) = cluster.registration().await;
            let done = log
                .lines()
                .find(|line| line.contains("Bootstrap completed successfully"))
                .unwrap();
            assert!(done.contains(&cluster_id) && done.contains(&group_id), "{done}");

            let operator = cluster.operator(&place).await;
            let mirror = cluster.program(&place, "nvca-mirror").await;
            let mirror = mirror.start().await.unwrap();
            let watch = cluster.program(&place, "nvca-bootstrap-watch").await;
            let watch = watch.start().await.unwrap();
            let told = cluster
                .until("kubectl get nvcfbackends -n nvca-operator", |told| {
                    told.contains("nvcf-default")
                })
                .await;
            assert!(told.contains("VERSION") && told.contains("HEALTH"), "{told}");
            cluster.until_there("deployment/nvca -n nvca-system").await;
            copies(cluster).await;

            let agent_pod = cluster.running("nvca-system", "app.kubernetes.io/name=nvca").await;
            assert_eq!(
                names(&agent_pod.pod["spec"]["containers"]),
                ["agent", "webhook", "vault-agent"]
            );
            let pods = cluster.tools.shell("kubectl get pods -n nvca-system");
            assert!(pods.contains("3/3"), "{pods}");
            cluster.inject(&agent_pod).await;
            let agent = cluster.program(&agent_pod, "agent").await.start().await.unwrap();
            let webhook = cluster.program(&agent_pod, "webhook").await;
            let webhook = webhook.arg("--tls-dir", "{dir}/certs").start().await.unwrap();
            healthy(cluster).await;
            eventually(SOON, async || {
                let page = http::get(&format!("{}/readyz", webhook.admin())).await?;
                ensure!(page.status == 200, "{}", page.body);
                Ok(())
            })
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", webhook.stderr()));
            cluster
                .until("kubectl get nodes --show-labels", |told| {
                    told.contains("nvca.nvcf.nvidia.io/")
                })
                .await;

            work::route_webhook(cluster).await;
            work::function_runs(cluster).await;
            may_make_what_messages_hold(cluster);

            for (name, process) in [
                ("operator", operator),
                ("mirror", mirror),
                ("watch", watch),
                ("agent", agent),
                ("webhook", webhook),
            ] {
                let log = process.stderr();
                assert!(!log.is_empty(), "{name} says nothing");
                is_allowed(&log);
            }
            assert_eq!(cluster.denials(), denials, "the API server denied something");
            only_nonsense_is_told(cluster);
        },
    );
}

/// Whoever needs tokens has the file.
fn secrets_are_mounted(spec: &Value) {
    for (list, name) in [
        ("initContainers", "nvca-self-managed-bootstrap"),
        ("containers", "nvca-operator"),
        ("containers", "nvca-bootstrap-watch"),
    ] {
        let container = spec[list]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name)
            .unwrap();
        let mut mounts = container["volumeMounts"].as_array().unwrap().iter();
        assert!(mounts.any(|mount| mount["mountPath"] == "/home/app/vault"), "{name}");
    }
}

/// The pull secret arrives where pods need it; the user's own one in nvcf-backend stays.
async fn copies(cluster: &Cluster) {
    for namespace in ["nvca-system", "nvcf-backend"] {
        let secret = cluster
            .until_there(&format!("secret nvcr-pull-secret -n {namespace}"))
            .await;
        assert!(secret["data"][".dockerconfigjson"].is_string(), "{namespace}");
    }
}

/// SIS's own messages have objects in them that those of a test's SIS have not.
fn may_make_what_messages_hold(cluster: &Cluster) {
    for what in [
        "create configmaps",
        "patch configmaps",
        "create secrets",
        "patch secrets",
    ] {
        let answer = cluster.tools.shell(&format!(
            "kubectl auth can-i {what} -n nvcf-backend --as system:serviceaccount:nvca-system:nvca"
        ));
        assert_eq!(answer.trim(), "yes", "{what}");
    }
}

/// "Verify" and "Verify GPU discovery".
async fn healthy(cluster: &Cluster) {
    cluster
        .until("kubectl get nvcfbackends -n nvca-operator", |told| {
            told.contains("2.52.0-rc.5") && told.contains("healthy")
        })
        .await;
    let command = "kubectl get nvcfbackends -n nvca-operator -o jsonpath='{.items[0].status}' | python3 -m json.tool";
    cluster.until(command, |told| told.contains("\"H100\"")).await;
    let waited = cluster.tools.shell(
        "kubectl wait nvcfbackends --all -n nvca-operator --for=jsonpath='{.status.agentStatus}'=healthy --timeout=60s",
    );
    assert!(waited.contains("condition met"), "{waited}");
}

/// What values mean nothing is told, and of no other.
fn only_nonsense_is_told(cluster: &Cluster) {
    let notes = cluster.tools.shell(&format!(
        "helm upgrade nvca-operator CHART -n nvca-operator --dry-run=client -f {ORIGINAL} -f {VALUES} | sed -n '/^NOTES/,$p'"
    ));
    for ignored in [
        "systemNamespace",
        "otel",
        "agent.llm",
        "selfManaged.otelCollector",
        "networkPolicy.operator",
    ] {
        assert!(
            notes.contains(&format!("IGNORED: {ignored} means nothing")),
            "{ignored}: {notes}"
        );
    }
    for used in ["selfManaged.natsURL", "agent.tolerations", "resources", "clusterName"] {
        assert!(!notes.contains(&format!("IGNORED: {used}")), "{used}: {notes}");
    }
}
