//! Who uses what.

use berth_fake_nvml::scenario::{Process, ProcessKind};
use nvml_wrapper::{enums::device::UsedGpuMemory, error::NvmlError};

use crate::rig::Rig;

fn process(pid: u32, kind: ProcessKind, instance: Option<u32>) -> Process {
    Process {
        pid,
        kind,
        memory_mib: 100,
        name: format!("worker-{pid}"),
        gpu_instance: instance,
        compute_instance: instance.map(|_| 0),
        sm_utilization: 40,
    }
}

#[test]
fn processes_are_listed_by_kind_with_their_memory() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(gpu.running_compute_processes().unwrap().is_empty());
    rig.edit(|scenario| {
        for pid in 1..=9 {
            scenario.add_process("0", process(pid, ProcessKind::Compute, None))?;
        }
        scenario.add_process("0", process(50, ProcessKind::Graphics, None))?;
        scenario.add_process("0", process(60, ProcessKind::Mps, None))
    });
    let compute = gpu.running_compute_processes().unwrap();
    assert_eq!(
        compute.iter().map(|process| process.pid).collect::<Vec<_>>(),
        (1..=9).collect::<Vec<_>>()
    );
    assert_eq!(compute[0].used_gpu_memory, UsedGpuMemory::Used(100 << 20));
    assert_eq!(compute[0].gpu_instance_id, None);
    assert_eq!(gpu.running_graphics_processes().unwrap()[0].pid, 50);
    assert_eq!(gpu.mps_running_compute_processes().unwrap()[0].pid, 60);
    assert_eq!(gpu.memory_info().unwrap().used, 1100 << 20);
    assert_eq!(nvml.sys_process_name(3, 64).unwrap(), "worker-3");
    assert_eq!(nvml.sys_process_name(3, 5).unwrap(), "work");
    assert_eq!(gpu.process_utilization_stats(None).unwrap().len(), 11);
    rig.edit(|scenario| scenario.remove_process("0", 3));
    assert_eq!(gpu.running_compute_processes().unwrap().len(), 8);
    assert!(matches!(nvml.sys_process_name(4_000_000, 64), Err(NvmlError::NotFound)));
}

#[test]
fn a_mig_device_knows_only_its_own_processes() {
    let rig = Rig::new("mig");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(4).unwrap();
    rig.edit(|scenario| {
        scenario.add_process("4", process(1, ProcessKind::Compute, Some(7)))?;
        scenario.add_process("4", process(2, ProcessKind::Compute, Some(8)))
    });
    let all = gpu.running_compute_processes().unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[1].gpu_instance_id, all[1].compute_instance_id), (Some(8), Some(0)));
    let mine = gpu.mig_device_by_index(1).unwrap();
    let inside = mine.running_compute_processes().unwrap();
    assert_eq!(inside.iter().map(|process| process.pid).collect::<Vec<_>>(), [2]);
    assert_eq!(mine.memory_info().unwrap().used, 100 << 20);
}
