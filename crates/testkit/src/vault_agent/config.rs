//! The agent's configuration: the JSON in `VAULT_CONFIG`, parsed into what the agent needs.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use thiserror::Error;

use crate::bao::duration;

/// What one container's agent shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    pub(super) address: String,
    /// A PEM file in the container.
    pub(super) ca_cert: Option<String>,
    /// `auth/jwt`.
    pub(super) mount: String,
    pub(super) role: String,
    /// The file with the JWT to log in with.
    pub(super) token_path: String,
    /// Files that the agent's own token goes to.
    pub(super) sinks: Vec<String>,
    pub(super) files: Vec<File>,
    pub(super) exit_after_auth: bool,
    pub(super) render_interval: Duration,
    pub(super) min_backoff: Duration,
    pub(super) max_backoff: Duration,
    pub(super) client_timeout: Duration,
}

/// One file to render.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) destination: String,
    pub(super) contents: String,
    /// A file in the container that holds the template.
    pub(super) source: Option<String>,
    pub(super) left: String,
    pub(super) right: String,
    pub(super) mode: u32,
    pub(super) error_on_missing_key: bool,
}

/// Why there is no agent.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("the pod has no container {0}: was it injected?")]
    NoContainer(String),
    #[error(
        "container {0} has no VAULT_CONFIG; configurations in a ConfigMap are HCL, which the stand-in does not read"
    )]
    NoConfig(String),
    #[error("the configuration is no JSON")]
    Json(#[from] serde_json::Error),
    #[error("the configuration's {0} is missing or wrong")]
    Field(&'static str),
    #[error("the stand-in does not implement {0}")]
    NotImplemented(String),
}

// === impl AgentConfig ===

impl AgentConfig {
    /// Of one of a pod's containers.
    pub fn of_container(pod: &Value, container: &str) -> Result<Self, ConfigError> {
        let lists = ["containers", "initContainers"].map(|list| pod["spec"][list].as_array().into_iter().flatten());
        let mut all = lists.into_iter().flatten();
        let found = all.find(|other| other["name"] == container);
        let found = found.ok_or_else(|| ConfigError::NoContainer(container.to_owned()))?;
        let variable = |name: &str| {
            let mut environment = found["env"].as_array().into_iter().flatten();
            environment.find(|variable| variable["name"] == name)?["value"].as_str()
        };
        let config = variable("VAULT_CONFIG").and_then(|text| STANDARD.decode(text).ok());
        let config = Self::parse(&config.ok_or_else(|| ConfigError::NoConfig(container.to_owned()))?)?;
        match variable("VAULT_CLIENT_TIMEOUT").map(duration::parse) {
            None => Ok(config),
            Some(timeout) => Ok(config.client_timeout(timeout.ok_or(ConfigError::Field("VAULT_CLIENT_TIMEOUT"))?)),
        }
    }

    /// Of the JSON itself.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let config: Value = serde_json::from_slice(json)?;
        let text = |pointer: &str| {
            config
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let need = |pointer: &str, field| {
            Some(text(pointer))
                .filter(|text| !text.is_empty())
                .ok_or(ConfigError::Field(field))
        };
        let time = |pointer: &str, field, default| match text(pointer).as_str() {
            "" => Ok(default),
            text => duration::parse(text).ok_or(ConfigError::Field(field)),
        };
        // The method `jwt` names the file `path`, the method `kubernetes` names it `token_path`.
        let token_path = match text("/auto_auth/method/type").as_str() {
            "jwt" => need("/auto_auth/method/config/path", "auto_auth.method.config.path")
                .or_else(|_| need("/auto_auth/method/config/token_path", "auto_auth.method.config.path"))?,
            "kubernetes" => need(
                "/auto_auth/method/config/token_path",
                "auto_auth.method.config.token_path",
            )
            .unwrap_or_else(|_| "/var/run/secrets/kubernetes.io/serviceaccount/token".to_owned()),
            other => return Err(ConfigError::NotImplemented(format!("the auth method {other:?}"))),
        };
        let templates = config["template"].as_array().into_iter().flatten();
        let sinks = config["auto_auth"]["sink"].as_array().into_iter().flatten();
        Ok(Self {
            address: need("/vault/address", "vault.address")?,
            ca_cert: Some(text("/vault/ca_cert")).filter(|path| !path.is_empty()),
            mount: need("/auto_auth/method/mount_path", "auto_auth.method.mount_path")?,
            role: need("/auto_auth/method/config/role", "auto_auth.method.config.role")?,
            token_path,
            sinks: sinks
                .filter_map(|sink| sink["config"]["path"].as_str())
                .map(str::to_owned)
                .collect(),
            files: templates.map(File::parse).collect::<Result<_, _>>()?,
            exit_after_auth: config["exit_after_auth"].as_bool().unwrap_or_default(),
            render_interval: time(
                "/template_config/static_secret_render_interval",
                "template_config.static_secret_render_interval",
                Duration::from_mins(5),
            )?,
            min_backoff: time("/auto_auth/method/min_backoff", "min_backoff", Duration::from_secs(1))?,
            max_backoff: time("/auto_auth/method/max_backoff", "max_backoff", Duration::from_mins(5))?,
            client_timeout: Duration::from_mins(1),
        })
    }

    /// The longest that one request may take; a minute where nothing is said.
    #[must_use]
    pub fn client_timeout(mut self, timeout: Duration) -> Self {
        self.client_timeout = timeout;
        self
    }
}

// === impl ConfigError ===

impl ConfigError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoContainer(_) => "NoContainer",
            Self::NoConfig(_) => "NoConfig",
            Self::Json(_) => "Json",
            Self::Field(_) => "Field",
            Self::NotImplemented(_) => "NotImplemented",
        }
    }
}

// === impl File ===

impl File {
    fn parse(template: &Value) -> Result<Self, ConfigError> {
        let text = |name: &str| template[name].as_str().unwrap_or_default().to_owned();
        let or = |name: &str, default: &str| {
            Some(text(name))
                .filter(|text| !text.is_empty())
                .unwrap_or_else(|| default.to_owned())
        };
        let destination = text("destination");
        if destination.is_empty() {
            return Err(ConfigError::Field("template.destination"));
        }
        Ok(Self {
            destination,
            contents: text("contents"),
            source: Some(text("source")).filter(|path| !path.is_empty()),
            left: or("left_delimiter", "{{"),
            right: or("right_delimiter", "}}"),
            mode: u32::from_str_radix(&or("perms", "0644"), 8).map_err(|_| ConfigError::Field("template.perms"))?,
            error_on_missing_key: template["error_on_missing_key"].as_bool().unwrap_or_default(),
        })
    }
}
