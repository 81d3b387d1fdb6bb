//! What NVCF's operator and agent leave behind when they die, each with what it gets stuck on; and what belongs to others.

use std::time::Duration;

use anyhow::ensure;
use berth_testkit::eventually;
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
const CLEANUP: &str = "nvca.nvcf.nvidia.io/operator-cleanup";
const WORKLOAD: &str = "nvca.nvcf.nvidia.io/workload-instance-type";

pub(crate) struct Resource {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
}

const fn kind(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Resource {
    Resource {
        group,
        version,
        kind,
        plural,
    }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
pub(crate) const NODE: Resource = kind("", "v1", "Node", "nodes");
pub(crate) const NAMESPACE: Resource = kind("", "v1", "Namespace", "namespaces");
const POD: Resource = kind("", "v1", "Pod", "pods");
const CONFIG_MAP: Resource = kind("", "v1", "ConfigMap", "configmaps");
const SECRET: Resource = kind("", "v1", "Secret", "secrets");
const DEPLOYMENT: Resource = kind("apps", "v1", "Deployment", "deployments");
const ROLE: Resource = kind(RBAC, "v1", "ClusterRole", "clusterroles");
const BINDING: Resource = kind(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings");
const VALIDATING: Resource = kind(
    ADMISSION,
    "v1",
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfigurations",
);
const MUTATING: Resource = kind(
    ADMISSION,
    "v1",
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
);
const DEFINITION: Resource = kind(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
);
const BACKEND: Resource = kind("nvcf.nvidia.io", "v1", "NVCFBackend", "nvcfbackends");
const MINI_SERVICE: Resource = kind("nvca.nvcf.nvidia.io", "v1alpha1", "MiniService", "miniservices");
const STORAGE: Resource = kind("nvca.nvcf.nvidia.io", "v1", "StorageRequest", "storagerequests");
const REQUEST: Resource = kind("nvca.nvcf.nvidia.io", "v2beta1", "ICMSRequest", "icmsrequests");
const FOREIGN_KIND: Resource = kind("foreign.example", "v1", "Foreign", "foreigns");

pub(crate) const KINDS: &[Resource] = &[
    NAMESPACE,
    POD,
    CONFIG_MAP,
    SECRET,
    DEPLOYMENT,
    ROLE,
    BINDING,
    VALIDATING,
    MUTATING,
    DEFINITION,
    BACKEND,
    MINI_SERVICE,
    STORAGE,
    REQUEST,
    FOREIGN_KIND,
];

/// How many objects belong to others and have `foreign` in their names.
pub(crate) const FOREIGN: usize = 11;

/// Whether a line `kind namespace/name …` is of NVCF's.
pub(crate) fn is_nvcfs(line: &str) -> bool {
    let is_theirs = ["nvca", "nvcf", "/sr-1", "/sr-2", " sr-1/", " sr-2/"];
    let mut words = line.split(' ');
    let what = [words.next(), words.next()].map(Option::unwrap_or_default).join(" ");
    !what.contains("foreign") && is_theirs.iter().any(|word| what.contains(word))
}

struct Maker<'a>(&'a Client);

impl Maker<'_> {
    fn api(&self, kind: &Resource, namespace: &str) -> Api<DynamicObject> {
        let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural);
        if namespace.is_empty() {
            Api::all_with(self.0.clone(), &resource)
        } else {
            Api::namespaced_with(self.0.clone(), namespace, &resource)
        }
    }

    /// `place` is `name` or `namespace/name`.
    async fn make(&self, kind: &Resource, place: &str, more: Value) {
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let mut object = more;
        object["metadata"]["name"] = json!(name);
        let api = self.api(kind, namespace);
        let gvk = GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
        object["apiVersion"] = json!(gvk.api_version());
        object["kind"] = json!(kind.kind);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        // A definition is served a moment after it is there.
        let made = eventually(SOON, async || {
            Ok(api.create(&PostParams::default(), &object).await.map(drop)?)
        });
        made.await.unwrap();
    }

    /// Asks for its end, which its finalizer keeps from coming.
    async fn doom(&self, kind: &Resource, place: &str) {
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let api = self.api(kind, namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
        self.doomed(kind, place).await;
    }

    async fn doomed(&self, kind: &Resource, place: &str) {
        let (namespace, name) = place.split_once('/').unwrap_or(("", place));
        let api = self.api(kind, namespace);
        let is_stuck = eventually(SOON, async || {
            let object = api.get(name).await?;
            ensure!(object.metadata.deletion_timestamp.is_some());
            Ok(())
        });
        is_stuck.await.unwrap();
    }
}

fn held_by(finalizer: &str) -> Value {
    json!({"metadata": {"finalizers": [finalizer]}})
}

fn of_chart(finalizers: &[&str]) -> Value {
    json!({"metadata": {"labels": {"app.kubernetes.io/instance": "nvca-operator"}, "finalizers": finalizers}})
}

fn definition(kind: &Resource, scope: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"metadata": {}, "spec": {
        "group": kind.group, "scope": scope,
        "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.to_lowercase(), "listKind": format!("{}List", kind.kind)},
        "versions": [{"name": kind.version, "served": true, "storage": true, "schema": schema}],
    }})
}

fn pod(more: Value) -> Value {
    let mut pod = more;
    pod["spec"] = json!({"containers": [{"name": "c", "image": "none"}]});
    pod
}

/// Calls a service that answers nothing, and lets nothing pass without an answer.
fn webhook(name: &str, namespace: &str, groups: &[&str], resources: &[&str], operations: &[&str]) -> Value {
    json!({"metadata": {}, "webhooks": [{
        "name": name, "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
        "clientConfig": {"service": {"name": "dead", "namespace": namespace, "path": "/"}},
        "rules": [{"apiGroups": groups, "apiVersions": ["v1"], "operations": operations, "resources": resources}],
    }]})
}

/// Everything, with the webhook last: from then on nobody can make or remove a pod or a secret.
pub(crate) async fn scatter(client: &Client) {
    let it = Maker(client);
    for (kind, scope) in [
        (&BACKEND, "Namespaced"),
        (&MINI_SERVICE, "Cluster"),
        (&STORAGE, "Namespaced"),
        (&REQUEST, "Namespaced"),
        (&FOREIGN_KIND, "Namespaced"),
    ] {
        let name = format!("{}.{}", kind.plural, kind.group);
        it.make(&DEFINITION, &name, definition(kind, scope)).await;
    }
    for name in [
        "nvca-operator",
        "nvca-system",
        "nvcf-backend",
        "nvca-modelcache-init",
        "sr-foreign",
    ] {
        it.make(&NAMESPACE, name, json!({"metadata": {}})).await;
    }
    for name in ["sr-1", "sr-2"] {
        it.make(
            &NAMESPACE,
            name,
            json!({"metadata": {"labels": {WORKLOAD: "miniservice"}}}),
        )
        .await;
    }
    // Somebody's, labelled to get the pull secrets.
    it.make(
        &NAMESPACE,
        "labelled-foreign",
        json!({"metadata": {"labels": {WORKLOAD: "miniservice"}}}),
    )
    .await;
    foreign(&it).await;
    operator(&it).await;

    it.make(&REQUEST, "nvcf-backend/sr-a", held_by("nvca.finalizers.nvidia.io"))
        .await;
    let storage = "nvca.nvcf.nvidia.io/storage-request-finalizer";
    it.make(&STORAGE, "nvcf-backend/nvca-storage", held_by(storage)).await;
    it.make(&STORAGE, "sr-2/nvca-storage", held_by(storage)).await;
    let mini = held_by("nvca.nvcf.nvidia.io/miniservice-finalizer");
    it.make(&MINI_SERVICE, "nvca-mini", mini).await;
    it.make(&POD, "nvcf-backend/nvcf-function", pod(json!({"metadata": {}})))
        .await;
    it.make(&POD, "sr-1/nvcf-stuck", pod(held_by("example.com/held"))).await;
    it.make(&CONFIG_MAP, "sr-2/nvcf-held", held_by("example.com/held"))
        .await;
    it.make(&SECRET, "sr-1/nvcf-secret", held_by("example.com/held")).await;
    it.doom(&NAMESPACE, "sr-2").await;
    // What is in it follows, when the controller gets there.
    it.doomed(&STORAGE, "sr-2/nvca-storage").await;
    it.doomed(&CONFIG_MAP, "sr-2/nvcf-held").await;
    for (kind, place) in [
        (&REQUEST, "nvcf-backend/sr-a"),
        (&MINI_SERVICE, "nvca-mini"),
        (&ROLE, "nvca-operator"),
    ] {
        it.doom(kind, place).await;
    }
    let node = json!({"metadata": {"labels": {"nvca.nvcf.nvidia.io/schedule": "true", "foreign.example/label": "x"}}});
    let nodes = it.api(&NODE, "");
    let patch = kube::api::Patch::Merge(node);
    nodes
        .patch("gpu-0000", &kube::api::PatchParams::default(), &patch)
        .await
        .unwrap();
    running(&it, "nvcf-backend/nvcf-function").await;
    running(&it, "sr-1/nvcf-stuck").await;

    let dead = webhook(
        "dead.nvca.nvcf.nvidia.io",
        "nvca-system",
        &[""],
        &["pods", "secrets"],
        &["*"],
    );
    it.make(&MUTATING, "nvca", dead.clone()).await;
    it.make(&VALIDATING, "nvca", dead).await;
    let secrets = it.api(&SECRET, "default");
    let probe: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "probe"}})).unwrap();
    let blocks = eventually(SOON, async || {
        let dry = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        ensure!(
            secrets.create(&dry, &probe).await.is_err(),
            "the webhook does not block yet"
        );
        Ok(())
    });
    blocks.await.unwrap();
}

async fn running(it: &Maker<'_>, place: &str) {
    let (namespace, name) = place.split_once('/').unwrap_or_default();
    let pods = it.api(&POD, namespace);
    let runs = eventually(SOON, async || {
        let pod = pods.get(name).await?;
        ensure!(pod.data["status"]["phase"] == "Running", "{}", pod.data["status"]);
        Ok(())
    });
    runs.await.unwrap();
}

/// What the chart made, and what helm remembers of it.
async fn operator(it: &Maker<'_>) {
    it.make(
        &BACKEND,
        "nvca-operator/nvcf-default",
        held_by("nvca-operator.finalizers.nvidia.io"),
    )
    .await;
    it.make(
        &CONFIG_MAP,
        "nvca-operator/nvca-operator-shutdown-sentinel",
        of_chart(&[CLEANUP]),
    )
    .await;
    it.make(&CONFIG_MAP, "nvca-operator/nvcfbackend-self-managed", of_chart(&[]))
        .await;
    it.make(&CONFIG_MAP, "nvca-operator/nvca-cluster-registration", of_chart(&[]))
        .await;
    it.make(&SECRET, "nvca-operator/nvcr-pull-secret", json!({"metadata": {}}))
        .await;
    let labels = json!({"owner": "helm", "name": "nvca-operator"});
    let release = json!({"metadata": {"labels": labels}, "type": "helm.sh/release.v1"});
    it.make(&SECRET, "nvca-operator/sh.helm.release.v1.nvca-operator.v1", release)
        .await;
    let mut deployment = of_chart(&[]);
    deployment["spec"] = json!({
        "replicas": 1, "selector": {"matchLabels": {"app": "nvca"}},
        "template": {"metadata": {"labels": {"app": "nvca"}}, "spec": {"containers": [{"name": "c", "image": "none"}]}},
    });
    it.make(&DEPLOYMENT, "nvca-system/nvca", deployment.clone()).await;
    it.make(&DEPLOYMENT, "nvca-operator/nvca-operator", deployment).await;
    let role = json!({"apiGroup": RBAC, "kind": "ClusterRole", "name": "nvca"});
    for (name, object) in [
        ("nvca", json!({"metadata": {}})),
        ("nvca-operator", of_chart(&[CLEANUP])),
        ("nvca-operator-cleanup-hook", of_chart(&[])),
    ] {
        it.make(&ROLE, name, object.clone()).await;
        let mut binding = object;
        binding["roleRef"] = role.clone();
        it.make(&BINDING, name, binding).await;
    }
    for deployment in ["nvca-system/nvca", "nvca-operator/nvca-operator"] {
        let (namespace, name) = deployment.split_once('/').unwrap_or_default();
        let deployments = it.api(&DEPLOYMENT, namespace);
        let available = eventually(SOON, async || {
            let deployment = deployments.get(name).await?;
            ensure!(
                deployment.data["status"]["availableReplicas"] == 1,
                "{}",
                deployment.data
            );
            Ok(())
        });
        available.await.unwrap();
    }
}

/// Of others, with names and finalizers that are close by.
async fn foreign(it: &Maker<'_>) {
    let held = || held_by("foreign.example/held");
    it.make(&CONFIG_MAP, "sr-foreign/foreign", held()).await;
    it.make(&SECRET, "sr-foreign/foreign", held()).await;
    it.make(&POD, "sr-foreign/foreign", pod(json!({"metadata": {}}))).await;
    running(it, "sr-foreign/foreign").await;
    it.make(&FOREIGN_KIND, "sr-foreign/foreign", held()).await;
    it.make(&ROLE, "nvca-foreign", held()).await;
    it.make(&ROLE, "nvca-operator-foreign", held()).await;
}

/// Somebody's policy that protects cluster roles, whose program is dead.
pub(crate) async fn forbid_deletion(client: &Client) {
    let policy = webhook(
        "policy.foreign.example",
        "sr-foreign",
        &[RBAC],
        &["clusterroles"],
        &["DELETE"],
    );
    Maker(client).make(&VALIDATING, "foreign-policy", policy).await;
}
