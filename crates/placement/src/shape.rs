//! What a pod asks for: CPU, memory, GPUs. Two pods of one shape are the same to the scheduler.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{CpuMilli, GpuModel, MemoryBytes, MigProfile, MilliGpu};

/// The largest number of devices that one pod may ask for on a node.
pub const MAX_COUNT: u32 = 256;

/// A pod's request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shape {
    /// Of the node; zero where the asker leaves that to somebody else.
    #[serde(default)]
    pub cpu: CpuMilli,
    /// Of the host, not of the GPU.
    #[serde(default)]
    pub memory: MemoryBytes,
    pub gpu: GpuShape,
    /// Models that will do, sorted and without repetition; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<GpuModel>,
}

/// A pod's request for GPUs. Build it with the checked constructors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GpuShape {
    /// No GPU: fits wherever CPU and memory do.
    #[default]
    None,
    /// That many whole GPUs.
    Whole { count: u32 },
    /// The same share of each of `count` different GPUs.
    Share { size: ShareSize, count: u32 },
    /// That many MIG instances of one profile.
    Mig { profile: MigProfile, count: u32 },
}

/// How much of one GPU. What is not named follows from the size of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ShareSize {
    Milli(MilliGpu),
    Memory(MemoryBytes),
    Both(MilliGpu, MemoryBytes),
}

/// A request that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShapeError {
    #[error("{0} GPUs asked for: the number must be from 1 to {MAX_COUNT}")]
    Count(u32),
    #[error("a share of {0} thousandths of a GPU: it must be from 1 to 1000; ask for whole GPUs by their number")]
    Milli(u32),
    #[error("a share of a GPU must name thousandths or memory")]
    EmptyShare,
}

impl ShapeError {
    /// Stable CamelCase name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Count(_) => "InvalidGpuCount",
            Self::Milli(_) => "InvalidGpuShare",
            Self::EmptyShare => "EmptyGpuShare",
        }
    }
}

fn count(count: u32) -> Result<u32, ShapeError> {
    if (1..=MAX_COUNT).contains(&count) {
        Ok(count)
    } else {
        Err(ShapeError::Count(count))
    }
}

impl GpuShape {
    pub fn whole(number: u32) -> Result<Self, ShapeError> {
        Ok(Self::Whole { count: count(number)? })
    }

    /// `None` or zero means "not named"; a share of 1000 thousandths and no memory is a whole GPU.
    pub fn share(milli: Option<MilliGpu>, memory: Option<MemoryBytes>, number: u32) -> Result<Self, ShapeError> {
        let milli = milli.filter(|milli| *milli > MilliGpu::ZERO);
        let memory = memory.filter(|memory| *memory > MemoryBytes::ZERO);
        if let Some(milli) = milli.filter(|milli| *milli > MilliGpu::WHOLE) {
            return Err(ShapeError::Milli(milli.get()));
        }
        let count = count(number)?;
        let size = match (milli, memory) {
            (None, None) => return Err(ShapeError::EmptyShare),
            (Some(MilliGpu::WHOLE), None) => return Ok(Self::Whole { count }),
            (Some(milli), None) => ShareSize::Milli(milli),
            (None, Some(memory)) => ShareSize::Memory(memory),
            (Some(milli), Some(memory)) => ShareSize::Both(milli, memory),
        };
        Ok(Self::Share { size, count })
    }

    pub fn mig(profile: MigProfile, number: u32) -> Result<Self, ShapeError> {
        Ok(Self::Mig {
            profile,
            count: count(number)?,
        })
    }

    /// How many devices (or instances) this takes.
    pub const fn count(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Whole { count } | Self::Share { count, .. } | Self::Mig { count, .. } => *count,
        }
    }
}

impl Shape {
    /// A shape that asks for GPUs only.
    pub fn gpu(gpu: GpuShape) -> Self {
        Self { gpu, ..Self::default() }
    }

    /// Restricts it to these models.
    #[must_use]
    pub fn with_models(mut self, models: impl IntoIterator<Item = GpuModel>) -> Self {
        self.models = models.into_iter().collect();
        self.models.sort_unstable();
        self.models.dedup();
        self
    }

    /// Whether a device of this model will do.
    pub fn accepts(&self, model: &GpuModel) -> bool {
        self.models.is_empty() || self.models.binary_search(model).is_ok()
    }
}

impl ShareSize {
    /// What that is on a device with this much memory: both dimensions.
    pub fn on(self, total: MemoryBytes) -> (MilliGpu, MemoryBytes) {
        match self {
            Self::Milli(milli) => (milli, milli.memory_of(total)),
            Self::Memory(memory) => (memory.milli_of(total), memory),
            Self::Both(milli, memory) => (milli, memory),
        }
    }
}

impl fmt::Display for GpuShape {
    /// `2 GPU`, `0.25 GPU`, `20 GiB of a GPU`, `1g.10gb`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |count: u32| {
            if count == 1 {
                String::new()
            } else {
                format!("{count} x ")
            }
        };
        match self {
            Self::None => f.write_str("no GPU"),
            Self::Whole { count } => write!(f, "{count} GPU"),
            Self::Share { size, count } => match size {
                ShareSize::Milli(milli) => write!(f, "{}{milli} GPU", times(*count)),
                ShareSize::Memory(memory) => write!(f, "{}{memory} of a GPU", times(*count)),
                ShareSize::Both(milli, memory) => write!(f, "{}{milli} GPU with {memory}", times(*count)),
            },
            Self::Mig { profile, count } => write!(f, "{}{profile}", times(*count)),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.gpu)?;
        if !self.models.is_empty() {
            let models: Vec<_> = self.models.iter().map(GpuModel::as_str).collect();
            write!(f, " ({})", models.join("|"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_whole_gpu_is_a_whole_gpu() {
        assert_eq!(GpuShape::share(Some(MilliGpu::WHOLE), None, 2), GpuShape::whole(2));
    }

    #[test]
    fn senseless_requests_are_refused_with_the_rule() {
        assert_eq!(GpuShape::whole(0), Err(ShapeError::Count(0)));
        assert_eq!(GpuShape::whole(257), Err(ShapeError::Count(257)));
        assert_eq!(
            GpuShape::share(None, Some(MemoryBytes::ZERO), 1),
            Err(ShapeError::EmptyShare)
        );
        assert_eq!(
            GpuShape::share(Some(MilliGpu::new(1500)), None, 1),
            Err(ShapeError::Milli(1500))
        );
    }

    #[test]
    fn a_size_by_memory_depends_on_the_device() {
        let size = ShareSize::Memory(MemoryBytes::from_gib(20));
        assert_eq!(size.on(MemoryBytes::from_gib(80)).0, MilliGpu::new(250));
        assert_eq!(size.on(MemoryBytes::from_gib(40)).0, MilliGpu::new(500));
    }

    #[test]
    fn shapes_read_well() {
        let shape =
            Shape::gpu(GpuShape::whole(2).unwrap()).with_models(["H100".parse().unwrap(), "A100".parse().unwrap()]);
        assert_eq!(shape.to_string(), "2 GPU (A100|H100)");
        let share = GpuShape::share(None, Some(MemoryBytes::from_gib(20)), 1).unwrap();
        assert_eq!(share.to_string(), "20 GiB of a GPU");
    }
}
