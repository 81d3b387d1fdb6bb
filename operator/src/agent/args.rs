//! The command line of `nvca`. Every flag is also an `NVCA_…` variable; everything else is in the configuration file.

use std::path::PathBuf;

use berth_runtime::{args::TelemetryArgs, kubernetes::KubernetesArgs};
use clap::Parser;

/// What every flag's variable starts with.
pub const ENV_PREFIX: &str = "NVCA";

/// Tells the control plane what GPUs the cluster has, and runs what it asks for
#[derive(Debug, Clone, Parser)]
#[command(name = "nvca", version)]
pub struct Args {
    /// The configuration that the operator writes; followed while the program runs
    #[arg(long, value_name = "FILE", default_value = "/var/run/nvca/config.yaml")]
    pub config: PathBuf,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

#[cfg(test)]
mod tests {
    use berth_runtime::args::parse_args_from;
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_the_one_of_the_deployment() {
        Args::command().debug_assert();
        let parse = |args: &[&str]| {
            let args = std::iter::once("nvca").chain(args.iter().copied()).map(Into::into);
            parse_args_from::<Args>(ENV_PREFIX, args).map_err(|error| error.to_string())
        };
        assert_eq!(parse(&[]).unwrap().config.to_str(), Some("/var/run/nvca/config.yaml"));
        let args = parse(&["--config", "/x", "--kubeconfig", "/k"]).unwrap();
        assert_eq!(
            (args.config.to_str(), args.kubernetes.kubeconfig.unwrap().to_str()),
            (Some("/x"), Some("/k"))
        );
        assert!(parse(&["--nonsense"]).unwrap_err().contains("--nonsense"));
    }
}
