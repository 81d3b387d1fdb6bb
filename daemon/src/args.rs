//! The command line of berthd. Every flag is also a `BERTHD_…` variable.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use berth_runtime::{
    args::{AdminArgs, IdentityArgs, TelemetryArgs, TlsArgs},
    kubernetes::KubernetesArgs,
};
use clap::Parser;
use thiserror::Error;

use crate::{journal::SyncMode, mirror::NodeHealth};

/// Where the kubelet listens unless it was told otherwise.
pub const DEFAULT_KUBELET_SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

/// The daemon on every GPU node: knows its GPUs as the driver sees them, and keeps the book of who holds what.
#[derive(Debug, Clone, Parser)]
#[command(name = "berthd", version, mut_arg("admin", |arg| arg.default_value("127.0.0.1:9441")))]
pub struct Args {
    /// The Kubernetes node's name [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// Serve gRPC over TCP here; anything but loopback needs --tls-cert and --tls-key
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9440")]
    pub listen: SocketAddr,

    /// Serve gRPC over this unix socket
    #[arg(long, value_name = "PATH", default_value = "/run/berth/berthd.sock")]
    pub socket: PathBuf,

    #[command(flatten)]
    pub admin: AdminArgs,

    /// Keep the journal of what was granted here
    #[arg(long, value_name = "DIR", default_value = "/var/lib/berth")]
    pub state_dir: PathBuf,

    /// When a grant counts as kept: when the kernel has it (the disk follows within milliseconds), or only when the disk
    /// has it
    #[arg(long, value_enum, value_name = "WHEN", default_value_t)]
    pub journal_sync: SyncMode,

    /// How long a reservation lives before the kubelet confirms it, where the asker does not say: 30s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub default_ttl: HumanDuration,

    /// The kubelet's PodResources socket, or `none` on a machine without Kubernetes. Where this is not given and the
    /// default's directory does not exist, there is no kubelet
    #[arg(long, value_name = "PATH")]
    pub kubelet_socket: Option<PathBuf>,

    /// Invent the GPUs instead of asking the driver: dgx-h100, dgx-a100, l40s, h200, gb200, mixed, mig, each also as
    /// PROFILExN. Real GPUs of this machine are then ignored
    #[arg(long, value_name = "PROFILE[xN]")]
    pub simulate: Option<String>,

    /// With --simulate: read faults to inject from this file, whenever it changes
    #[arg(long, value_name = "FILE", requires = "simulate")]
    pub simulate_control: Option<PathBuf>,

    /// Load NVML from here instead of the system's libnvidia-ml.so.1
    #[arg(long, value_name = "FILE", conflicts_with = "simulate")]
    pub nvml_library: Option<PathBuf>,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    /// Host or address under which schedulers of the cluster reach --listen, told in the GpuNode [default: that of --listen,
    /// where it is neither loopback nor a wildcard]
    #[arg(long, value_name = "HOST", help_heading = "Kubernetes")]
    pub advertise_host: Option<String>,

    /// How to keep pods off the node while none of its GPUs is usable, each of them being Unhealthy or Recovering: by the label
    /// gpu.berth.dev/health alone, which is always there; also by the taint gpu.berth.dev/unhealthy:NoSchedule; or also by a
    /// cordon. Both are taken back when a GPU recovers, and a cordon only if it is berthd's own. A node without a GPU or without
    /// a driver is not kept from pods: one of them may bring the driver
    #[arg(long, value_enum, value_name = "HOW", default_value_t, help_heading = "Kubernetes")]
    pub node_health: NodeHealth,

    #[command(flatten)]
    pub tls: TlsArgs,

    #[command(flatten)]
    pub identity: IdentityArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// A duration as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HumanDuration(pub Duration);

/// The text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is no duration: write a whole number and a unit, e.g. 500ms, 30s, 5m or 1h")]
pub struct ParseDurationError(String);

impl FromStr for HumanDuration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParseDurationError(text.to_owned());
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, unit) = text.split_at(unit_at);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        let ms = number.checked_mul(unit_ms).filter(|ms| *ms > 0).ok_or_else(bad)?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::args::parse_args_from;
    use clap::CommandFactory as _;

    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        let args = std::iter::once("berthd").chain(args.iter().copied()).map(Into::into);
        parse_args_from("BERTHD", args).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_the_fixed_names_of_the_design() {
        let args = parse(&[]).unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:9440");
        assert_eq!(args.admin.admin.to_string(), "127.0.0.1:9441");
        assert_eq!(args.socket.to_str(), Some("/run/berth/berthd.sock"));
        assert_eq!(args.state_dir.to_str(), Some("/var/lib/berth"));
        assert_eq!(args.default_ttl.0, Duration::from_mins(5));
        assert_eq!(args.journal_sync, SyncMode::Group);
    }

    #[test]
    fn garbage_is_refused_with_what_would_do() {
        for (args, tells) in [
            (&["--listen", "everywhere"][..], "--listen"),
            (&["--default-ttl", "soon"], "e.g. 500ms, 30s, 5m or 1h"),
            (&["--default-ttl", "0s"], "e.g. 500ms"),
            (&["--journal-sync", "never"], "group, always"),
            (&["--node-health", "drain"], "label, taint, cordon"),
            (&["--allow", "root"], "uid:NUMBER"),
            (&["--tls-cert", "a.pem"], "--tls-key"),
            (&["--simulate-control", "f"], "--simulate"),
            (&["--simulate", "l40s", "--nvml-library", "f"], "cannot be used with"),
            (&["--nonsense"], "--nonsense"),
            (&["nonsense"], "nonsense"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(tells), "{args:?}: {error}");
        }
    }

    #[test]
    fn durations_read_as_people_write_them() {
        assert_eq!("1h".parse(), Ok(HumanDuration(Duration::from_hours(1))));
        assert_eq!("250ms".parse(), Ok(HumanDuration(Duration::from_millis(250))));
        for bad in [
            "",
            "5",
            "m",
            "-1s",
            "1.5h",
            "99999999999999999999h",
            "9999999999999999h",
        ] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad}");
        }
    }
}
