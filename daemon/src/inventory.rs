//! From the monitor to the book: devices, and who runs on them with the pod that each process belongs to.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use berth_gpu::{DeviceReport, DriverState, Inventory};
use berth_ledger::GpuProcess;
use berth_placement::MemoryBytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    book::Book,
    cgroup,
    conditions::{ConditionType, Finding, NOT_ANSWERING},
};

/// What the monitor publishes, and where it goes.
#[derive(Debug)]
pub(crate) struct Feed {
    pub(crate) inventory: watch::Receiver<Arc<Inventory>>,
    pub(crate) book: Book,
    /// `/proc`, elsewhere in tests.
    pub(crate) proc_dir: PathBuf,
    /// Where this daemon can be reached, for the line that says so.
    pub(crate) reachable_at: String,
}

impl Feed {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut told = None;
        let mut announced = false;
        loop {
            let inventory = Arc::clone(&self.inventory.borrow_and_update());
            // Readings alone do not go through the book: whoever wants them takes them from the monitor.
            if told != Some(inventory.generation) && inventory.driver != DriverState::Starting {
                told = Some(inventory.generation);
                if !std::mem::replace(&mut announced, true) {
                    self.announce(&inventory);
                }
                self.book
                    .observe_devices(Arc::clone(&inventory), self.processes(&inventory), finding(&inventory))
                    .await;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.inventory.changed() => if changed.is_err() { return },
            }
        }
    }

    fn processes(&self, inventory: &Inventory) -> Vec<GpuProcess> {
        let mut pods = BTreeMap::new();
        let on = |device: &DeviceReport| {
            let facts = Arc::clone(&device.facts);
            device.processes.clone().into_iter().map(move |process| {
                let instance = facts.mig.instances.iter().find(|instance| {
                    Some(instance.gpu_instance) == process.gpu_instance
                        && Some(instance.compute_instance) == process.compute_instance
                });
                (
                    facts.uuid.clone(),
                    instance.map(|instance| instance.uuid.clone()),
                    process,
                )
            })
        };
        let processes = inventory.devices.iter().flat_map(on);
        processes
            .map(|(device, mig_instance, process)| {
                let pod = pods
                    .entry(process.pid)
                    .or_insert_with(|| cgroup::pod_of_process(&self.proc_dir, process.pid));
                GpuProcess {
                    device,
                    mig_instance,
                    pid: process.pid,
                    used_memory_bytes: process.used_memory.map(MemoryBytes::get),
                    pod_uid: pod.clone(),
                }
            })
            .collect()
    }

    /// One line for a person: what is here, and where it is served.
    fn announce(&self, inventory: &Inventory) {
        let reachable_at = &self.reachable_at;
        match &inventory.driver {
            DriverState::Ready(driver) => {
                let devices = summary(inventory);
                info!(devices, backend = driver.backend, driver = driver.driver_version, %reachable_at, "berthd serves");
            }
            DriverState::Starting => {}
            DriverState::Absent { reason, message, .. } => {
                warn!(reason, %reachable_at, "berthd serves, without GPUs: {message}; it looks again by itself");
            }
            DriverState::NotAnswering { message, .. } => {
                warn!(%reachable_at, "berthd serves, without GPUs: {message}");
            }
        }
    }
}

/// `8 x H100 (79.6 GiB)`, by model in the order of the devices.
fn summary(inventory: &Inventory) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for device in &inventory.devices {
        let kind = format!("{} ({})", device.facts.model, device.facts.memory);
        match kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    if kinds.is_empty() {
        return "no GPU".to_owned();
    }
    let kinds: Vec<_> = kinds
        .into_iter()
        .map(|(kind, count)| format!("{count} x {kind}"))
        .collect();
    kinds.join(", ")
}

fn finding(inventory: &Inventory) -> Finding {
    const KIND: ConditionType = ConditionType::DriverReady;
    match &inventory.driver {
        DriverState::Starting => KIND.fails("Starting", "the driver was not asked yet"),
        DriverState::Ready(driver) if inventory.unidentified.is_empty() => KIND.holds(
            "Answering",
            format!("{}, driver {}", summary(inventory), driver.driver_version),
        ),
        DriverState::Ready(_) => {
            let lost: Vec<_> = inventory
                .unidentified
                .iter()
                .map(|gpu| format!("GPU {}: {}", gpu.index, gpu.message))
                .collect();
            KIND.holds(
                "GpusUnidentified",
                format!("{} can be used; {}", summary(inventory), lost.join("; ")),
            )
        }
        DriverState::Absent { reason, message, .. } => {
            let advice =
                "install or load the NVIDIA driver (or give --simulate PROFILE); it is looked for again by itself";
            KIND.fails(reason, format!("{message}; {advice}"))
        }
        DriverState::NotAnswering { message, .. } => KIND.fails(
            NOT_ANSWERING,
            format!("{message}; the devices are as they were last known"),
        ),
    }
}
