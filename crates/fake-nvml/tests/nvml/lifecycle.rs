//! Sessions, and drivers that come and go under them.

use berth_fake_nvml::scenario::ReturnCode;
use nvml_wrapper::{Nvml, bitmasks::InitFlags, error::NvmlError};

use crate::rig::{Rig, code, is_mapped, spawn};

#[test]
fn without_a_driver_nothing_begins_and_with_one_it_does() {
    let rig = Rig::new("l40s");
    rig.edit(|scenario| {
        scenario.unload();
        Ok(())
    });
    assert!(matches!(rig.try_nvml(), Err(NvmlError::DriverNotLoaded)));
    rig.edit(|scenario| {
        scenario.load(None);
        Ok(())
    });
    assert_eq!(rig.nvml().device_count().unwrap(), 8);
}

#[test]
fn a_reloaded_driver_ends_the_sessions_of_before() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    rig.edit(|scenario| {
        scenario.unload();
        Ok(())
    });
    assert!(matches!(gpu.uuid(), Err(NvmlError::Uninitialized)));
    assert!(matches!(nvml.device_count(), Err(NvmlError::Uninitialized)));
    assert!(matches!(rig.try_nvml(), Err(NvmlError::DriverNotLoaded)));
    rig.edit(|scenario| {
        scenario.load(None);
        Ok(())
    });
    assert!(
        matches!(gpu.uuid(), Err(NvmlError::Uninitialized)),
        "the old session is dead for good"
    );
    let anew = rig.nvml();
    assert!(anew.device_by_index(0).unwrap().uuid().is_ok());
    assert!(
        matches!(gpu.uuid(), Err(NvmlError::InvalidArg)),
        "and its handles mean nothing to the new one"
    );
}

#[test]
fn after_an_upgrade_the_library_must_be_loaded_anew() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(0).unwrap();
    rig.edit(|scenario| {
        scenario.upgrade("590.48.01");
        Ok(())
    });
    assert!(matches!(gpu.uuid(), Err(NvmlError::LibRmVersionMismatch)));
    assert!(
        matches!(rig.try_nvml(), Err(NvmlError::LibRmVersionMismatch)),
        "the old library is still mapped"
    );
    drop(nvml);
    assert!(!is_mapped(&rig.installed.library), "nothing holds the library back");
    let nvml = rig.nvml();
    assert_eq!(nvml.sys_driver_version().unwrap(), "590.48.01");
    assert_eq!(nvml.sys_nvml_version().unwrap(), "13.590.48.01");
}

#[test]
fn the_library_can_be_unmapped_after_use_from_many_threads() {
    let rig = Rig::new("l40s");
    let nvml = std::sync::Arc::new(rig.nvml());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let nvml = std::sync::Arc::clone(&nvml);
            spawn(move || {
                for _ in 0..200 {
                    nvml.device_by_index(1).unwrap().uuid().unwrap();
                }
                let set = nvml.create_event_set().unwrap();
                assert!(matches!(set.wait(10), Err(NvmlError::Timeout)));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(is_mapped(&rig.installed.library));
    drop(nvml);
    assert!(!is_mapped(&rig.installed.library));
}

#[test]
fn sessions_are_counted() {
    let rig = Rig::new("l40s");
    let (one, two) = (rig.nvml(), rig.nvml());
    drop(one);
    assert_eq!(two.device_count().unwrap(), 8);
    let lib = two.lib();
    // SAFETY: functions without arguments, or with a result that outlives the call.
    unsafe {
        assert_eq!(code(lib.nvmlShutdown()), ReturnCode::SUCCESS);
        let mut count = 0;
        assert_eq!(
            code(lib.nvmlDeviceGetCount_v2(&raw mut count)),
            ReturnCode::UNINITIALIZED
        );
        assert_eq!(code(lib.nvmlShutdown()), ReturnCode::UNINITIALIZED);
        assert_eq!(code(lib.nvmlInit_v2()), ReturnCode::SUCCESS);
    }
}

#[test]
fn a_machine_without_gpus_needs_a_flag() {
    let rig = Rig::new("l40sx0");
    assert!(rig.try_nvml().is_err());
    let nvml = Nvml::builder()
        .lib_path(rig.installed.library.as_os_str())
        .flags(InitFlags::NO_GPUS)
        .init()
        .unwrap();
    assert_eq!(nvml.device_count().unwrap(), 0);
}
