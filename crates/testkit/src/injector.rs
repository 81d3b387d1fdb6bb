//! A stand-in for the vault-agent injector: the webhook that turns `vault.hashicorp.com/…` annotations of a pod into an
//! init container, a sidecar, their configuration and the volumes between them.
//!
//! Owns what a pod looks like afterwards: as vault-k8s 1.8 makes it. An annotation that it knows of but does not implement is
//! refused: ignoring it would make a test pass for the wrong reason. What the two containers then do is
//! [`crate::vault_agent`]'s. Annotations: <https://developer.hashicorp.com/vault/docs/deploy/kubernetes/injector/annotations>.

mod annotations;
mod config;
mod containers;
pub mod server;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use thiserror::Error;

use annotations::{Place, Wanted};

/// The annotations' common beginning.
pub const PREFIX: &str = "vault.hashicorp.com/";
/// The container that renders once before the pod's own containers start.
pub const INIT_CONTAINER: &str = "vault-agent-init";
/// The container that keeps the files fresh.
pub const SIDECAR: &str = "vault-agent";

/// Pods in these namespaces are never touched.
const SYSTEM_NAMESPACES: [&str; 2] = ["kube-system", "kube-public"];

/// What the injector uses where a pod says nothing.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Where pods reach the server.
    pub address: String,
    /// `kubernetes` or `jwt`: which key of the agent's configuration names the token's file.
    pub auth_type: String,
    /// The auth method's mount: `auth/jwt`.
    pub auth_path: String,
    pub image: String,
}

/// Why a pod cannot be injected. The words are the real injector's where it has the same case.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InjectError {
    #[error("the request holds no pod")]
    NoPod,
    #[error("error with request namespace: cannot inject into system namespaces: {0}")]
    SystemNamespace(String),
    #[error("error creating new agent sidecar: {name}: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    NotABool { name: &'static str, value: String },
    #[error("error creating new agent sidecar: {name}: {value:?} is no number")]
    NotANumber { name: &'static str, value: String },
    #[error("error creating new agent sidecar: failed to find service account volume {0:?}")]
    NoTokenVolume(String),
    #[error("error creating new agent sidecar: failed to find tokenPath for projected volume {0:?}")]
    NoTokenPath(String),
    #[error("error creating new agent sidecar: failed to find service account volume mount")]
    NoTokenMount,
    #[error("error creating new agent sidecar: {0}")]
    SameUser(&'static str),
    #[error("error creating new agent sidecar: invalid default template type: {0}")]
    DefaultTemplate(String),
    #[error("error validating agent configuration: no Vault role found")]
    NoRole,
    #[error("the stand-in does not implement the annotation vault.hashicorp.com/{0}")]
    NotImplemented(String),
}

// === impl InjectError ===

impl InjectError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoPod => "NoPod",
            Self::SystemNamespace(_) => "SystemNamespace",
            Self::NotABool { .. } => "NotABool",
            Self::NotANumber { .. } => "NotANumber",
            Self::NoTokenVolume(_) => "NoTokenVolume",
            Self::NoTokenPath(_) => "NoTokenPath",
            Self::NoTokenMount => "NoTokenMount",
            Self::SameUser(_) => "SameUser",
            Self::DefaultTemplate(_) => "DefaultTemplate",
            Self::NoRole => "NoRole",
            Self::NotImplemented(_) => "NotImplemented",
        }
    }
}

/// The answer to an `admission.k8s.io/v1` AdmissionReview.
pub fn review(review: &Value, defaults: &Defaults) -> Value {
    let request = &review["request"];
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let namespace = request["namespace"].as_str().unwrap_or_default();
    match inject(&request["object"], namespace, defaults) {
        Ok(None) => {}
        Ok(Some(patch)) => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
        }
        Err(error) => {
            response["allowed"] = json!(false);
            response["status"] = json!({"message": error.to_string()});
        }
    }
    json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response})
}

/// The JSON patch (RFC 6902) that injects the agent; `None`: the pod does not ask for it, or has it.
pub fn inject(pod: &Value, namespace: &str, defaults: &Defaults) -> Result<Option<Vec<Value>>, InjectError> {
    if !pod.is_object() {
        return Err(InjectError::NoPod);
    }
    if !annotations::asks(pod)? {
        return Ok(None);
    }
    if SYSTEM_NAMESPACES.contains(&namespace) {
        return Err(InjectError::SystemNamespace(namespace.to_owned()));
    }
    let wanted = Wanted::parse(pod, defaults)?;
    let spec = &pod["spec"];
    let list = |name: &str| spec[name].as_array().cloned().unwrap_or_default();

    let mut volumes = list("volumes");
    volumes.extend(containers::volumes(&wanted));
    let mounts = containers::secret_mounts(&wanted);

    let mut apps = list("containers");
    for app in &mut apps {
        if wanted.containers.iter().any(|name| app["name"] == name.as_str()) {
            add_mounts(app, &mounts);
        }
    }
    if wanted.sidecar {
        apps.push(containers::sidecar(&wanted));
    }
    let mut patch = vec![add("/spec/volumes", &volumes), add("/spec/containers", &apps)];
    if let Some(place) = wanted.init {
        let mut inits = list("initContainers");
        for other in &mut inits {
            add_mounts(other, &mounts);
        }
        let at = match place {
            Place::First => 0,
            Place::Last => inits.len(),
        };
        inits.insert(at, containers::init(&wanted));
        patch.push(add("/spec/initContainers", &inits));
    }
    let status = "/metadata/annotations/vault.hashicorp.com~1agent-inject-status";
    patch.push(json!({"op": "add", "path": status, "value": "injected"}));
    Ok(Some(patch))
}

fn add(path: &str, value: &[Value]) -> Value {
    json!({"op": "add", "path": path, "value": value})
}

fn add_mounts(container: &mut Value, mounts: &[Value]) {
    let mut all = container["volumeMounts"].as_array().cloned().unwrap_or_default();
    all.extend(mounts.iter().cloned());
    container["volumeMounts"] = Value::Array(all);
}

#[cfg(test)]
mod tests;
