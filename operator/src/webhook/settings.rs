//! What the agent's configuration says to the webhook, as the file has it now. A file that cannot be read leaves what was
//! good last. Knows nothing of pods.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use berth_runtime::secret_file::{SecretFile, SecretFileError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Gates;
use crate::agent_config::{AgentConfig, Malformed};

/// The gates in force. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    file: SecretFile,
    gates: Arc<ArcSwap<Gates>>,
}

/// The configuration cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    #[error("the agent's configuration cannot be read: give it by --config")]
    Read(#[from] SecretFileError),
    #[error("{path} is no agent configuration", path = path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: Malformed,
    },
    #[error("`{0}` is no address to listen on: write HOST:PORT or :PORT")]
    Address(String),
}

impl SettingsError {
    /// Stable name of the error.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Read(_) => "ConfigUnreadable",
            Self::Parse { .. } => "ConfigInvalid",
            Self::Address(_) => "ConfigAddressInvalid",
        }
    }
}

impl Settings {
    /// The configuration must be there from the start: a ConfigMap's volume is.
    pub(super) fn read(path: &Path) -> Result<(Self, AgentConfig), SettingsError> {
        let file = SecretFile::new(path);
        let text = file.read()?;
        let config = parse(path, text.expose())?;
        let gates = Arc::new(ArcSwap::from_pointee(Gates::of(&config)));
        Ok((Self { file, gates }, config))
    }

    pub(super) fn gates(&self) -> Arc<Gates> {
        self.gates.load_full()
    }

    /// Until `stop`.
    pub(super) async fn follow(self, stop: CancellationToken) {
        let mut changes = self.file.subscribe();
        let watch = self.file.clone().follow(stop.clone());
        let apply = async {
            while changes.changed().await.is_ok() {
                let Some(text) = changes.borrow_and_update().clone() else {
                    continue;
                };
                match parse(self.file.path(), text.expose()) {
                    Ok(config) => {
                        self.gates.store(Arc::new(Gates::of(&config)));
                        info!("the agent's configuration is in force");
                    }
                    Err(error) => {
                        let reason = error.reason();
                        let error = &error as &dyn std::error::Error;
                        warn!(error, reason, "keeping the configuration that was good last");
                    }
                }
            }
        };
        tokio::select! {
            () = watch => {}
            () = apply => {}
        }
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<AgentConfig, SettingsError> {
    AgentConfig::parse(bytes).map_err(|source| SettingsError::Parse {
        path: path.to_owned(),
        source,
    })
}

/// Go's form: without a host it is every address of the pod.
pub(super) fn address(text: &str) -> Result<SocketAddr, SettingsError> {
    let invalid = || SettingsError::Address(text.to_owned());
    match text.strip_prefix(':') {
        Some(port) => Ok((Ipv4Addr::UNSPECIFIED, port.parse().map_err(|_| invalid())?).into()),
        None => text.parse().map_err(|_| invalid()),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use anyhow::ensure;
    use berth_testkit::{eventually, spawn};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn an_address_is_read_as_go_writes_it() {
        assert_eq!(address(":8443").unwrap().to_string(), "0.0.0.0:8443");
        assert_eq!(address("127.0.0.1:0").unwrap().to_string(), "127.0.0.1:0");
        for text in ["", ":", "8443", ":many", "somewhere:1"] {
            assert_eq!(address(text).unwrap_err().reason(), "ConfigAddressInvalid", "{text}");
        }
    }

    #[test]
    fn a_configuration_that_is_missing_or_no_yaml_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        assert_eq!(Settings::read(&path).unwrap_err().reason(), "ConfigUnreadable");
        fs::write(&path, "agent: [").unwrap();
        assert_eq!(Settings::read(&path).unwrap_err().reason(), "ConfigInvalid");
    }

    #[tokio::test]
    async fn a_changed_configuration_comes_into_force_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        let write = |text: &str| {
            let next = dir.path().join("next");
            fs::write(&next, text).unwrap();
            fs::rename(next, &path).unwrap();
        };
        write("agent: {featureFlags: [SelfHosted]}");
        let (settings, _) = Settings::read(&path).unwrap();
        assert!(!settings.gates().kai);
        let stop = CancellationToken::new();
        let following = spawn(settings.clone().follow(stop.clone()));
        write("agent: {featureFlags: [+KAIScheduler]}");
        let on = eventually(SOON, async || {
            ensure!(settings.gates().kai, "not in force");
            Ok(())
        });
        on.await.unwrap();
        write("agent: [");
        write("workload: {tolerations: [{key: a, operator: Exists}]}\nagent: {featureFlags: [KAIScheduler]}");
        let tolerated = eventually(SOON, async || {
            assert!(settings.gates().kai, "a broken file changed what is in force");
            ensure!(!settings.gates().tolerations.is_empty(), "not in force");
            Ok(())
        });
        tolerated.await.unwrap();
        stop.cancel();
        following.await.unwrap();
    }
}
