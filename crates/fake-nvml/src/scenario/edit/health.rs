//! Verbs that make a GPU ill or busy.

use super::EditError;
use crate::scenario::{EventKind, MemoryLocation, Presence, Process, RecoveryAction, Scenario};

/// "GPU has fallen off the bus", the last that is heard of a GPU.
const XID_FALLEN_OFF_BUS: u64 = 79;

impl Scenario {
    /// The driver logs an XID, attributed to a MIG device if `instance` (GPU instance, compute instance) is given.
    pub fn xid(&mut self, wanted: &str, code: u64, instance: Option<(u32, u32)>) -> Result<(), EditError> {
        self.tell(wanted, EventKind::Xid, code, instance)
    }

    /// Emits an event and changes nothing else.
    pub fn tell(
        &mut self,
        wanted: &str,
        kind: EventKind,
        data: u64,
        instance: Option<(u32, u32)>,
    ) -> Result<(), EditError> {
        let gpu = &self.gpus[self.find(wanted)?];
        self.events.push(kind, &gpu.uuid, gpu.bus_id, data, instance);
        Ok(())
    }

    /// Counts memory errors, volatile and aggregate, and emits the event for them.
    pub fn ecc(
        &mut self,
        wanted: &str,
        corrected: bool,
        location: MemoryLocation,
        count: u64,
    ) -> Result<(), EditError> {
        let gpu = self.gpu_mut(wanted)?;
        if !gpu.ecc.enabled {
            let why = format!("GPU {wanted} has ECC switched off; `set {wanted} ecc.enabled true` switches it on");
            return Err(EditError::Refused(why));
        }
        for counters in [&mut gpu.ecc.volatile, &mut gpu.ecc.aggregate] {
            let by_location = if corrected {
                &mut counters.corrected
            } else {
                &mut counters.uncorrected
            };
            *by_location.entry(location).or_default() += count;
        }
        let kind = if corrected {
            EventKind::SingleBitEcc
        } else {
            EventKind::DoubleBitEcc
        };
        self.tell(wanted, kind, 0, None)
    }

    /// The GPU stops answering: [`Presence::Lost`] or [`Presence::OffBus`]. XID 79 comes first, unless `silent`.
    pub fn lose(&mut self, wanted: &str, how: Presence, silent: bool) -> Result<(), EditError> {
        if !silent {
            self.xid(wanted, XID_FALLEN_OFF_BUS, None)?;
        }
        self.gpu_mut(wanted)?.presence = how;
        Ok(())
    }

    /// The GPU answers again, after a reset. One that had fallen off the bus comes back as hot-plugged.
    pub fn restore(&mut self, wanted: &str) -> Result<(), EditError> {
        let index = self.find(wanted)?;
        if self.gpus[index].presence == Presence::OffBus {
            self.gpus[index].birth = self.new_birth();
            self.tell(wanted, EventKind::GpuBind, 0, None)?;
        }
        let gpu = &mut self.gpus[index];
        gpu.presence = Presence::Present;
        gpu.recovery_action = RecoveryAction::None;
        Ok(())
    }

    /// A process uses the GPU. One with the same PID and MIG device is replaced.
    pub fn add_process(&mut self, wanted: &str, process: Process) -> Result<(), EditError> {
        let gpu = self.gpu_mut(wanted)?;
        if gpu.mig.current != process.gpu_instance.is_some() {
            let why = if gpu.mig.current {
                "is in MIG mode: name the GPU instance that the process runs in"
            } else {
                "is not in MIG mode: a process can name no GPU instance"
            };
            return Err(EditError::Refused(format!("GPU {wanted} {why}")));
        }
        let place = (process.gpu_instance, process.compute_instance);
        let known = |(gi, ci)| {
            gpu.mig
                .devices()
                .any(|(gpu, compute)| Some(gpu.id) == gi && Some(compute.id) == ci)
        };
        if place.0.is_some() && !known(place) {
            return Err(EditError::Refused(format!("GPU {wanted} has no such MIG device")));
        }
        gpu.processes
            .retain(|other| other.pid != process.pid || (other.gpu_instance, other.compute_instance) != place);
        gpu.processes.push(process);
        Ok(())
    }

    /// The process ends.
    pub fn remove_process(&mut self, wanted: &str, pid: u32) -> Result<(), EditError> {
        let gpu = self.gpu_mut(wanted)?;
        let before = gpu.processes.len();
        gpu.processes.retain(|process| process.pid != pid);
        if gpu.processes.len() == before {
            return Err(EditError::NoSuchProcess {
                gpu: wanted.to_owned(),
                pid,
            });
        }
        Ok(())
    }
}
