//! What SIS hears, through everything that happens to it, to the token and to the cluster. Without a cluster: the inventory is
//! given; SIS is `fake-sis`, in this process.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, ensure};
use axum::{Json, Router, body::Body, http::Request, routing::get};
use berth_runtime::{Clock as _, ManualClock, Shutdown, SystemClock, Tasks, tls};
use berth_sis::{
    TokenRules,
    fake::{Fake, FakeConfig, admin},
};
use berth_testkit::{bao::jwt::Signer, eventually};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::*;
use crate::{
    agent::{
        health::{CONFIG, KUBERNETES, LABELS},
        inventory::tests::{H100, gpus, inventory, node},
    },
    agent_config::AgentConfig,
};

const SOON: Duration = Duration::from_secs(20);
const GROUP: &str = "11111111-0000-4000-8000-000000000000";

/// An agent that tells, and everything around it.
struct Bench {
    dir: tempfile::TempDir,
    signer: Signer,
    cluster: ClusterId,
    sis_addr: SocketAddr,
    key_set: String,
    sis: Option<(Arc<Fake>, CancellationToken)>,
    settings: watch::Sender<Arc<Settings>>,
    inventory: watch::Sender<Option<Arc<Inventory>>>,
    allocation: watch::Sender<Allocation>,
    _k8s_version: watch::Sender<String>,
    orders: watch::Receiver<Orders>,
    health: Health,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Bench {
    /// SIS is down, there is no token, and no node was heard of.
    async fn new() -> Self {
        Self::by(SystemClock::shared()).await
    }

    async fn by(clock: SharedClock) -> Self {
        tls::install_crypto_provider();
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::generate("k1").unwrap();
        let set = json!({"keys": [signer.jwk()]});
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let key_set = format!("http://{}/jwks", listener.local_addr().unwrap());
        let routes = Router::new().route("/jwks", get(async move || Json(set)));
        drop(berth_testkit::spawn(async move { axum::serve(listener, routes).await }));
        let sis_addr = free_addr();
        let cluster = ClusterId::of_client("nvca");

        let mut config = AgentConfig::default();
        config.cluster.name = "c1".to_owned();
        config.cluster.cloud_provider = "NCP".to_owned();
        config.agent.sis_url = format!("http://{sis_addr}");
        config.authz.secrets_file = dir.path().join("secrets.json").to_str().unwrap().to_owned();
        let (settings, settings_seen) = watch::channel(Arc::new(Settings::of(config)));
        let (inventory, inventory_seen) = watch::channel(None);
        let (allocation, allocation_seen) = watch::channel(Allocation::new());
        let (k8s_version, k8s_version_seen) = watch::channel("v1.35.4".to_owned());
        let (view, _) = watch::channel(Arc::default());
        let (sender, orders) = watch::channel(Orders::Wait);
        let health = Health::starting(&[GPU, REGISTRATION, HEARTBEAT]);
        for others in [CONFIG, KUBERNETES, LABELS] {
            health.good(others);
        }
        let report = Report {
            settings: settings_seen,
            inventory: inventory_seen,
            allocation: allocation_seen,
            k8s_version: k8s_version_seen,
            health_seen: health.subscribe(),
            health: health.clone(),
            metrics: Metrics::default(),
            clock,
            seed: 7,
            view,
            orders: sender,
        };
        let stop = CancellationToken::new();
        drop(berth_testkit::spawn(report.run(stop.clone())));
        Self {
            dir,
            signer,
            cluster,
            sis_addr,
            key_set,
            sis: None,
            settings,
            inventory,
            allocation,
            _k8s_version: k8s_version,
            orders,
            health,
            tasks: Tasks::new(Shutdown::new()),
            stop,
        }
    }

    /// With SIS, a token, a cluster id, and these nodes.
    async fn running(nodes: &[(Value, Option<Vec<Value>>)]) -> Self {
        let mut bench = Self::new().await;
        bench.start_sis(&json!({})).await;
        bench.write_token("nvca-cluster");
        bench.has(nodes);
        bench.configure(|config| config.cluster.id = ClusterId::of_client("nvca").to_string());
        bench
    }

    fn configure(&self, change: impl FnOnce(&mut AgentConfig)) {
        let mut config = self.settings.borrow().config.clone();
        change(&mut config);
        self.settings.send_replace(Arc::new(Settings::of(config)));
    }

    fn has(&self, nodes: &[(Value, Option<Vec<Value>>)]) {
        self.inventory.send_replace(Some(Arc::new(inventory(nodes))));
    }

    fn write_token(&self, scope: &str) {
        let now = SystemClock::new().now_unix_ms() / 1000;
        let claims = json!({"iss": TokenRules::SIS_ISSUER, "sub": "nvca", "aud": ["nvca"],
            "scopes": [scope, "instance-status-update"], "iat": now, "nbf": now, "exp": now + 6 * 3600});
        let token = self.signer.sign(claims.as_object().unwrap()).unwrap();
        let secrets = json!({"kv": {"tokens": {"icms": token}}});
        fs::write(self.dir.path().join("secrets.json"), secrets.to_string()).unwrap();
    }

    fn state_file(&self) -> PathBuf {
        self.dir.path().join("state.json")
    }

    /// SIS with the cluster, and these requests of customers.
    async fn start_sis(&mut self, requests: &Value) {
        let id = self.cluster.to_string();
        let row = json!({"cluster_id": id, "group_id": GROUP, "name": "c1", "group_name": "g", "nca_id": "n",
            "provider": "NCP", "region": "us-west-1", "capabilities": ["DynamicGPUDiscovery"], "client_id": "nvca"});
        let state = json!({"by_id": {&id: row},
            "by_name": {"n/c1": {"cluster_id": id, "group_id": GROUP, "group_name": "g"}}, "requests": requests});
        fs::write(self.state_file(), state.to_string()).unwrap();
        let config = FakeConfig {
            issuers: vec![(TokenRules::SIS_ISSUER.to_owned(), self.key_set.clone())],
            cluster_identity: false,
            race_window: Duration::ZERO,
            state_dir: Some(self.dir.path().to_owned()),
        };
        let fake = Fake::new(config, None, SystemClock::shared()).unwrap();
        let stop = CancellationToken::new();
        let listener = TcpListener::bind(self.sis_addr).await.unwrap();
        fake.serve(listener, &self.tasks, stop.clone());
        self.sis = Some((fake, stop));
    }

    async fn page(&self, method: &str, path: &str, body: &Value) -> Value {
        let (fake, _) = self.sis.as_ref().unwrap();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()));
        let answer = admin::pages(Arc::clone(fake)).oneshot(request.unwrap()).await.unwrap();
        let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    async fn asked(&self, call: &str) -> usize {
        let exchanges = self.page("GET", "/debug/exchanges", &json!({})).await;
        let calls = exchanges.as_array().unwrap().iter();
        calls
            .filter(|it| it["request"].as_str().unwrap().ends_with(call))
            .count()
    }

    /// The types that SIS has, and how many GPUs of the first kind it can give away: `[available, capacity, allocated]`.
    async fn known(&self) -> (Vec<String>, Value) {
        let state = self.page("GET", "/debug/state", &json!({})).await;
        let id = self.cluster.as_str();
        let gpus = state["by_id"][id]["gpus"].as_array().cloned().unwrap_or_default();
        let types = gpus
            .iter()
            .flat_map(|gpu| gpu["instanceTypes"].as_array().cloned().unwrap_or_default());
        let names = types.map(|it| it["name"].as_str().unwrap().to_owned()).collect();
        (names, state["beats"][id].clone())
    }

    async fn beat_is(&self, usage: Value, healthy: bool) -> Value {
        let found = eventually(SOON, async || {
            let (_, beat) = self.known().await;
            let is = beat["usage"] == usage && beat["healthy"] == json!(healthy);
            ensure!(is, "{beat}, {:?}", self.trouble(HEARTBEAT));
            Ok(beat)
        });
        found.await.unwrap()
    }

    async fn types_are(&self, expected: &[&str]) {
        let found = eventually(SOON, async || {
            let (types, _) = self.known().await;
            ensure!(types == expected, "{types:?}");
            Ok(())
        });
        found.await.unwrap();
    }

    async fn asked_is(&self, call: &str, times: usize) {
        let found = eventually(SOON, async || {
            let asked = self.asked(call).await;
            ensure!(asked == times, "{asked}");
            Ok(())
        });
        found.await.unwrap();
    }

    /// By a clock that stands still: lets the agent look at it again, as often as it takes to see that something is due.
    async fn wait_for(&self, clock: &ManualClock, what: &str) {
        let before = self.asked("register").await;
        let seen = eventually(SOON, async || {
            clock.advance(Duration::from_millis(100));
            self.allocation.send_replace(Allocation::new());
            ensure!(self.asked("register").await > before, "{what} is not seen");
            Ok(())
        });
        seen.await.unwrap();
        // For what is due after that.
        clock.advance(Duration::from_secs(2));
        self.allocation.send_replace(Allocation::new());
    }

    fn trouble(&self, component: &'static str) -> Option<(&'static str, String)> {
        let components = self.health.subscribe().borrow().clone();
        components[component].clone().map(|it| (it.reason, it.text))
    }

    async fn becomes(&self, component: &'static str, reason: Option<&str>) -> String {
        let found = eventually(SOON, async || {
            let trouble = self.trouble(component);
            ensure!(trouble.as_ref().map(|it| it.0) == reason, "{component}: {trouble:?}");
            Ok(trouble.map(|it| it.1).unwrap_or_default())
        });
        found.await.unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some((_, stop)) = &self.sis {
            stop.cancel();
        }
    }
}

fn free_addr() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn h100(name: &str, ill: usize) -> (Value, Option<Vec<Value>>) {
    let mut devices = gpus(8);
    for device in devices.iter_mut().take(ill) {
        device["health"] = json!("Unhealthy");
    }
    (node(name, H100, 8), Some(devices))
}

const SINGLES: [&str; 4] = [
    "NCP.GPU.H100_1x",
    "NCP.GPU.H100_2x",
    "NCP.GPU.H100_4x",
    "NCP.GPU.H100_8x",
];

#[tokio::test]
async fn everything_may_come_late_and_each_thing_that_lacks_is_told() {
    let mut bench = Bench::new().await;
    bench.becomes(REGISTRATION, Some("ClusterNotRegistered")).await;
    bench.has(&[h100("a", 0)]);
    bench.configure(|config| config.cluster.id = ClusterId::of_client("nvca").to_string());
    let text = bench.becomes(REGISTRATION, Some("TokenMissing")).await;
    assert!(text.contains("OpenBao's agent has not written it"), "{text}");
    bench.write_token("cluster-management");
    let text = bench.becomes(REGISTRATION, Some("TokenScope")).await;
    assert!(text.contains("nvca-cluster"), "{text}");
    bench.write_token("nvca-cluster");
    bench.becomes(REGISTRATION, Some("SisUnreachable")).await;
    assert_eq!(*bench.orders.borrow(), Orders::Wait);
    bench.start_sis(&json!({})).await;
    bench.becomes(REGISTRATION, None).await;
    bench.beat_is(json!({"H100": [8, 8, 0]}), true).await;
    assert_eq!(bench.known().await.0, SINGLES);
    assert_eq!(*bench.orders.borrow(), Orders::Work);
    bench.becomes(HEARTBEAT, None).await;
}

#[tokio::test]
async fn a_failed_gpu_reaches_sis_within_five_seconds_and_nothing_is_told_twice() {
    let bench = Bench::running(&[h100("a", 0), h100("b", 0)]).await;
    bench.beat_is(json!({"H100": [16, 16, 0]}), true).await;
    let clock = SystemClock::new();
    let start = clock.monotonic();
    bench.has(&[h100("a", 1), h100("b", 0)]);
    bench.beat_is(json!({"H100": [15, 15, 0]}), true).await;
    let took = clock.monotonic().saturating_sub(start);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(bench.known().await.0.len(), 5, "no type is gone");
    bench
        .allocation
        .send_replace(Allocation::from([("H100".to_owned(), 6)]));
    bench.beat_is(json!({"H100": [9, 15, 6]}), true).await;
    let asked = (bench.asked("register").await, bench.asked("heartbeat").await);
    assert_eq!(asked, (2, 3), "one for each change");
}

#[tokio::test]
async fn a_type_in_use_that_no_node_offers_does_not_keep_the_rest_from_being_told() {
    let clock = ManualClock::at_unix_ms(SystemClock::new().now_unix_ms());
    let mut bench = Bench::by(clock.shared()).await;
    let asked = json!({"nca_id": "n", "cluster_id": bench.cluster.to_string(), "gpu": "H100",
        "kind_name": "NCP.GPU.H100_8x", "kind_value": "NCP.GPU.H100", "count": 1, "state": "active",
        "status": "fulfilled", "acknowledged": 1, "instances": {"0-sr-1": "running"}});
    bench.start_sis(&json!({ "r-1": asked })).await;
    bench.write_token("nvca-cluster");
    bench.has(&[h100("a", 0)]);
    bench.configure(|config| config.cluster.id = ClusterId::of_client("nvca").to_string());
    bench.beat_is(json!({"H100": [8, 8, 0]}), true).await;

    // The node with eight is gone, one with another kind is there.
    clock.advance(Duration::from_secs(10));
    bench.has(&[(node("b", "NVIDIA-A100-SXM4-40GB", 2), None)]);
    bench.wait_for(&clock, "the change").await;
    let kept = ["NCP.GPU.A100_1x", "NCP.GPU.A100_2x", "NCP.GPU.H100_8x"];
    bench.types_are(&kept).await;
    bench.beat_is(json!({"A100": [2, 2, 0]}), true).await;
    bench.becomes(REGISTRATION, None).await;
    assert_eq!(
        bench.asked("register").await,
        3,
        "the first, the refused one, the completed one"
    );

    // An hour later it is still in use, and then it is not.
    clock.advance(REGISTER_EVERY);
    bench.wait_for(&clock, "the hour").await;
    bench.asked_is("register", 5).await;
    bench.types_are(&kept).await;
    let settings = bench.settings.borrow().clone();
    let secret = SecretFile::new(bench.dir.path().join("secrets.json"));
    let sis = settings
        .sis_client(secret, RetryPolicy::ONCE, SystemClock::shared())
        .unwrap();
    let over = json!({"status": "instance-terminated-by-user", "instanceState": "terminated",
        "requestState": "closed", "action": "TerminateInstances", "healthInfo": {}});
    let over = serde_json::from_value(over).unwrap();
    sis.report_instance(&bench.cluster, "r-1", "0-sr-1", &over)
        .await
        .unwrap();
    clock.advance(REGISTER_EVERY);
    bench.wait_for(&clock, "another hour").await;
    bench.types_are(&kept[..2]).await;
}

#[tokio::test]
async fn a_cluster_without_gpus_is_told_as_such_and_is_no_crash() {
    let bench = Bench::running(&[]).await;
    let text = bench.becomes(GPU, Some("NoGpu")).await;
    assert!(text.contains("GPU Operator"), "{text}");
    bench.beat_is(json!({}), false).await;
    assert_eq!(bench.asked("register").await, 0);
    bench.has(&[h100("a", 0)]);
    bench.beat_is(json!({"H100": [8, 8, 0]}), true).await;
    bench.becomes(GPU, None).await;
}

#[tokio::test]
async fn what_sis_refuses_is_told_in_plain_words_and_ends() {
    let bench = Bench::running(&[h100("a", 0)]).await;
    bench.beat_is(json!({"H100": [8, 8, 0]}), true).await;
    // An outage: the heartbeat that a change asks for fails, and succeeds once SIS is well.
    let fault = json!([{"on": "heartbeat", "status": 500}]);
    bench.page("PUT", "/debug/faults", &fault).await;
    bench.has(&[h100("a", 2)]);
    bench.becomes(HEARTBEAT, Some("SisFailed")).await;
    assert_eq!(
        *bench.orders.borrow(),
        Orders::Work,
        "an outage of SIS does not stop work"
    );
    bench.page("PUT", "/debug/faults", &json!([])).await;
    bench.beat_is(json!({"H100": [6, 6, 0]}), true).await;
    bench.becomes(HEARTBEAT, None).await;
    // Another cluster's token.
    bench.configure(|config| config.cluster.id = "c-2".to_owned());
    let text = bench.becomes(REGISTRATION, Some("TokenSubject")).await;
    assert!(text.contains("c-2"), "{text}");
    assert_eq!(*bench.orders.borrow(), Orders::Wait);
    bench.configure(|config| config.cluster.id = ClusterId::of_client("nvca").to_string());
    bench.becomes(REGISTRATION, None).await;
}

#[tokio::test]
async fn an_order_to_end_itself_ends_functions_and_can_be_taken_back() {
    let bench = Bench::new().await;
    let orders = Arc::new(parking_lot::Mutex::new("SELF_DESTRUCT"));
    let id = bench.cluster.to_string();
    let registered = json!({"clusterId": id, "clusterGroupId": GROUP});
    let order = Arc::clone(&orders);
    let routes = Router::new()
        .route(
            "/v1/nvca/clusters/{id}/register",
            axum::routing::put(async move || Json(registered)),
        )
        .route(
            "/v1/nvca/clusters/{id}/heartbeat",
            axum::routing::post(async move || Json(json!({"action": *order.lock()}))),
        );
    let listener = TcpListener::bind(bench.sis_addr).await.unwrap();
    drop(berth_testkit::spawn(async move { axum::serve(listener, routes).await }));
    bench.write_token("nvca-cluster");
    bench.has(&[h100("a", 0)]);
    bench.configure(|config| config.cluster.id = id);
    let ordered = eventually(SOON, async || {
        let components = bench.health.subscribe().borrow().clone();
        let trouble = components.get(ORDERS).cloned().flatten().context("no order yet")?;
        ensure!(trouble.reason == "SelfDestruct" && *bench.orders.borrow() == Orders::Leave);
        Ok(trouble.text)
    });
    assert!(ordered.await.unwrap().contains("all functions end"));
    // The next heartbeat, which the change of health brings about, is taken again.
    *orders.lock() = "ACCEPTED";
    bench.has(&[h100("a", 1)]);
    bench.becomes(ORDERS, None).await;
    let takes = eventually(SOON, async || {
        ensure!(*bench.orders.borrow() == Orders::Work);
        Ok(())
    });
    takes.await.unwrap();
}
