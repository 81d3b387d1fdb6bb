//! A real control plane with the chart's objects, the operator as a process, and an agent of which only the health page is there.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use axum::{Router, extract::State, http::StatusCode, routing::get};
use berth_kube_api::nvcf::NvcfBackend;
use berth_testkit::{
    Process, Program, eventually,
    rig::{Rig, RigConfig, inside},
    spawn,
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResourceExt as _,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

pub(crate) const SOON: Duration = Duration::from_secs(40);
pub(crate) const NAMESPACE: &str = "nvca-operator";
pub(crate) const CLUSTER: &str = "56f71ab9-94a3-320a-9fd9-457477edeea2";
pub(crate) const GROUP: &str = "11111111-2222-3333-4444-555555555555";

pub(crate) struct Scene {
    pub(crate) rig: Rig,
    health: Arc<Mutex<(u16, String)>>,
    health_url: String,
}

pub(crate) fn in_rig(test: &str, body: impl AsyncFnOnce(&mut Scene)) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let config = RigConfig {
                nodes: 1,
                ..RigConfig::default()
            };
            let rig = Rig::up(config).await.unwrap();
            let mut scene = Scene::new(rig).await;
            body(&mut scene).await;
        });
    });
}

impl Scene {
    async fn new(rig: Rig) -> Self {
        let health = Arc::new(Mutex::new((503, "not ready".to_owned())));
        let page = async |State(health): State<Arc<Mutex<(u16, String)>>>| {
            let (status, body) = health.lock().clone();
            (StatusCode::from_u16(status).unwrap(), body)
        };
        let router = Router::new()
            .route("/healthz", get(page))
            .with_state(Arc::clone(&health));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let health_url = format!("http://{}/healthz", listener.local_addr().unwrap());
        drop(spawn(async move { axum::serve(listener, router).await }));
        let scene = Self {
            rig,
            health,
            health_url,
        };
        let crds: Api<CustomResourceDefinition> = Api::all(scene.client());
        let chart = PatchParams::apply("helm").force();
        let crd = NvcfBackend::crd();
        let name = "nvcfbackends.nvcf.nvidia.io";
        crds.patch(name, &chart, &Patch::Apply(&crd)).await.unwrap();
        let namespaces: Api<Namespace> = Api::all(scene.client());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        namespaces
            .patch(NAMESPACE, &chart, &Patch::Apply(namespace))
            .await
            .unwrap();
        let known = eventually(SOON, async || {
            scene.backends().list(&kube::api::ListParams::default()).await?;
            Ok(())
        });
        known.await.unwrap();
        scene
    }

    pub(crate) fn client(&self) -> Client {
        self.rig.client()
    }

    pub(crate) fn backends(&self) -> Api<NvcfBackend> {
        Api::namespaced(self.client(), NAMESPACE)
    }

    /// A ConfigMap of the operator's namespace.
    pub(crate) async fn map(&self, name: &str, data: Value) {
        let maps: Api<ConfigMap> = Api::namespaced(self.client(), NAMESPACE);
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        let chart = PatchParams::apply("helm").force();
        maps.patch(name, &chart, &Patch::Apply(map)).await.unwrap();
    }

    /// As the chart leaves it.
    pub(crate) async fn chart(&self) {
        self.map("nvca-namespace-pod-annotations", json!({"annotations": "{}"}))
            .await;
        self.map("nvcf-custom-network-policies", json!({})).await;
        self.map("nvcfbackend-self-managed", json!({"cluster-dto.yaml": dto("2.52.1")}))
            .await;
    }

    /// As the bootstrap leaves it.
    pub(crate) async fn register(&self, cluster: &str) {
        let ids = json!({"clusterId": cluster, "clusterGroupId": GROUP});
        self.map("nvca-cluster-registration", ids).await;
    }

    pub(crate) fn agent_says(&self, status: u16, body: &Value) {
        *self.health.lock() = (status, body.to_string());
    }

    pub(crate) fn operator(&self) -> Process {
        let program = Program::new("nvca-operator", "berth-operator")
            .arg("--kubeconfig", self.rig.kubeconfig().to_str().unwrap())
            .arg("--admin", "127.0.0.1:0")
            .arg("--nvca-image-repo", "registry.example/nvca")
            .arg("--agent-health-url", &self.health_url)
            .arg("--drain-timeout", "20s");
        program.spawn().unwrap()
    }

    /// What kubectl prints, as the documentation has it.
    pub(crate) fn kubectl(&self, args: &str) -> String {
        let mut command = Command::new(self.rig.tools().join("kubectl"));
        command
            .args(args.split_whitespace())
            .env("KUBECONFIG", self.rig.kubeconfig());
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kubectl {args}: {}", text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    }

    pub(crate) fn api(&self, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
            None => Api::all_with(self.client(), &resource),
        }
    }

    pub(crate) async fn apply(&self, object: Value) {
        let metadata = &object["metadata"];
        let kind = object["kind"].as_str().unwrap();
        let api = self.api(
            object["apiVersion"].as_str().unwrap(),
            kind,
            metadata["namespace"].as_str(),
        );
        let user = PatchParams::apply("user").force();
        let name = metadata["name"].as_str().unwrap().to_owned();
        api.patch(&name, &user, &Patch::Apply(object)).await.unwrap();
    }

    pub(crate) fn deployments(&self) -> Api<DynamicObject> {
        self.api("apps/v1", "Deployment", Some("nvca-system"))
    }

    /// Until there is an agent's Deployment; its pod's template.
    pub(crate) async fn installed(&self) -> Value {
        let deployments = self.deployments();
        let there = eventually(SOON, async || {
            let deployment = deployments.get("nvca").await?;
            let hooks = self.api("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", None);
            hooks.get("nvca").await?;
            Ok(deployment.data["spec"]["template"].clone())
        });
        there.await.unwrap()
    }

    /// Until the condition is as it should be; its message.
    pub(crate) async fn condition(&self, backend: &str, kind: &str, status: &str, reason: &str) -> String {
        let backends = self.backends();
        let so = eventually(SOON, async || {
            let conditions = backends.get(backend).await?.status.unwrap_or_default().conditions;
            let condition = conditions
                .iter()
                .find(|it| it.type_ == kind)
                .context("no such condition")?;
            ensure!(
                condition.status == status && condition.reason == reason,
                "{conditions:?}"
            );
            Ok(condition.message.clone())
        });
        so.await
            .unwrap_or_else(|error| panic!("{kind} is not {status}: {error:#}"))
    }
}

pub(crate) fn dto(version: &str) -> String {
    format!(
        "clusterName: nvcf-default\nnvcaVersion: {version}\ncapabilities: [DynamicGPUDiscovery, SelfHosted, KAIScheduler]\n"
    )
}
