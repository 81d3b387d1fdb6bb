//! What is asked of the scheduler rather than of one daemon.

use std::str::FromStr;

use berth_placement::{GpuModel, GpuShape, MigProfile, Shape};
use clap::Subcommand;

use super::{PodName, ShapeArgs, pod_name, quantity};

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainWhat {
    /// Asks the scheduler what it decided for a pod, and what each node says to it now
    #[command(after_help = "\
Example:
  berthctl explain pod nvcf-backend/fn-7f3c")]
    Pod {
        /// A pod that asked this scheduler lately
        #[arg(value_name = "NAMESPACE/NAME", value_parser = pod_name)]
        pod: PodName,

        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Asks the scheduler what each node of the cluster says to a request
    #[command(after_help = "\
Example:
  berthctl explain shape --gpus 8 --model H100")]
    Shape {
        #[command(flatten)]
        shape: ShapeArgs,

        #[command(flatten)]
        limit: LimitArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct LimitArgs {
    /// Show at most so many nodes, best first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SimulateArgs {
    /// COUNTxSIZE[@MODEL]: 20x1 is twenty pods of one GPU, 4x8@H100 four of eight, 10x0.25 ten of a quarter, 3x20Gi three of
    /// 20 GiB, 2x1g.10gb two MIG instances
    #[arg(value_name = "PODS", required = true)]
    pub(crate) pods: Vec<Simulated>,
}

/// So many pods of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Simulated {
    pub(crate) count: u32,
    pub(crate) shape: Shape,
}

impl FromStr for Simulated {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usage =
            || format!("`{text}`: write COUNTxSIZE[@MODEL] such as 20x1, 4x8@H100, 10x0.25, 3x20Gi or 2x1g.10gb");
        let (count, rest) = text.split_once('x').ok_or_else(usage)?;
        let count: u32 = count.parse().ok().filter(|count| *count > 0).ok_or_else(usage)?;
        let (size, model) = match rest.split_once('@') {
            Some((size, model)) => (size, Some(model)),
            None => (rest, None),
        };
        let gpu = if let Ok(gpus) = size.parse() {
            GpuShape::whole(gpus)
        } else if let Some(profile) = size.contains("g.").then(|| size.parse::<MigProfile>().ok()).flatten() {
            GpuShape::mig(profile, 1)
        } else if let Ok(share) = quantity::share(size) {
            GpuShape::share(Some(share), None, 1)
        } else {
            let memory = quantity::memory(size).map_err(|_| usage())?;
            GpuShape::share(None, Some(memory), 1)
        };
        let gpu = gpu.map_err(|error| format!("`{text}`: {error}"))?;
        let models = model.map(str::parse::<GpuModel>).transpose();
        let models = models.map_err(|error| format!("`{text}`: {error}"))?;
        Ok(Self {
            count,
            shape: Shape::gpu(gpu).with_models(models),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_to_simulate_are_written_shortly() {
        for (text, count, asks) in [
            ("20x1", 20, "1 GPU"),
            ("4x8@H100", 4, "8 GPU (H100)"),
            ("10x0.25", 10, "0.25 GPU"),
            ("3x20Gi", 3, "20 GiB of a GPU"),
            ("2x1g.10gb", 2, "1g.10gb"),
        ] {
            let it: Simulated = text.parse().unwrap();
            assert_eq!((it.count, it.shape.to_string().as_str()), (count, asks), "{text}");
        }
        for text in [
            "",
            "1",
            "x1",
            "0x1",
            "1x",
            "1x0",
            "1xH100",
            "-1x1",
            "1x1@",
            "99999999999x1",
        ] {
            assert!(text.parse::<Simulated>().is_err(), "{text}");
        }
    }
}
