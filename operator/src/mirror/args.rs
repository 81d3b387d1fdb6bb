//! The command line of nvca-mirror. Flags and variables are those of the real program where it has them; every other flag is
//! also an `NVCA_MIRROR_…` variable.

use berth_runtime::{
    args::{AdminArgs, HumanDuration, TelemetryArgs},
    kubernetes::KubernetesArgs,
};
use clap::{Parser, Subcommand};

use crate::names;

/// What every other flag's variable starts with.
pub const ENV_PREFIX: &str = "NVCA_MIRROR";

/// Copies image pull secrets into every namespace that needs them, and keeps the copies as their sources are.
#[derive(Debug, Clone, Parser)]
#[command(name = "nvca-mirror", version)]
pub struct Args {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Mirror until told to stop
    Run(Box<RunArgs>),
}

#[derive(Debug, Clone, clap::Args)]
#[command(
    mut_arg("admin", |arg| arg.default_value("127.0.0.1:8004")),
    mut_arg("log_level", |arg| arg.env("LOG_LEVEL"))
)]
pub struct RunArgs {
    /// Copy from this namespace
    #[arg(long, value_name = "NAMESPACE", env = "NVCA_MIRROR_SOURCE_NAMESPACE")]
    pub source_namespace: String,

    /// Copy to this namespace, to nvcf-backend, and to every namespace with the label
    /// nvca.nvcf.nvidia.io/workload-instance-type
    #[arg(long, value_name = "NAMESPACE", env = "TARGET_NAMESPACE", default_value = names::SYSTEM_NAMESPACE)]
    pub target_namespace: String,

    /// What to copy: a JSON list of {"name": …} in base64. Without it, copies that are left over are removed
    #[arg(
        long,
        value_name = "BASE64",
        env = "NVCA_ADDITIONAL_IMAGE_PULL_SECRETS_JSON_BASE64",
        default_value = "",
        hide_default_value = true
    )]
    pub additional_image_pull_secrets_b64: String,

    /// Look at everything anew after this long, whatever was told meanwhile; at least 10s
    #[arg(long, value_name = "TIME", env = "RESYNC_PERIOD", default_value = "1h")]
    pub resync_period: HumanDuration,

    #[command(flatten)]
    pub kubernetes: KubernetesArgs,

    #[command(flatten)]
    pub admin: AdminArgs,

    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}
