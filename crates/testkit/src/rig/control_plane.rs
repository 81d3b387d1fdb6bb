//! How the control plane's parts are started, and when they are ready.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client, Config, config::KubeConfigOptions};
use serde_json::{Value, json};

use super::{Part, RigError, pki::ADMIN_TOKEN};

/// Fixed: each rig has a network namespace of its own.
const ETCD: u16 = 2379;
const ETCD_PEER: u16 = 2380;
const API: u16 = 6443;
const NATS: u16 = 4222;

pub(super) const AUDIT_LOG: &str = "logs/audit.log";

/// A part dies of a busy port with a message of its own; ours says which rig-wide mistake it is.
fn free(part: &str, port: u16) -> Result<(), RigError> {
    TcpListener::bind(("127.0.0.1", port))
        .map(drop)
        .map_err(|_| RigError::PortInUse {
            part: part.to_owned(),
            port,
        })
}

fn flag(name: &str, dir: &Path, file: &str) -> String {
    format!("--{name}={}", dir.join(file).display())
}

/// Fails where a port is taken, before anything is started.
pub(super) fn require_free_ports() -> Result<(), RigError> {
    for (part, port) in [
        ("etcd", ETCD),
        ("etcd", ETCD_PEER),
        ("kube-apiserver", API),
        ("nats-server", NATS),
        ("openbao", super::bao::PORT),
        ("vault-agent-injector", super::bao::INJECTOR_PORT),
    ] {
        free(part, port)?;
    }
    Ok(())
}

pub(super) fn etcd(dir: &Path) -> Vec<String> {
    vec![
        flag("data-dir", dir, "etcd"),
        format!("--listen-client-urls=http://127.0.0.1:{ETCD}"),
        format!("--advertise-client-urls=http://127.0.0.1:{ETCD}"),
        format!("--listen-peer-urls=http://127.0.0.1:{ETCD_PEER}"),
        "--log-level=warn".to_owned(),
        // The rig's data dies with it.
        "--unsafe-no-fsync".to_owned(),
    ]
}

pub(super) fn apiserver(dir: &Path, audit: bool) -> Result<Vec<String>, RigError> {
    let mut args = vec![
        format!("--etcd-servers=http://127.0.0.1:{ETCD}"),
        format!("--secure-port={API}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        // The advertised address is loopback, which the endpoint reconciler refuses to publish; nobody reads it here.
        "--endpoint-reconciler-type=none".to_owned(),
        flag("tls-cert-file", dir, "apiserver.crt"),
        flag("tls-private-key-file", dir, "apiserver.key"),
        flag("client-ca-file", dir, "ca.crt"),
        flag("token-auth-file", dir, "tokens.csv"),
        flag("cert-dir", dir, "apiserver"),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        flag("service-account-key-file", dir, "sa.pub"),
        flag("service-account-signing-key-file", dir, "sa.key"),
        "--allow-privileged=true".to_owned(),
        // A load test is no abuse.
        "--max-requests-inflight=2000".to_owned(),
        "--max-mutating-requests-inflight=1000".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
    ];
    if audit {
        let path = dir.join("audit.json");
        // One line when a request comes in; a watch has no second one when it ends.
        let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}],
            "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"]});
        fs::write(&path, policy.to_string()).map_err(|error| RigError::io(&path, error))?;
        args.push(format!("--audit-policy-file={}", path.display()));
        args.push(flag("audit-log-path", dir, AUDIT_LOG));
    }
    Ok(args)
}

pub(super) fn controller_manager(dir: &Path) -> Vec<String> {
    vec![
        flag("kubeconfig", dir, "kubeconfig"),
        "--leader-elect=false".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        flag("service-account-private-key-file", dir, "sa.key"),
        flag("root-ca-file", dir, "ca.crt"),
        flag("cluster-signing-cert-file", dir, "ca.crt"),
        flag("cluster-signing-key-file", dir, "ca.key"),
        "--secure-port=0".to_owned(),
        "--kube-api-qps=300".to_owned(),
        "--kube-api-burst=600".to_owned(),
    ]
}

/// kube-scheduler's configuration is ours plus the caller's profile and extenders.
pub(super) fn scheduler(dir: &Path, extra: Option<&Value>) -> Result<Vec<String>, RigError> {
    let mut config = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": false},
        "clientConnection": {"kubeconfig": kubeconfig(dir), "qps": 1000, "burst": 2000},
    });
    if let (Some(config), Some(Value::Object(extra))) = (config.as_object_mut(), extra) {
        config.extend(extra.clone());
    }
    let path = dir.join("scheduler.json");
    fs::write(&path, config.to_string()).map_err(|error| RigError::io(&path, error))?;
    Ok(vec![
        format!("--config={}", path.display()),
        "--secure-port=0".to_owned(),
    ])
}

pub(super) fn nats(dir: &Path) -> Vec<String> {
    let store = dir.join("nats").display().to_string();
    let port = NATS.to_string();
    [
        "--addr",
        "127.0.0.1",
        "--port",
        &port,
        "--jetstream",
        "--store_dir",
        &store,
    ]
    .map(str::to_owned)
    .to_vec()
}

pub(super) fn kubeconfig(dir: &Path) -> PathBuf {
    dir.join("kubeconfig")
}

/// JSON is YAML: every client reads it.
pub(super) fn write_kubeconfig(dir: &Path) -> Result<(), RigError> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rig", "cluster": {
            "server": format!("https://127.0.0.1:{API}"), "certificate-authority": dir.join("ca.crt")}}],
        "users": [{"name": "admin", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "admin"}}],
        "current-context": "rig",
    });
    let path = kubeconfig(dir);
    fs::write(&path, format!("{config:#}\n")).map_err(|error| RigError::io(&path, error))
}

/// A client of the rig's API server, from its kubeconfig.
pub(super) async fn client(dir: &Path) -> Result<Client, RigError> {
    let path = kubeconfig(dir);
    let broken = |error: kube::config::KubeconfigError| RigError::Namespace(format!("our own kubeconfig: {error}"));
    let file = kube::config::Kubeconfig::read_from(&path).map_err(broken)?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(broken)?;
    Client::try_from(config).map_err(|error| RigError::api("no client", error))
}

/// Waits for `/readyz`; tells at once when a part died meanwhile.
pub(super) async fn wait_ready(
    client: &Client,
    parts: &mut BTreeMap<&'static str, Part>,
    longest: Duration,
) -> Result<(), RigError> {
    until(
        parts,
        "kube-apiserver",
        "the API server is not ready",
        longest,
        async || {
            let request = http::Request::get("/readyz").body(Vec::new());
            match request {
                Ok(request) => client.request_text(request).await.is_ok(),
                Err(_) => false,
            }
        },
    )
    .await
}

/// Pods are refused until the controller manager made the namespace's service account.
pub(super) async fn wait_accepts_pods(
    client: &Client,
    parts: &mut BTreeMap<&'static str, Part>,
    longest: Duration,
) -> Result<(), RigError> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    until(
        parts,
        "kube-controller-manager",
        "no service account `default`",
        longest,
        async || accounts.get_opt("default").await.ok().flatten().is_some(),
    )
    .await
}

/// Asks until it is true. A part that died is told at once, with its last lines.
pub(super) async fn until(
    parts: &mut BTreeMap<&'static str, Part>,
    part: &'static str,
    what: &str,
    longest: Duration,
    mut ask: impl AsyncFnMut() -> bool,
) -> Result<(), RigError> {
    let tick = Duration::from_millis(50);
    let deadline = tokio::time::Instant::now() + longest;
    loop {
        for running in parts.values_mut() {
            running.check()?;
        }
        // A paused server accepts and never answers.
        if tokio::time::timeout(Duration::from_secs(5), ask())
            .await
            .unwrap_or(false)
        {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            let log = parts.get(part).map(|part| part.log_tail(12)).unwrap_or_default();
            return Err(RigError::Late {
                what: what.to_owned(),
                part: part.to_owned(),
                seconds: longest.as_secs(),
                log,
            });
        }
        tokio::time::sleep(tick).await;
    }
}
