//! What sweeps see.

use std::time::Duration;

use berth_fake_nvml::scenario::{ClocksEventReason, MemoryLocation, Process, ProcessKind, RecoveryAction};
use berth_gpu::{MonitorConfig, inventory};
use berth_placement::{Health, MemoryBytes};

use crate::rig::{Machine, Rig, fast, reasons};

#[tokio::test]
async fn readings_are_those_of_the_driver() {
    let rig = Rig::of("dgx-h100", fast());
    rig.machine.edit_gpu("2", |gpu| {
        gpu.temperature_c = 61;
        gpu.power_mw = 512_000;
        gpu.utilization.gpu = 97;
        gpu.utilization.memory = 44;
        gpu.remapped_rows.correctable = 3;
    });
    rig.machine
        .edit(|scenario| scenario.ecc("2", true, MemoryLocation::Dram, 12));
    let seen = |now: &inventory::Inventory| {
        now.devices
            .get(2)
            .and_then(|device| device.sample.as_ref())
            .is_some_and(|sample| {
                sample.temperature_celsius == Some(61)
                    && sample.power_milliwatt == Some(512_000)
                    && sample.power_limit_milliwatt == Some(700_000)
                    && sample.gpu_utilization_percent == Some(97)
                    && sample.memory_utilization_percent == Some(44)
                    && sample.ecc_corrected_total == Some(12)
                    && sample.remapped_rows.is_some_and(|rows| rows.corrected == 3)
                    && sample.recovery_action == Some(inventory::RecoveryAction::None)
            })
    };
    let inventory = rig.until("the readings", seen).await;
    assert_eq!(
        inventory.devices[2].health.state,
        Health::Healthy,
        "correctable errors and load are no illness"
    );
}

#[tokio::test]
async fn processes_are_listed_with_their_instance() {
    let rig = Rig::of("mig", fast());
    let inventory = rig.ready(8).await;
    let instance = inventory.devices[5].mig_instance(0);
    let process = |pid, place: Option<(u32, u32)>| Process {
        pid,
        memory_mib: 1024,
        gpu_instance: place.map(|(gpu, _)| gpu),
        compute_instance: place.map(|(_, compute)| compute),
        kind: ProcessKind::Compute,
        name: "python".to_owned(),
        sm_utilization: 50,
    };
    rig.machine
        .edit(|scenario| scenario.add_process("0", process(100, None)));
    rig.machine
        .edit(|scenario| scenario.add_process("5", process(200, Some(instance))));
    let both =
        |now: &inventory::Inventory| !now.devices[0].processes.is_empty() && !now.devices[5].processes.is_empty();
    let inventory = rig.until("both processes", both).await;
    let of = |at: usize| &inventory.devices[at].processes[0];
    assert_eq!((of(0).pid, of(0).used_memory), (100, Some(MemoryBytes::from_gib(1))));
    assert_eq!((of(0).gpu_instance, of(5).pid), (None, 200));
    assert_eq!(
        (of(5).gpu_instance, of(5).compute_instance),
        (Some(instance.0), Some(instance.1))
    );
    rig.machine.edit(|scenario| scenario.remove_process("0", 100));
    rig.until("the end of it", |now| now.devices[0].processes.is_empty())
        .await;
}

#[tokio::test]
async fn without_events_sweeps_see_what_counters_show() {
    let quiet = |machine: Machine| {
        for gpu in 0..4 {
            machine.edit_gpu(&gpu.to_string(), |gpu| gpu.events = Some(vec![]));
        }
        machine.watch(fast())
    };
    let rig = quiet(Machine::of("dgx-h100x4"));
    rig.ready(4).await;
    rig.machine
        .edit(|scenario| scenario.ecc("0", false, MemoryLocation::Dram, 1));
    rig.machine.edit_gpu("1", |gpu| gpu.remapped_rows.pending = true);
    rig.machine.edit_gpu("2", |gpu| gpu.remapped_rows.failed = true);
    rig.machine
        .edit_gpu("3", |gpu| gpu.recovery_action = RecoveryAction::GpuReset);
    for (at, state, reason) in [
        (0, Health::Suspect, "EccUncorrected"),
        (1, Health::Suspect, "RowRemapPending"),
        (2, Health::Unhealthy, "RowRemapFailed"),
        (3, Health::Unhealthy, "RecoveryActionReset"),
    ] {
        assert_eq!(reasons(&*rig.health(at, state).await, at), [reason]);
    }
    rig.machine
        .edit_gpu("3", |gpu| gpu.recovery_action = RecoveryAction::None);
    rig.health(3, Health::Healthy).await;
}

#[tokio::test]
async fn throttling_by_hardware_is_a_suspicion_and_by_software_is_none() {
    let rig = Rig::of("l40sx2", fast());
    rig.machine.edit_gpu("0", |gpu| {
        gpu.clocks_event_reasons = vec![ClocksEventReason::SwPowerCap];
    });
    rig.machine.edit_gpu("1", |gpu| {
        gpu.clocks_event_reasons = vec![ClocksEventReason::HwThermalSlowdown];
    });
    let inventory = rig.health(1, Health::Suspect).await;
    assert_eq!(reasons(&inventory, 1), ["HwThermalSlowdown"]);
    let capped = |now: &inventory::Inventory| {
        let sample = now.devices[0].sample.as_ref();
        sample.is_some_and(|sample| sample.throttle == [inventory::ThrottleReason::SwPowerCap])
    };
    assert_eq!(
        rig.until("the cap", capped).await.devices[0].health.state,
        Health::Healthy
    );
}

#[tokio::test]
async fn an_older_gpu_tells_of_retired_pages_instead_of_rows() {
    let rig = Rig::of("t4x1", fast());
    let sample = rig.ready(1).await.devices[0].sample.clone().unwrap();
    assert_eq!(
        (sample.remapped_rows, sample.page_retirement_pending),
        (None, Some(false))
    );
}

#[tokio::test]
async fn a_mig_layout_that_changes_is_followed() {
    let rig = Rig::of(
        "dgx-h100",
        MonitorConfig {
            refresh: Duration::from_hours(1),
            ..fast()
        },
    );
    rig.ready(8).await;
    rig.machine.edit(|scenario| {
        scenario.mig_mode("1", true)?;
        scenario.create_mig_device("1", "3g.40gb", None)
    });
    let split = rig
        .until("the split", |now| now.devices[1].facts.mig.instances.len() == 1)
        .await;
    assert_eq!(split.devices[1].facts.mig.instances[0].profile.as_str(), "3g.40gb");
    rig.machine.edit(|scenario| scenario.mig_mode("1", false));
    rig.until("the end of it", |now| !now.devices[1].facts.mig.enabled)
        .await;
}

trait Instances {
    fn mig_instance(&self, at: usize) -> (u32, u32);
}

impl Instances for inventory::DeviceReport {
    fn mig_instance(&self, at: usize) -> (u32, u32) {
        let instance = &self.facts.mig.instances[at];
        (instance.gpu_instance, instance.compute_instance)
    }
}
