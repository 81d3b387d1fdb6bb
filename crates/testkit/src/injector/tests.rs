//! Annotations in, pods out. The expectations are what the real injector (vault-k8s 1.8) makes.

use super::*;

fn defaults() -> Defaults {
    Defaults {
        address: "http://bao:8200".to_owned(),
        auth_type: "kubernetes".to_owned(),
        auth_path: "auth/jwt".to_owned(),
        image: "openbao/openbao:2".to_owned(),
    }
}

/// A pod as NVCF's charts write it.
fn pod(annotations: &Value) -> Value {
    let mut all = json!({
        "vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/role": "nvca",
        "vault.hashicorp.com/agent-service-account-token-volume-name": "openbao-token",
    });
    all.as_object_mut()
        .unwrap()
        .extend(annotations.as_object().unwrap().clone());
    let token =
        json!({"serviceAccountToken": {"path": "token", "audience": "http://bao:8200", "expirationSeconds": 3600}});
    json!({"metadata": {"name": "nvca", "annotations": all}, "spec": {
        "initContainers": [{"name": "bootstrap"}],
        "containers": [{"name": "agent", "securityContext": {"runAsUser": 1000}, "volumeMounts": [
            {"name": "openbao-token", "mountPath": "/var/run/secrets/openbao/serviceaccount"},
            {"name": "templates", "mountPath": "/vault/config/templates"}]},
            {"name": "webhook"}],
        "volumes": [{"name": "openbao-token", "projected": {"sources": [token]}},
            {"name": "templates", "configMap": {"name": "templates"}}]}})
}

/// The pod after its patch: every operation here adds a member of an object.
fn injected(annotations: &Value) -> Value {
    let mut pod = pod(annotations);
    for operation in inject(&pod, "nvca-system", &defaults()).unwrap().unwrap() {
        assert_eq!(operation["op"], "add");
        let path = operation["path"].as_str().unwrap();
        let (parent, member) = path.rsplit_once('/').unwrap();
        let member = member.replace("~1", "/");
        pod.pointer_mut(parent).unwrap()[member] = operation["value"].clone();
    }
    pod
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect()
}

fn config(container: &Value) -> Value {
    let variables = container["env"].as_array().unwrap();
    let variable = variables
        .iter()
        .find(|variable| variable["name"] == "VAULT_CONFIG")
        .unwrap();
    serde_json::from_slice(&STANDARD.decode(variable["value"].as_str().unwrap()).unwrap()).unwrap()
}

#[test]
fn the_agents_and_their_volumes_are_added() {
    let pod = injected(&json!({}));
    assert_eq!(names(&pod["spec"]["containers"]), ["agent", "webhook", "vault-agent"]);
    assert_eq!(names(&pod["spec"]["initContainers"]), ["bootstrap", "vault-agent-init"]);
    let volumes = [
        "openbao-token",
        "templates",
        "home-init",
        "home-sidecar",
        "vault-secrets",
    ];
    assert_eq!(names(&pod["spec"]["volumes"]), volumes);
    assert_eq!(pod["spec"]["volumes"][4]["emptyDir"], json!({"medium": "Memory"}));
    assert_eq!(
        pod["metadata"]["annotations"]["vault.hashicorp.com/agent-inject-status"],
        "injected"
    );
    let secrets = json!({"name": "vault-secrets", "mountPath": "/vault/secrets"});
    for path in ["containers/0", "containers/1", "initContainers/0"] {
        let mounts = pod["spec"].pointer(&format!("/{path}/volumeMounts")).unwrap();
        assert_eq!(mounts.as_array().unwrap().last(), Some(&secrets), "{path}");
    }
}

/// Everything of a sidecar, so that nothing is added without being looked at.
#[test]
fn a_sidecar_is_what_the_real_injector_makes() {
    let pod = injected(&json!({
        "vault.hashicorp.com/auth-config-token-path": "/var/run/secrets/openbao/serviceaccount/token",
        "vault.hashicorp.com/agent-copy-volume-mounts": "agent",
        "vault.hashicorp.com/agent-run-as-same-user": "true",
        "vault.hashicorp.com/secret-volume-path": "/home/app/vault",
        "vault.hashicorp.com/agent-inject-template-file-secrets.json": "/vault/config/templates/secrets.json.tmpl",
    }));
    let mut sidecar = pod["spec"]["containers"][2].clone();
    let config = config(&sidecar);
    sidecar["env"][5]["value"] = json!("…");
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    assert_eq!(
        sidecar,
        json!({
            "name": "vault-agent", "image": "openbao/openbao:2", "command": ["/bin/sh", "-ec"],
            "args": ["echo ${VAULT_CONFIG?} | base64 -d > /home/vault/config.json && vault agent -config=/home/vault/config.json"],
            "env": [field("NAMESPACE", "metadata.namespace"), field("HOST_IP", "status.hostIP"),
                field("POD_IP", "status.podIP"), {"name": "VAULT_LOG_LEVEL", "value": "info"},
                {"name": "VAULT_LOG_FORMAT", "value": "standard"}, {"name": "VAULT_CONFIG", "value": "…"}],
            "volumeMounts": [
                {"name": "openbao-token", "mountPath": "/var/run/secrets/openbao/serviceaccount", "readOnly": true},
                {"name": "home-sidecar", "mountPath": "/home/vault"},
                {"name": "vault-secrets", "mountPath": "/home/app/vault"},
                {"name": "templates", "mountPath": "/vault/config/templates"}],
            "resources": {"limits": {"cpu": "500m", "memory": "128Mi"}, "requests": {"cpu": "250m", "memory": "64Mi"}},
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": true,
                "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "lifecycle": {},
        })
    );
    assert_eq!(
        config,
        json!({
            "auto_auth": {
                "method": {"type": "kubernetes", "mount_path": "auth/jwt", "config": {"role": "nvca",
                    "token_path": "/var/run/secrets/openbao/serviceaccount/token"}},
                "sink": [{"type": "file", "config": {"path": "/home/vault/.vault-token"}}]},
            "exit_after_auth": false, "pid_file": "/home/vault/.pid", "vault": {"address": "http://bao:8200"},
            "template": [{"destination": "/home/app/vault/secrets.json",
                "source": "/vault/config/templates/secrets.json.tmpl", "left_delimiter": "{{", "right_delimiter": "}}"}],
            "template_config": {"exit_on_retry_failure": true},
        })
    );
}

#[test]
fn the_init_container_renders_once_and_may_come_first() {
    let pod = injected(&json!({"vault.hashicorp.com/agent-init-first": "true"}));
    assert_eq!(names(&pod["spec"]["initContainers"]), ["vault-agent-init", "bootstrap"]);
    let init = &pod["spec"]["initContainers"][0];
    assert_eq!(config(init)["exit_after_auth"], true);
    assert_eq!(
        names(&init["volumeMounts"]),
        ["home-init", "openbao-token", "vault-secrets"]
    );
    assert!(init.get("lifecycle").is_none());

    let unlimited = injected(&json!({"vault.hashicorp.com/agent-limits-cpu": ""}));
    let limits = &unlimited["spec"]["containers"][2]["resources"]["limits"];
    assert_eq!(limits, &json!({"memory": "128Mi"}));

    let once = injected(&json!({"vault.hashicorp.com/agent-pre-populate-only": "true"}));
    assert_eq!(names(&once["spec"]["containers"]), ["agent", "webhook"]);
    let never = injected(&json!({"vault.hashicorp.com/agent-pre-populate": "false"}));
    assert_eq!(names(&never["spec"]["initContainers"]), ["bootstrap"]);
    assert_eq!(names(&never["spec"]["containers"]), ["agent", "webhook", "vault-agent"]);
}

#[test]
fn each_secret_gets_its_template_file_and_place() {
    let pod = injected(&json!({
        "vault.hashicorp.com/agent-inject-secret-Creds": "services/all/kv/data/nats/creds",
        "vault.hashicorp.com/agent-inject-secret-other": "x",
        "vault.hashicorp.com/agent-inject-template-other": "[[ x ]]",
        "vault.hashicorp.com/agent-template-left-delim-other": "[[",
        "vault.hashicorp.com/agent-template-right-delim-other": "]]",
        "vault.hashicorp.com/agent-inject-file-other": "sub/Other.txt",
        "vault.hashicorp.com/agent-inject-perms-other": "0400",
        "vault.hashicorp.com/secret-volume-path-other": "/elsewhere",
        "vault.hashicorp.com/agent-inject-token": "true",
        "vault.hashicorp.com/template-static-secret-render-interval": "10s",
    }));
    let config = config(&pod["spec"]["containers"][2]);
    let map = "{{ with secret \"services/all/kv/data/nats/creds\" }}{{ range $k, $v := .Data }}{{ $k }}: {{ $v }}\n{{ end }}{{ end }}";
    assert_eq!(config["template"][0]["contents"], map);
    assert_eq!(config["template"][0]["destination"], "/vault/secrets/creds");
    let other = json!({"destination": "/elsewhere/sub/Other.txt", "contents": "[[ x ]]", "left_delimiter": "[[",
        "right_delimiter": "]]", "perms": "0400"});
    assert_eq!(config["template"][1], other);
    assert_eq!(config["auto_auth"]["sink"][1]["config"]["path"], "/vault/secrets/token");
    assert_eq!(config["template_config"]["static_secret_render_interval"], "10s");
    let mounts = names(&pod["spec"]["containers"][0]["volumeMounts"]);
    assert_eq!(mounts[2..], ["vault-secrets", "vault-secrets-custom-0"]);
}

#[test]
fn tls_and_a_config_map_change_the_containers() {
    let pod = injected(&json!({
        "vault.hashicorp.com/agent-configmap": "nvca-vault-agent", "vault.hashicorp.com/tls-secret": "bao-tls",
        "vault.hashicorp.com/ca-cert": "/vault/tls/ca.crt", "vault.hashicorp.com/log-level": "debug",
        "vault.hashicorp.com/service": "https://bao:8200",
    }));
    let sidecar = &pod["spec"]["containers"][2];
    assert_eq!(
        sidecar["args"][0],
        "touch /home/vault/.vault-token && vault agent -config=/vault/configs/config.hcl"
    );
    let environment = sidecar["env"].as_array().unwrap();
    for (name, value) in [
        ("VAULT_ADDR", "https://bao:8200"),
        ("VAULT_CACERT", "/vault/tls/ca.crt"),
        ("VAULT_LOG_LEVEL", "debug"),
        ("VAULT_SKIP_VERIFY", "false"),
    ] {
        assert!(environment.contains(&json!({"name": name, "value": value})), "{name}");
    }
    let mounts = names(&sidecar["volumeMounts"]);
    assert_eq!(mounts[3..], ["vault-config", "vault-tls-secrets"]);
}

#[test]
fn a_pod_that_does_not_ask_or_has_the_agent_is_left_alone() {
    for annotations in [
        json!({"vault.hashicorp.com/agent-inject": "false"}),
        json!({"vault.hashicorp.com/agent-inject-status": "injected"}),
    ] {
        assert_eq!(inject(&pod(&annotations), "default", &defaults()), Ok(None));
    }
    assert_eq!(
        inject(&json!({"metadata": {}, "spec": {}}), "default", &defaults()),
        Ok(None)
    );
}

#[test]
fn what_cannot_be_injected_is_refused_with_the_reason() {
    for (annotations, told) in [
        (json!({"vault.hashicorp.com/role": ""}), "no Vault role found"),
        (
            json!({"vault.hashicorp.com/agent-init-first": "maybe"}),
            "invalid syntax",
        ),
        (json!({"vault.hashicorp.com/agent-run-as-user": "me"}), "no number"),
        (
            json!({"vault.hashicorp.com/agent-service-account-token-volume-name": "x"}),
            "failed to find service account volume \"x\"",
        ),
        (
            json!({"vault.hashicorp.com/agent-service-account-token-volume-name": "templates"}),
            "failed to find tokenPath",
        ),
        (
            json!({"vault.hashicorp.com/agent-cache-enable": "true"}),
            "does not implement",
        ),
    ] {
        let request = json!({"request": {"uid": "u", "namespace": "default", "object": pod(&annotations)}});
        let response = review(&request, &defaults());
        assert_eq!(response["response"]["allowed"], false, "{annotations}");
        let message = response["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains(told), "{message}");
    }
    let request = json!({"request": {"uid": "u", "namespace": "kube-system", "object": pod(&json!({}))}});
    let system = review(&request, &defaults());
    assert!(
        system["response"]["status"]["message"]
            .as_str()
            .unwrap()
            .contains("system namespaces")
    );
}
