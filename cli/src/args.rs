//! The command line: what is asked for, parsed into types that cannot be wrong.

mod cluster;
mod quantity;
mod shape;
#[cfg(test)]
mod tests;

use std::{ffi::OsString, time::Duration};

use berth_placement::{LeaseId, ParseIdError, PodRef, PodUid};
use berth_runtime::{args::ClientTlsArgs, dial::Target};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::selector::DeviceSelector;

pub(crate) use cluster::{ExplainWhat, SimulateArgs, Simulated};
pub(crate) use shape::ShapeArgs;

/// Where berthd listens unless it is told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/berth/berthd.sock";

/// Where berth-scheduler serves gRPC unless it is told otherwise.
const DEFAULT_SCHEDULER: &str = "http://127.0.0.1:9451";

/// Looks into the book of a GPU node's daemon (berthd), changes it, and runs commands on leased GPUs; asks the scheduler why.
#[derive(Debug, Parser)]
#[command(
    name = "berthctl",
    version,
    arg_required_else_help = true,
    subcommand_required = true
)]
#[command(after_help = "\
Examples:
  berthctl devices                                  what this node has and who holds it
  berthctl run --gpus 1 -- python train.py          run a command on a GPU of its own
  berthctl explain --gpus 2 --model H100            why that fits, or does not
  berthctl --address https://gpu-7:9440 --tls-ca ca.pem node
  berthctl cluster                                  what the scheduler sees
  berthctl explain pod nvcf-backend/fn-7f3c         what it decided for a pod, and why
  berthctl simulate 20x1 4x8@H100                   whether those pods would fit

Every option of every command is also a variable: --address is BERTHCTL_ADDRESS.
NO_COLOR turns colours off.

Exit codes:
  0    done
  1    refused, or there is no such device; explain: it does not fit
  2    the command line makes no sense
  3    no daemon answers
  4    the daemon cannot say yet, or not in time: try again
  run  the command's own code; 128 and the number of the signal that ended it;
       126 or 127 where it cannot be started")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    pub(crate) action: Action,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct GlobalArgs {
    /// Where berthd listens: unix:PATH, http://HOST:PORT or https://HOST:PORT
    #[arg(long, value_name = "ADDRESS", default_value_t = Target::Unix(DEFAULT_SOCKET.into()))]
    pub(crate) address: Target,

    /// Where berth-scheduler serves gRPC (cluster, simulate, explain pod, explain shape)
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_SCHEDULER)]
    pub(crate) scheduler: Target,

    /// Give up when the daemon has not answered by then
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, default_value = "10s")]
    pub(crate) timeout: Duration,

    /// How to print: tables for people, or JSON for programs (`watch`: one line for each change)
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) output: Format,

    // Last: its heading holds for all that follows.
    #[command(flatten)]
    pub(crate) tls: ClientTlsArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Shows the node: daemon, driver, conditions, drift
    #[command(after_help = "\
Examples:
  berthctl node
  berthctl node -o json | jq '.conditions[] | select(.status == false)'")]
    Node,

    /// Lists the GPUs: what is free, how they are, who holds them
    #[command(after_help = "\
Examples:
  berthctl devices
  berthctl devices -o json | jq -r '.devices[] | select(.health.state != \"Healthy\").uuid'")]
    Devices,

    /// Lists who holds what, since when, until when; and processes that nobody gave a GPU to
    #[command(after_help = "\
Examples:
  berthctl allocations
  berthctl allocations -o json | jq '.allocations[] | select(.leaseId)'")]
    Allocations,

    /// Prints a line for each change until Ctrl-C: health, holders, devices, conditions, drift
    ///
    /// When the daemon goes away it says so and tries again every second; what changed meanwhile is told then.
    #[command(after_help = "\
Examples:
  berthctl watch
  berthctl watch -o json | jq -c 'select(.kind == \"HealthChanged\")'")]
    Watch,

    /// Reserves GPUs for a pod, as a scheduler does
    ///
    /// The reservation lapses unless the kubelet confirms it in time. Asking again for the same pod prolongs it.
    #[command(after_help = "\
Examples:
  berthctl reserve --pod default/train-0 --uid 6f1c2a9e --gpus 2
  berthctl reserve --pod default/infer-0 --uid 0d3b3c58 --memory 20Gi --ttl 2m")]
    Reserve(ReserveArgs),

    /// Gives back what a pod or a lease holds
    #[command(after_help = "\
Examples:
  berthctl release --uid 6f1c2a9e
  berthctl release --lease 0192f3c4-5b5c-7a0e-8b6c-3d2f9c1a0b11")]
    Release(ReleaseArgs),

    /// Tells for each GPU why a request fits or not, and what it would get; changes nothing
    ///
    /// Without `pod` or `shape` the node's daemon is asked, with them the scheduler. Ends with exit code 1 where it does not
    /// fit.
    #[command(after_help = "\
Examples:
  berthctl explain --gpus 2 --model H100
  berthctl explain --share 0.25
  berthctl explain --mig 1g.10gb -o json | jq -r .reason
  berthctl explain pod nvcf-backend/fn-7f3c
  berthctl explain shape --gpus 8")]
    Explain(ExplainArgs),

    /// Shows the nodes as the scheduler sees them
    #[command(after_help = "\
Examples:
  berthctl cluster
  berthctl cluster -o json | jq -r '.nodes[] | select(.usable | not).name'")]
    Cluster,

    /// Asks the scheduler whether pods would fit, and where; changes nothing
    ///
    /// Ends with exit code 1 where not all of them fit.
    #[command(after_help = "\
Examples:
  berthctl simulate 20x1
  berthctl simulate 4x8@H100 10x0.25 -o json | jq .placed")]
    Simulate(SimulateArgs),

    /// Takes a GPU out of scheduling; what runs on it stays
    #[command(after_help = "\
Examples:
  berthctl cordon 3 --message 'fan is loud, ticket 4711'
  berthctl cordon GPU-4c1f")]
    Cordon(CordonArgs),

    /// Puts a GPU back into scheduling
    #[command(after_help = "\
Example:
  berthctl uncordon 3")]
    Uncordon(UncordonArgs),

    /// Says that the cause of a GPU's ill health is dealt with: it is probed and, if well, used again
    #[command(after_help = "\
Example:
  berthctl ack GPU-4c1f --message 'reseated'")]
    Ack(AckArgs),

    /// Runs a command on GPUs that are its own while it runs
    ///
    /// Holds a lease as long as the command runs and gives it the GPUs in CUDA_VISIBLE_DEVICES and
    /// NVIDIA_VISIBLE_DEVICES (MIG instances by their MIG UUID), and the lease's id in BERTH_LEASE_ID. Signals (INT,
    /// TERM, HUP, QUIT, USR1, USR2) are passed on; the command's exit code is berthctl's. --share and --memory tell
    /// others what is left; they do not hold the command to it.
    ///
    /// Should the lease be lost while the command runs (revoked, or the daemon went away), berthctl says so; the
    /// command goes on unless --on-loss terminate. A lost lease does not come back. Should berthctl itself be killed,
    /// the lease ends and the command gets SIGTERM. Stopped by Ctrl-Z for more than half a minute, it is lost too.
    #[command(after_help = "\
Examples:
  berthctl run --gpus 1 -- python train.py
  berthctl run --memory 20Gi --wait 10m -- ./infer --port 8000
  berthctl run --gpus 2 --model H100,H200 -- torchrun --nproc-per-node 2 train.py
  berthctl run --mig 1g.10gb -- bash")]
    Run(RunArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReserveArgs {
    /// The pod
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pod_name)]
    pub(crate) pod: PodName,

    /// The pod's UID
    #[arg(long, value_name = "UID")]
    pub(crate) uid: PodUid,

    /// How long the kubelet has to confirm it [default: what the daemon says, usually 5m]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) ttl: Option<Duration>,

    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ReleaseArgs {
    /// Of the pod with this UID
    #[arg(long, value_name = "UID")]
    pub(crate) uid: Option<PodUid>,

    /// Of the lease with this id
    #[arg(long, value_name = "ID")]
    pub(crate) lease: Option<LeaseId>,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    pub(crate) what: Option<ExplainWhat>,

    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CordonArgs {
    /// The GPU: its index, its UUID, or the start of its UUID
    pub(crate) device: DeviceSelector,

    /// Why, for those who look later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UncordonArgs {
    /// The GPU: its index, its UUID, or the start of its UUID
    pub(crate) device: DeviceSelector,
}

#[derive(Debug, clap::Args)]
pub(crate) struct AckArgs {
    /// The GPU: its index, its UUID, or the start of its UUID
    pub(crate) device: DeviceSelector,

    /// What was done, for those who look later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) message: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Wait so long for room, and for a daemon that is not ready, instead of giving up at once
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) wait: Option<Duration>,

    /// What others see as holder [default: user and program; arguments are not told, they may be secret]
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,

    /// What becomes of the command when the lease is lost while it runs
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnLoss::Keep)]
    pub(crate) on_loss: OnLoss,

    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,

    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLoss {
    /// It goes on; berthctl says that others may get its GPUs
    Keep,
    /// It gets SIGTERM
    Terminate,
}

/// Namespace and name, without the UID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

// === impl ReserveArgs ===

impl ReserveArgs {
    /// The pod that the reservation is for.
    pub(crate) fn pod(&self) -> PodRef {
        let PodName { namespace, name } = self.pod.clone();
        PodRef {
            namespace,
            name,
            uid: self.uid.clone(),
        }
    }
}

/// Kubernetes names, checked as [`PodRef`] checks them.
fn pod_name(text: &str) -> Result<PodName, String> {
    let (namespace, name) = text.split_once('/').ok_or("write NAMESPACE/NAME")?;
    let any_uid: PodUid = "uid".parse().map_err(|error: ParseIdError| error.to_string())?;
    let pod = PodRef::new(namespace, name, any_uid).map_err(|error| error.to_string())?;
    Ok(PodName {
        namespace: pod.namespace,
        name: pod.name,
    })
}

/// The whole command line, for parsing and for the reference page.
pub fn command() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let Some(long) = arg.get_long() else { return arg };
        // Leaked on purpose, once per option and process: clap wants names that live for ever.
        let variable: &'static str = format!("BERTHCTL_{}", long.replace('-', "_").to_uppercase()).leak();
        arg.env(variable).global(true)
    })
}
