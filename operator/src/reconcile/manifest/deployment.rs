//! The agent's pod and its Service.

use serde_json::{Value, json};

use super::{Parts, config, fingerprint, object};
use crate::{names, reconcile::settings::Settings};

/// Annotation of the pod: another value, another pod.
const CONFIG: &str = "nvca-operator.nvcf.nvidia.io/config";
/// As [`names::FORCED_ROLLOUT_AT`] of the `NVCFBackend`.
const RESTARTED_AT: &str = "nvca-operator.nvcf.nvidia.io/restartedAt";
const USER: u32 = 1000;
/// Where the pod's token for OpenBao is. The path has to hold "serviceaccount", or the injector mounts another.
const TOKEN_DIR: &str = "/var/run/secrets/openbao/serviceaccount";
/// Folder of [`names::SECRETS_FILE`].
const SECRETS_DIR: &str = "/home/app/vault";

/// What OpenBao's agent makes of `secrets.json`.
const SECRETS_TEMPLATE: &str = concat!(
    r#"{"kv":{"nats":{"api-auth":{{ with secret "services/all/kv/data/nats/creds" }}"#,
    r#"{"user":"{{ .Data.data.public_key }}","user-seed":"{{ .Data.data.key }}"}{{ end }}},"#,
    r#""tokens":{"icms":"{{ with secret "services/sis-api/jwt/sign/nvca" }}{{ .Data.token }}{{ end }}","#,
    r#""reval":"{{ with secret "services/reval/jwt/sign/nvca" }}{{ .Data.token }}{{ end }}"}}}"#,
);

pub(super) fn service() -> Value {
    let mut service = object("v1", "Service", Some(names::SYSTEM_NAMESPACE), names::AGENT);
    service["spec"] = json!({
        "type": "ClusterIP",
        // An agent that is not well still says why, and its webhook serves.
        "publishNotReadyAddresses": true,
        "selector": selector(),
        "ports": [
            {"name": "nvca", "port": 8000, "protocol": "TCP", "targetPort": "http"},
            {"name": "webhooks", "port": 8443, "protocol": "TCP", "targetPort": "webhook-https"},
        ],
    });
    service
}

pub(super) fn agent(parts: Parts<'_>) -> Value {
    let mut deployment = object("apps/v1", "Deployment", Some(names::SYSTEM_NAMESPACE), names::AGENT);
    deployment["spec"] = json!({
        "replicas": 1,
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector()},
        // Never two agents at once: both would take the same work.
        "strategy": {"type": "Recreate"},
        "template": {
            "metadata": {"labels": labels(), "annotations": annotations(parts)},
            "spec": pod(parts),
        },
    });
    deployment
}

fn selector() -> Value {
    json!({names::NAME: names::AGENT, names::INSTANCE: names::AGENT})
}

fn labels() -> Value {
    json!({names::NAME: names::AGENT, names::INSTANCE: names::AGENT, names::MANAGED_BY: super::OPERATOR})
}

fn annotations(parts: Parts<'_>) -> Value {
    let vault = &parts.settings.vault;
    let mut annotations = json!({CONFIG: fingerprint(&config::text(parts.config))});
    if !parts.rollout.is_empty() {
        annotations[RESTARTED_AT] = json!(parts.rollout);
    }
    if parts.settings.agent_secret.is_some() {
        return annotations;
    }
    let mut inject = |name: &str, value: &str| annotations[format!("vault.hashicorp.com/{name}")] = json!(value);
    inject("agent-inject", "true");
    inject("role", names::AGENT);
    inject("auth-path", &vault.auth_path);
    inject("agent-service-account-token-volume-name", "openbao-token");
    inject("auth-config-token-path", &format!("{TOKEN_DIR}/token"));
    inject("agent-copy-volume-mounts", "agent");
    inject("agent-run-as-same-user", "true");
    inject("secret-volume-path", SECRETS_DIR);
    inject("agent-inject-secret-secrets.json", "services/sis-api/jwt/sign/nvca");
    inject("agent-inject-template-secrets.json", SECRETS_TEMPLATE);
    if let Some(address) = &vault.address {
        inject("service", address);
    }
    annotations
}

fn pod(parts: Parts<'_>) -> Value {
    let settings = parts.settings;
    let image = image(parts);
    let restricted = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
        "runAsNonRoot": true, "runAsUser": USER,
    });
    let probe = |path: &str, threshold: u32, period: u32| {
        json!({
            "httpGet": {"path": path, "port": "http"}, "failureThreshold": threshold, "periodSeconds": period,
            "timeoutSeconds": 5,
        })
    };
    let (secrets_mount, secrets_volume) = secrets(settings);
    let config_mount = json!({"name": "agent-config", "mountPath": "/var/run/nvca", "readOnly": true});
    let agent = json!({
        "name": "agent",
        "image": image,
        "imagePullPolicy": settings.image.pull_policy,
        "command": ["/usr/bin/nvca"],
        "args": ["--config", "/var/run/nvca/config.yaml"],
        "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
        "startupProbe": probe("/version", 30, 1),
        "livenessProbe": probe("/livez", 30, 5),
        "readinessProbe": probe("/healthz", 3, 5),
        "resources": settings.agent_resources,
        "securityContext": restricted,
        "volumeMounts": [config_mount, secrets_mount],
    });
    let webhook = json!({
        "name": "webhook",
        "image": image,
        "imagePullPolicy": settings.image.pull_policy,
        "command": ["/usr/bin/webhook-server"],
        "args": ["--config", "/var/run/nvca/config.yaml"],
        "env": [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}}],
        "ports": [{"name": "webhook-https", "containerPort": 8443, "protocol": "TCP"}],
        "resources": settings.webhook_resources,
        "securityContext": restricted,
        "volumeMounts": [config_mount, {"name": "webhook-server-certs", "mountPath": "/certs/server"}],
    });
    let mut pod = json!({
        "serviceAccountName": names::AGENT,
        "automountServiceAccountToken": true,
        // The Service's own variables (`NVCA_PORT`) look like the program's.
        "enableServiceLinks": false,
        "securityContext": {
            "fsGroup": USER, "runAsNonRoot": true, "runAsUser": USER, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 30,
        "containers": [agent, webhook],
        "volumes": [
            {"name": "agent-config", "configMap": {"name": names::AGENT_CONFIG}},
            secrets_volume,
            {"name": "webhook-server-certs", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ],
    });
    if let Some((key, value)) = &settings.node_selector {
        pod["nodeSelector"] = json!({ key: value });
    }
    if let Some(class) = &settings.priority_class {
        pod["priorityClassName"] = json!(class);
    }
    let tolerations = &parts.spec.agent_config.tolerations;
    if !tolerations.is_empty() {
        pod["tolerations"] = json!(tolerations);
    }
    pod
}

/// What the agent's tokens come of, as a mount and its volume: a token for OpenBao, or a Secret that holds them.
fn secrets(settings: &Settings) -> (Value, Value) {
    if let Some(secret) = &settings.agent_secret {
        return (
            json!({"name": "secrets", "mountPath": SECRETS_DIR, "readOnly": true}),
            json!({"name": "secrets", "secret": {"secretName": secret}}),
        );
    }
    let token = json!({"serviceAccountToken": {
        "audience": settings.vault.audience, "expirationSeconds": 3600, "path": "token",
    }});
    (
        json!({"name": "openbao-token", "mountPath": TOKEN_DIR, "readOnly": true}),
        json!({"name": "openbao-token", "projected": {"sources": [token]}}),
    )
}

fn image(parts: Parts<'_>) -> String {
    let image = &parts.spec.nvca_image_config;
    if image.tag.is_empty() {
        image.repository.clone()
    } else {
        format!("{}:{}", image.repository, image.tag)
    }
}
