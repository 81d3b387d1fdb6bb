//! The verbs, each by what it leaves in the scenario.

use super::*;
use crate::{
    profiles::machine,
    scenario::{Effect, EventKind, MemoryLocation, Presence, Process, ProcessKind, ReturnCode},
};

fn h100s() -> Scenario {
    machine("dgx-h100").unwrap().build("test").unwrap()
}

fn process(pid: u32, instance: Option<u32>) -> Process {
    Process {
        pid,
        kind: ProcessKind::Compute,
        memory_mib: 512,
        name: "python".to_owned(),
        gpu_instance: instance,
        compute_instance: instance.map(|_| 0),
        sm_utilization: 0,
    }
}

#[test]
fn a_gpu_is_found_by_index_uuid_or_bus_id() {
    let scenario = h100s();
    assert_eq!(scenario.find("3").unwrap(), 3);
    assert_eq!(scenario.find(&scenario.gpus[5].uuid).unwrap(), 5);
    assert_eq!(scenario.find("0000:1b:00.0").unwrap(), 0);
    assert!(scenario.find("8").unwrap_err().to_string().contains("below 8"));
}

#[test]
fn any_field_can_be_set_by_its_path() {
    let mut scenario = h100s();
    scenario.set("0", "temperature_c", "91").unwrap();
    scenario.set("0", "ecc.aggregate.corrected.dram", "7").unwrap();
    scenario.set("0", "recovery_action", "gpu_reset").unwrap();
    scenario.set("0", "serial", "1234").unwrap();
    scenario.set("0", "nvlink.down", "[0, 17]").unwrap();
    let gpu = &scenario.gpus[0];
    assert_eq!((gpu.temperature_c, gpu.serial.as_str()), (91, "1234"));
    assert_eq!(gpu.ecc.aggregate.corrected[&MemoryLocation::Dram], 7);
    assert_eq!(gpu.nvlink.down, [0, 17]);
}

#[test]
fn a_wrong_key_or_value_is_told_and_changes_nothing() {
    let mut scenario = h100s();
    let before = scenario.clone();
    let error = scenario.set("0", "temperatur", "91").unwrap_err().to_string();
    assert!(error.contains("temperature_c"), "{error}");
    assert!(scenario.set("0", "temperature_c", "hot").is_err());
    assert!(
        scenario
            .set("0", "processes.4.pid", "1")
            .unwrap_err()
            .to_string()
            .contains("list of 0")
    );
    assert_eq!(scenario, before);
}

#[test]
fn losing_a_gpu_tells_xid_79_first() {
    let mut scenario = h100s();
    scenario.lose("2", Presence::OffBus, false).unwrap();
    let event = scenario.events.log.last().unwrap();
    assert_eq!((event.kind, event.data), (EventKind::Xid, 79));
    let birth = scenario.gpus[2].birth;
    scenario.restore("2").unwrap();
    assert_eq!(scenario.gpus[2].presence, Presence::Present);
    assert_ne!(scenario.gpus[2].birth, birth, "off the bus and back is another plug");
}

#[test]
fn a_plugged_gpu_gets_a_place_of_its_own() {
    let mut scenario = h100s();
    let at = scenario.plug(NewGpu::default()).unwrap();
    assert_eq!(at, 8);
    let early = NewGpu {
        product: Some("l40s".to_owned()),
        bus_id: Some(BusId::new(0, 1)),
        uuid: None,
    };
    assert_eq!(scenario.plug(early.clone()).unwrap(), 0, "in bus order");
    assert!(scenario.plug(early).unwrap_err().to_string().contains("used twice"));
    let minors: std::collections::BTreeSet<_> = scenario.gpus.iter().map(|gpu| gpu.minor).collect();
    assert!(minors.len() >= 10);
}

#[test]
fn an_upgrade_ends_the_epoch_and_what_lived_in_it() {
    let mut scenario = h100s();
    scenario.add_process("0", process(1, None)).unwrap();
    scenario.ecc("0", false, MemoryLocation::Dram, 2).unwrap();
    scenario.upgrade("590.48.01");
    assert_eq!(scenario.driver.nvml_version(), "13.590.48.01");
    assert_eq!((scenario.driver.loaded, scenario.driver.epoch), (true, 1));
    let gpu = &scenario.gpus[0];
    assert!(gpu.processes.is_empty() && gpu.ecc.volatile.uncorrected.is_empty());
    assert_eq!(
        gpu.ecc.aggregate.uncorrected[&MemoryLocation::Dram],
        2,
        "the board remembers"
    );
}

#[test]
fn mig_is_made_used_and_destroyed() {
    let mut scenario = h100s();
    assert!(
        scenario
            .create_mig_device("0", "1g.10gb", None)
            .unwrap_err()
            .to_string()
            .contains("mig enable")
    );
    assert!(scenario.mig_mode("0", true).unwrap());
    let error = scenario.create_mig_device("0", "1g.5gb", None).unwrap_err().to_string();
    assert!(error.contains("1g.10gb"), "{error}");
    let id = scenario.create_mig_device("0", "3g.40gb", None).unwrap();
    assert!(scenario.add_process("0", process(7, None)).is_err());
    assert!(scenario.add_process("0", process(7, Some(99))).is_err());
    scenario.add_process("0", process(7, Some(id))).unwrap();
    assert!(
        scenario
            .destroy_instance("0", id, None)
            .unwrap_err()
            .to_string()
            .contains("process 7")
    );
    assert!(!scenario.mig_mode("0", false).unwrap(), "pending while in use");
    scenario.remove_process("0", 7).unwrap();
    assert!(scenario.mig_mode("0", false).unwrap());
    assert!(scenario.gpus[0].mig.instances.is_empty());
    assert!(scenario.check().is_ok());
}

#[test]
fn a_fault_replaces_one_of_its_kind_and_is_mended() {
    let mut scenario = h100s();
    scenario.break_call("*", None, Effect::SlowMs(5)).unwrap();
    scenario.break_call("*", None, Effect::SlowMs(9)).unwrap();
    scenario
        .break_call("*", None, Effect::Fail(ReturnCode::TIMEOUT))
        .unwrap();
    scenario
        .break_call("nvmlDeviceGetUUID", Some("1"), Effect::Hang)
        .unwrap();
    assert_eq!(scenario.faults.len(), 3);
    assert_eq!(scenario.mend_calls(None, Some("1")).unwrap(), 1);
    assert_eq!(scenario.mend_calls(Some("*"), None).unwrap(), 2);
    assert!(scenario.faults.is_empty());
}
