//! The flags that say what is asked for, and the shape that they mean.

use berth_placement::{GpuModel, GpuShape, MemoryBytes, MigProfile, MilliGpu, Shape, ShapeError};

use super::quantity;

/// How much of which GPUs; without any of these flags, one whole GPU.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "What is asked for")]
pub(crate) struct ShapeArgs {
    /// That many whole GPUs; together with --share, --memory or --mig: that many of those [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) gpus: Option<u32>,

    /// A share of a GPU, such as 0.25
    #[arg(long, value_name = "SHARE", value_parser = quantity::share, conflicts_with = "mig")]
    pub(crate) share: Option<MilliGpu>,

    /// That much memory of a GPU, such as 20Gi
    #[arg(long, value_name = "SIZE", value_parser = quantity::memory, conflicts_with = "mig")]
    pub(crate) memory: Option<MemoryBytes>,

    /// A MIG instance of this profile, such as 1g.10gb
    #[arg(long, value_name = "PROFILE")]
    pub(crate) mig: Option<MigProfile>,

    /// Only on GPUs of this model, such as H100. Repeatable: any of them will do
    #[arg(long = "model", value_name = "MODEL", value_delimiter = ',')]
    pub(crate) models: Vec<GpuModel>,
}

impl ShapeArgs {
    /// The shape that these flags ask for.
    ///
    /// # Errors
    /// They ask for what makes no sense.
    pub(crate) fn shape(&self) -> Result<Shape, ShapeError> {
        let count = self.gpus.unwrap_or(1);
        let gpu = match (&self.mig, self.share, self.memory) {
            (Some(profile), _, _) => GpuShape::mig(profile.clone(), count)?,
            (None, None, None) => GpuShape::whole(count)?,
            (None, share, memory) => GpuShape::share(share, memory, count)?,
        };
        Ok(Shape::gpu(gpu).with_models(self.models.iter().cloned()))
    }
}
