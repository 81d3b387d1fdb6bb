//! NVML's C functions, one module for each family.
//!
//! The rule of this module: raw pointers end in [`boundary`]. A function body gets checked arguments and the [`Call`] it is
//! part of, and returns a `Result`; the macro below makes the exported symbol of it and proves at compile time that its
//! signature is the one of NVIDIA's header (as `nvml-wrapper-sys` binds it).

#![allow(
    unsafe_code,
    reason = "this is the C ABI of NVML: exported symbols, and pointers that callers own"
)]
#![allow(non_snake_case, non_upper_case_globals, reason = "NVML's names")]
#![allow(
    clippy::wildcard_imports,
    reason = "the header is the vocabulary here; a name that it lacks does not compile as a pattern (unreachable arms)"
)]
#![allow(
    clippy::similar_names,
    clippy::many_single_char_names,
    reason = "arguments are named as in NVIDIA's header"
)]

/// Defines exported functions. `legacy` ones are those that the bindings leave out by default, so unchecked.
macro_rules! nvml {
    (legacy $(fn $name:ident($call:ident $(, $arg:ident: $ty:ty)*) $body:block)*) => {
        $($crate::abi::nvml!(@export $name, $call, ($($arg: $ty),*), $body);)*
        pub(crate) const LEGACY: &[&str] = &[$(stringify!($name)),*];
    };
    (@export $name:ident, $call:ident, ($($arg:ident: $ty:ty),*), $body:block) => {
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $ty),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
            // SAFETY: NVML's contract, which is the caller's to keep: a pointer is null, or a handle (never followed), or
            // valid for what the function's documentation says it points to, during this call.
            $(let $arg = unsafe { $crate::abi::boundary::FromCaller::checked($arg) };)*
            $crate::abi::call::run(stringify!($name), |$call: &$crate::abi::call::Call| $body)
        }
    };
    ($(fn $name:ident($call:ident $(, $arg:ident: $ty:ty)*) $body:block)*) => {
        $(
            $crate::abi::nvml!(@export $name, $call, ($($arg: $ty),*), $body);
            const _: fn(&nvml_wrapper_sys::bindings::NvmlLib) =
                |header| $crate::abi::boundary::same_signature(&header.$name, $name);
        )*
        pub(crate) const FUNCTIONS: &[&str] = &[$(stringify!($name)),*];
    };
}
use nvml;

mod boundary;
mod call;
mod clocks;
mod ecc;
mod events;
mod fabric;
mod fields;
mod identity;
mod instances;
mod lifecycle;
mod lookup;
mod memory;
mod mig;
mod modes;
mod nvlink;
mod pci;
mod power;
mod processes;
mod profiles;
mod system;
mod system_events;
mod topology;
mod utilization;

/// Every function that can be called, and so made slow, failing or hanging.
pub(crate) fn functions() -> impl Iterator<Item = &'static str> {
    let families = [
        clocks::FUNCTIONS,
        ecc::FUNCTIONS,
        events::FUNCTIONS,
        events::legacy::LEGACY,
        fabric::FUNCTIONS,
        fields::FUNCTIONS,
        identity::FUNCTIONS,
        instances::FUNCTIONS,
        lifecycle::FUNCTIONS,
        lifecycle::legacy::LEGACY,
        lookup::FUNCTIONS,
        lookup::legacy::LEGACY,
        memory::FUNCTIONS,
        mig::FUNCTIONS,
        mig::legacy::LEGACY,
        modes::FUNCTIONS,
        nvlink::FUNCTIONS,
        nvlink::legacy::LEGACY,
        pci::FUNCTIONS,
        pci::legacy::LEGACY,
        power::FUNCTIONS,
        processes::FUNCTIONS,
        processes::legacy::LEGACY,
        profiles::FUNCTIONS,
        system::FUNCTIONS,
        system_events::FUNCTIONS,
        topology::FUNCTIONS,
        utilization::FUNCTIONS,
    ];
    families.into_iter().flatten().copied()
}
