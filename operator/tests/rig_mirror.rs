//! nvca-mirror on a real API server, with the rights that it says it needs and no others.
#![expect(clippy::unwrap_used, reason = "in a test a panic is how it fails")]

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use berth_testkit::{
    Process, Program, eventually, http,
    rig::{Rig, RigConfig, inside},
};
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Namespace, Secret, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Resource, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(40);
const SOURCE: &str = "nvca-operator";
const WORKLOAD: &str = "nvca.nvcf.nvidia.io/workload-instance-type";
const COPY: &str = "nvca.nvcf.nvidia.io/additional-image-pull-secret";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const DOCKER: &str = "kubernetes.io/dockerconfigjson";
const DOCKER_KEY: &str = ".dockerconfigjson";

fn program(listed: &str) -> Program {
    Program::new("nvca-mirror", "berth-operator")
        .raw_args(&["run"])
        .arg("--admin", "127.0.0.1:0")
        .env("NVCA_MIRROR_SOURCE_NAMESPACE", SOURCE)
        .env("TARGET_NAMESPACE", "nvca-system")
        .env("LOG_LEVEL", "info")
        .env(
            "NVCA_ADDITIONAL_IMAGE_PULL_SECRETS_JSON_BASE64",
            STANDARD.encode(listed),
        )
}

struct Cluster {
    rig: Rig,
}

impl Cluster {
    async fn up() -> Self {
        let config = RigConfig {
            nodes: 0,
            ..RigConfig::default()
        };
        let rig = Rig::up(config).await.unwrap();
        let cluster = Self { rig };
        cluster.namespace(SOURCE, json!({})).await;
        cluster
    }

    async fn create<K>(&self, namespace: &str, object: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.rig.client(), namespace);
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    async fn namespace(&self, name: &str, labels: Value) {
        let api: Api<Namespace> = Api::all(self.rig.client());
        let namespace = json!({"metadata": {"name": name, "labels": labels}});
        let namespace = serde_json::from_value(namespace).unwrap();
        api.create(&PostParams::default(), &namespace).await.unwrap();
    }

    async fn workload(&self, name: &str) {
        self.namespace(name, json!({WORKLOAD: "pod_spec"})).await;
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.rig.client(), namespace)
    }

    /// The source, as people make it.
    async fn source(&self, kind: &str, key: &str, word: &str) {
        let secret = json!({
            "metadata": {"name": "pull", "labels": {"of": "the-source"}, "annotations": {"a": "b"}},
            "type": kind, "stringData": {key: config(word)},
        });
        self.create::<Secret>(SOURCE, secret).await;
    }

    async fn patch(&self, namespace: &str, patch: Value) {
        let secrets = self.secrets(namespace);
        let patched = secrets
            .patch("pull", &PatchParams::default(), &Patch::Merge(patch))
            .await;
        patched.unwrap();
    }

    async fn delete(&self, namespace: &str) {
        self.secrets(namespace)
            .delete("pull", &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Until there is a copy with exactly these data.
    async fn copied(&self, namespace: &str, kind: &str, key: &str, word: &str) -> Secret {
        let copied = eventually(SOON, async || {
            let secret = self.secrets(namespace).get("pull").await?;
            let data = secret.data.clone().unwrap_or_default();
            let expected = BTreeMap::from([(key.to_owned(), k8s_openapi::ByteString(config(word).into_bytes()))]);
            ensure!(secret.type_.as_deref() == Some(kind), "{namespace}: {:?}", secret.type_);
            ensure!(data == expected, "{namespace}: other data");
            let labels = BTreeMap::from([
                (MANAGED_BY.to_owned(), "nvca-mirror".to_owned()),
                (COPY.to_owned(), "true".to_owned()),
            ]);
            ensure!(secret.labels() == &labels, "{namespace}: {:?}", secret.labels());
            Ok(secret)
        });
        copied.await.unwrap()
    }

    async fn gone(&self, namespace: &str, name: &str) {
        let gone = eventually(SOON, async || {
            let secret = self.secrets(namespace).get_opt(name).await?;
            ensure!(secret.is_none(), "{namespace}/{name} is still there");
            Ok(())
        });
        gone.await.unwrap();
    }

    /// A kubeconfig of an account that may do what the mirror needs.
    async fn kubeconfig(&self) -> Value {
        self.create::<ServiceAccount>(SOURCE, json!({"metadata": {"name": "mirror"}}))
            .await;
        let role = json!({"metadata": {"name": "mirror"}, "rules": [
            {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch", "create", "patch", "delete"]},
        ]});
        let binding = json!({
            "metadata": {"name": "mirror"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "mirror"},
            "subjects": [{"kind": "ServiceAccount", "name": "mirror", "namespace": SOURCE}],
        });
        let roles: Api<ClusterRole> = Api::all(self.rig.client());
        let role = serde_json::from_value(role).unwrap();
        roles.create(&PostParams::default(), &role).await.unwrap();
        let bindings: Api<ClusterRoleBinding> = Api::all(self.rig.client());
        let binding = serde_json::from_value(binding).unwrap();
        bindings.create(&PostParams::default(), &binding).await.unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(self.rig.client(), SOURCE);
        let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}, "metadata": {}})).unwrap();
        let answer = accounts
            .create_token_request("mirror", &PostParams::default(), &request)
            .await;
        let token = answer.unwrap().status.unwrap().token;
        let text = fs::read_to_string(self.rig.kubeconfig()).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["users"][0]["user"]["token"] = json!(token);
        config
    }

    async fn start(&self, listed: &str) -> Process {
        let program = program(listed);
        let path = program.dir().join("kubeconfig");
        fs::write(&path, self.kubeconfig().await.to_string()).unwrap();
        program
            .arg("--kubeconfig", path.to_str().unwrap())
            .start()
            .await
            .unwrap()
    }
}

fn config(word: &str) -> String {
    json!({"auths": {"registry.example": {"auth": word}}}).to_string()
}

async fn says(mirror: &Process, what: &str) {
    let said = eventually(SOON, async || {
        ensure!(mirror.stderr().contains(what), "it said:\n{}", mirror.stderr());
        Ok(())
    });
    said.await.unwrap();
}

async fn metric(mirror: &Process, line: &str) {
    let counted = eventually(SOON, async || {
        let page = http::get(&format!("{}/metrics", mirror.admin())).await?.body;
        let is_there = page.lines().any(|it| it == line);
        is_there.then_some(()).with_context(|| format!("no {line} in\n{page}"))
    });
    counted.await.unwrap();
}

fn in_rig(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
}

#[test]
fn rig_pull_secrets_reach_every_namespace_that_needs_them_and_follow_their_source() {
    in_rig(
        "rig_pull_secrets_reach_every_namespace_that_needs_them_and_follow_their_source",
        async || {
            let mut cluster = Cluster::up().await;
            cluster.namespace("theirs", json!({})).await;
            // Somebody's own secret in a namespace of workloads.
            cluster.workload("sr-own").await;
            let own = json!({"metadata": {"name": "pull"}, "stringData": {"mine": "own"}});
            cluster.create::<Secret>("sr-own", own).await;
            let own = cluster.secrets("sr-own").get("pull").await.unwrap();

            // Neither the source nor the targets are there: it waits, and says so.
            let mut mirror = cluster.start(r#"[{"name":"pull"}]"#).await;
            says(&mirror, "a listed pull secret is not there: waiting for it").await;
            metric(&mirror, r#"berth_mirror_findings{what="no_source"} 1"#).await;
            metric(&mirror, r#"berth_mirror_findings{what="no_namespace"} 2"#).await;
            let ready = http::get(&format!("{}/readyz", mirror.admin())).await.unwrap();
            assert_eq!(ready.status, 200, "{}", ready.body);

            // They come one after another.
            cluster.workload("sr-1").await;
            cluster.namespace("nvca-system", json!({})).await;
            cluster.source(DOCKER, DOCKER_KEY, "first").await;
            cluster.namespace("nvcf-backend", json!({})).await;
            cluster.workload("sr-2").await;
            let targets = ["nvca-system", "nvcf-backend", "sr-1", "sr-2"];
            for namespace in targets {
                let copy = cluster.copied(namespace, DOCKER, DOCKER_KEY, "first").await;
                assert!(copy.annotations().is_empty() && copy.owner_references().is_empty());
            }
            says(&mirror, "somebody else's secret has the name of a pull secret").await;

            // A namespace becomes one of workloads later.
            cluster.namespace("sr-3", json!({})).await;
            let namespaces: Api<Namespace> = Api::all(cluster.rig.client());
            let label = Patch::Merge(json!({"metadata": {"labels": {WORKLOAD: "miniservice"}}}));
            namespaces.patch("sr-3", &PatchParams::default(), &label).await.unwrap();
            cluster.copied("sr-3", DOCKER, DOCKER_KEY, "first").await;

            // Rotation.
            cluster
                .patch(SOURCE, json!({"stringData": {DOCKER_KEY: config("second")}}))
                .await;
            for namespace in targets {
                cluster.copied(namespace, DOCKER, DOCKER_KEY, "second").await;
            }

            // Copies that somebody lays hands on.
            cluster.delete("nvca-system").await;
            cluster
                .patch(
                    "sr-1",
                    json!({"stringData": {DOCKER_KEY: config("forged"), "more": "x"}}),
                )
                .await;
            cluster
                .patch("sr-2", json!({"metadata": {"labels": {COPY: null}}}))
                .await;
            let frozen = json!({"immutable": true, "stringData": {DOCKER_KEY: config("forged")}});
            cluster.patch("nvcf-backend", frozen).await;
            for namespace in targets {
                cluster.copied(namespace, DOCKER, DOCKER_KEY, "second").await;
            }

            let said = mirror.stderr();
            assert!(!said.to_lowercase().contains("forbidden"), "it lacks a right: {said}");

            // The API server goes and comes back, and it still follows.
            cluster.rig.part("kube-apiserver").unwrap().kill();
            cluster.rig.part("kube-apiserver").unwrap().restart().unwrap();
            cluster.rig.wait_ready().await.unwrap();
            cluster
                .patch(SOURCE, json!({"stringData": {DOCKER_KEY: config("third")}}))
                .await;
            for namespace in targets {
                cluster.copied(namespace, DOCKER, DOCKER_KEY, "third").await;
            }

            // Another type, which no secret can change to.
            cluster.delete(SOURCE).await;
            cluster.source("kubernetes.io/dockercfg", ".dockercfg", "fourth").await;
            for namespace in targets {
                cluster
                    .copied(namespace, "kubernetes.io/dockercfg", ".dockercfg", "fourth")
                    .await;
            }
            metric(&mirror, "berth_mirror_copies 5").await;

            // Its end.
            cluster.delete(SOURCE).await;
            for namespace in targets.into_iter().chain(["sr-3"]) {
                cluster.gone(namespace, "pull").await;
            }
            let untouched = cluster.secrets("sr-own").get("pull").await.unwrap();
            assert_eq!(untouched.metadata, own.metadata);
            assert!(cluster.secrets("theirs").get_opt("pull").await.unwrap().is_none());

            mirror.terminate().unwrap();
            let status = mirror.wait(SOON).await.unwrap();
            assert!(status.success(), "{status}: {}", mirror.stderr());
            for word in ["first", "second", "third", "fourth", "forged"] {
                let (plain, base64) = (config(word), STANDARD.encode(config(word)));
                let said = mirror.stderr();
                assert!(
                    !said.contains(&plain) && !said.contains(&base64),
                    "a secret was logged: {said}"
                );
            }
        },
    );
}

#[test]
fn rig_copies_that_are_left_over_are_removed_also_where_nothing_is_listed() {
    in_rig(
        "rig_copies_that_are_left_over_are_removed_also_where_nothing_is_listed",
        async || {
            let cluster = Cluster::up().await;
            cluster.namespace("nvca-system", json!({})).await;
            cluster.workload("sr-1").await;
            let labels = json!({MANAGED_BY: "nvca-mirror", COPY: "true"});
            let copy = json!({"metadata": {"name": "old", "labels": labels}, "stringData": {"a": "b"}});
            cluster.create::<Secret>("nvca-system", copy.clone()).await;
            cluster.create::<Secret>("sr-1", copy).await;
            let other = json!({"metadata": {"name": "old", "labels": {COPY: "true"}}, "stringData": {"a": "b"}});
            cluster.create::<Secret>("default", other).await;
            let mirror = cluster.start("[]").await;
            cluster.gone("nvca-system", "old").await;
            cluster.gone("sr-1", "old").await;
            metric(&mirror, r#"berth_mirror_writes_total{action="delete",reason=""} 2"#).await;
            assert!(cluster.secrets("default").get_opt("old").await.unwrap().is_some());
        },
    );
}

#[tokio::test]
async fn a_name_that_the_operator_needs_itself_ends_it_with_2_and_says_what_to_do() {
    let listed = r#"{"imagePullSecrets":[{"name":"nvca-image-pull-secret"}]}"#;
    let mut mirror = program(listed).arg("--kubeconfig", "{dir}/none").spawn().unwrap();
    let status = mirror.wait(SOON).await.unwrap();
    assert_eq!(status.code(), Some(2));
    assert!(mirror.stderr().contains("nvca-image-pull-secret") && mirror.stderr().contains("Rename yours"));
}
