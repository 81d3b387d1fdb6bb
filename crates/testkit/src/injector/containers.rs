//! The containers and volumes that are added to a pod.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    INIT_CONTAINER, SIDECAR,
    annotations::Wanted,
    config::{TOKEN_FILE, config},
};

/// Where the agent keeps what is its own.
const HOME: &str = "/home/vault";
/// Starts the agent with the configuration from its environment.
const RUN: &str =
    "echo ${VAULT_CONFIG?} | base64 -d > /home/vault/config.json && vault agent -config=/home/vault/config.json";

/// Renders once, before the pod's own containers.
pub(super) fn init(wanted: &Wanted) -> Value {
    let mut mounts = vec![mount("home-init", HOME), token_mount(wanted)];
    mounts.extend(rest_of_mounts(wanted));
    container(wanted, INIT_CONTAINER, &mounts, true)
}

/// Keeps the files fresh for as long as the pod lives.
pub(super) fn sidecar(wanted: &Wanted) -> Value {
    let mut mounts = vec![token_mount(wanted), mount("home-sidecar", HOME)];
    mounts.extend(rest_of_mounts(wanted));
    let mut container = container(wanted, SIDECAR, &mounts, false);
    container["lifecycle"] = json!({});
    container
}

/// What the containers share, all in memory, and what they read.
pub(super) fn volumes(wanted: &Wanted) -> Vec<Value> {
    let memory = |name: &str| json!({"name": name, "emptyDir": {"medium": "Memory"}});
    let mut volumes = Vec::new();
    if wanted.init.is_some() {
        volumes.push(memory("home-init"));
    }
    if wanted.sidecar {
        volumes.push(memory("home-sidecar"));
    }
    volumes.push(memory("vault-secrets"));
    for index in 0..wanted.other_mounts().len() {
        volumes.push(memory(&format!("vault-secrets-custom-{index}")));
    }
    if !wanted.config_map.is_empty() {
        volumes.push(json!({"name": "vault-config", "configMap": {"name": wanted.config_map}}));
    }
    if !wanted.tls.secret.is_empty() {
        volumes.push(json!({"name": "vault-tls-secrets", "secret": {"secretName": wanted.tls.secret}}));
    }
    volumes
}

/// The rendered files, for every container that shall read them.
pub(super) fn secret_mounts(wanted: &Wanted) -> Vec<Value> {
    let mut mounts = vec![mount("vault-secrets", &wanted.secret_path)];
    for (index, path) in wanted.other_mounts().into_iter().enumerate() {
        mounts.push(mount(&format!("vault-secrets-custom-{index}"), path));
    }
    mounts
}

fn rest_of_mounts(wanted: &Wanted) -> Vec<Value> {
    let mut mounts = secret_mounts(wanted);
    mounts.extend(wanted.copied_mounts.iter().cloned());
    if !wanted.config_map.is_empty() {
        mounts.push(read_only("vault-config", "/vault/configs"));
    }
    if !wanted.tls.secret.is_empty() {
        mounts.push(read_only("vault-tls-secrets", "/vault/tls"));
    }
    mounts
}

fn container(wanted: &Wanted, name: &str, mounts: &[Value], init: bool) -> Value {
    let run = if wanted.config_map.is_empty() {
        RUN.to_owned()
    } else {
        let file = if init { "config-init.hcl" } else { "config.hcl" };
        format!("touch {TOKEN_FILE} && vault agent -config=/vault/configs/{file}")
    };
    let [limits, requests] = &wanted.resources;
    // An empty annotation takes the default away.
    let amounts = |[cpu, memory]: &[String; 2]| -> Value {
        let named = [("cpu", cpu), ("memory", memory)].into_iter();
        named
            .filter(|(_, amount)| !amount.is_empty())
            .map(|(name, amount)| (name, amount.as_str()))
            .collect()
    };
    let mut container = json!({
        "name": name, "image": wanted.image, "command": ["/bin/sh", "-ec"], "args": [run],
        "env": environment(wanted, init), "volumeMounts": mounts,
        "resources": {"limits": amounts(limits), "requests": amounts(requests)},
    });
    if let Some((user, group)) = wanted.user {
        container["securityContext"] = json!({
            "runAsUser": user, "runAsGroup": group, "runAsNonRoot": user != 0 && group != 0,
            "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        });
    }
    container
}

fn environment(wanted: &Wanted, init: bool) -> Vec<Value> {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let mut all = vec![
        field("NAMESPACE", "metadata.namespace"),
        field("HOST_IP", "status.hostIP"),
        field("POD_IP", "status.podIP"),
    ];
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            all.push(json!({"name": name, "value": value}));
        }
    };
    set("VAULT_CLIENT_TIMEOUT", &wanted.client_timeout);
    set("VAULT_MAX_RETRIES", &wanted.client_max_retries);
    set("VAULT_LOG_LEVEL", &wanted.log_level);
    set("VAULT_LOG_FORMAT", &wanted.log_format);
    if wanted.config_map.is_empty() {
        set("VAULT_CONFIG", &STANDARD.encode(config(wanted, init).to_string()));
    } else {
        set("VAULT_ADDR", &wanted.address);
        set("VAULT_CACERT", &wanted.tls.ca_cert);
        set("VAULT_CAPATH", &wanted.tls.ca_path);
        set("VAULT_CLIENT_CERT", &wanted.tls.client_cert);
        set("VAULT_CLIENT_KEY", &wanted.tls.client_key);
        set("VAULT_SKIP_VERIFY", &wanted.tls.skip_verify.to_string());
        set("VAULT_TLS_SERVER_NAME", &wanted.tls.server_name);
    }
    all
}

fn token_mount(wanted: &Wanted) -> Value {
    read_only(&wanted.token.name, &wanted.token.mount)
}

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

fn read_only(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path, "readOnly": true})
}
