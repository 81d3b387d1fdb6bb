//! A control plane that asks (`fake-sis` with a real NATS), a cluster that runs pods (kwok), and the agent's work between.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use async_nats::{
    ConnectOptions,
    jetstream::{self, Context, stream},
};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use axum::{Json, Router, routing::get};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64},
};
use berth_kube_api::nvcf::icms_request::ICMSRequest;
use berth_operator::{
    agent::{
        seam::Orders,
        work::{Parts, Work},
    },
    agent_config::AgentConfig,
};
use berth_runtime::{Clock as _, SharedClock, SystemClock, secret_file::SecretFile, tls};
use berth_sis::{
    ClusterId, RetryPolicy, SisClient, SisConfig, TokenFile, TokenRules,
    wire::{
        AgentStatus, CREATION_STREAM, CloudProvider, CreateCluster, Gpu, GpuUsage, Heartbeat, InstanceType,
        MaintenanceMode, RegisterRequest, RegisterStatus, TERMINATION_STREAM,
    },
};
use berth_testkit::{
    Process, Program, eventually, http,
    rig::{Part, Rig, RigConfig, inside},
};
use k8s_openapi::{
    api::core::v1::{Namespace, Node, Pod, ResourceQuota},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, CustomResourceExt as _, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::wait::{await_condition, conditions},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub(crate) const SOON: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "nvcf-backend";
const NATS: &str = "nats://127.0.0.1:4222";
const CLIENT: &str = "agent-of-the-rig";
const ACCOUNT: &str = "nvcf-default";

pub(crate) fn in_rig(test: &str, body: impl AsyncFnOnce()) {
    inside(test, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
}

/// Signs tokens as OpenBao does, and serves the key set.
struct Authority {
    key: EcdsaKeyPair,
    key_set: String,
}

impl Authority {
    async fn start() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
        let set =
            json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k1", "x": x, "y": y}]});
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key_set = format!("http://{}/jwks", listener.local_addr().unwrap());
        let router = Router::new().route("/jwks", get(async move || Json(set)));
        drop(berth_testkit::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        }));
        Self { key, key_set }
    }

    fn token(&self, scopes: &[&str]) -> String {
        let now = SystemClock::new().now_unix_ms() / 1000;
        let claims = json!({"iss": TokenRules::SIS_ISSUER, "sub": CLIENT, "aud": ["nvca"], "scopes": scopes,
            "iat": now, "nbf": now, "exp": now + 3600});
        let head = json!({"alg": "ES256", "kid": "k1", "typ": "JWT"});
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature.as_ref()))
    }
}

pub(crate) struct Bench {
    rig: Rig,
    sis: Process,
    token: String,
    secrets: PathBuf,
    client: SisClient,
    cluster: ClusterId,
    /// GPUs that are free for wishes, less what they hold.
    room: Arc<AtomicU32>,
    allocation: watch::Receiver<BTreeMap<String, u32>>,
    tell: watch::Sender<BTreeMap<String, u32>>,
    config: watch::Sender<Arc<AgentConfig>>,
    orders: watch::Sender<Orders>,
    work: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Bench {
    /// With so many free GPUs; the agent's work is not started.
    pub(crate) async fn up(room: u32) -> Self {
        tls::install_crypto_provider();
        let config = RigConfig {
            nodes: 2,
            nats: true,
            ..RigConfig::default()
        };
        let rig = Rig::up(config).await.unwrap();
        let namespaces: Api<Namespace> = Api::all(rig.client());
        let namespace = json!({"metadata": {"name": NAMESPACE}});
        let namespace = serde_json::from_value(namespace).unwrap();
        namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let definitions: Api<CustomResourceDefinition> = Api::all(rig.client());
        definitions
            .create(&PostParams::default(), &ICMSRequest::crd())
            .await
            .unwrap();
        let served = await_condition(definitions, ICMSRequest::crd_name(), conditions::is_crd_established());
        tokio::time::timeout(SOON, served).await.unwrap().unwrap();

        let authority = Authority::start().await;
        let sis = Program::new("fake-sis", "berth-sis")
            .arg("--listen", "127.0.0.1:0")
            .arg("--admin", "127.0.0.1:0")
            .arg("--nats", NATS)
            .arg("--issuer", format!("{}={}", TokenRules::SIS_ISSUER, authority.key_set))
            .start()
            .await
            .unwrap();
        let token = authority.token(&[
            "nvca-cluster",
            "cluster-management",
            "instance_request_update",
            "instance-request",
        ]);
        let secrets = sis.dir().join("secrets.json");
        fs::write(&secrets, json!({"kv": {"tokens": {"icms": token}}}).to_string()).unwrap();
        let config = SisConfig {
            url: format!("http://{}", sis.address("http")),
            host: None,
            user_agent: "test/1".to_owned(),
            retry: RetryPolicy::ONCE,
            deadline: None,
        };
        let rules = TokenRules {
            scope: "nvca-cluster".to_owned(),
            ..TokenRules::agent()
        };
        let file = TokenFile::new(SecretFile::new(&secrets));
        let client = SisClient::new(&config, file, rules, SystemClock::shared()).unwrap();
        let cluster = registered(&client).await;
        let (tell, allocation) = watch::channel(BTreeMap::new());
        let mut config = AgentConfig::default();
        NATS.clone_into(&mut config.agent.nats_url);
        config.agent.feature_flags = vec!["KAIScheduler".to_owned()];
        "us-west-1".clone_into(&mut config.cluster.region);
        let (config, _) = watch::channel(Arc::new(config));
        Self {
            rig,
            sis,
            token,
            secrets,
            client,
            cluster,
            room: Arc::new(AtomicU32::new(room)),
            allocation,
            tell,
            config,
            orders: watch::channel(Orders::Work).0,
            work: None,
        }
    }

    pub(crate) fn start_work(&mut self) {
        self.start_work_by(SystemClock::shared());
    }

    pub(crate) fn start_work_by(&mut self, clock: SharedClock) {
        let (room, held) = (Arc::clone(&self.room), self.allocation.clone());
        let stop = CancellationToken::new();
        let secrets = SecretFile::new(&self.secrets);
        drop(berth_testkit::spawn(secrets.clone().follow(stop.clone())));
        let parts = Parts {
            client: self.rig.client(),
            sis: self.client.clone(),
            cluster: self.cluster.clone(),
            config: self.config.subscribe(),
            secrets,
            fits: Arc::new(move |gpu, gpus| {
                let held = held.borrow().get(gpu).copied().unwrap_or_default();
                room.load(Ordering::SeqCst).saturating_sub(held) / gpus
            }),
            orders: self.orders.subscribe(),
            allocation: self.tell.clone(),
            clock,
        };
        let work = Work::new(parts, &mut prometheus_client::registry::Registry::default());
        let running = berth_testkit::spawn(work.run(stop.clone()));
        self.work = Some((stop, running));
    }

    pub(crate) async fn stop_work(&mut self) {
        let (stop, running) = self.work.take().unwrap();
        stop.cancel();
        running.await.unwrap();
    }

    /// As SIS answers heartbeats.
    pub(crate) fn order(&self, orders: Orders) {
        self.orders.send_replace(orders);
    }

    /// As the operator changes them while the agent runs.
    pub(crate) fn set_flags(&self, flags: &[&str]) {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.config
            .send_modify(|config| Arc::make_mut(config).agent.feature_flags = flags);
    }

    pub(crate) fn set_room(&self, gpus: u32) {
        self.room.store(gpus, Ordering::SeqCst);
    }

    /// A customer asks; the id of the request.
    pub(crate) async fn ask(&self, kind: &str, count: u32, more: &[(&str, &str)]) -> String {
        let environment = BASE64_STANDARD.encode(
            "INFERENCE_CONTAINER=registry.invalid/f:1\nUTILS_CONTAINER=registry.invalid/u:1\nNVCF_WORKER_TOKEN=t\n",
        );
        let (kind, count) = (format!("NCP.GPU.H100_{kind}"), count.to_string());
        let mut fields = vec![
            ("Action", "RequestInstances"),
            ("InstanceCount", &count),
            ("LaunchSpecification.Gpu", "H100"),
            ("LaunchSpecification.InstanceType", &kind),
            ("LaunchSpecification.NcaId", ACCOUNT),
            ("LaunchSpecification.Environment", &environment),
            ("FunctionDetails.FunctionId", "f-1"),
            ("FunctionDetails.FunctionVersionId", "v-1"),
        ];
        fields.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        fields.extend(more);
        let form: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}={}", escaped(value)))
            .collect();
        let answer = self.customer("POST", "/v1/si", &form.join("&")).await;
        answer["requestId"].as_str().unwrap().to_owned()
    }

    /// A customer ends an instance.
    pub(crate) async fn end(&self, instance: &str) {
        let path = format!("/v1/si?Action=TerminateInstances&InstanceId={instance}");
        self.customer("DELETE", &path, "").await;
    }

    async fn customer(&self, method: &str, path: &str, form: &str) -> Value {
        let host = self.sis.address("http");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            self.token,
            form.len()
        );
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(format!("{head}{form}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 ") || head.contains(" 202 "), "{answer}");
        let start = body.find('{').unwrap();
        let end = body.rfind('}').unwrap();
        serde_json::from_str(&body[start..=end]).unwrap()
    }

    /// What SIS believes of a request's instances.
    pub(crate) async fn told(&self, request: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let page = http::get(&format!("{}/debug/state", self.sis.admin())).await?;
        let state: Value = serde_json::from_str(&page.body)?;
        Ok(serde_json::from_value(state["requests"][request]["instances"].clone())?)
    }

    /// Until all of a request's instances are told so.
    pub(crate) async fn until_told(&self, request: &str, wanted: &[&str]) -> Vec<String> {
        let told = eventually(SOON, async || {
            let told = self.told(request).await?;
            let states: Vec<_> = told.values().map(String::as_str).collect();
            ensure!(states == wanted, "{told:?}, not {wanted:?}");
            Ok(told.into_keys().collect())
        });
        told.await.unwrap()
    }

    /// What SIS was told of an instance's end.
    pub(crate) async fn end_of(&self, request: &str, instance: &str) -> Value {
        let page = http::get(&format!("{}/debug/state", self.sis.admin())).await.unwrap();
        let state: Value = serde_json::from_str(&page.body).unwrap();
        state["requests"][request]["ends"][instance].clone()
    }

    /// How often an instance was reported.
    pub(crate) async fn reports(&self, instance: &str) -> usize {
        let page = http::get(&format!("{}/debug/exchanges", self.sis.admin()))
            .await
            .unwrap();
        let exchanges: Vec<Value> = serde_json::from_str(&page.body).unwrap();
        let is_one = |it: &&Value| {
            let line = it["request"].as_str().unwrap();
            line.starts_with("POST /v1/sirs/") && line.ends_with(instance)
        };
        exchanges.iter().filter(is_one).count()
    }

    pub(crate) async fn faults(&self, faults: Value) {
        let page = format!("{}/debug/faults", self.sis.admin());
        let answer = http::request("PUT", &page, &faults.to_string()).await.unwrap();
        assert_eq!(answer.status, 204, "{}", answer.body);
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.rig.client(), NAMESPACE)
    }

    pub(crate) async fn pod(&self, name: &str) -> Pod {
        let found = eventually(SOON, async || Ok(self.pods().get(name).await?));
        found.await.unwrap()
    }

    pub(crate) async fn requests(&self) -> Vec<ICMSRequest> {
        let requests: Api<ICMSRequest> = Api::namespaced(self.rig.client(), NAMESPACE);
        requests.list(&ListParams::default()).await.unwrap().items
    }

    pub(crate) async fn until_requests(&self, count: usize) {
        let gone = eventually(SOON, async || {
            let names: Vec<_> = self.requests().await.iter().map(ResourceExt::name_any).collect();
            ensure!(names.len() == count, "{names:?}");
            Ok(())
        });
        gone.await.unwrap();
    }

    /// For so many GPUs in the namespace of functions, in force.
    pub(crate) async fn quota(&self, gpus: u32) {
        let quotas: Api<ResourceQuota> = Api::namespaced(self.rig.client(), NAMESPACE);
        let quota =
            json!({"metadata": {"name": "gpus"}, "spec": {"hard": {"requests.nvidia.com/gpu": gpus.to_string()}}});
        let quota = serde_json::from_value(quota).unwrap();
        quotas.create(&PostParams::default(), &quota).await.unwrap();
        let in_force = eventually(SOON, async || {
            let quota = serde_json::to_value(quotas.get("gpus").await?.status)?;
            ensure!(quota["used"]["requests.nvidia.com/gpu"] == "0", "{quota}");
            Ok(())
        });
        in_force.await.unwrap();
    }

    /// As a scheduler does; kwok lets it run.
    pub(crate) async fn bind(&self, pod: &str) {
        self.bind_to(pod, "gpu-0000").await;
    }

    /// To a node on which nobody runs it.
    pub(crate) async fn bind_to_nobody(&self, pod: &str) {
        let nodes: Api<Node> = Api::all(self.rig.client());
        let node = serde_json::from_value(json!({"metadata": {"name": "silent"}})).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        self.bind_to(pod, "silent").await;
    }

    async fn bind_to(&self, pod: &str, node: &str) {
        self.pod(pod).await;
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node}});
        let bound = self
            .pods()
            .create_subresource::<Value, Value>("binding", pod, &PostParams::default(), &binding)
            .await;
        bound.unwrap();
    }

    /// As its node's kubelet says it.
    pub(crate) async fn say(&self, pod: &str, status: Value) {
        let patch = Patch::Merge(json!({ "status": status }));
        let said = self.pods().patch_status(pod, &PatchParams::default(), &patch).await;
        said.unwrap();
    }

    pub(crate) fn nats(&mut self) -> &mut Part {
        self.rig.part("nats-server").unwrap()
    }

    /// The stream gives out again what nobody settled, as it does by itself after six minutes.
    pub(crate) async fn deliver_again(&self) {
        let context = jetstream().await;
        let durable = format!("{CREATION_STREAM}-{}", self.cluster);
        let forgotten = eventually(SOON, async || {
            context.delete_consumer_from_stream(&durable, CREATION_STREAM).await?;
            Ok(())
        });
        forgotten.await.unwrap();
    }

    /// From now on NATS lets in only who has this key, and the tests.
    pub(crate) fn lock_nats(&mut self, key: &nkeys::KeyPair) {
        let path = self.sis.dir().join("nats.conf");
        let config = format!(
            "listen: 127.0.0.1:4222\njetstream: {{store_dir: \"{}\"}}\nauthorization: {{users: [\n  {{nkey: {}}}\n  \
             {{user: test, password: test}}\n]}}\n",
            self.sis.dir().join("jetstream").display(),
            key.public_key()
        );
        fs::write(&path, config).unwrap();
        let nats = self.nats();
        nats.set_args(vec!["-c".to_owned(), path.display().to_string()]);
        nats.restart().unwrap();
    }

    /// As OpenBao's agent renders it.
    pub(crate) fn give_key(&self, key: &nkeys::KeyPair) {
        let auth = json!({"user": key.public_key(), "user-seed": key.seed().unwrap()});
        let secrets = json!({"kv": {"tokens": {"icms": self.token}, "nats": {"api-auth": auth}}});
        let next = self.secrets.with_extension("next");
        fs::write(&next, secrets.to_string()).unwrap();
        fs::rename(next, &self.secrets).unwrap();
    }

    /// With streams that outlive NATS.
    pub(crate) async fn make_streams(&self) {
        let context = jetstream().await;
        for (name, subjects) in [
            (CREATION_STREAM, "Create.NVCA.>"),
            (TERMINATION_STREAM, "Terminate.NVCA.>"),
        ] {
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![subjects.to_owned()],
                retention: stream::RetentionPolicy::WorkQueue,
                ..stream::Config::default()
            };
            // The other ones are in memory.
            let _there_may_be_none = context.delete_stream(name).await;
            context.create_stream(config).await.unwrap();
        }
    }

    /// What anybody may publish.
    pub(crate) async fn publish(&self, subject: &str, payload: &str) {
        let context = jetstream().await;
        let sent = context
            .publish(subject.to_owned(), payload.to_owned().into())
            .await
            .unwrap();
        sent.await.unwrap();
    }

    /// Messages that a stream still has.
    pub(crate) async fn until_empty(&self, stream: &str) {
        let context = jetstream().await;
        let empty = eventually(SOON, async || {
            let info = context.get_stream(stream).await?.get_info().await?;
            ensure!(info.state.messages == 0, "{} messages", info.state.messages);
            Ok(())
        });
        empty.await.unwrap();
    }

    pub(crate) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    pub(crate) fn held(&self) -> BTreeMap<String, u32> {
        self.allocation.borrow().clone()
    }
}

/// NATS may be on its way up.
async fn jetstream() -> Context {
    let connected = eventually(SOON, async || {
        let options = ConnectOptions::with_user_and_password("test".to_owned(), "test".to_owned());
        Ok(options.connect(NATS).await?)
    });
    jetstream::new(connected.await.unwrap())
}

/// A cluster with H100s, registered and healthy.
async fn registered(client: &SisClient) -> ClusterId {
    let account = ACCOUNT.parse().unwrap();
    let create = CreateCluster {
        cluster_name: "rig".to_owned(),
        cluster_group_name: "rig".to_owned(),
        nca_id: ACCOUNT.to_owned(),
        cloud_provider: CloudProvider::Ncp,
        nvca_version: "2.52.1".to_owned(),
        region: "us-west-1".to_owned(),
        cluster_description: String::new(),
        capabilities: vec!["DynamicGPUDiscovery".to_owned()],
        attributes: Vec::new(),
        gpus: Vec::new(),
        oauth_client_id: CLIENT.to_owned(),
        jwks: None,
        oidc_issuer: None,
    };
    let cluster = client.create_cluster(&account, &create).await.unwrap().cluster_id;
    let kind = |gpus: i64| -> InstanceType {
        let kind = json!({"name": format!("NCP.GPU.H100_{gpus}x"), "value": "NCP.GPU.H100", "gpuCount": gpus,
            "default": gpus == 1});
        serde_json::from_value(kind).unwrap()
    };
    let request = RegisterRequest {
        status: RegisterStatus::Ready,
        k8s_version: "v1.35.4".to_owned(),
        gpus: vec![Gpu {
            name: "H100".to_owned(),
            capacity: None,
            instance_types: [1, 2, 4, 8].map(kind).to_vec(),
        }],
        allow_cluster_targeting: true,
        allow_task_cluster_creation_queues: true,
        nvca_version: "2.52.1".to_owned(),
        jwks: None,
        oidc_issuer: None,
    };
    client.register(&cluster, &request).await.unwrap();
    let usage = GpuUsage {
        available: 16,
        capacity: 16,
        allocated: 0,
    };
    let beat = Heartbeat {
        status: AgentStatus::Healthy,
        upgrade_status: String::new(),
        gpu_usage: BTreeMap::from([("H100".to_owned(), usage)]),
        cluster_owner_nca_id: String::new(),
        nvca_agent_version: String::new(),
        nvca_operator_version: String::new(),
        cluster_name: String::new(),
        maintenance_mode: MaintenanceMode::None,
    };
    client.heartbeat(&cluster, &beat).await.unwrap();
    cluster
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
