//! Beginning and end, and what error codes mean.

use std::ffi::{c_char, c_uint};

use nvml_wrapper_sys::bindings::{NvmlLib, nvmlReturn_t};

use crate::scenario::ReturnCode;

super::nvml! {
    fn nvmlInit_v2(call) {
        call.driver.init(&call.scenario, 0)
    }

    fn nvmlInitWithFlags(call, flags: c_uint) {
        call.driver.init(&call.scenario, flags)
    }

    fn nvmlShutdown(call) {
        call.driver.shutdown()
    }
}

pub(super) mod legacy {
    crate::abi::nvml! { legacy
        fn nvmlInit(call) {
            call.driver.init(&call.scenario, 0)
        }
    }
}

/// The one function that returns no code: it must work whatever else is broken.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    ReturnCode::message(result).as_ptr()
}

const _: fn(&NvmlLib) = |header| super::boundary::same_signature(&header.nvmlErrorString, nvmlErrorString as _);
