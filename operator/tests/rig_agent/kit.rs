//! A rig with `fake-sis` and the agent in it.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use axum::{Json, Router, routing::get};
use berth_kube_api::{GpuNode, gpu_node::GpuNodeSpec, nvcf::icms_request::ICMSRequest};
use berth_runtime::{Clock as _, SystemClock, tls};
use berth_sis::{ClusterId, TokenRules};
use berth_testkit::{
    Process, Program,
    bao::jwt::Signer,
    eventually, http,
    rig::{Rig, RigConfig, inside},
};
use k8s_openapi::{
    api::core::v1::{Namespace, Node},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResourceExt as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

pub(crate) const SOON: Duration = Duration::from_mins(1);
const NATS: &str = "nats://127.0.0.1:4222";
const GROUP: &str = "11111111-0000-4000-8000-000000000000";

pub(crate) struct Cluster {
    pub(crate) rig: Rig,
    pub(crate) agent: Process,
    nodes: usize,
    id: ClusterId,
    state: PathBuf,
    token: String,
    sis: Process,
}

pub(crate) fn in_rig(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
}

/// Status and body of the agent's health page.
pub(crate) async fn healthz(agent: &Process) -> anyhow::Result<(u16, Value)> {
    let answer = http::get(&format!("http://{}/healthz", agent.address("http"))).await?;
    let page = serde_json::from_str(&answer.body).with_context(|| answer.body.clone())?;
    Ok((answer.status, page))
}

/// What the operator makes for the agent.
pub(crate) async fn create_kinds(client: &Client) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "nvcf-backend"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &ICMSRequest::crd())
        .await
        .unwrap();
}

/// As if a daemon ran on each node: 8 healthy GPUs that nobody has.
pub(crate) async fn install_gpu_nodes(client: &Client, nodes: usize) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions
        .create(&PostParams::default(), &GpuNode::crd())
        .await
        .unwrap();
    let gpu_nodes: Api<GpuNode> = Api::all(client.clone());
    let device = |index: usize| {
        json!({"uuid": format!("GPU-{index}"), "index": index, "product": "NVIDIA H100 80GB HBM3", "model": "H100",
            "memoryBytes": 81_559_u64 << 20, "computeMode": "Default", "health": "Healthy", "schedulable": true,
            "outOfBand": false, "freeMilli": 1000, "freeMemoryBytes": 81_559_u64 << 20})
    };
    let devices: Vec<Value> = (0..8).map(device).collect();
    let status = Patch::Merge(
        json!({"status": {"generation": 1, "instance": "i", "version": "v", "address": "",
        "simulated": true, "driver": {"backend": "nvml", "driverVersion": "580.1", "nvmlVersion": "13"},
        "summary": {"model": "H100", "gpus": 8, "free": 8, "health": "Healthy"}, "conditions": [],
        "devices": devices}}),
    );
    for index in 0..nodes {
        let name = format!("gpu-{index:04}");
        let created = eventually(SOON, async || {
            let node = GpuNode::new(&name, GpuNodeSpec {});
            Ok(gpu_nodes.create(&PostParams::default(), &node).await?)
        });
        created.await.unwrap();
        gpu_nodes
            .patch_status(&name, &PatchParams::default(), &status)
            .await
            .unwrap();
    }
}

impl Cluster {
    /// With so many nodes of 8 H100, of which only labels tell.
    pub(crate) async fn up(nodes: usize) -> Self {
        let config = RigConfig {
            nodes,
            nats: true,
            ..RigConfig::default()
        };
        Self::with(config, async |rig, agent| {
            create_kinds(&rig.client()).await;
            agent.start().await.unwrap()
        })
        .await
    }

    /// `start` makes what the operator makes, and starts the agent, whose configuration is there.
    pub(crate) async fn with(config: RigConfig, start: impl AsyncFnOnce(&Rig, Program) -> Process) -> Self {
        tls::install_crypto_provider();
        let nodes = config.nodes;
        let rig = Rig::up(config).await.unwrap();
        let signer = Signer::generate("k1").unwrap();
        let set = json!({"keys": [signer.jwk()]});
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key_set = format!("http://{}/jwks", listener.local_addr().unwrap());
        let routes = Router::new().route("/jwks", get(async move || Json(set)));
        drop(berth_testkit::spawn(async move { axum::serve(listener, routes).await }));

        let id = ClusterId::of_client("nvca");
        let sis = Program::new("fake-sis", "berth-sis")
            .arg("--listen", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
            .arg("--state", "{dir}")
            .arg("--nats", NATS)
            .arg("--issuer", format!("{}={key_set}", TokenRules::SIS_ISSUER));
        let state = sis.dir().join("state.json");
        let row = json!({"cluster_id": id, "group_id": GROUP, "name": "c1", "group_name": "g", "nca_id": "n",
            "provider": "NCP", "region": "us-west-1", "capabilities": ["DynamicGPUDiscovery"], "client_id": "nvca"});
        let known = json!({"by_id": {id.as_str(): row},
            "by_name": {"n/c1": {"cluster_id": id, "group_id": GROUP, "group_name": "g"}}});
        fs::write(&state, known.to_string()).unwrap();
        let sis = sis.start().await.unwrap();

        let agent = Program::new("nvca", "berth-operator")
            .arg("--config", "{dir}/config.yaml")
            .arg("--kubeconfig", rig.kubeconfig().to_str().unwrap());
        let dir = agent.dir().to_owned();
        let now = SystemClock::new().now_unix_ms() / 1000;
        let claims = json!({"iss": TokenRules::SIS_ISSUER, "sub": "nvca", "aud": ["nvca"], "scopes": ["nvca-cluster", "instance_request_update", "instance-request"],
            "iat": now, "nbf": now, "exp": now + 3600});
        let token = signer.sign(claims.as_object().unwrap()).unwrap();
        let secrets = json!({"kv": {"tokens": {"icms": token}}});
        fs::write(dir.join("secrets.json"), secrets.to_string()).unwrap();
        let config = json!({
            "agent": {"svcAddress": "127.0.0.1:0", "adminAddr": "127.0.0.1:0", "NATSURL": NATS,
                "icmsurl": format!("http://{}", sis.address("http"))},
            "authz": {"selfManagedVaultSecretsJSONPath": dir.join("secrets.json")},
            "cluster": {"id": id, "name": "c1", "cloudProvider": "NCP", "ncaid": "n"},
        });
        // JSON is YAML.
        fs::write(dir.join("config.yaml"), config.to_string()).unwrap();
        Self {
            agent: start(&rig, agent).await,
            rig,
            nodes,
            id,
            state,
            token,
            sis,
        }
    }

    /// A customer asks for so many instances of two GPUs.
    pub(crate) async fn ask_for_pairs(&self, count: u32) {
        // Base64: the images that a function's pod runs, none of which is ever fetched here.
        let environment = "SU5GRVJFTkNFX0NPTlRBSU5FUj1yZWdpc3RyeS5pbnZhbGlkL2Y6MQpVVElMU19DT05UQUlORVI9cmVnaXN0cnkuaW52\
                           YWxpZC91OjEKTlZDRl9XT1JLRVJfVE9LRU49dAo%3D";
        let form = format!(
            "Action=RequestInstances&InstanceCount={count}&LaunchSpecification.Gpu=H100\
             &LaunchSpecification.InstanceType=NCP.GPU.H100_2x&LaunchSpecification.NcaId=n\
             &LaunchSpecification.Environment={environment}&FunctionDetails.FunctionId=f-1\
             &FunctionDetails.FunctionVersionId=v-1"
        );
        let host = self.sis.address("http");
        let head = format!(
            "POST /v1/si HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            self.token,
            form.len()
        );
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(format!("{head}{form}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }

    pub(crate) fn client(&self) -> Client {
        self.rig.client()
    }

    /// What SIS has stored.
    pub(crate) fn state(&self) -> Value {
        serde_json::from_slice(&fs::read(&self.state).unwrap()).unwrap()
    }

    pub(crate) fn types_of(&self, state: &Value) -> Vec<String> {
        let gpus = state["by_id"][self.id.as_str()]["gpus"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let types = gpus
            .iter()
            .flat_map(|gpu| gpu["instanceTypes"].as_array().cloned().unwrap_or_default());
        types.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until SIS knows of so many H100: available, capacity, allocated.
    pub(crate) async fn usage_is(&self, usage: [i64; 3]) {
        let known = eventually(SOON, async || {
            let beat = &self.state()["beats"][self.id.as_str()];
            let is = beat["usage"] == json!({ "H100": usage }) && beat["healthy"] == true;
            ensure!(is, "{beat}");
            Ok(())
        });
        let known = known.await.with_context(|| self.agent.stderr());
        known.unwrap();
    }

    pub(crate) async fn label_is(&self, node: &str, value: Option<&str>) {
        let nodes: Api<Node> = Api::all(self.client());
        let found = eventually(SOON, async || {
            let labels = nodes.get(node).await?.metadata.labels.unwrap_or_default();
            let label = labels.get("nvca.nvcf.nvidia.io/instance-type");
            ensure!(label.map(String::as_str) == value, "{label:?}");
            Ok(())
        });
        found.await.with_context(|| self.agent.stderr()).unwrap();
    }

    pub(crate) async fn install_gpu_nodes(&self) {
        install_gpu_nodes(&self.client(), self.nodes).await;
    }

    pub(crate) async fn change_device(&self, node: &str, index: usize, change: &Value) {
        let nodes: Api<GpuNode> = Api::all(self.client());
        let status = nodes.get(node).await.unwrap().status.unwrap();
        let mut status = serde_json::to_value(status).unwrap();
        let device = status["devices"][index].as_object_mut().unwrap();
        device.extend(change.as_object().unwrap().clone());
        let patch = Patch::Merge(json!({ "status": status }));
        nodes.patch_status(node, &PatchParams::default(), &patch).await.unwrap();
    }
}
