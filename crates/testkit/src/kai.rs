//! A stand-in for KAI Scheduler: scheduler, binder and podgrouper, each a process of its own, for machines that cannot
//! have the real ones. It does what real KAI does as far as Berth meets it: the notes on KAI say what, and the tests in
//! `tests/rig_kai.rs` run on both.
//!
//! Owns KAI's behaviour on a cluster. Must not know Berth: not its names, and not its parsers, or it would share their
//! mistakes.
//!
//! ```text
//! pod ─podgrouper─► PodGroup ─scheduler, each second─► BindRequest ─binder─► pods/binding
//! ```
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "devices, pods and MiB of one node: small numbers, which KAI keeps as floats, too"
)]

mod actions;
mod binder;
mod cluster;
mod evict;
mod filters;
mod gpu_names;
pub(crate) mod install;
pub mod names;
mod node;
mod objects;
mod place;
mod podgrouper;
mod queues;
mod reservation;
mod resources;
mod scheduler;
mod task;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
pub use install::{queue, unlimited};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
pub use objects::{
    BindRequest, BindRequestSpec, BindRequestStatus, PodGroup, PodGroupSpec, PodGroupStatus, Queue, QueueResource,
    QueueResources, QueueSpec, ReceivedGpu, SchedulingCondition, SchedulingReason,
};

/// The part to be.
#[derive(Debug, Clone, Subcommand)]
pub enum Part {
    /// Decides in cycles where pods go, and who has to leave.
    Scheduler {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// From the end of a cycle to the start of the next, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        schedule_period_ms: u64,
    },
    /// Executes `BindRequest`s.
    Binder {
        #[command(flatten)]
        cluster: ClusterArgs,
        /// How long a reservation pod may take to name its GPU, in seconds.
        #[arg(long, default_value_t = 40)]
        resource_reservation_allocation_timeout: u64,
        #[arg(long, default_value_t = 10)]
        max_concurrent_reconciles: u16,
    },
    /// Puts pods into groups.
    Podgrouper {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
    /// Plays the program of reservation pods where there are no GPUs. Real KAI needs it, too.
    GpuNames {
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

#[derive(Debug, Clone, Args)]
pub struct ClusterArgs {
    #[arg(long)]
    kubeconfig: PathBuf,
}

impl ClusterArgs {
    async fn client(&self) -> anyhow::Result<Client> {
        let file = Kubeconfig::read_from(&self.kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    }
}

/// Is that part until the process ends.
///
/// # Errors
/// The cluster cannot be reached at all; what fails later is logged and tried again.
pub async fn run(part: Part) -> anyhow::Result<()> {
    match part {
        Part::Scheduler {
            cluster,
            schedule_period_ms,
        } => scheduler::run(cluster.client().await?, Duration::from_millis(schedule_period_ms)).await,
        Part::Binder {
            cluster,
            resource_reservation_allocation_timeout,
            max_concurrent_reconciles,
        } => {
            let timeout = Duration::from_secs(resource_reservation_allocation_timeout);
            binder::run(cluster.client().await?, timeout, max_concurrent_reconciles).await
        }
        Part::Podgrouper { cluster } => podgrouper::run(cluster.client().await?).await,
        Part::GpuNames { cluster } => gpu_names::run(cluster.client().await?).await,
    }
}

/// One line of the part's log.
#[expect(clippy::print_stderr, reason = "a part's log is its standard error")]
fn log(line: &str) {
    eprintln!("{line}");
}
