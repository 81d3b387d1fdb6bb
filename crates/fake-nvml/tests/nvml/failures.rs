//! GPUs that vanish; calls that are slow, fail or hang.

#![expect(clippy::disallowed_methods, reason = "these tests measure real time")]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use berth_fake_nvml::scenario::{Effect, NewGpu, Presence, ReturnCode};
use nvml_wrapper::{error::NvmlError, struct_wrappers::device::PciInfo};

use crate::rig::{Rig, eventually, spawn};

#[test]
fn a_gpu_fallen_off_the_bus_is_counted_until_the_next_session() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpus: Vec<_> = (0..8).map(|index| nvml.device_by_index(index).unwrap()).collect();
    rig.edit(|scenario| scenario.lose("3", Presence::OffBus, false));
    assert!(matches!(gpus[3].uuid(), Err(NvmlError::GpuLost)));
    assert!(matches!(gpus[3].memory_info(), Err(NvmlError::GpuLost)));
    assert!(matches!(nvml.device_by_index(3), Err(NvmlError::GpuLost)));
    assert!(gpus[4].memory_info().is_ok(), "siblings are well");
    assert_eq!(nvml.device_count().unwrap(), 8);
    drop(gpus);
    drop(nvml);
    let nvml = rig.nvml();
    assert_eq!(nvml.device_count().unwrap(), 7);
    assert!((0..7).all(|index| nvml.device_by_index(index).is_ok()));
}

#[test]
fn a_lost_gpu_stays_enumerated_and_can_come_back() {
    let rig = Rig::new("dgx-h100");
    rig.edit(|scenario| scenario.lose("3", Presence::Lost, true));
    let nvml = rig.nvml();
    assert_eq!(nvml.device_count().unwrap(), 8);
    assert!(matches!(nvml.device_by_index(3), Err(NvmlError::GpuLost)));
    let uuid = rig.scenario().gpus[3].uuid.clone();
    assert!(matches!(nvml.device_by_uuid(uuid.as_str()), Err(NvmlError::GpuLost)));
    rig.edit(|scenario| scenario.restore("3"));
    assert_eq!(nvml.device_by_index(3).unwrap().uuid().unwrap(), uuid);
}

#[test]
fn a_removed_gpu_is_lost_and_one_put_in_its_place_is_another() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(2).unwrap();
    let old = rig.scenario().gpus[2].clone();
    rig.edit(|scenario| {
        scenario.unplug("2")?;
        let again = NewGpu {
            uuid: Some(old.uuid.clone()),
            bus_id: Some(old.bus_id),
            product: None,
        };
        scenario.plug(again).map(drop)
    });
    assert!(matches!(gpu.uuid(), Err(NvmlError::GpuLost)));
    assert_eq!(nvml.device_count().unwrap(), 8);
    drop(nvml);
    assert_eq!(rig.nvml().device_by_index(2).unwrap().uuid().unwrap(), old.uuid);
}

#[test]
fn a_plugged_gpu_is_seen_by_a_new_session_or_by_discovery() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    rig.edit(|scenario| scenario.plug(NewGpu::default()).map(drop));
    assert_eq!(nvml.device_count().unwrap(), 8);
    assert!(matches!(nvml.device_by_index(8), Err(NvmlError::InvalidArg)));
    let bus_id = rig.scenario().gpus[8].bus_id;
    nvml.discover_gpus(PciInfo {
        bus: bus_id.bus.into(),
        bus_id: bus_id.to_string(),
        device: 0,
        domain: bus_id.domain,
        pci_device_id: 0,
        pci_sub_system_id: None,
    })
    .unwrap();
    assert_eq!(nvml.device_count().unwrap(), 9);
    assert_eq!(
        nvml.device_by_index(8).unwrap().pci_info().unwrap().bus_id,
        bus_id.to_string()
    );
    drop(nvml);
    assert_eq!(rig.nvml().device_count().unwrap(), 9);
}

#[test]
fn a_function_fails_for_all_or_for_one_gpu() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpus: Vec<_> = (0..2).map(|index| nvml.device_by_index(index).unwrap()).collect();
    rig.edit(|scenario| {
        scenario.break_call("nvmlDeviceGetTemperature", None, Effect::Fail(ReturnCode::TIMEOUT))?;
        scenario.break_call(
            "nvmlDeviceGetMemoryInfo_v2",
            Some("1"),
            Effect::Fail(ReturnCode::RESET_REQUIRED),
        )
    });
    let sensor = nvml_wrapper::enum_wrappers::device::TemperatureSensor::Gpu;
    assert!(
        gpus.iter()
            .all(|gpu| matches!(gpu.temperature(sensor), Err(NvmlError::Timeout)))
    );
    assert!(gpus[0].memory_info().is_ok());
    assert!(matches!(gpus[1].memory_info(), Err(NvmlError::ResetRequired)));
    assert!(gpus[1].uuid().is_ok());
    rig.edit(|scenario| scenario.break_call("*", Some("1"), Effect::Fail(ReturnCode::UNKNOWN)));
    assert!(matches!(gpus[1].uuid(), Err(NvmlError::Unknown)));
    assert!(gpus[0].uuid().is_ok());
    rig.edit(|scenario| scenario.mend_calls(None, None).map(drop));
    assert!(
        gpus.iter()
            .all(|gpu| gpu.temperature(sensor).is_ok() && gpu.memory_info().is_ok())
    );
}

#[test]
fn a_slow_function_takes_its_time() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    let time = || {
        let begin = Instant::now();
        gpu.name().unwrap();
        begin.elapsed()
    };
    rig.edit(|scenario| scenario.break_call("nvmlDeviceGetName", None, Effect::SlowMs(60)));
    assert!(time() >= Duration::from_millis(60));
    rig.edit(|scenario| scenario.mend_calls(None, None).map(drop));
    let best = (0..20).map(|_| time()).min().unwrap();
    assert!(best < Duration::from_millis(30), "{best:?}");
}

#[test]
fn a_hanging_function_blocks_nobody_else_and_ends_when_cleared() {
    let rig = Rig::new("l40s");
    let nvml = Arc::new(rig.nvml());
    rig.edit(|scenario| scenario.break_call("nvmlDeviceGetPowerUsage", Some("1"), Effect::Hang));
    let hung = {
        let nvml = Arc::clone(&nvml);
        spawn(move || nvml.device_by_index(1).unwrap().power_usage())
    };
    let other = nvml.device_by_index(0).unwrap();
    for _ in 0..50 {
        assert!(other.power_usage().is_ok());
    }
    assert!(!hung.is_finished());
    rig.edit(|scenario| scenario.mend_calls(None, None).map(drop));
    eventually(|| hung.is_finished());
    assert!(hung.join().unwrap().is_ok());
}

#[test]
fn calls_from_many_threads_agree() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let uuids: Vec<_> = rig.scenario().gpus.iter().map(|gpu| gpu.uuid.clone()).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..200 {
                    let index = round % 8;
                    let gpu = nvml.device_by_index(index).unwrap();
                    assert_eq!(gpu.uuid().unwrap(), uuids[index as usize]);
                    assert!(gpu.memory_info().is_ok() && gpu.running_compute_processes().is_ok());
                }
            });
        }
        scope.spawn(|| {
            for load in 0..100 {
                rig.set(0, "utilization.gpu", &load.to_string());
            }
        });
    });
    assert_eq!(nvml.device_by_index(0).unwrap().utilization_rates().unwrap().gpu, 99);
}
