//! From a name to a handle.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{Handle, Out, length},
    call::Call,
};
use crate::{
    driver::{Outcome, Target},
    scenario::{BusId, Gpu, ReturnCode},
};

super::nvml! {
    fn nvmlDeviceGetCount_v2(call, deviceCount: *mut c_uint) {
        count(call, &deviceCount)
    }

    fn nvmlDeviceGetHandleByIndex_v2(call, index: c_uint, device: *mut nvmlDevice_t) {
        by_index(call, index, &device)
    }

    fn nvmlDeviceGetHandleBySerial(call, serial: *const c_char, device: *mut nvmlDevice_t) {
        let serial = serial.text()?;
        find(call, &device, |gpu| !serial.is_empty() && gpu.serial == serial)
    }

    fn nvmlDeviceGetHandleByUUID(call, uuid: *const c_char, device: *mut nvmlDevice_t) {
        by_uuid(call, &uuid.text()?, &device)
    }

    fn nvmlDeviceGetHandleByUUIDV(call, uuid: *const nvmlUUID_t, device: *mut nvmlDevice_t) {
        let uuid = uuid.get()?;
        if uuid.type_ != nvmlUUIDType_t_NVML_UUID_TYPE_ASCII {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        // SAFETY: any bytes are characters.
        let text = unsafe { uuid.value.str_ };
        let bytes = text.iter().map(|char| char.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
        let text = String::from_utf8(bytes).map_err(|_| ReturnCode::INVALID_ARGUMENT)?;
        by_uuid(call, &text, &device)
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(call, pciBusId: *const c_char, device: *mut nvmlDevice_t) {
        by_bus_id(call, &pciBusId.text()?, &device)
    }

    fn nvmlDeviceDiscoverGpus(call, pciInfo: *mut nvmlPciInfo_t) {
        pciInfo.get()?;
        call.session(|session| {
            session.discover(&call.scenario);
            Ok(())
        })
    }
}

pub(super) mod legacy {
    use super::*;

    crate::abi::nvml! { legacy
        fn nvmlDeviceGetCount(call, deviceCount: *mut c_uint) {
            count(call, &deviceCount)
        }

        fn nvmlDeviceGetHandleByIndex(call, index: c_uint, device: *mut nvmlDevice_t) {
            by_index(call, index, &device)
        }

        fn nvmlDeviceGetHandleByPciBusId(call, pciBusId: *const c_char, device: *mut nvmlDevice_t) {
            by_bus_id(call, &pciBusId.text()?, &device)
        }
    }
}

fn count(call: &Call, count: &Out<c_uint>) -> Outcome {
    count.set(call.session(|session| Ok(length(&session.members)))?)
}

fn by_index(call: &Call, index: c_uint, out: &Out<nvmlDevice_t>) -> Outcome {
    give(call, index as usize, out)
}

fn by_bus_id(call: &Call, text: &str, out: &Out<nvmlDevice_t>) -> Outcome {
    let bus_id: BusId = text.parse().map_err(|_| ReturnCode::INVALID_ARGUMENT)?;
    find(call, out, |gpu| gpu.bus_id == bus_id)
}

fn by_uuid(call: &Call, uuid: &str, out: &Out<nvmlDevice_t>) -> Outcome {
    if !uuid.starts_with("MIG-") {
        return find(call, out, |gpu| gpu.uuid == uuid);
    }
    let has_it = |gpu: &Gpu| {
        let mut devices = gpu.mig.devices();
        devices.any(|(instance, compute)| compute.uuid(&gpu.uuid, instance.id) == uuid)
    };
    let member = call.session(|session| session.member_where(&call.scenario, has_it))?;
    let device = call.member(member)?;
    let gpu = device.gpu();
    let mut devices = gpu.mig.devices();
    let found = devices.find(|(instance, compute)| compute.uuid(&gpu.uuid, instance.id) == uuid);
    let (instance, compute) = found.ok_or(ReturnCode::NOT_FOUND)?;
    out.set(call.handle_of(device.mig_target(instance, compute))?.raw())
}

fn find(call: &Call, out: &Out<nvmlDevice_t>, wanted: impl Fn(&Gpu) -> bool) -> Outcome {
    let member = call.session(|session| session.member_where(&call.scenario, wanted))?;
    give(call, member, out)
}

/// Attaches the GPU, as the driver does when it is first asked for.
fn give(call: &Call, member: usize, out: &Out<nvmlDevice_t>) -> Outcome {
    call.member(member)?;
    let handle: Handle = call.handle_of(Target::Gpu(member))?;
    out.set(handle.raw())
}
