//! Verbs that partition a GPU.

use super::EditError;
use crate::scenario::{EventKind, Gpu, Product, Scenario, mig::unknown_profile};

impl Scenario {
    /// Switches MIG mode on or off. While processes run on the GPU it stays pending, as it needs a reset: returns whether
    /// it is in force. Switching off destroys the instances.
    pub fn mig_mode(&mut self, wanted: &str, on: bool) -> Result<bool, EditError> {
        let (gpu, product) = self.gpu_and_product(wanted)?;
        if product.mig_profiles.is_empty() {
            return Err(EditError::Refused(unknown_profile(&product, "")));
        }
        gpu.mig.pending = on;
        if gpu.processes.is_empty() && gpu.mig.current != on {
            gpu.mig.current = on;
            gpu.mig.instances.clear();
            self.tell(wanted, EventKind::MigConfig, 0, None)?;
            return Ok(true);
        }
        Ok(gpu.mig.current == on)
    }

    /// Creates a GPU instance at memory slice `start` (anywhere, if `None`) with compute instances of these sizes in
    /// slices. Returns its id.
    pub fn create_instance(
        &mut self,
        wanted: &str,
        profile: &str,
        start: Option<u32>,
        compute: &[u32],
    ) -> Result<u32, EditError> {
        let birth = self.new_birth();
        let (gpu, product) = self.gpu_and_product(wanted)?;
        if !gpu.mig.current {
            let why = format!("GPU {wanted} is not in MIG mode; `mig enable {wanted}` switches it on");
            return Err(EditError::Refused(why));
        }
        let Some(profile) = product.mig_profile(profile) else {
            return Err(EditError::Refused(unknown_profile(&product, profile)));
        };
        let refused = |why: String| EditError::Refused(format!("GPU {wanted}: {why}"));
        let instance = gpu.mig.add(&product, profile, start, birth).map_err(refused)?;
        for slices in compute {
            instance.add_compute(profile, *slices, None, birth).map_err(refused)?;
        }
        let id = instance.id;
        self.tell(wanted, EventKind::MigConfig, 0, None)?;
        Ok(id)
    }

    /// [`Scenario::create_instance`] with one compute instance that takes it whole: one MIG device.
    pub fn create_mig_device(&mut self, wanted: &str, profile: &str, start: Option<u32>) -> Result<u32, EditError> {
        let (_, product) = self.gpu_and_product(wanted)?;
        let slices = product.mig_profile(profile).map_or(0, |profile| profile.slices);
        self.create_instance(wanted, profile, start, &[slices])
    }

    /// Adds a compute instance to a GPU instance. Returns its id.
    pub fn create_compute(
        &mut self,
        wanted: &str,
        instance: u32,
        slices: u32,
        start: Option<u32>,
    ) -> Result<u32, EditError> {
        let birth = self.new_birth();
        let (gpu, product) = self.gpu_and_product(wanted)?;
        let found = gpu.mig.instances.iter_mut().find(|other| other.id == instance);
        let found = found.ok_or_else(|| no_instance(wanted, instance))?;
        let Some(profile) = product.mig_profile(&found.profile) else {
            return Err(EditError::Refused(unknown_profile(&product, &found.profile)));
        };
        let id = found
            .add_compute(profile, slices, start, birth)
            .map_err(EditError::Refused)?
            .id;
        self.tell(wanted, EventKind::MigConfig, 0, None)?;
        Ok(id)
    }

    /// Destroys a GPU instance with its compute instances, or, with `compute`, only that one.
    pub fn destroy_instance(&mut self, wanted: &str, instance: u32, compute: Option<u32>) -> Result<(), EditError> {
        let gpu = self.gpu_mut(wanted)?;
        let inside = |process: &&crate::scenario::Process| {
            process.gpu_instance == Some(instance) && (compute.is_none() || process.compute_instance == compute)
        };
        if let Some(process) = gpu.processes.iter().find(inside) {
            let why = format!("GPU {wanted}: process {} runs in instance {instance}", process.pid);
            return Err(EditError::Refused(why));
        }
        let at = gpu.mig.instances.iter().position(|other| other.id == instance);
        let at = at.ok_or_else(|| no_instance(wanted, instance))?;
        match compute {
            None => drop(gpu.mig.instances.remove(at)),
            Some(compute) => gpu.mig.instances[at].compute.retain(|other| other.id != compute),
        }
        self.tell(wanted, EventKind::MigConfig, 0, None)
    }

    fn gpu_and_product(&mut self, wanted: &str) -> Result<(&mut Gpu, Product), EditError> {
        let index = self.find(wanted)?;
        let product = self.product_of(&self.gpus[index]).cloned();
        let product = product.ok_or_else(|| EditError::Refused(format!("GPU {wanted} is of an unknown product")))?;
        Ok((&mut self.gpus[index], product))
    }
}

fn no_instance(wanted: &str, instance: u32) -> EditError {
    EditError::Refused(format!("GPU {wanted} has no GPU instance {instance}"))
}
