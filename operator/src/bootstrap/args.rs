//! The command line of nvca-self-managed. Every flag is also a `NVCA_SELF_MANAGED_…` variable.

use std::path::PathBuf;

use berth_runtime::{
    args::{AdminArgs, HumanDuration, TelemetryArgs},
    kubernetes::KubernetesArgs,
};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::names;

/// What every flag's variable starts with.
pub const ENV_PREFIX: &str = "NVCA_SELF_MANAGED";

/// Registers this cluster with the control plane, as the chart describes it.
///
/// Reads the ConfigMap nvcfbackend-self-managed and the token that OpenBao's agent renders, and writes who the cluster is into
/// the ConfigMap nvca-cluster-registration. A cluster that is registered already is found again. Nothing is ever deleted
#[derive(Debug, Clone, Parser)]
#[command(name = "nvca-self-managed", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Register the cluster and end: 0 when the registration is recorded, 1 when it is not, with the reason and what to do in
    /// the log
    Bootstrap(BootstrapArgs),
    /// Keep the cluster registered: again when the token, the chart's ConfigMap or the registration changes or is deleted
    Watch(WatchArgs),
}

#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct BootstrapArgs {
    /// Wait so long for a token, for the ConfigMap, for SIS. What waiting does not change ends it at once
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub timeout: HumanDuration,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Clone, Serialize, clap::Args)]
#[command(mut_arg("admin", |arg| arg.default_value("127.0.0.1:8003")))]
pub struct WatchArgs {
    /// Ask SIS again after this even where nothing changed
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub resync: HumanDuration,

    #[command(flatten)]
    pub admin: AdminArgs,

    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, Clone, Serialize, clap::Args)]
pub struct CommonArgs {
    /// Where the chart is installed: the namespace of both ConfigMaps
    #[arg(long, value_name = "NAMESPACE", default_value = names::OPERATOR_NAMESPACE)]
    pub system_namespace: String,

    /// The file that OpenBao's agent renders, with the token at kv.tokens.icms (or kv.tokens.sis); a file with the token alone
    /// will do too
    #[arg(long, value_name = "FILE", default_value = names::SECRETS_FILE)]
    pub secrets_file: PathBuf,

    /// Ask this SIS, whatever the ConfigMap says
    #[arg(long, value_name = "URL")]
    pub sis_url: Option<String>,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Command {
    pub const fn common(&self) -> &CommonArgs {
        match self {
            Self::Bootstrap(args) => &args.common,
            Self::Watch(args) => &args.common,
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_runtime::args::parse_args_from;
    use clap::CommandFactory as _;

    use super::*;

    fn parse(args: &[&str]) -> Result<Args, String> {
        let args = std::iter::once("nvca-self-managed").chain(args.iter().copied());
        parse_args_from(ENV_PREFIX, args.map(Into::into)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_command_of_the_documentation_is_enough() {
        let args = parse(&["bootstrap", "--system-namespace", "nvca-operator"]).unwrap();
        let Command::Bootstrap(args) = args.command else {
            panic!("{args:?}")
        };
        assert_eq!(args.timeout.0.as_secs(), 300);
        assert_eq!(args.common.secrets_file, PathBuf::from(names::SECRETS_FILE));
        let Command::Watch(args) = parse(&["watch"]).unwrap().command else {
            panic!()
        };
        assert_eq!(args.admin.admin.to_string(), "127.0.0.1:8003");
        assert_eq!(
            (args.resync.0.as_secs(), args.common.system_namespace.as_str()),
            (600, "nvca-operator")
        );
    }

    #[test]
    fn garbage_is_refused_with_what_would_do() {
        for (args, tells) in [
            (&[][..], "bootstrap"),
            (&["bootstrap", "--timeout", "soon"], "e.g. 500ms"),
            (&["watch", "--timeout", "5m"], "--timeout"),
            (&["bootstrap", "--admin", "127.0.0.1:0"], "--admin"),
        ] {
            let error = parse(args).unwrap_err();
            assert!(error.contains(tells), "{args:?}: {error}");
        }
    }
}
