//! A pod's annotations, read into what they ask for, with the injector's defaults for the rest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Defaults, InjectError, PREFIX};

/// Known to the real injector, and not implemented here.
const NOT_IMPLEMENTED: [&str; 14] = [
    "agent-auto-auth-exit-on-err",
    "agent-cache-enable",
    "agent-disable-idle-connections",
    "agent-disable-keep-alives",
    "agent-enable-quit",
    "agent-extra-secret",
    "agent-init-json-patch",
    "agent-json-patch",
    "agent-limits-ephemeral",
    "agent-requests-ephemeral",
    "agent-revoke-on-shutdown",
    "agent-share-process-namespace",
    "go-max-procs",
    "proxy-address",
];

/// What a pod asks the injector for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) address: String,
    pub(super) image: String,
    pub(super) namespace: String,
    pub(super) auth_type: String,
    pub(super) auth_path: String,
    /// `auth-config-KEY` with dashes as underscores.
    pub(super) auth_config: Map<String, Value>,
    pub(super) min_backoff: String,
    pub(super) max_backoff: String,
    pub(super) secrets: Vec<Secret>,
    /// The mount of the files, where a secret says nothing else.
    pub(super) secret_path: String,
    /// A file for the agent's own token, beside the secrets.
    pub(super) token_file: Option<String>,
    pub(super) exit_on_retry_failure: bool,
    pub(super) render_interval: String,
    /// Where among the pod's init containers the agent's is, if at all.
    pub(super) init: Option<Place>,
    pub(super) sidecar: bool,
    pub(super) config_map: String,
    /// The pod's containers that get the files.
    pub(super) containers: Vec<String>,
    pub(super) token: TokenVolume,
    /// Mounts taken over from one of the pod's containers.
    pub(super) copied_mounts: Vec<Value>,
    /// Uid and gid; `None`: no security context.
    pub(super) user: Option<(i64, i64)>,
    /// `vault` section: `ca_cert`, `tls_server_name` …
    pub(super) tls: Tls,
    pub(super) log_level: String,
    pub(super) log_format: String,
    pub(super) client_timeout: String,
    pub(super) client_max_retries: String,
    /// cpu and memory: limits, then requests.
    pub(super) resources: [[String; 2]; 2],
}

/// An init container's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    First,
    Last,
}

/// How the agent trusts the server.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) secret: String,
    pub(super) skip_verify: bool,
    pub(super) server_name: String,
    pub(super) ca_cert: String,
    pub(super) ca_path: String,
    pub(super) client_cert: String,
    pub(super) client_key: String,
}

/// One file to be rendered.
#[derive(Debug)]
pub(super) struct Secret {
    pub(super) contents: String,
    /// A file in the container that holds the template.
    pub(super) source: String,
    pub(super) mount: String,
    /// Below the mount.
    pub(super) file: String,
    pub(super) perms: String,
    pub(super) command: String,
    pub(super) delimiters: [String; 2],
    pub(super) error_on_missing_key: bool,
}

/// Where the pod's service-account token is.
#[derive(Debug)]
pub(super) struct TokenVolume {
    pub(super) name: String,
    pub(super) mount: String,
    /// Below the mount.
    pub(super) file: String,
}

/// The annotations without their prefix.
struct Annotations<'a>(BTreeMap<&'a str, &'a str>);

/// Whether the pod wants the agent and does not have it yet.
pub(super) fn asks(pod: &Value) -> Result<bool, InjectError> {
    let annotations = Annotations::of(pod);
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    Ok(annotations.flag("agent-inject", false)?
        && matches!(phase, "" | "Pending")
        && annotations.text("agent-inject-status") != "injected")
}

// === impl Wanted ===

impl Wanted {
    pub(super) fn parse(pod: &Value, defaults: &Defaults) -> Result<Self, InjectError> {
        let all = Annotations::of(pod);
        if let Some(name) = NOT_IMPLEMENTED.into_iter().find(|name| all.asks_for(name)) {
            return Err(InjectError::NotImplemented(name.to_owned()));
        }
        let apps = pod["spec"]["containers"].as_array().cloned().unwrap_or_default();
        let containers = match all.0.get("agent-inject-containers") {
            Some(names) => names.split(',').map(str::to_owned).collect(),
            None => apps
                .iter()
                .filter_map(|app| app["name"].as_str())
                .map(str::to_owned)
                .collect(),
        };
        let token = TokenVolume::find(pod, all.text("agent-service-account-token-volume-name"))?;
        let mut auth_config = Map::new();
        let path = format!("{}/{}", token.mount.trim_end_matches('/'), token.file);
        auth_config.insert("token_path".to_owned(), Value::String(path));
        for (name, value) in &all.0 {
            if let Some(key) = name.strip_prefix("auth-config-") {
                auth_config.insert(key.replace('-', "_"), Value::String((*value).to_owned()));
            }
        }
        let role = all.text("role");
        if !role.is_empty() {
            auth_config.insert("role".to_owned(), Value::String(role.to_owned()));
        }
        let auth_type = all.or("auth-type", &defaults.auth_type);
        let config_map = all.text("agent-configmap").to_owned();
        if config_map.is_empty() && auth_type == "kubernetes" && !auth_config.contains_key("role") {
            return Err(InjectError::NoRole);
        }
        let secret_path = all.or("secret-volume-path", "/vault/secrets");
        let resource = |name: &str, default: &str| all.or(name, default);
        let place = if all.flag("agent-init-first", false)? {
            Place::First
        } else {
            Place::Last
        };
        Ok(Self {
            address: all.or("service", &defaults.address),
            image: all.or("agent-image", &defaults.image),
            namespace: all.text("namespace").to_owned(),
            auth_type,
            auth_path: all.or("auth-path", &defaults.auth_path),
            auth_config,
            min_backoff: all.text("auth-min-backoff").to_owned(),
            max_backoff: all.text("auth-max-backoff").to_owned(),
            secrets: secrets(&all, &secret_path)?,
            token_file: all
                .flag("agent-inject-token", false)?
                .then(|| format!("{secret_path}/token")),
            secret_path,
            exit_on_retry_failure: all.flag("template-config-exit-on-retry-failure", true)?,
            render_interval: all.text("template-static-secret-render-interval").to_owned(),
            init: all.flag("agent-pre-populate", true)?.then_some(place),
            sidecar: !all.flag("agent-pre-populate-only", false)?,
            config_map,
            containers,
            token,
            copied_mounts: copied(pod, all.text("agent-copy-volume-mounts")),
            user: user(&all, &apps)?,
            tls: Tls {
                secret: all.text("tls-secret").to_owned(),
                skip_verify: all.flag("tls-skip-verify", false)?,
                server_name: all.text("tls-server-name").to_owned(),
                ca_cert: all.text("ca-cert").to_owned(),
                ca_path: all.text("ca-key").to_owned(),
                client_cert: all.text("client-cert").to_owned(),
                client_key: all.text("client-key").to_owned(),
            },
            log_level: all.or("log-level", "info"),
            log_format: all.or("log-format", "standard"),
            client_timeout: all.text("client-timeout").to_owned(),
            client_max_retries: all.text("client-max-retries").to_owned(),
            resources: [
                [
                    resource("agent-limits-cpu", "500m"),
                    resource("agent-limits-mem", "128Mi"),
                ],
                [
                    resource("agent-requests-cpu", "250m"),
                    resource("agent-requests-mem", "64Mi"),
                ],
            ],
        })
    }

    /// Mounts of files that lie elsewhere than at [`Self::secret_path`], each once.
    pub(super) fn other_mounts(&self) -> Vec<&str> {
        let mut mounts: Vec<&str> = Vec::new();
        for secret in &self.secrets {
            if secret.mount != self.secret_path && !mounts.contains(&secret.mount.as_str()) {
                mounts.push(&secret.mount);
            }
        }
        mounts
    }
}

// === impl Annotations ===

impl<'a> Annotations<'a> {
    fn of(pod: &'a Value) -> Self {
        let all = pod["metadata"]["annotations"].as_object().into_iter().flatten();
        Self(
            all.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str()?)))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> &'a str {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn or(&self, name: &str, default: &str) -> String {
        self.0.get(name).copied().unwrap_or(default).to_owned()
    }

    fn flag(&self, name: &'static str, default: bool) -> Result<bool, InjectError> {
        // As Go's strconv reads them.
        match self.0.get(name).copied() {
            None => Ok(default),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("" | "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(InjectError::NotABool {
                name,
                value: value.to_owned(),
            }),
        }
    }

    fn number(&self, name: &'static str, default: i64) -> Result<i64, InjectError> {
        let Some(value) = self.0.get(name) else {
            return Ok(default);
        };
        value.parse().map_err(|_| InjectError::NotANumber {
            name,
            value: (*value).to_owned(),
        })
    }

    /// Whether it is there and says something else than no.
    fn asks_for(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| !matches!(*value, "" | "false"))
    }
}

// === impl TokenVolume ===

impl TokenVolume {
    /// The named volume, or the one that the API server's own admission has mounted.
    fn find(pod: &Value, name: &str) -> Result<Self, InjectError> {
        let mounts = || {
            let apps = pod["spec"]["containers"].as_array().into_iter().flatten();
            apps.flat_map(|app| app["volumeMounts"].as_array().into_iter().flatten())
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            let mount = mounts().find(|mount| text(&mount["mountPath"]).contains("serviceaccount"));
            let mount = mount.ok_or(InjectError::NoTokenMount)?;
            return Ok(Self {
                name: text(&mount["name"]),
                mount: text(&mount["mountPath"]),
                file: "token".to_owned(),
            });
        }
        let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let volume = volumes.find(|volume| volume["name"] == name);
        let volume = volume.ok_or_else(|| InjectError::NoTokenVolume(name.to_owned()))?;
        let mut sources = volume["projected"]["sources"].as_array().into_iter().flatten();
        let file = sources.find_map(|source| source["serviceAccountToken"]["path"].as_str());
        let file = file
            .ok_or_else(|| InjectError::NoTokenPath(name.to_owned()))?
            .to_owned();
        let mount = mounts().find(|mount| mount["name"] == name);
        let mount = mount.map_or_else(
            || "/var/run/secrets/vault.hashicorp.com/serviceaccount".to_owned(),
            |mount| text(&mount["mountPath"]),
        );
        Ok(Self {
            name: name.to_owned(),
            mount,
            file,
        })
    }
}

/// Every name after `agent-inject-secret-`, `agent-inject-template-` and `agent-inject-template-file-` is a file.
fn secrets(all: &Annotations<'_>, secret_path: &str) -> Result<Vec<Secret>, InjectError> {
    let kinds = [
        "agent-inject-secret-",
        "agent-inject-template-file-",
        "agent-inject-template-",
    ];
    let mut names: Vec<&str> = all
        .0
        .iter()
        .filter(|(_, value)| !value.trim().is_empty())
        .filter_map(|(key, _)| kinds.iter().find_map(|kind| key.strip_prefix(kind)))
        .filter(|name| !name.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    let default_template = all.or("agent-inject-default-template", "map").to_lowercase();
    let preserve_all = all.flag("preserve-secret-case", false)?;
    let mut secrets = Vec::new();
    for name in names {
        let of = |kind: &str| all.text(&format!("{kind}-{name}")).to_owned();
        let path = of("agent-inject-secret");
        let mut contents = of("agent-inject-template");
        let source = if contents.is_empty() {
            of("agent-inject-template-file")
        } else {
            String::new()
        };
        if contents.is_empty() && source.is_empty() {
            contents = match default_template.as_str() {
                "map" => format!(
                    "{{{{ with secret \"{path}\" }}}}{{{{ range $k, $v := .Data }}}}{{{{ $k }}}}: {{{{ $v }}}}\n{{{{ end }}}}{{{{ end }}}}"
                ),
                "json" => format!("{{{{ with secret \"{path}\" }}}}{{{{ .Data | toJSON }}}}\n{{{{ end }}}}"),
                other => return Err(InjectError::DefaultTemplate(other.to_owned())),
            };
        }
        let preserved = preserve_all || matches!(of("preserve-secret-case").as_str(), "true" | "1");
        let named = of("agent-inject-file");
        let file = match (named.is_empty(), preserved) {
            (false, _) => named,
            (true, true) => name.to_owned(),
            (true, false) => name.to_lowercase(),
        };
        let mount = of("secret-volume-path");
        let or = |given: String, default: &str| if given.is_empty() { default.to_owned() } else { given };
        secrets.push(Secret {
            contents,
            source,
            mount: or(mount, secret_path),
            file,
            perms: of("agent-inject-perms"),
            command: of("agent-inject-command"),
            delimiters: [
                or(of("agent-template-left-delim"), "{{"),
                or(of("agent-template-right-delim"), "}}"),
            ],
            error_on_missing_key: matches!(of("error-on-missing-key").as_str(), "true" | "1"),
        });
    }
    Ok(secrets)
}

/// A container's mounts, but for service-account tokens.
fn copied(pod: &Value, container: &str) -> Vec<Value> {
    let all = ["containers", "initContainers"].map(|list| pod["spec"][list].as_array().into_iter().flatten());
    all.into_iter()
        .flatten()
        .filter(|other| !container.is_empty() && other["name"] == container)
        .flat_map(|other| other["volumeMounts"].as_array().into_iter().flatten())
        .filter(|mount| {
            let path = mount["mountPath"].as_str().unwrap_or_default();
            !path.to_lowercase().contains("serviceaccount")
        })
        .cloned()
        .collect()
}

fn user(all: &Annotations<'_>, apps: &[Value]) -> Result<Option<(i64, i64)>, InjectError> {
    let mut user = all.number("agent-run-as-user", 100)?;
    let group = all.number("agent-run-as-group", 1000)?;
    if all.flag("agent-run-as-same-user", false)? {
        let app = apps
            .first()
            .ok_or(InjectError::SameUser("No containers found in Pod Spec"))?;
        let context = &app["securityContext"];
        if !context.is_object() {
            return Err(InjectError::SameUser("No SecurityContext found for Container 0"));
        }
        user = context["runAsUser"].as_i64().ok_or(InjectError::SameUser(
            "RunAsUser is nil for Container 0's SecurityContext",
        ))?;
        if user == 0 {
            return Err(InjectError::SameUser("container not allowed to run as root"));
        }
    }
    let set = all.flag("agent-set-security-context", true)?;
    Ok(set.then_some((user, group)))
}
