//! Events of the system: GPUs that the driver takes or lets go.

use nvml_wrapper_sys::bindings::*;

use super::{
    boundary::{FromCaller, Handle, Out, expect_version, length},
    call::Call,
    events::wait,
};
use crate::{driver::Outcome, scenario::ReturnCode};

super::nvml! {
    fn nvmlSystemEventSetCreate(call, request: *mut nvmlSystemEventSetCreateRequest_t) {
        let mut asked = request.get()?;
        expect_version::<nvmlSystemEventSetCreateRequest_t>(asked.version, 1)?;
        let handle = call.session(|session| Ok(session.create_system_set(&call.scenario)))?;
        asked.set = Handle(handle).raw();
        request.set(asked)
    }

    fn nvmlSystemRegisterEvents(call, request: *mut nvmlSystemRegisterEventRequest_t) {
        let asked = request.get()?;
        expect_version::<nvmlSystemRegisterEventRequest_t>(asked.version, 1)?;
        let known = u64::from(nvmlSystemEventTypeGpuDriverBind | nvmlSystemEventTypeGpuDriverUnbind);
        if asked.eventTypes & !known != 0 {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        call.session(|session| session.register_system(asked.set.addr(), asked.eventTypes))
    }

    fn nvmlSystemEventSetWait(call, request: *mut nvmlSystemEventSetWaitRequest_t) {
        let mut asked = request.get()?;
        expect_version::<nvmlSystemEventSetWaitRequest_t>(asked.version, 1)?;
        if asked.dataSize == 0 {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let room = asked.dataSize as usize;
        let found = wait(call, asked.timeoutms, |scenario| {
            let mut found = Vec::new();
            call.driver.session(scenario, |session| {
                while found.len() < room
                    && let Some(happening) = session.poll_system(scenario, asked.set.addr())?
                {
                    found.push(nvmlSystemEventData_v1_t { eventType: happening.kind, gpuId: happening.gpu_id });
                }
                Ok(())
            })?;
            Ok((!found.is_empty()).then_some(found))
        })?;
        entries(asked.data).fill(&found)?;
        asked.numEvent = length(&found);
        request.set(asked)
    }

    fn nvmlSystemEventSetFree(call, request: *mut nvmlSystemEventSetFreeRequest_t) {
        let asked = request.get()?;
        expect_version::<nvmlSystemEventSetFreeRequest_t>(asked.version, 1)?;
        free(call, asked.set.addr())
    }
}

fn free(call: &Call, set: usize) -> Outcome {
    call.session(|session| session.free_set(set))
}

/// The buffer that the caller's struct points to.
fn entries(data: *mut nvmlSystemEventData_v1_t) -> Out<nvmlSystemEventData_v1_t> {
    // SAFETY: by NVML's contract null or as long as the struct says.
    unsafe { FromCaller::checked(data) }
}
