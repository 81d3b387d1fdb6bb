//! The command line of `webhook-server`. Every flag is also an `NVCA_WEBHOOK_…` variable.

use std::{net::SocketAddr, path::PathBuf};

use berth_runtime::{
    args::{AdminArgs, TelemetryArgs, TlsArgs},
    kubernetes::KubernetesArgs,
};
use clap::Parser;
use serde::Serialize;

/// What every flag's variable starts with.
pub const ENV_PREFIX: &str = "NVCA_WEBHOOK";

/// Answers the API server's questions about pods of functions
#[derive(Debug, Clone, Serialize, Parser)]
#[command(name = "webhook-server", version, mut_arg("admin", |arg| arg.default_value("0.0.0.0:8002")))]
pub struct Args {
    /// The agent's configuration, re-read when it changes
    #[arg(long, value_name = "FILE", default_value = "/var/run/nvca/config.yaml")]
    pub config: PathBuf,

    /// Serve the API server here [default: webhook.svcAddress of the configuration]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,

    /// Without --tls-cert: keep the certificate of the Secret here; it may be lost at any time
    #[arg(long, value_name = "DIR", default_value = "/certs/server")]
    pub tls_dir: PathBuf,

    #[command(flatten)]
    pub tls: TlsArgs,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub admin: AdminArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
