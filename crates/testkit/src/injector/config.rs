//! The agent's configuration, as it stands in the containers' variable `VAULT_CONFIG`.

use serde_json::{Map, Value, json};

use super::annotations::{Secret, Wanted};

/// The file that the agent writes its own token to.
pub(super) const TOKEN_FILE: &str = "/home/vault/.vault-token";

/// `exit_after_auth`: the init container renders once and ends.
pub(super) fn config(wanted: &Wanted, exit_after_auth: bool) -> Value {
    let mut method = json!({"type": wanted.auth_type, "mount_path": wanted.auth_path, "config": wanted.auth_config});
    set(&mut method, "namespace", &wanted.namespace);
    set(&mut method, "min_backoff", &wanted.min_backoff);
    set(&mut method, "max_backoff", &wanted.max_backoff);
    let mut sinks = vec![sink(TOKEN_FILE)];
    sinks.extend(wanted.token_file.as_deref().map(sink));
    let tls = &wanted.tls;
    let mut server = json!({"address": wanted.address});
    set(&mut server, "ca_cert", &tls.ca_cert);
    set(&mut server, "ca_path", &tls.ca_path);
    set(&mut server, "client_cert", &tls.client_cert);
    set(&mut server, "client_key", &tls.client_key);
    set(&mut server, "tls_server_name", &tls.server_name);
    if tls.skip_verify {
        server["tls_skip_verify"] = json!(true);
    }
    let mut template_config = json!({"exit_on_retry_failure": wanted.exit_on_retry_failure});
    set(
        &mut template_config,
        "static_secret_render_interval",
        &wanted.render_interval,
    );
    let mut config = json!({
        "auto_auth": {"method": method, "sink": sinks},
        "exit_after_auth": exit_after_auth,
        "pid_file": "/home/vault/.pid",
        "vault": server,
        "template_config": template_config,
    });
    if !wanted.secrets.is_empty() {
        config["template"] = wanted.secrets.iter().map(template).collect();
    }
    config
}

fn template(secret: &Secret) -> Value {
    let mut template = Value::Object(Map::new());
    let destination = format!("{}/{}", secret.mount.trim_end_matches('/'), secret.file);
    set(&mut template, "destination", &destination);
    set(&mut template, "contents", &secret.contents);
    set(&mut template, "source", &secret.source);
    set(&mut template, "left_delimiter", &secret.delimiters[0]);
    set(&mut template, "right_delimiter", &secret.delimiters[1]);
    set(&mut template, "perms", &secret.perms);
    set(&mut template, "command", &secret.command);
    if secret.error_on_missing_key {
        template["error_on_missing_key"] = json!(true);
    }
    template
}

fn sink(path: &str) -> Value {
    json!({"type": "file", "config": {"path": path}})
}

/// Empty fields are left out, as Go's `omitempty` does.
fn set(object: &mut Value, name: &str, value: &str) {
    if !value.is_empty() {
        object[name] = json!(value);
    }
}
