//! The script: one machine as its NVIDIA driver would describe it, and what is done to it.
//!
//! Everything here is data and rules about data. It knows the facts that NVML reports but neither handles nor pointers;
//! the only I/O is [`ScenarioFile`].

mod code;
mod edit;
mod event;
mod fault;
mod file;
mod gpu;
mod ids;
mod mig;
mod product;
mod topology;

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

pub use code::ReturnCode;
pub use edit::{EditError, NewGpu};
pub use event::{Event, EventKind, EventLog};
pub use fault::{Effect, Fault};
pub use file::{FileError, ScenarioFile};
pub use gpu::{
    Clocks, ClocksEventReason, ComputeMode, Ecc, EccCounters, Fabric, FabricState, Gpu, LinkPeer, LinkPeerKind,
    MemoryLocation, NvLinks, Place, Presence, Process, ProcessKind, RecoveryAction, RemappedRows, RetiredPage,
    Utilization,
};
pub use ids::{BusId, hashed_uuid};
pub(crate) use mig::COMPUTE_SLICES;
pub use mig::{ComputeInstance, GpuInstance, Mig, compute_profile_name};
pub use product::{Architecture, Brand, MaxClocks, MigProfile, PowerRange, Product, TemperatureLimits};
pub use topology::{CpuList, PathLevel};

/// A machine and its history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    pub driver: Driver,
    /// Products by key; a [`Gpu`] names its own. Part of the file, so that a product which does not exist can be scripted.
    pub products: BTreeMap<String, Product>,
    /// In PCI bus order, as the driver enumerates. Position is the index that the control tool means.
    pub gpus: Vec<Gpu>,
    pub faults: Vec<Fault>,
    pub events: EventLog,
    /// Source of [`Gpu::birth`] and of the births of MIG instances: grows with everything that comes into being.
    pub births: u64,
}

/// The kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Driver {
    /// As `nvmlSystemGetDriverVersion` says it, such as `580.95.05`.
    pub version: String,
    /// CUDA version × 1000 plus minor × 10: 13000 is 13.0.
    pub cuda: u32,
    pub loaded: bool,
    /// Counts unloads. A session that began in another epoch is dead.
    pub epoch: u64,
}

impl Default for Driver {
    fn default() -> Self {
        Self::at("580.95.05")
    }
}

impl Driver {
    /// A loaded driver of this version, with the CUDA version that came with its branch.
    pub fn at(version: &str) -> Self {
        Self {
            version: version.to_owned(),
            cuda: cuda_of(version),
            loaded: true,
            epoch: 0,
        }
    }

    /// The version of the library that ships with this driver: the CUDA major version in front of the driver's.
    pub fn nvml_version(&self) -> String {
        format!("{}.{}", self.cuda / 1000, self.version)
    }

    /// Whether field ids 251 and up follow the numbering that came with 580.82 (it moved two blocks of them).
    pub fn renumbered_fields(&self) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (580, 82)
    }
}

/// CUDA version of a driver branch, from the release notes of the data-centre drivers.
fn cuda_of(driver: &str) -> u32 {
    let branch: u32 = driver.split('.').next().and_then(|part| part.parse().ok()).unwrap_or(0);
    match branch {
        590.. => 13010,
        580.. => 13000,
        575.. => 12090,
        570.. => 12080,
        565.. => 12070,
        560.. => 12060,
        555.. => 12050,
        550.. => 12040,
        545.. => 12030,
        535.. => 12020,
        530.. => 12010,
        525.. => 12000,
        _ => 11080,
    }
}

impl Scenario {
    /// The facts about a GPU's product; `None` only in a scenario that [`Scenario::check`] refuses.
    pub fn product_of(&self, gpu: &Gpu) -> Option<&Product> {
        self.products.get(&gpu.product)
    }

    /// What makes a scenario unusable, in words; `Ok` if nothing does.
    pub fn check(&self) -> Result<(), String> {
        let mut uuids = HashSet::new();
        let mut buses = HashSet::new();
        for (index, gpu) in self.gpus.iter().enumerate() {
            let Some(product) = self.product_of(gpu) else {
                return Err(format!(
                    "gpus[{index}].product is {:?}, which is not among `products` ({})",
                    gpu.product,
                    self.products.keys().cloned().collect::<Vec<_>>().join(", "),
                ));
            };
            if gpu.uuid.is_empty() || !uuids.insert(&gpu.uuid) {
                return Err(format!("gpus[{index}].uuid {:?} is empty or used twice", gpu.uuid));
            }
            if !buses.insert(gpu.bus_id) {
                return Err(format!("gpus[{index}].bus_id {} is used twice", gpu.bus_id));
            }
            if let Err(why) = gpu.place.cpus.parse::<CpuList>() {
                return Err(format!("gpus[{index}].place.cpus: {why}"));
            }
            gpu.mig
                .check(product)
                .map_err(|why| format!("gpus[{index}].mig: {why}"))?;
        }
        Ok(())
    }

    /// A number that nothing in this scenario had before.
    pub(crate) fn new_birth(&mut self) -> u64 {
        self.births += 1;
        self.births
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_ids_move_at_580_82() {
        assert!(!Driver::at("580.65.06").renumbered_fields());
        assert!(Driver::at("580.82.07").renumbered_fields());
        assert!(Driver::at("590.10").renumbered_fields());
    }

    #[test]
    fn a_gpu_of_an_unknown_product_is_refused() {
        let scenario = Scenario {
            gpus: vec![Gpu {
                product: "h1000".to_owned(),
                ..Gpu::default()
            }],
            ..Scenario::default()
        };
        assert!(scenario.check().unwrap_err().contains("h1000"));
    }
}
