//! `webhook-server` asked by a real API server, with its certificate in a Secret that is rotated under it.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use berth_testkit::{
    Process, Program,
    certs::{Ca, Issued},
    eventually, http,
    rig::{Rig, RigConfig, inside},
};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::{Namespace, Pod, Secret},
    },
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
const SYSTEM: &str = "nvca-system";

fn in_rig(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
}

async fn apply<K>(api: Api<K>, name: &str, object: Value)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let params = PatchParams::apply("test").force();
    api.patch(name, &params, &Patch::Apply(object)).await.unwrap();
}

async fn namespaces(client: &Client) {
    for (name, kind) in [(SYSTEM, ""), ("nvcf-backend", "pod_spec"), ("sr-1", "miniservice")] {
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        if !kind.is_empty() {
            object["metadata"]["labels"] = json!({"nvca.nvcf.nvidia.io/workload-instance-type": kind});
        }
        apply(Api::<Namespace>::all(client.clone()), name, object).await;
    }
}

async fn certificate(client: &Client, issued: &Issued) {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nvca-webhook-tls-server-certs"},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": bytes(&issued.cert_pem), "tls.key": bytes(&issued.key_pem)}});
    apply(
        Api::<Secret>::namespaced(client.clone(), SYSTEM),
        "nvca-webhook-tls-server-certs",
        object,
    )
    .await;
}

/// As the agent's configurations are: whoever is not served makes no pod.
async fn configurations(client: &Client, addr: &str, ca: &Ca) {
    let hook = |path: &str, kinds: Value, resources: Value| {
        json!({
            "name": format!("{}.nvca.nvcf.nvidia.io", path.trim_start_matches('/')),
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail", "timeoutSeconds": 10,
            "clientConfig": {"url": format!("https://{addr}{path}"), "caBundle": ByteString(ca.cert_pem().into_bytes())},
            "namespaceSelector": {"matchExpressions": [
                {"key": "nvca.nvcf.nvidia.io/workload-instance-type", "operator": "In", "values": kinds}]},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": resources, "scope": "Namespaced"}],
        })
    };
    let both = json!(["pod_spec", "miniservice"]);
    let mutating = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
    "metadata": {"name": "nvca"}, "webhooks": [
        hook("/mutate-pod-nodeaffinity", both.clone(), json!(["pods"])),
        hook("/nvca-mutating-webhook", both, json!(["pods", "secrets", "configmaps"])),
    ]});
    apply(
        Api::<MutatingWebhookConfiguration>::all(client.clone()),
        "nvca",
        mutating,
    )
    .await;
    let validating = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "nvca"}, "webhooks": [hook("/validate", json!(["miniservice"]), json!(["pods"]))]});
    apply(
        Api::<ValidatingWebhookConfiguration>::all(client.clone()),
        "nvca",
        validating,
    )
    .await;
}

fn function_pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "annotations": {"nvcf.nvidia.io/instance-type-name": "NCP.GPU.H100_2x"}},
        "spec": {"containers": [
            {"name": "inference", "image": "none", "resources": {"limits": {"nvidia.com/gpu": "2", "cpu": "3"},
                "requests": {"cpu": "1"}}}]}})
}

async fn create(client: &Client, namespace: &str, pod: Value) -> kube::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
        .await
}

/// The certificate of another authority: no restart, and the first is not served any more.
async fn rotates(client: &Client, server: &Process, second: &Ca) {
    certificate(client, &second.localhost()).await;
    let changed = eventually(SOON, async || {
        let log = server.stderr();
        ensure!(
            log.matches("certificate of the Secret is put to use").count() == 2,
            "{log}"
        );
        Ok(())
    });
    changed.await.unwrap();
    configurations(client, server.address("webhook"), second).await;
    let mut number = 0;
    let rotated = eventually(SOON, async || {
        number += 1;
        create(client, "nvcf-backend", function_pod(&format!("r-{number}"))).await?;
        Ok(())
    });
    rotated.await.unwrap();
}

/// The gate goes off in the file alone.
async fn switches_off(client: &Client, off: impl FnOnce()) {
    off();
    let mut number = 0;
    let off = eventually(SOON, async || {
        number += 1;
        let pod = create(client, "nvcf-backend", function_pod(&format!("o-{number}"))).await?;
        let scheduler = pod.spec.and_then(|spec| spec.scheduler_name);
        ensure!(scheduler.as_deref() == Some("default-scheduler"), "{scheduler:?}");
        Ok(())
    });
    off.await.unwrap();
}

#[test]
fn rig_the_api_server_asks_and_pods_are_pinned_checked_and_keep_being_so_when_the_certificate_rotates() {
    in_rig(
        "rig_the_api_server_asks_and_pods_are_pinned_checked_and_keep_being_so_when_the_certificate_rotates",
        async || {
            let config = RigConfig {
                nodes: 1,
                ..RigConfig::default()
            };
            let rig = Rig::up(config).await.unwrap();
            let client = rig.client();
            namespaces(&client).await;
            let program = Program::new("webhook-server", "berth-operator");
            let config = program.dir().join("config.yaml");
            let gates = |flags: &str| fs::write(&config, format!("agent: {{featureFlags: [{flags}]}}\n")).unwrap();
            gates("KAIScheduler");
            let server = program
                .arg("--config", "{dir}/config.yaml")
                .arg("--tls-dir", "{dir}/tls")
                .arg("--listen", "127.0.0.1:0")
                .arg("--admin", "127.0.0.1:0")
                .arg("--kubeconfig", rig.kubeconfig().to_str().unwrap())
                .start()
                .await
                .unwrap();
            let health = format!("{}/healthz", server.admin());
            assert_eq!(
                http::get(&health).await.unwrap().status,
                503,
                "there is no certificate yet"
            );
            let (first, second) = (Ca::new("first"), Ca::new("second"));
            certificate(&client, &first.localhost()).await;
            let ready = eventually(SOON, async || {
                let status = http::get(&health).await?.status;
                ensure!(status == 200, "{status}");
                Ok(())
            });
            ready.await.unwrap();
            let log = server.stderr();
            assert_eq!(log.matches("waiting for TLS files").count(), 1, "{log}");
            assert!(
                !log.contains(r#""level":"ERROR""#),
                "a Secret that is late is no error: {log}"
            );
            let version = http::get(&format!("{}/version", server.admin())).await.unwrap();
            assert!(!version.body.trim().is_empty());
            configurations(&client, server.address("webhook"), &first).await;

            // The API server takes a moment to know of its webhooks.
            let at = std::cell::Cell::new(0);
            let pinned = eventually(SOON, async || {
                at.set(at.get() + 1);
                let pod = create(&client, "nvcf-backend", function_pod(&format!("p-{}", at.get()))).await?;
                let label = pod
                    .labels()
                    .get("kai.scheduler/queue")
                    .cloned()
                    .context("not patched")?;
                Ok((label, pod))
            });
            let (queue, pod) = pinned.await.unwrap();
            assert_eq!(queue, "default-queue");
            let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
            assert_eq!(spec["schedulerName"], "kai-scheduler");
            assert_eq!(spec["automountServiceAccountToken"], false);
            let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
            assert_eq!(
                required["nodeSelectorTerms"][0]["matchExpressions"][0],
                json!({"key": "nvca.nvcf.nvidia.io/instance-type", "operator": "In", "values": ["NCP.GPU.H100"]})
            );
            assert_eq!(
                spec["containers"][0]["resources"]["requests"],
                json!({"nvidia.com/gpu": "2", "cpu": "3"})
            );

            // A function's own namespace.
            let mut host = function_pod("host");
            host["spec"]["hostNetwork"] = json!(true);
            let denied = eventually(SOON, async || {
                let made = create(&client, "sr-1", host.clone()).await;
                if made.is_ok() {
                    let pods: Api<Pod> = Api::namespaced(client.clone(), "sr-1");
                    pods.delete("host", &DeleteParams::default().grace_period(0)).await?;
                }
                made.err().context("it was made")
            });
            let denied = denied.await.unwrap();
            assert!(denied.to_string().contains("hostNetwork is not allowed"), "{denied}");
            create(&client, "sr-1", function_pod("decent")).await.unwrap();

            rotates(&client, &server, &second).await;
            switches_off(&client, || gates("SelfHosted")).await;
        },
    );
}
