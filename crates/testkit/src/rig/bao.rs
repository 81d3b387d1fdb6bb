//! OpenBao and the vault-agent injector in a rig: the real programs where they are named, else the stand-ins.
//!
//! Also what a kubelet would do for an agent's container: lay out its tokens and ConfigMaps in a folder.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    authentication::v1::TokenRequest,
    core::v1::{ConfigMap, Pod, ServiceAccount},
    rbac::v1::ClusterRoleBinding,
};
use kube::{Api, Client, api::PostParams};
use serde_json::{Value, json};

use super::{Part, RigError, control_plane};
use crate::{
    bao::{BaoClient, ClientError},
    vault_agent::below,
};

/// The real server: a `bao` program.
pub const SERVER: &str = "BERTH_BAO_BIN";
/// The real injector: a `vault-k8s` program.
pub const INJECTOR: &str = "BERTH_VAULT_K8S_BIN";

/// Where the server listens in a rig. Fixed: each rig has a network namespace of its own.
pub const ADDRESS: &str = "http://127.0.0.1:8200";
pub(super) const PORT: u16 = 8200;
/// The webhook's port.
pub(super) const INJECTOR_PORT: u16 = 8250;
/// A token with every right, for as long as the rig lives.
pub const ROOT_TOKEN: &str = "rig-root";

/// The longest that either may take until it answers.
const READY: Duration = Duration::from_mins(1);

/// Which server and which injector a rig has. Shown as the line that a test report starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    server: Option<PathBuf>,
    injector: Option<PathBuf>,
}

// === impl Choice ===

impl Choice {
    /// By the environment.
    pub fn chosen() -> Self {
        Self {
            server: env::var_os(SERVER).map(PathBuf::from),
            injector: env::var_os(INJECTOR).map(PathBuf::from),
        }
    }

    /// The real server has no engine at `services/NAME/jwt`: that is a plugin of NVCF's.
    pub const fn signs_tokens(&self) -> bool {
        self.server.is_none()
    }

    /// Starts the server alone and waits until it answers; its log is `DIR/logs/openbao.log`.
    pub async fn start_server(&self, dir: &Path) -> Result<Part, RigError> {
        let (program, arguments) = match &self.server {
            Some(program) => (program.clone(), real_server()),
            None => (standin("bao-standin")?, standin_server()),
        };
        // The real one would write its token to the user's home.
        let home = ("HOME".to_owned(), dir.display().to_string());
        let part = Part::start_with("openbao", &program, arguments, vec![home], dir)?;
        let mut parts = BTreeMap::from([("openbao", part)]);
        let client = BaoClient::new(ADDRESS);
        let healthy = async || client.read("sys/health").await.is_ok();
        control_plane::until(&mut parts, "openbao", "OpenBao does not answer", READY, healthy).await?;
        parts
            .remove("openbao")
            .ok_or_else(|| RigError::Bao("it is gone".to_owned()))
    }

    fn start_injector(&self, dir: &Path) -> Result<Part, RigError> {
        let name = "vault-agent-injector";
        let file = |file: &str| dir.join(file).display().to_string();
        let Some(program) = &self.injector else {
            let arguments = [
                "webhook",
                &format!("--listen=127.0.0.1:{INJECTOR_PORT}"),
                &format!("--tls-cert-file={}", file("injector.crt")),
                &format!("--tls-key-file={}", file("injector.key")),
                &format!("--vault-address={ADDRESS}"),
                "--vault-auth-path=auth/jwt",
            ];
            return Part::start(
                name,
                &standin("injector-standin")?,
                arguments.map(str::to_owned).to_vec(),
                dir,
            );
        };
        // It reads its own service account's files and nothing else, at a fixed place: a /run of its own holds them.
        let script = "mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount \
             && cd /run/secrets/kubernetes.io/serviceaccount && cp \"$1\" ca.crt && printf %s \"$2\" >token \
             && printf default >namespace && shift 2 && exec \"$@\"";
        let mut arguments = ["--mount", "--", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
        arguments.extend([file("ca.crt"), super::pki::ADMIN_TOKEN.to_owned()]);
        arguments.extend([program.display().to_string(), "agent-inject".to_owned()]);
        arguments.extend([
            format!("-listen=127.0.0.1:{INJECTOR_PORT}"),
            format!("-tls-cert-file={}", file("injector.crt")),
            format!("-tls-key-file={}", file("injector.key")),
            format!("-vault-address={ADDRESS}"),
            "-vault-auth-path=auth/jwt".to_owned(),
            "-vault-image=openbao/openbao:2.6.2".to_owned(),
        ]);
        let place = [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
        ];
        let place = place.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Part::start_with(name, Path::new("unshare"), arguments, place, dir)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let which = |real: &Option<PathBuf>| if real.is_some() { "real" } else { "stand-in" };
        write!(
            f,
            "OpenBao: {}, injector: {}",
            which(&self.server),
            which(&self.injector)
        )
    }
}

/// Starts both, trusts the API server's tokens at `auth/jwt`, and returns when an annotated pod is injected.
pub(super) async fn start(
    choice: &Choice,
    client: &Client,
    parts: &mut BTreeMap<&'static str, Part>,
    dir: &Path,
) -> Result<(), RigError> {
    parts.insert("openbao", choice.start_server(dir).await?);
    open_jwks(client).await?;
    let ca = read(&dir.join("ca.crt"))?;
    let root = BaoClient::new(ADDRESS).token(ROOT_TOKEN);
    trust_cluster(&root, &ca)
        .await
        .map_err(|error| RigError::Bao(format!("{:#}", anyhow::Error::from(error))))?;
    parts.insert("vault-agent-injector", choice.start_injector(dir)?);
    register(client, &ca).await?;
    wait_injecting(client, parts).await
}

/// OpenBao downloads the keys without a token.
async fn open_jwks(client: &Client) -> Result<(), RigError> {
    let binding = json!({
        "metadata": {"name": "openbao-jwks"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:service-account-issuer-discovery"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
    });
    create::<ClusterRoleBinding>(client, binding).await
}

/// Mounts `auth/jwt` and makes it take the rig's service-account tokens; `ca` is the rig's authority, PEM.
pub async fn trust_cluster(root: &BaoClient, ca: &str) -> Result<(), ClientError> {
    root.write("sys/auth/jwt", json!({"type": "jwt"})).await?;
    let config = json!({"jwks_url": "https://127.0.0.1:6443/openid/v1/jwks", "jwks_ca_pem": ca,
        "bound_issuer": "https://kubernetes.default.svc"});
    root.write("auth/jwt/config", config).await.map(drop)
}

/// As the Helm chart registers it, but by address: in a rig no Service leads anywhere.
async fn register(client: &Client, ca: &str) -> Result<(), RigError> {
    let bundle = STANDARD.encode(ca);
    let webhook = json!({
        "metadata": {"name": "vault-agent-injector-cfg"},
        "webhooks": [{
            "name": "vault.hashicorp.com", "failurePolicy": "Ignore", "matchPolicy": "Exact", "sideEffects": "None",
            "timeoutSeconds": 10, "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://127.0.0.1:{INJECTOR_PORT}/mutate"), "caBundle": bundle},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
                "scope": "Namespaced"}],
        }],
    });
    create::<MutatingWebhookConfiguration>(client, webhook).await
}

async fn create<K>(client: &Client, object: Value) -> Result<(), RigError>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
        + Clone
        + fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    let object: K = serde_json::from_value(object).map_err(|error| RigError::Bao(error.to_string()))?;
    let created = Api::<K>::all(client.clone())
        .create(&PostParams::default(), &object)
        .await;
    match created {
        // The folder of an earlier rig was kept.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other
            .map(drop)
            .map_err(|error| RigError::api(K::kind(&()).into_owned(), error)),
    }
}

/// The API server notices a new webhook after a moment, and passes it over while it does not answer.
async fn wait_injecting(client: &Client, parts: &mut BTreeMap<&'static str, Part>) -> Result<(), RigError> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let annotations = json!({"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/role": "probe"});
    let probe = json!({"metadata": {"name": "injector-probe", "annotations": annotations},
        "spec": {"containers": [{"name": "c", "image": "none"}]}});
    let probe: Pod = serde_json::from_value(probe).map_err(|error| RigError::Bao(error.to_string()))?;
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let injected = async || match pods.create(&dry, &probe).await {
        Ok(pod) => pod.spec.is_some_and(|spec| spec.containers.len() == 2),
        Err(_) => false,
    };
    let name = "vault-agent-injector";
    control_plane::until(parts, name, "no pod is injected", READY, injected).await
}

/// Lays out a container's service-account tokens and ConfigMaps below `root`, at their mount paths, as a kubelet would.
pub async fn lay_out(client: &Client, pod: &Pod, container: &str, root: &Path) -> anyhow::Result<()> {
    let value = serde_json::to_value(pod)?;
    let namespace = value["metadata"]["namespace"]
        .as_str()
        .context("a pod without namespace")?;
    let lists = ["containers", "initContainers"].map(|list| value["spec"][list].as_array().into_iter().flatten());
    let container = lists
        .into_iter()
        .flatten()
        .find(|other| other["name"] == container)
        .context("no such container")?;
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let folder = below(root, mount["mountPath"].as_str().context("a mount without path")?);
        fs::create_dir_all(&folder)?;
        let mut volumes = value["spec"]["volumes"].as_array().into_iter().flatten();
        let Some(volume) = volumes.find(|volume| volume["name"] == mount["name"]) else {
            continue;
        };
        let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        for source in std::iter::once(volume).chain(sources) {
            if let Some(token) = source["serviceAccountToken"].as_object() {
                let path = token
                    .get("path")
                    .and_then(Value::as_str)
                    .context("a token without path")?;
                let text = token_for(client, &value, namespace, source).await?;
                fs::write(folder.join(path), text)?;
            }
            if let Some(name) = source["configMap"]["name"].as_str() {
                let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
                for (file, text) in maps.get(name).await?.data.unwrap_or_default() {
                    fs::write(folder.join(file), text)?;
                }
            }
        }
    }
    Ok(())
}

async fn token_for(client: &Client, pod: &Value, namespace: &str, source: &Value) -> anyhow::Result<String> {
    let token = &source["serviceAccountToken"];
    let audiences: Vec<&str> = token["audience"].as_str().into_iter().collect();
    let request = json!({"spec": {
        "audiences": audiences, "expirationSeconds": token["expirationSeconds"].as_i64().unwrap_or(3600),
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
    }});
    let request: TokenRequest = serde_json::from_value(request)?;
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(answer.status.context("a token request without answer")?.token)
}

fn real_server() -> Vec<String> {
    [
        "server".to_owned(),
        "-dev".to_owned(),
        "-dev-no-store-token".to_owned(),
        format!("-dev-root-token-id={ROOT_TOKEN}"),
        format!("-dev-listen-address=127.0.0.1:{PORT}"),
    ]
    .to_vec()
}

fn standin_server() -> Vec<String> {
    [
        format!("--listen=127.0.0.1:{PORT}"),
        format!("--root-token={ROOT_TOKEN}"),
    ]
    .to_vec()
}

/// Our programs lie where the tests and programs of this workspace are built.
fn standin(name: &str) -> Result<PathBuf, RigError> {
    let here = env::current_exe().map_err(|error| RigError::start(name, error))?;
    let mut places = here.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    places.find(|path| path.exists()).ok_or_else(|| {
        RigError::Bao(format!(
            "no {name}; `cargo build -p berth-testkit --features rig` builds it"
        ))
    })
}

fn read(path: &Path) -> Result<String, RigError> {
    fs::read_to_string(path).map_err(|error| RigError::io(path, error))
}
