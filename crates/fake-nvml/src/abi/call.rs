//! One call: the faults that befall it, the session it needs, and the device it is about.

use std::{panic, sync::Arc, time::Duration};

use super::boundary::Handle;
use crate::{
    clock::{self, Deadline, POLL},
    driver::{Driver, InstanceKey, Outcome, Session, Target, driver},
    scenario::{ComputeInstance, Effect, Fault, Gpu, GpuInstance, Presence, Product, ReturnCode, Scenario},
};

/// Functions that work, or fail in their own way, before `nvmlInit`.
const WITHOUT_SESSION: &[&str] = &[
    "nvmlInit",
    "nvmlInit_v2",
    "nvmlInitWithFlags",
    "nvmlShutdown",
    "nvmlSystemGetNVMLVersion",
    "nvmlSystemGetCudaDriverVersion",
    "nvmlSystemGetCudaDriverVersion_v2",
];

pub(super) struct Call {
    pub(super) driver: &'static Driver,
    function: &'static str,
    /// As it was when the call got through its faults. It does not change under the call.
    pub(super) scenario: Arc<Scenario>,
}

/// Runs the body of an exported function. Nothing unwinds into the caller.
pub(super) fn run(function: &'static str, body: impl FnOnce(&Call) -> Outcome) -> u32 {
    contained(|| body(&Call::begin(function)?))
}

/// The code that a call returns: a bug of ours is an unknown error to the caller, and not an abort.
fn contained(call: impl FnOnce() -> Outcome) -> u32 {
    match panic::catch_unwind(panic::AssertUnwindSafe(call)) {
        Ok(Ok(())) => ReturnCode::SUCCESS.raw(),
        Ok(Err(code)) => code.raw(),
        Err(_) => ReturnCode::UNKNOWN.raw(),
    }
}

impl Call {
    fn begin(function: &'static str) -> Outcome<Self> {
        let driver = driver();
        let scenario = suffer(driver, function, None)?;
        let call = Self {
            driver,
            function,
            scenario,
        };
        if !WITHOUT_SESSION.contains(&function) {
            call.session(|_| Ok(()))?;
        }
        Ok(call)
    }

    pub(super) fn session<T>(&self, f: impl FnOnce(&mut Session) -> Outcome<T>) -> Outcome<T> {
        self.driver.session(&self.scenario, f)
    }

    /// A device of any kind: a GPU, or a MIG device.
    pub(super) fn device(&self, handle: Handle) -> Outcome<Device> {
        let target = self.session(|session| session.target_of(handle.0))?;
        match target {
            Target::Gpu(member) => self.member(member),
            Target::MigDevice(member, gpu_instance, compute_instance) => {
                self.member(member)?.mig_device(gpu_instance, compute_instance)
            }
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    /// A device that must be a GPU: what is asked is not supported for MIG devices.
    pub(super) fn gpu(&self, handle: Handle) -> Outcome<Device> {
        let device = self.device(handle)?;
        match device.mig {
            None => Ok(device),
            Some(_) => Err(ReturnCode::NOT_SUPPORTED),
        }
    }

    /// The GPU that is (or was) the session's member, after the faults that befall calls about it.
    pub(super) fn member(&self, member: usize) -> Outcome<Device> {
        let known = self.session(|session| session.members.get(member).cloned().ok_or(ReturnCode::INVALID_ARGUMENT))?;
        let scenario = suffer(self.driver, self.function, Some(&known.uuid))?;
        let at = known.place(&scenario).ok_or(ReturnCode::GPU_IS_LOST)?;
        if scenario.gpus[at].presence != Presence::Present {
            return Err(ReturnCode::GPU_IS_LOST);
        }
        Ok(Device {
            member,
            scenario,
            at,
            mig: None,
        })
    }

    /// A GPU instance and its GPU.
    pub(super) fn gpu_instance(&self, handle: Handle) -> Outcome<(Device, usize)> {
        match self.session(|session| session.target_of(handle.0))? {
            Target::GpuInstance(member, key) => {
                let device = self.member(member)?;
                let at = device.instance_at(key)?;
                Ok((device, at))
            }
            _ => Err(ReturnCode::INVALID_ARGUMENT),
        }
    }

    pub(super) fn handle_of(&self, target: Target) -> Outcome<Handle> {
        self.session(|session| Ok(Handle(session.handle_of(target))))
    }
}

/// Lets happen what is scripted for calls of this function: about this GPU, or (without one) about none in particular.
/// Returns the scenario as it is thereafter.
fn suffer(driver: &Driver, function: &str, gpu: Option<&str>) -> Outcome<Arc<Scenario>> {
    let concerns = |fault: &&Fault| fault.concerns(function, gpu);
    let hangs = |scenario: &Scenario| {
        let mut faults = scenario.faults.iter().filter(concerns);
        faults.any(|fault| fault.effect == Effect::Hang)
    };
    let mut scenario = driver.scenario()?;
    if hangs(&scenario) {
        let limit = Deadline::after(Duration::from_secs(Effect::HANG_LIMIT_S));
        while hangs(&scenario) {
            if limit.passed() {
                return Err(ReturnCode::TIMEOUT);
            }
            clock::sleep(POLL);
            scenario = driver.scenario()?;
        }
    }
    let slow = |fault: &Fault| match fault.effect {
        Effect::SlowMs(ms) => ms,
        Effect::Fail(_) | Effect::Hang => 0,
    };
    let late: u64 = scenario.faults.iter().filter(concerns).map(slow).sum();
    if late > 0 {
        clock::sleep(Duration::from_millis(late));
        scenario = driver.scenario()?;
    }
    let fails = |fault: &Fault| match fault.effect {
        Effect::Fail(code) => Some(code),
        Effect::SlowMs(_) | Effect::Hang => None,
    };
    match scenario.faults.iter().filter(concerns).find_map(fails) {
        Some(code) => Err(code),
        None => Ok(scenario),
    }
}

/// A device that answers, in a scenario that stays as it is while the call looks at it.
pub(super) struct Device {
    /// The session's index of the GPU.
    pub(super) member: usize,
    pub(super) scenario: Arc<Scenario>,
    at: usize,
    /// Positions of GPU instance and compute instance, for a MIG device.
    mig: Option<(usize, usize)>,
}

impl Device {
    pub(super) fn gpu(&self) -> &Gpu {
        &self.scenario.gpus[self.at]
    }

    pub(super) fn product(&self) -> Outcome<&Product> {
        self.scenario.product_of(self.gpu()).ok_or(ReturnCode::UNKNOWN)
    }

    pub(super) fn mig(&self) -> Option<(&GpuInstance, &ComputeInstance)> {
        let (gpu_instance, compute_instance) = self.mig?;
        let gpu_instance = &self.gpu().mig.instances[gpu_instance];
        Some((gpu_instance, &gpu_instance.compute[compute_instance]))
    }

    /// How the device is named in the scenario's verbs.
    pub(super) fn name(&self) -> &str {
        &self.gpu().uuid
    }

    pub(super) fn instance_at(&self, key: InstanceKey) -> Outcome<usize> {
        let same = |instance: &GpuInstance| instance.id == key.id && instance.birth == key.birth;
        let found = self.gpu().mig.instances.iter().position(same);
        found.ok_or(ReturnCode::INVALID_ARGUMENT)
    }

    pub(super) fn mig_device(mut self, gpu_instance: InstanceKey, compute_instance: InstanceKey) -> Outcome<Self> {
        let instance = self.instance_at(gpu_instance)?;
        let same = |other: &ComputeInstance| other.id == compute_instance.id && other.birth == compute_instance.birth;
        let compute = self.gpu().mig.instances[instance].compute.iter().position(same);
        self.mig = Some((instance, compute.ok_or(ReturnCode::INVALID_ARGUMENT)?));
        Ok(self)
    }

    /// The handle's target for one of this GPU's instances.
    pub(super) fn target(&self, gpu_instance: &GpuInstance, compute_instance: Option<&ComputeInstance>) -> Target {
        let gpu = key(gpu_instance.id, gpu_instance.birth);
        match compute_instance {
            None => Target::GpuInstance(self.member, gpu),
            Some(compute) => Target::ComputeInstance(self.member, gpu, key(compute.id, compute.birth)),
        }
    }

    pub(super) fn mig_target(&self, gpu_instance: &GpuInstance, compute_instance: &ComputeInstance) -> Target {
        let gpu = key(gpu_instance.id, gpu_instance.birth);
        Target::MigDevice(self.member, gpu, key(compute_instance.id, compute_instance.birth))
    }
}

fn key(id: u32, birth: u64) -> InstanceKey {
    InstanceKey { id, birth }
}

/// For values that a product or a configuration does not have.
pub(super) fn supported(condition: bool) -> Outcome {
    if condition {
        Ok(())
    } else {
        Err(ReturnCode::NOT_SUPPORTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_reach_the_caller() {
        assert_eq!(contained(|| panic!("a bug")), ReturnCode::UNKNOWN.raw());
        assert_eq!(contained(|| Err(ReturnCode::NOT_FOUND)), ReturnCode::NOT_FOUND.raw());
        assert_eq!(contained(|| Ok(())), 0);
    }
}
