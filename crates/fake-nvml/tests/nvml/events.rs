//! Event sets: once, only what was registered, soon.

#![expect(clippy::disallowed_methods, reason = "these tests measure real time")]

use std::{
    mem, ptr,
    sync::mpsc,
    time::{Duration, Instant},
};

use berth_fake_nvml::scenario::{EventKind, MemoryLocation, NewGpu, Presence, ReturnCode};
use nvml_wrapper::{bitmasks::event::EventTypes, enums::event::XidError, error::NvmlError};
use nvml_wrapper_sys::bindings::*;

use crate::rig::{Rig, code, spawn};

const XIDS: EventTypes = EventTypes::CRITICAL_XID_ERROR;

#[test]
fn an_event_wakes_a_waiter_within_milliseconds() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let set = nvml.create_event_set().unwrap();
    let set = nvml
        .device_by_index(2)
        .unwrap()
        .register_events(XIDS, set)
        .map_err(|error| error.error)
        .unwrap();
    let state = rig.installed.state.clone();
    let (send, receive) = mpsc::channel();
    let teller = spawn(move || {
        let mut told = Vec::new();
        for xid in 1..=10 {
            state.edit(|scenario| scenario.xid("2", xid, None)).unwrap();
            told.push(Instant::now());
            receive.recv_timeout(Duration::from_secs(10)).unwrap();
        }
        told
    });
    let mut heard = Vec::new();
    for xid in 1..=10 {
        let event = set.wait(10_000).unwrap();
        heard.push(Instant::now());
        assert!(matches!(event.event_data, Some(XidError::Value(value)) if value == xid));
        assert_eq!(event.device.index().unwrap(), 2);
        send.send(()).unwrap();
    }
    let told = teller.join().unwrap();
    let mut delays: Vec<_> = heard
        .iter()
        .zip(told)
        .map(|(heard, told)| heard.saturating_duration_since(told))
        .collect();
    delays.sort_unstable();
    // The machine may be busy with other things at times, but not at all ten.
    assert!(delays[0] < Duration::from_millis(20), "{delays:?}");
}

#[test]
fn every_set_hears_every_event_once_and_in_order() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let sets: Vec<_> = (0..3)
        .map(|_| {
            let set = nvml.create_event_set().unwrap();
            nvml.device_by_index(0)
                .unwrap()
                .register_events(XIDS, set)
                .map_err(|error| error.error)
                .unwrap()
        })
        .collect();
    for xid in 1..=20 {
        rig.edit(|scenario| scenario.xid("0", xid, None));
    }
    for set in &sets {
        for xid in 1..=20 {
            let event = set.wait(0).unwrap();
            assert!(matches!(event.event_data, Some(XidError::Value(value)) if value == xid));
        }
        assert!(matches!(set.wait(0), Err(NvmlError::Timeout)));
    }
}

#[test]
fn a_set_hears_only_what_it_registered_and_since() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let set = nvml.create_event_set().unwrap();
    rig.edit(|scenario| scenario.xid("0", 1, None));
    let set = nvml
        .device_by_index(0)
        .unwrap()
        .register_events(XIDS, set)
        .map_err(|error| error.error)
        .unwrap();
    rig.edit(|scenario| {
        scenario.xid("1", 2, None)?;
        scenario.ecc("0", false, MemoryLocation::Dram, 1)?;
        scenario.xid("0", 3, None)
    });
    let event = set.wait(0).unwrap();
    assert!(matches!(event.event_data, Some(XidError::Value(3))));
    assert!(matches!(set.wait(0), Err(NvmlError::Timeout)));
    let kinds = EventTypes::DOUBLE_BIT_ECC_ERROR | EventTypes::MIG_CONFIG_CHANGE;
    let set = nvml
        .device_by_index(1)
        .unwrap()
        .register_events(kinds, set)
        .map_err(|error| error.error)
        .unwrap();
    rig.edit(|scenario| {
        scenario.ecc("1", false, MemoryLocation::Dram, 1)?;
        scenario.mig_mode("1", true).map(drop)
    });
    assert_eq!(set.wait(0).unwrap().event_type, EventTypes::DOUBLE_BIT_ECC_ERROR);
    assert_eq!(set.wait(0).unwrap().event_type, EventTypes::MIG_CONFIG_CHANGE);
}

#[test]
fn a_timeout_is_kept() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let set = nvml.create_event_set().unwrap();
    let begin = Instant::now();
    assert!(matches!(set.wait(80), Err(NvmlError::Timeout)));
    let took = begin.elapsed();
    assert!(
        took >= Duration::from_millis(80) && took < Duration::from_secs(2),
        "{took:?}"
    );
}

#[test]
fn unsupported_kinds_are_refused_when_registered() {
    let rig = Rig::new("dgx-h100");
    rig.set(3, "events", "[]");
    let nvml = rig.nvml();
    let mute = nvml.device_by_index(3).unwrap();
    assert!(mute.supported_event_types().unwrap().is_empty());
    let refused = mute.register_events(XIDS, nvml.create_event_set().unwrap());
    assert!(matches!(refused.unwrap_err().error, NvmlError::NotSupported));
    let other = nvml.device_by_index(4).unwrap();
    assert!(other.supported_event_types().unwrap().contains(XIDS));
    assert!(other.register_events(XIDS, nvml.create_event_set().unwrap()).is_ok());
    let refused = other.register_events(EventTypes::POWER_SOURCE_CHANGE, nvml.create_event_set().unwrap());
    assert!(matches!(refused.unwrap_err().error, NvmlError::NotSupported));
}

#[test]
fn a_lost_gpu_is_told_after_its_last_events() {
    let rig = Rig::new("dgx-h100");
    let nvml = rig.nvml();
    let mut set = nvml.create_event_set().unwrap();
    for index in [0, 1] {
        set = nvml
            .device_by_index(index)
            .unwrap()
            .register_events(XIDS, set)
            .map_err(|error| error.error)
            .unwrap();
    }
    rig.edit(|scenario| scenario.lose("0", Presence::OffBus, false));
    let event = set.wait(1000).unwrap();
    assert!(matches!(event.event_data, Some(XidError::Value(79))));
    assert!(matches!(event.device.uuid(), Err(NvmlError::GpuLost)));
    assert!(matches!(set.wait(1000), Err(NvmlError::GpuLost)));
    rig.edit(|scenario| scenario.xid("1", 31, None));
    assert!(set.wait(1000).is_ok(), "siblings are still heard");
}

#[test]
fn a_xid_of_a_mig_device_names_its_instances() {
    let rig = Rig::new("mig");
    let nvml = rig.nvml();
    let gpu = nvml.device_by_index(4).unwrap();
    let set = nvml.create_event_set().unwrap();
    let set = gpu.register_events(XIDS, set).map_err(|error| error.error).unwrap();
    rig.edit(|scenario| {
        scenario.xid("4", 13, Some((9, 0)))?;
        scenario.xid("4", 48, None)
    });
    let wait = || {
        // SAFETY: a C struct of integers and a pointer; the set is alive.
        unsafe {
            let mut data: nvmlEventData_t = mem::zeroed();
            assert_eq!(
                code(nvml.lib().nvmlEventSetWait_v2(set.handle(), &raw mut data, 1000)),
                ReturnCode::SUCCESS
            );
            (data.eventData, data.gpuInstanceId, data.computeInstanceId)
        }
    };
    assert_eq!(wait(), (13, 9, 0));
    assert_eq!(wait(), (48, u32::MAX, u32::MAX));
}

#[test]
fn a_set_that_was_freed_is_no_set() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let mut set = ptr::null_mut();
    // SAFETY: results outlive the calls; a stale set is what is tested.
    unsafe {
        let lib = nvml.lib();
        assert_eq!(code(lib.nvmlEventSetCreate(&raw mut set)), ReturnCode::SUCCESS);
        assert_eq!(
            code(lib.nvmlEventSetWait_v2(set, ptr::null_mut(), 0)),
            ReturnCode::INVALID_ARGUMENT
        );
        assert_eq!(code(lib.nvmlEventSetFree(set)), ReturnCode::SUCCESS);
        assert_eq!(code(lib.nvmlEventSetFree(set)), ReturnCode::INVALID_ARGUMENT);
        let mut data: nvmlEventData_t = mem::zeroed();
        assert_eq!(
            code(lib.nvmlEventSetWait_v2(set, &raw mut data, 0)),
            ReturnCode::INVALID_ARGUMENT
        );
    }
}

#[test]
fn plugging_is_an_event_of_the_system() {
    let rig = Rig::new("l40s");
    let nvml = rig.nvml();
    let version = |size: usize| u32::try_from(size).unwrap() | 1 << 24;
    // SAFETY: C structs of integers and pointers, as long as their versions say; the buffer outlives the calls.
    let found = unsafe {
        let lib = nvml.lib();
        let mut create: nvmlSystemEventSetCreateRequest_t = mem::zeroed();
        create.version = version(size_of_val(&create));
        assert_eq!(code(lib.nvmlSystemEventSetCreate(&raw mut create)), ReturnCode::SUCCESS);
        let mut register: nvmlSystemRegisterEventRequest_t = mem::zeroed();
        register.version = version(size_of_val(&register));
        register.eventTypes = 3;
        register.set = create.set;
        assert_eq!(
            code(lib.nvmlSystemRegisterEvents(&raw mut register)),
            ReturnCode::SUCCESS
        );
        rig.edit(|scenario| {
            scenario.tell("0", EventKind::Xid, 13, None)?;
            scenario.unplug("1")?;
            scenario.plug(NewGpu::default()).map(drop)
        });
        let mut buffer: [nvmlSystemEventData_v1_t; 4] = mem::zeroed();
        let mut wait: nvmlSystemEventSetWaitRequest_t = mem::zeroed();
        wait.version = version(size_of_val(&wait));
        wait.timeoutms = 1000;
        wait.set = create.set;
        wait.data = buffer.as_mut_ptr();
        wait.dataSize = 4;
        assert_eq!(code(lib.nvmlSystemEventSetWait(&raw mut wait)), ReturnCode::SUCCESS);
        wait.timeoutms = 0;
        let found = buffer[..wait.numEvent as usize].to_vec();
        assert_eq!(code(lib.nvmlSystemEventSetWait(&raw mut wait)), ReturnCode::TIMEOUT);
        let mut free: nvmlSystemEventSetFreeRequest_t = mem::zeroed();
        free.version = version(size_of_val(&free));
        free.set = create.set;
        assert_eq!(code(lib.nvmlSystemEventSetFree(&raw mut free)), ReturnCode::SUCCESS);
        found
    };
    let kinds: Vec<_> = found.iter().map(|event| event.eventType).collect();
    assert_eq!(kinds, [1, 2], "unbind, then bind");
    assert_eq!(found[0].gpuId, 0x2700);
}
