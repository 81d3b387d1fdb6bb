//! The agent's configuration file, parsed and followed: a change is taken without a restart where that can be.
//!
//! Addresses and the namespace of functions are taken at the start; of a change to them is told.

use std::{
    fs, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use berth_runtime::{SharedClock, file_watch::FileWatch, secret_file::SecretFile, telemetry::LogLevel};
use berth_sis::{ClusterId, IdError, RetryPolicy, SetupError, SisClient, SisConfig, TokenFile, TokenRules};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::health::{CONFIG, Health};
use crate::{
    agent_config::{AgentConfig, Malformed},
    names,
};

/// What the configuration comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub config: AgentConfig,
    /// `None` while there is none that could be used.
    pub cluster: Option<ClusterId>,
}

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("cannot read {path}: the operator writes it", path = path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no configuration of the agent", path = path.display())]
    Malformed {
        path: PathBuf,
        #[source]
        source: Malformed,
    },
    #[error("the configuration names no cluster (cluster.id): it is not registered yet")]
    Cluster(#[from] IdError),
    #[error("`{text}` is no address: write e.g. :8000 or 127.0.0.1:8000")]
    Address { text: String },
}

impl Settings {
    pub fn of(config: AgentConfig) -> Self {
        let cluster = config.cluster.id.parse().ok();
        Self { config, cluster }
    }

    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(path).map_err(|source| SettingsError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let config = AgentConfig::parse(text.as_bytes()).map_err(|source| SettingsError::Malformed {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::of(config))
    }

    /// As SIS is told: the version that the operator installed, else this program's.
    pub fn version(&self) -> &str {
        match self.config.cluster.nvca_version.as_str() {
            "" => env!("CARGO_PKG_VERSION"),
            version => version,
        }
    }

    /// Whether shapes of several nodes are offered.
    pub fn multi_node(&self) -> bool {
        !self.config.lacks("MultiNodeWorkloads")
    }

    /// A way to SIS, with the tokens that OpenBao signs.
    ///
    /// # Errors
    /// The address is none.
    pub fn sis_client(
        &self,
        secret: SecretFile,
        retry: RetryPolicy,
        clock: SharedClock,
    ) -> Result<SisClient, SetupError> {
        let agent = &self.config.agent;
        let sis = SisConfig {
            url: agent.sis_url.clone(),
            host: agent.sis_host.clone(),
            user_agent: format!("{}/{}", names::AGENT, self.version()),
            retry,
            deadline: None,
        };
        SisClient::new(&sis, TokenFile::new(secret), TokenRules::agent(), clock)
    }

    /// What is wrong with it, as far as that shows by itself.
    fn check(&self) -> Result<(), SettingsError> {
        let cluster: Result<ClusterId, _> = self.config.cluster.id.parse();
        Ok(cluster.map(drop)?)
    }
}

impl SettingsError {
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "ConfigUnreadable",
            Self::Malformed { .. } => "ConfigMalformed",
            Self::Cluster(_) => "ClusterNotRegistered",
            Self::Address { .. } => "AddressInvalid",
        }
    }
}

/// An address as Go writes it: without a host it is every one.
pub fn address(text: &str) -> Result<SocketAddr, SettingsError> {
    let bad = || SettingsError::Address { text: text.to_owned() };
    match text.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().map_err(|_| bad())?;
            Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port))
        }
        None => text.parse().map_err(|_| bad()),
    }
}

/// Follows the file until `stop`. The last configuration that could be read stays in force.
pub(crate) async fn follow(
    path: PathBuf,
    settings: watch::Sender<Arc<Settings>>,
    log_level: LogLevel,
    health: Health,
    stop: CancellationToken,
) {
    let mut files = FileWatch::new([&*path]);
    loop {
        match Settings::read(&path) {
            Ok(read) => take(read, &settings, &log_level, &health),
            Err(error) => health.bad(CONFIG, error.reason(), chain(&error)),
        }
        if stop.run_until_cancelled(files.changed()).await.is_none() {
            return;
        }
    }
}

fn take(read: Settings, settings: &watch::Sender<Arc<Settings>>, log_level: &LogLevel, health: &Health) {
    match read.check() {
        Ok(()) => health.good(CONFIG),
        Err(error) => health.bad(CONFIG, error.reason(), chain(&error)),
    }
    settings.send_if_modified(|current| {
        if **current == read {
            return false;
        }
        info!(cluster = read.config.cluster.id, "the configuration changed");
        tell_fixed(&current.config, &read.config);
        set_log_level(&read.config, log_level);
        *current = Arc::new(read);
        true
    });
}

/// What only a restart changes.
fn tell_fixed(before: &AgentConfig, after: &AgentConfig) {
    for (key, before, after) in [
        ("agent.svcAddress", &before.agent.svc_addr, &after.agent.svc_addr),
        ("agent.adminAddr", &before.agent.admin_addr, &after.agent.admin_addr),
        (
            "agent.requestsNamespace",
            &before.agent.requests_namespace,
            &after.agent.requests_namespace,
        ),
    ] {
        if before != after {
            warn!(key, before, after, "this change is taken at the next start only");
        }
    }
}

pub(crate) fn set_log_level(config: &AgentConfig, log_level: &LogLevel) {
    if let Err(error) = log_level.set(&config.agent.log_level) {
        let level = &config.agent.log_level;
        warn!(
            level,
            error = &error as &dyn std::error::Error,
            "agent.logLevel is none: it stays as it was"
        );
    }
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_the_operator_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        assert_eq!(Settings::read(&path).unwrap_err().reason(), "ConfigUnreadable");
        fs::write(&path, "agent: [").unwrap();
        assert_eq!(Settings::read(&path).unwrap_err().reason(), "ConfigMalformed");
        fs::write(
            &path,
            "workload:\n  functionEnvOverrides: {TOKEN: s3cret}\n  workerStartupTimeout: soon\n",
        )
        .unwrap();
        let told = chain(&Settings::read(&path).unwrap_err());
        assert!(told.contains("write e.g. 90s") && !told.contains("s3cret"), "{told}");
        let text =
            "agent:\n  icmsurl: http://sis:8080\n  NATSURL: nats://n\n  unknown: 1\ncluster:\n  id: c-1\n  ncaid: n\n";
        fs::write(&path, text).unwrap();
        let settings = Settings::read(&path).unwrap();
        assert_eq!(settings.config.agent.sis_url, "http://sis:8080");
        assert_eq!(settings.cluster.as_ref().unwrap().as_str(), "c-1");
        assert!(settings.check().is_ok() && settings.multi_node());
        assert_eq!(settings.version(), env!("CARGO_PKG_VERSION"));
        fs::write(&path, "agent: {featureFlags: [-MultiNodeWorkloads]}").unwrap();
        let settings = Settings::read(&path).unwrap();
        assert_eq!(settings.check().unwrap_err().reason(), "ClusterNotRegistered");
        assert!(!settings.multi_node());
    }

    #[test]
    fn an_address_without_a_host_is_every_one() {
        assert_eq!(address(":8000").unwrap().to_string(), "[::]:8000");
        assert_eq!(address("127.0.0.1:0").unwrap().to_string(), "127.0.0.1:0");
        for bad in ["", "8000", ":", "host:80", ":99999"] {
            assert_eq!(address(bad).unwrap_err().reason(), "AddressInvalid", "{bad}");
        }
    }
}
