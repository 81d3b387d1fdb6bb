//! What a session finds when it begins.

use std::collections::HashSet;

use berth_fake_nvml::{
    profiles::{machine, machines},
    scenario::{Effect, LinkPeer, Presence, ReturnCode},
};
use berth_gpu::{DeviceFacts, GpuError};
use berth_placement::{ComputeMode, MemoryBytes};

use crate::rig::Machine;

fn devices(machine: &Machine) -> Vec<DeviceFacts> {
    machine.session(|session| session.discover().unwrap().devices).unwrap()
}

fn distinct<T: Eq + std::hash::Hash>(values: impl Iterator<Item = T>) -> usize {
    values.collect::<HashSet<_>>().len()
}

#[test]
fn more_than_eight_gpus_are_found_with_all_their_facts() {
    let machine = Machine::of("dgx-h100x16");
    let driver = machine.session(|session| session.driver()).unwrap();
    assert_eq!(
        (driver.backend, driver.driver_version.as_str(), driver.cuda_version),
        ("nvml", "580.95.05", Some(13_000))
    );
    let devices = devices(&machine);
    assert_eq!(devices.len(), 16);
    assert_eq!(distinct(devices.iter().map(|device| &device.uuid)), 16);
    assert_eq!(
        distinct(devices.iter().filter_map(|device| device.pci_bus_id.as_ref())),
        16
    );
    for (device, index) in devices.iter().zip(0..) {
        assert_eq!(device.index, index);
        assert_eq!(
            (device.product.as_str(), device.model.as_str()),
            ("NVIDIA H100 80GB HBM3", "H100")
        );
        assert_eq!(device.architecture.as_deref(), Some("Hopper"));
        assert_eq!(device.compute_capability.as_deref(), Some("9.0"));
        assert_eq!(device.memory, MemoryBytes::from_mib(81_559));
        assert!(device.serial.is_some() && device.mig.supported && !device.mig.enabled);
    }
    assert_eq!(distinct(devices.iter().map(|device| device.numa_node)), 2);
}

#[test]
fn every_machine_is_understood() {
    for (profile, _) in machines() {
        let machine = Machine::of(profile);
        let expected = machine.installed.state.load().unwrap();
        let found = devices(&machine);
        let uuids = |facts: &[DeviceFacts]| facts.iter().map(|device| device.uuid.to_string()).collect::<Vec<_>>();
        assert_eq!(
            uuids(&found),
            expected.gpus.iter().map(|gpu| gpu.uuid.clone()).collect::<Vec<_>>(),
            "{profile}"
        );
        for (device, gpu) in found.iter().zip(&expected.gpus) {
            let product = expected.product_of(gpu).unwrap();
            assert_eq!(device.product, product.name);
            assert_eq!(device.numa_node, gpu.place.numa_node, "{profile}");
            assert_eq!(device.mig.instances.len(), gpu.mig.devices().count(), "{profile}");
            assert_eq!(
                device.nvlink_domain.is_some(),
                !device.nvlink_peers.is_empty(),
                "{profile}"
            );
            let sample = machine.session(|session| {
                session.discover().unwrap();
                session.sample(&device.uuid).unwrap()
            });
            assert_eq!(
                sample.unwrap().temperature_celsius,
                Some(gpu.temperature_c),
                "{profile}"
            );
        }
    }
}

#[test]
fn nvlink_peers_are_found_behind_switches_over_bridges_and_in_a_mesh() {
    let switched = devices(&Machine::of("dgx-h100"));
    assert!(
        switched
            .iter()
            .all(|device| device.nvlink_domain == Some(0) && device.nvlink_peers.len() == 7)
    );
    assert!(
        switched
            .iter()
            .all(|device| device.nvlink_peers.iter().all(|peer| peer.links == 18))
    );

    let bridged = devices(&Machine::of("h100-nvl"));
    let domains: Vec<_> = bridged.iter().map(|device| device.nvlink_domain.unwrap()).collect();
    assert_eq!(domains, [0, 0, 1, 1, 2, 2, 3, 3]);
    assert_eq!(bridged[0].nvlink_peers[0].uuid, bridged[1].uuid);

    let mesh = devices(&Machine::of("dgx-1v"));
    assert!(mesh.iter().all(|device| device.nvlink_domain == Some(0)));
    assert!(
        mesh.iter()
            .all(|device| device.nvlink_peers.iter().map(|peer| peer.links).sum::<u32>() == 6)
    );

    assert!(
        devices(&Machine::of("l40s"))
            .iter()
            .all(|device| device.nvlink_domain.is_none())
    );
}

#[test]
fn links_that_are_down_do_not_count() {
    let machine = Machine::of("h100-nvl");
    for gpu in ["0", "1"] {
        machine.edit_gpu(gpu, |gpu| gpu.nvlink.down = (0..gpu.nvlink.count()).collect());
    }
    machine.edit_gpu("2", |gpu| gpu.nvlink.down = vec![0]);
    let devices = devices(&machine);
    assert_eq!(devices[0].nvlink_domain, None);
    assert_eq!(devices[2].nvlink_domain, Some(0));
    let links =
        |gpu: &berth_fake_nvml::scenario::Gpu| gpu.nvlink.peers.iter().map(|peer: &LinkPeer| peer.links).sum::<u32>();
    let total = links(&machine.installed.state.load().unwrap().gpus[2]);
    assert!(devices[2].nvlink_peers[0].links <= total);
}

#[test]
fn a_fabric_beyond_the_node_is_told() {
    let gb200 = devices(&Machine::of("gb200"));
    let cluster = |device: &DeviceFacts| device.fabric.as_ref().unwrap().cluster_uuid.clone();
    assert_eq!(distinct(gb200.iter().map(cluster)), 1);
    assert_eq!(cluster(&gb200[0]).len(), 36);
    assert!(
        devices(&Machine::of("a100-pcie"))
            .iter()
            .all(|device| device.fabric.is_none())
    );
}

#[test]
fn a_mig_tree_is_found() {
    let mig = devices(&Machine::of("mig"));
    let profiles = |at: usize| {
        let instances = &mig[at].mig.instances;
        instances
            .iter()
            .map(|instance| instance.profile.as_str())
            .collect::<Vec<_>>()
    };
    assert!(!mig[0].mig.enabled && mig[4].mig.enabled);
    assert_eq!(profiles(4), ["1g.10gb"; 7]);
    assert_eq!(profiles(6).len(), 2);
    assert!(profiles(6).contains(&"4g.40gb") && profiles(6).contains(&"3g.40gb"));
    let all = || mig.iter().flat_map(|device| &device.mig.instances);
    assert_eq!(distinct(all().map(|instance| &instance.uuid)), all().count());
    assert!(all().all(|instance| instance.uuid.is_mig() && instance.memory > MemoryBytes::from_gib(8)));
    let ids = mig[4]
        .mig
        .instances
        .iter()
        .map(|instance| (instance.gpu_instance, instance.compute_instance));
    assert_eq!(distinct(ids), 7);
}

#[test]
fn compute_instances_within_an_instance_are_told_apart() {
    let mut scenario = machine("dgx-h100x1").unwrap().build("gpu-a").unwrap();
    scenario.mig_mode("0", true).unwrap();
    scenario.create_instance("0", "3g.40gb", None, &[2, 1]).unwrap();
    let machine = Machine::scripted(&scenario);
    let instances = devices(&machine)[0].mig.instances.clone();
    let profiles: Vec<_> = instances.iter().map(|instance| instance.profile.as_str()).collect();
    assert_eq!(profiles, ["2c.3g.40gb", "1c.3g.40gb"]);
    assert_eq!(instances[0].gpu_instance, instances[1].gpu_instance);
}

#[test]
fn compute_modes_are_read() {
    let machine = Machine::of("l40sx3");
    for (gpu, mode) in [("1", "exclusive_process"), ("2", "prohibited")] {
        machine.edit(|scenario| scenario.set(gpu, "compute_mode", mode));
    }
    let modes: Vec<_> = devices(&machine).iter().map(|device| device.compute_mode).collect();
    assert_eq!(
        modes,
        [
            ComputeMode::Default,
            ComputeMode::ExclusiveProcess,
            ComputeMode::Prohibited
        ]
    );
}

#[test]
fn what_a_driver_does_not_offer_is_absent_and_no_error() {
    let machine = Machine::of("dgx-h100x2");
    let before = devices(&machine);
    for function in [
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetSerial",
        "nvmlDeviceGetMemoryAffinity",
        "nvmlDeviceGetNvLinkState",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetGpuFabricInfoV",
        "nvmlDeviceGetComputeMode",
        "nvmlDeviceGetArchitecture",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetComputeRunningProcesses_v3",
    ] {
        for gpu in ["0", "1"] {
            let effect = Effect::Fail(ReturnCode::NOT_SUPPORTED);
            machine.edit(|scenario| scenario.break_call(function, Some(gpu), effect));
        }
    }
    let poor = devices(&machine);
    assert_eq!(poor[1].uuid, before[1].uuid);
    assert_eq!(poor[1].memory, before[1].memory, "an older function tells it");
    assert_eq!(
        (
            poor[1].serial.as_ref(),
            poor[1].architecture.as_ref(),
            poor[1].nvlink_domain
        ),
        (None, None, None)
    );
    assert!(!poor[1].mig.supported);
    machine
        .session(|session| {
            session.discover().unwrap();
            let sample = session.sample(&poor[1].uuid).unwrap();
            assert!(sample.temperature_celsius.is_none() && sample.remapped_rows.is_none());
            assert!(sample.memory_used.is_some());
            assert_eq!(session.processes(&poor[1].uuid), Ok(vec![]));
        })
        .unwrap();
}

#[test]
fn a_gpu_that_does_not_answer_does_not_hide_the_others() {
    let machine = Machine::of("dgx-h100");
    machine.edit_gpu("3", |gpu| gpu.presence = Presence::Lost);
    let no_permission = Effect::Fail(ReturnCode::NO_PERMISSION);
    machine.edit(|scenario| scenario.break_call("nvmlDeviceGetHandleByIndex_v2", Some("5"), no_permission));
    let found = machine.session(|session| session.discover().unwrap()).unwrap();
    assert_eq!(found.devices.len(), 6);
    let problems: Vec<_> = found.unidentified.iter().map(|gpu| (gpu.index, gpu.reason)).collect();
    assert_eq!(problems, [(3, "DeviceLost"), (5, "NoPermission")]);
}

#[test]
fn a_driver_without_a_gpu_is_a_machine_without_devices() {
    let mut scenario = machine("l40sx1").unwrap().build("gpu-a").unwrap();
    scenario.gpus.clear();
    assert!(devices(&Machine::scripted(&scenario)).is_empty());
}

#[test]
fn a_device_of_another_machine_is_unknown() {
    let machine = Machine::of("l40sx1");
    let stranger = "GPU-00000000-0000-0000-0000-000000000000".parse().unwrap();
    let answer = machine.session(|session| {
        session.discover().unwrap();
        session.sample(&stranger)
    });
    assert_eq!(answer.unwrap(), Err(GpuError::NotFound));
}
