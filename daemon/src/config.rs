//! From flags to a configuration in which nothing is left to check.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use berth_gpu::{Profile, sim::ParseProfileError};
use berth_ledger::LedgerConfig;
use berth_placement::{NodeName, ParseIdError};
use berth_runtime::{identity::IdentityRules, tls::ServerTlsFiles};
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::{
    args::{Args, DEFAULT_KUBELET_SOCKET},
    journal::SyncMode,
    mirror::MirrorConfig,
};

/// What berthd does.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    pub node: NodeName,
    pub listen: SocketAddr,
    pub socket: PathBuf,
    pub admin: SocketAddr,
    pub state_dir: PathBuf,
    pub journal_sync: SyncMode,
    pub default_ttl_ms: u64,
    pub kubelet: KubeletChoice,
    pub devices: DeviceSource,
    /// `None`: there is no API server to tell.
    pub mirror: Option<MirrorConfig>,
    #[serde(serialize_with = "file_names")]
    pub tls: Option<ServerTlsFiles>,
    pub may_change: IdentityRules,
    /// Somebody collects traces.
    pub traced: bool,
}

/// Whether there is a kubelet to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum KubeletChoice {
    /// There is none: grants rest on reservations alone.
    None,
    /// There is one: no grant before it has answered.
    At(PathBuf),
    /// As [`Self::At`] where this socket's directory exists, else as [`Self::None`] until it does.
    IfPresent(PathBuf),
}

/// Where devices come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum DeviceSource {
    /// `library`: instead of the system's.
    Nvml { library: Option<PathBuf> },
    Simulated {
        #[serde(serialize_with = "display")]
        profile: Profile,
        control: Option<PathBuf>,
    },
}

/// Flags that make no sense.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("--node-name cannot be used")]
    NodeName(#[source] ParseIdError),
    #[error("--simulate cannot be used")]
    Simulate(#[source] ParseProfileError),
    #[error("--advertise-host must be a host name or an address, without scheme and port")]
    AdvertiseHost,
    #[error("--default-ttl must be at most {} minutes: no reservation lives longer unconfirmed", longest_ttl().as_secs() / 60)]
    DefaultTtl,
    #[error("the host's name cannot be used as node name: give --node-name")]
    HostName(#[source] ParseIdError),
    #[error("the host's name cannot be read: give --node-name")]
    NoHostName(#[source] std::io::Error),
}

/// What the ledger would cut it to.
fn longest_ttl() -> Duration {
    Duration::from_millis(LedgerConfig::default().max_ttl_ms)
}

impl Config {
    pub fn from_args(args: Args) -> Result<Self, ConfigError> {
        let node = match &args.node_name {
            Some(name) => name.parse().map_err(ConfigError::NodeName)?,
            None => host_name(Path::new("/proc/sys/kernel/hostname"))?,
        };
        if args.default_ttl.0 > longest_ttl() {
            return Err(ConfigError::DefaultTtl);
        }
        let kubelet = match args.kubelet_socket {
            None => KubeletChoice::IfPresent(DEFAULT_KUBELET_SOCKET.into()),
            Some(path) if path.as_os_str() == "none" => KubeletChoice::None,
            Some(path) => KubeletChoice::At(path),
        };
        let devices = match args.simulate {
            Some(profile) => {
                let profile = profile.parse().map_err(ConfigError::Simulate)?;
                DeviceSource::Simulated {
                    profile,
                    control: args.simulate_control,
                }
            }
            None => DeviceSource::Nvml {
                library: args.nvml_library,
            },
        };
        let advertise = args.advertise_host.or_else(|| reachable(args.listen.ip()));
        if advertise.as_ref().is_some_and(|host| authority(host, 1).is_none()) {
            return Err(ConfigError::AdvertiseHost);
        }
        let access = args.kubernetes.access();
        Ok(Self {
            node,
            mirror: access.map(|access| MirrorConfig {
                access,
                advertise,
                node_health: args.node_health,
            }),
            listen: args.listen,
            socket: args.socket,
            admin: args.admin.admin,
            state_dir: args.state_dir,
            journal_sync: args.journal_sync,
            default_ttl_ms: u64::try_from(args.default_ttl.0.as_millis()).unwrap_or(u64::MAX),
            kubelet,
            devices,
            tls: args.tls.files(),
            may_change: args.identity.rules(),
            traced: args.telemetry.otlp_endpoint.is_some(),
        })
    }
}

/// Others reach it there.
fn reachable(address: IpAddr) -> Option<String> {
    let is_local = address.is_loopback() || address.is_unspecified();
    (!is_local).then(|| address.to_string())
}

/// `HOST:PORT` as URLs have it.
pub(crate) fn authority(host: &str, port: u16) -> Option<String> {
    let host = match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => host.to_owned(),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-[]:".contains(&byte);
    let is_plain = !host.contains(':') || host.starts_with('[');
    (!host.is_empty() && is_plain && host.bytes().all(is_host)).then(|| format!("{host}:{port}"))
}

/// Kubernetes lower-cases host names too.
fn host_name(file: &Path) -> Result<NodeName, ConfigError> {
    let name = fs::read_to_string(file).map_err(ConfigError::NoHostName)?;
    name.trim().to_lowercase().parse().map_err(ConfigError::HostName)
}

fn display<S: Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn file_names<S: Serializer>(files: &Option<ServerTlsFiles>, serializer: S) -> Result<S::Ok, S::Error> {
    let names = files.as_ref().map(|files| (&files.cert, &files.key, &files.client_ca));
    names.serialize(serializer)
}

#[cfg(test)]
mod tests {
    use berth_runtime::args::parse_args_from;

    use super::*;

    fn args(args: &[&str]) -> Args {
        let args = std::iter::once("berthd").chain(args.iter().copied()).map(Into::into);
        parse_args_from("BERTHD", args).unwrap()
    }

    fn config(flags: &[&str]) -> Config {
        Config::from_args(args(flags)).unwrap()
    }

    #[test]
    fn the_kubelet_is_waited_for_only_where_there_is_one() {
        let kubelet = |args: &[&str]| config(args).kubelet;
        assert_eq!(
            kubelet(&["--node-name", "a"]),
            KubeletChoice::IfPresent(DEFAULT_KUBELET_SOCKET.into())
        );
        assert_eq!(
            kubelet(&["--node-name", "a", "--kubelet-socket", "none"]),
            KubeletChoice::None
        );
        assert_eq!(
            kubelet(&["--node-name", "a", "--kubelet-socket", "/k"]),
            KubeletChoice::At("/k".into())
        );
    }

    #[test]
    fn devices_are_simulated_only_when_asked_for() {
        assert_eq!(
            config(&["--node-name", "a"]).devices,
            DeviceSource::Nvml { library: None }
        );
        let simulated = config(&["--node-name", "a", "--simulate", "dgx-h100"]).devices;
        let profile = "dgx-h100".parse().unwrap();
        assert_eq!(simulated, DeviceSource::Simulated { profile, control: None });
    }

    #[test]
    fn schedulers_are_told_an_address_only_where_they_can_reach_it() {
        let advertise = |flags: &[&str]| {
            let flags = [flags, &["--node-name", "a", "--kubeconfig", "/k"]].concat();
            config(&flags).mirror.unwrap().advertise
        };
        assert_eq!(advertise(&[]), None);
        assert_eq!(advertise(&["--listen", "0.0.0.0:9440"]), None);
        assert_eq!(advertise(&["--listen", "10.0.0.7:9440"]).as_deref(), Some("10.0.0.7"));
        assert_eq!(advertise(&["--advertise-host", "node-a"]).as_deref(), Some("node-a"));
        assert_eq!(authority("fd00::7", 9440).as_deref(), Some("[fd00::7]:9440"));
        for bad in ["http://a", "a:9440", "", "a b"] {
            let flags = ["--node-name", "a", "--advertise-host", bad];
            assert!(
                matches!(Config::from_args(args(&flags)), Err(ConfigError::AdvertiseHost)),
                "{bad}"
            );
        }
        assert_eq!(config(&["--node-name", "a"]).mirror, None);
    }

    #[test]
    fn the_host_name_becomes_the_node_name_in_lower_case() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hostname");
        fs::write(&file, "GPU-Box-7\n").unwrap();
        assert_eq!(host_name(&file).unwrap().as_str(), "gpu-box-7");
        fs::write(&file, "gpu_box\n").unwrap();
        assert!(host_name(&file).unwrap_err().to_string().contains("--node-name"));
        assert!(matches!(
            Config::from_args(args(&["--node-name", "UPPER"])),
            Err(ConfigError::NodeName(_))
        ));
    }

    #[test]
    fn a_time_to_live_that_would_be_cut_is_refused() {
        let with = |ttl| Config::from_args(args(&["--node-name", "a", "--default-ttl", ttl]));
        assert_eq!(with("1h").unwrap().default_ttl_ms, 3_600_000);
        let refused = with("61m").unwrap_err();
        assert!(refused.to_string().contains("at most 60 minutes"), "{refused}");
    }

    #[test]
    fn the_configuration_can_be_shown() {
        let args = [
            "--node-name",
            "a",
            "--tls-cert",
            "c.pem",
            "--tls-key",
            "k.pem",
            "--allow",
            "uid:7",
        ];
        let shown = serde_json::to_string(&config(&args)).unwrap();
        assert!(shown.contains("k.pem") && shown.contains("uid:7"), "{shown}");
    }
}
