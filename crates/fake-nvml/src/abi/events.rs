//! Events of devices.

use std::{
    ffi::{c_uint, c_ulonglong},
    time::Duration,
};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out},
    call::{Call, Device},
};
use crate::{
    clock::{self, Deadline, POLL},
    driver::{Outcome, Target},
    scenario::{EventKind, ReturnCode, Scenario},
};

super::nvml! {
    fn nvmlEventSetCreate(call, set: *mut nvmlEventSet_t) {
        let handle = call.session(|session| Ok(session.create_set(&call.scenario)))?;
        set.set(Handle(handle).raw())
    }

    fn nvmlDeviceGetSupportedEventTypes(call, device: nvmlDevice_t, eventTypes: *mut c_ulonglong) {
        eventTypes.set(supported_kinds(&call.gpu(device)?)?)
    }

    fn nvmlDeviceRegisterEvents(call, device: nvmlDevice_t, eventTypes: c_ulonglong, set: nvmlEventSet_t) {
        let device = call.gpu(device)?;
        if eventTypes & !u64::from(nvmlEventTypeAll) != 0 {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        if eventTypes & !supported_kinds(&device)? != 0 {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        call.session(|session| session.register(&device.scenario, set.0, device.member, eventTypes))
    }

    fn nvmlEventSetWait_v2(call, set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeoutms: c_uint) {
        next_event(call, set, &data, timeoutms)
    }

    fn nvmlEventSetFree(call, set: nvmlEventSet_t) {
        call.session(|session| session.free_set(set.0))
    }
}

pub(super) mod legacy {
    use super::*;

    crate::abi::nvml! { legacy
        fn nvmlEventSetWait(call, set: nvmlEventSet_t, data: *mut nvmlEventData_t, timeoutms: c_uint) {
            next_event(call, set, &data, timeoutms)
        }
    }
}

/// What NVML says for "no instance".
const NO_INSTANCE: c_uint = 0xFFFF_FFFF;

fn supported_kinds(device: &Device) -> Outcome<u64> {
    let kinds: &[EventKind] = match &device.gpu().events {
        Some(kinds) => kinds,
        None => &device.product()?.events,
    };
    Ok(kinds.iter().fold(0, |bits, kind| bits | kind.device_bit()))
}

fn next_event(call: &Call, set: Handle, out: &Out<nvmlEventData_t>, timeout_ms: c_uint) -> Outcome {
    if out.is_null() {
        return Err(ReturnCode::INVALID_ARGUMENT);
    }
    let data = wait(call, timeout_ms, |scenario| {
        call.driver.session(scenario, |session| {
            let Some(happening) = session.poll(scenario, set.0)? else {
                return Ok(None);
            };
            let event = happening.event;
            Ok(Some(nvmlEventData_t {
                device: Handle(session.handle_of(Target::Gpu(happening.member))).raw(),
                eventType: event.kind.device_bit(),
                eventData: event.data,
                gpuInstanceId: event.gpu_instance.unwrap_or(NO_INSTANCE),
                computeInstanceId: event.compute_instance.unwrap_or(NO_INSTANCE),
            }))
        })
    })?;
    out.set(data)
}

/// Polls until there is something, an error, or the time is up. Nothing is locked in between.
pub(super) fn wait<T>(call: &Call, timeout_ms: c_uint, poll: impl Fn(&Scenario) -> Outcome<Option<T>>) -> Outcome<T> {
    let deadline = Deadline::after(Duration::from_millis(timeout_ms.into()));
    loop {
        if let Some(found) = poll(&*call.driver.scenario()?)? {
            return Ok(found);
        }
        if deadline.passed() {
            return Err(ReturnCode::TIMEOUT);
        }
        clock::sleep(POLL.min(deadline.left()));
    }
}
