//! Verbs that change the machine: GPUs plugged in and out, the driver unloaded, loaded and upgraded.

use super::EditError;
use crate::{
    profiles,
    scenario::{BusId, Driver, EccCounters, EventKind, Gpu, Scenario, hashed_uuid},
};

/// A GPU to plug in; what is left out is made up.
#[derive(Debug, Clone, Default)]
pub struct NewGpu {
    /// Key of a product in the file or in the catalogue; the last GPU's by default.
    pub product: Option<String>,
    /// Behind all others by default.
    pub bus_id: Option<BusId>,
    pub uuid: Option<String>,
}

impl Scenario {
    /// Hot-plugs a GPU and returns its position. A session that has begun does not see it, unless it asks the driver to
    /// discover it.
    pub fn plug(&mut self, new: NewGpu) -> Result<usize, EditError> {
        let key = new.product.or_else(|| self.gpus.last().map(|gpu| gpu.product.clone()));
        let key =
            key.ok_or_else(|| EditError::Refused("name the product: no other GPU is there to copy".to_owned()))?;
        let product = match self.products.get(&key) {
            Some(product) => product.clone(),
            None => profiles::product(&key).ok_or_else(|| EditError::Refused(profiles::unknown_product(&key)))?,
        };
        let birth = self.new_birth();
        let bus_id = new.bus_id.unwrap_or_else(|| self.next_bus());
        let minor = (0..u32::MAX)
            .find(|minor| self.gpus.iter().all(|gpu| gpu.minor != *minor))
            .unwrap_or(0);
        let mut gpu = profiles::idle_gpu(&key, &product, minor as usize);
        if let Some(like) = self.gpus.iter().rev().find(|gpu| gpu.product == key) {
            gpu.place = like.place.clone();
            gpu.nvlink = like.nvlink.clone();
            gpu.fabric.clone_from(&like.fabric);
        }
        gpu.uuid = new
            .uuid
            .unwrap_or_else(|| hashed_uuid("GPU", &["plugged", &bus_id.to_string(), &birth.to_string()]));
        gpu.bus_id = bus_id;
        gpu.minor = minor;
        gpu.birth = birth;
        self.products.insert(key, product);
        let at = self.gpus.partition_point(|other| other.bus_id < bus_id);
        self.events.push(EventKind::GpuBind, &gpu.uuid, bus_id, 0, None);
        self.gpus.insert(at, gpu);
        self.check().map_err(EditError::Refused)?;
        Ok(at)
    }

    /// Takes a GPU out. Sessions that know it get `GPU_IS_LOST` and go on counting it.
    pub fn unplug(&mut self, wanted: &str) -> Result<Gpu, EditError> {
        let gpu = self.gpus.remove(self.find(wanted)?);
        self.faults
            .retain(|fault| fault.gpu.as_deref() != Some(gpu.uuid.as_str()));
        self.events.push(EventKind::GpuUnbind, &gpu.uuid, gpu.bus_id, 0, None);
        Ok(gpu)
    }

    /// Removes the kernel module. With it go processes, volatile counters and MIG instances.
    pub fn unload(&mut self) {
        self.driver.loaded = false;
        self.driver.epoch += 1;
        for gpu in &mut self.gpus {
            gpu.processes.clear();
            gpu.ecc.volatile = EccCounters::default();
            gpu.ecc.enabled = gpu.ecc.pending;
            gpu.mig.instances.clear();
            gpu.mig.current = gpu.mig.pending;
            gpu.energy_mj = 0;
        }
    }

    /// Loads the kernel module, of another version if one is given.
    pub fn load(&mut self, version: Option<&str>) {
        let epoch = self.driver.epoch;
        if let Some(version) = version {
            self.driver = Driver::at(version);
        }
        self.driver.loaded = true;
        self.driver.epoch = epoch;
    }

    /// Replaces driver and library under running programs: what they have mapped is of the old version.
    pub fn upgrade(&mut self, version: &str) {
        self.unload();
        self.load(Some(version));
    }

    fn next_bus(&self) -> BusId {
        let last = self.gpus.iter().map(|gpu| gpu.bus_id).max();
        last.map_or(BusId::new(0, 1), |last| match last.bus.checked_add(1) {
            Some(bus) => BusId::new(last.domain, bus),
            None => BusId::new(last.domain + 1, 1),
        })
    }
}
